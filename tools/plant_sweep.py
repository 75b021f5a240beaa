"""Sweeps made from a known law, to see whether a fit gives its constants back.

Each cell's loss is floor * (1 + bend * x^2 + skew * x^3) with x the log rate over the law's; noise is relative, one
draw a run; a model's own best rate may lie off the law (`spread`, in log rate); rates far above the law diverge; some
runs are missing; the grid is fixed (or differs between models, `uneven`), so that the optima of some cells lie at or
beyond its ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from planner.learning_rate.law import rank_feature


@dataclass(frozen=True)
class Planted:
    """A law and how it is observed."""

    base: float = 5e-5
    m_lora: float = 9.8
    model_pow: dict[str, float] = field(default_factory=lambda: {"llama": 0.781, "qwen": 0.0775})
    lora_pow: float = 0.0
    rank_pow: float = 0.1
    rank_sat_pow: float = 0.0
    family: dict[str, float] = field(default_factory=dict)
    models: int = 14
    ranks: tuple[int, ...] = (4, 32, 128)
    methods: tuple[str, ...] = ("lora", "full")
    widths: tuple[int, ...] = (1024, 2048, 2560, 3072, 4096, 5120, 8192)
    rates: tuple[float, ...] = tuple(2e-6 * 2.2**i for i in range(9))
    bend: float = 0.01
    skew: float = 0.0
    noise: float = 0.00025
    spread: float = 0.0
    missing: float = 0.1
    diverge_at: float = 8.0
    seeds: int = 1
    uneven: bool = False


def best_rate(law: Planted, family: str, width: int, method: str, rank: int) -> float:
    """The planted law's rate."""
    lora = method == "lora"
    rate: float = law.base * (2000 / width) ** (law.model_pow[family] + (law.lora_pow if lora else 0.0))
    rate *= law.family.get(family, 1.0)
    low = float(np.exp(law.rank_sat_pow * rank_feature(rank))) if lora else 1.0
    return rate * (law.m_lora * (rank / 32) ** law.rank_pow * low if lora else 1.0)


def _grid(law: Planted, number: int) -> tuple[float, ...]:
    """The rates of a model: all, or where grids are uneven three kinds in turn: all, every other, and five thirds of
    every other."""
    if not law.uneven or number % 3 == 0:
        return law.rates
    return law.rates[::2] if number % 3 == 1 else tuple(rate * 5 / 3 for rate in law.rates[::2])


def plant(law: Planted, seed: int) -> pd.DataFrame:
    """The runs of a planted sweep. Full fine-tuning is swept over `rates`, LoRA over ten times these."""
    rng = np.random.default_rng(seed)
    families = sorted(law.model_pow)
    rows: list[dict[str, object]] = []
    arms = [("full", 0)] * ("full" in law.methods) + [("lora", rank) for rank in law.ranks]
    for number in range(law.models):
        family = families[number % len(families)]
        width = law.widths[(number // len(families)) % len(law.widths)]
        own, floor = law.spread * rng.standard_normal(), rng.uniform(0.5, 1.0)
        about = {"model": f"m{number}", "family": family, "hidden_size": width}
        for method, rank in arms:
            best = best_rate(law, family, width, method, rank) * float(np.exp(own))
            for rate in _grid(law, number):
                lr = rate * (10 if method == "lora" else 1)
                x = float(np.log(lr / best))
                for run in range(law.seeds):
                    if rng.random() < law.missing:
                        continue
                    noise = law.noise * rng.standard_normal()
                    diverged = lr > law.diverge_at * best
                    loss = np.nan if diverged else floor * (1 + law.bend * x**2 + law.skew * x**3 + noise)
                    rows.append({
                        **about, "method": method, "rank": rank, "lr": lr, "seed": run, "loss": loss,
                        "status": "diverged" if diverged else "ok",
                    })  # fmt: skip
    return pd.DataFrame(rows)
