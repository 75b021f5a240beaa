"""Whether planted laws come back: coverage of the 90% intervals, bias and error of every constant.

    python tools/check_recovery.py [--repeats 200] [--only NAME] [--form auto]

Sweeps are made from known constants (tools/plant_sweep.py) with noise as measured between repeated runs of the
shipped sweep (0.02%) and larger, missing runs, divergence, optima at the ends of the grid, and models that lie off
the law; each is fitted with the planted form (--form auto: as `lora-plan fit` does by default). A coverage of 85 to
95% over 200 repeats is what 90% intervals should show (its own standard error is 2 points)."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from planner.learning_rate.fit import Estimate, FitResult, fit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.plant_sweep import Planted, plant

FACTORS = ("base", "m_lora")
SCENARIOS = {
    "measured noise": Planted(),
    "twice the noise, models off the law by 10%": Planted(noise=0.0005, spread=0.1),
    "narrow grid: many optima at its ends": Planted(
        rates=tuple(8e-6 * 2.2**i for i in range(6)), missing=0.05
    ),
    "eight times the noise, three seeds": Planted(noise=0.002, seeds=3),
    "half the runs missing, 20 models": Planted(models=20, missing=0.5),
    "steeper above than below": Planted(skew=0.0015),
}


def truths(law: Planted) -> dict[str, float]:
    """The planted constants by name."""
    families = {f"model_pow {name}": value for name, value in law.model_pow.items()}
    own = {"base": law.base, "m_lora": law.m_lora, "lora_pow": law.lora_pow, "rank_pow": law.rank_pow}
    return {**own, **families}


def estimates(result: FitResult) -> dict[str, Estimate]:
    """The fitted ones."""
    found: dict[str, Estimate] = {}
    for name, value in result.terms.items():
        if isinstance(value, Estimate):
            found[name] = value
        elif isinstance(value, Mapping):
            found |= {f"{name} {family}": one for family, one in value.items()}
    return found


def recover(law: Planted, repeats: int, form: str, draws: int = 300) -> tuple[pd.DataFrame, Counter[str]]:
    """A row for each constant: planted, mean and spread of the estimates, coverage; and the forms chosen."""
    truth = truths(law)
    values = {name: np.full(repeats, np.nan) for name in truth}
    inside = {name: np.zeros(repeats, dtype=bool) for name in truth}
    forms: Counter[str] = Counter()
    for i in range(repeats):
        result = fit(plant(law, i), form=form, draws=draws)
        forms[result.form] += 1
        found = estimates(result)
        for name, value in truth.items():
            one = found[name]
            assert one.low is not None
            assert one.high is not None
            values[name][i] = one.value
            inside[name][i] = one.low <= value <= one.high
    rows = []
    for name, value in truth.items():
        error = values[name] / value - 1 if name in FACTORS else values[name] - value
        rows.append({
            "constant": name, "planted": value, "mean": values[name].mean(), "bias": error.mean(), "sd": error.std(),
            "within_0.03": float((np.abs(error) <= 0.03).mean()), "coverage": float(inside[name].mean()),
        })  # fmt: skip
    return pd.DataFrame(rows), forms


def main() -> None:
    """Print a table for each scenario."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--only", help="a scenario whose name contains this")
    parser.add_argument("--form", default="article+lora_pow+rank_pow")
    options = parser.parse_args()
    for name, law in SCENARIOS.items():
        if options.only and options.only not in name:
            continue
        table, forms = recover(law, options.repeats, options.form)
        print(f"{name} ({options.repeats} sweeps; forms {dict(forms)})")
        print(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"), flush=True)
        print()


if __name__ == "__main__":
    main()
