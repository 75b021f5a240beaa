"""The law on sweeps that it never saw: the blind set.

    python tools/judge_blind.py

data/sweeps/tinker_sft_blind.csv are the models of tinker-cookbook's page that are in no fit. They were judged
once, after the law was settled; nothing is fitted on them and nothing chosen by them. tools/write_regret.py
puts the tables into docs/learning_rate.md."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from planner import facts
from planner.learning_rate.fit.cells import Floats, make_cells, some_cells
from planner.learning_rate.fit.compare import Data, fit_form
from planner.learning_rate.fit.curves import INTERPOLATIONS
from planner.learning_rate.fit.similar import similar
from planner.learning_rate.law import rate_at
from planner.learning_rate.lookup import DEFAULT_LAW, LearningRate, look_up
from planner.learning_rate.sweep import read_sweep
from tools.regret_rows import HEAD, plain, row

SWEEPS = facts.data_dir() / "sweeps"
BEFORE, FIRST, TINKER = "lora-plan-2026-11-28", "lora-plan-2026-11", "tinker-cookbook-2025-11"
DRAWS = 4000


@cache
def blind() -> Data:
    """The blind set."""
    return plain(make_cells(read_sweep(SWEEPS / "tinker_sft_blind.csv")), "quadratic")


@cache
def fitted() -> Data:
    """The sweep that laws were fitted on."""
    return plain(make_cells(read_sweep(SWEEPS / "tinker_sft.csv")), "quadratic")


def looked_up(law: str) -> list[LearningRate]:
    """What a law says of each blind cell; tinker-cookbook's with Qwen's exponent for families that it refuses."""
    found = []
    for one in blind().cells.table.itertuples():

        def ask(family: str | None, one: object = one) -> LearningRate:
            return look_up(
                model_id=str(one.model), model_type="", hidden_size=int(one.hidden_size), named=True,  # type: ignore[attr-defined]
                law=law, rank=int(one.rank), family=family,  # type: ignore[attr-defined]
            )  # fmt: skip

        own = ask(None)
        found.append(own if own.value is not None else ask("qwen"))
    return found


def rates(law: str) -> Floats:
    """A law's log rates of the blind cells."""
    return np.log([one.value or np.nan for one in looked_up(law)])


@cache
def as_unknown() -> Floats:
    """Log rates as for a family that was never swept: those of the fitted sweep without the cell's family."""
    data, table = fitted(), blind().cells.table
    family = data.cells.table["family"].astype(str).to_numpy()
    x = np.zeros(blind().cells.n)
    for name in sorted(set(table["family"].astype(str))):
        found = similar(plain(some_cells(data.cells, family != name), "quadratic"))
        assert found is not None
        population = {str(rank): rate for rank, rate in found.rates["population"].items()}
        for cell in np.flatnonzero(table["family"].astype(str) == name):
            x[cell] = np.log(rate_at(population, int(table["rank"].iloc[cell])))
    return x


def rules() -> Iterator[tuple[str, Floats, str]]:
    """Each rule with its log rates and what they rest on."""
    n = blind().cells.n
    linear = plain(fitted().cells, "log-linear")
    constants = [float(fit_form(data, ()).theta[0]) for data in (fitted(), linear)]
    yield f"**ours**: {DEFAULT_LAW} and {BEFORE}, the same for known families", rates(DEFAULT_LAW), "shipped"
    yield f"{FIRST}", rates(FIRST), "shipped"
    yield "ours, as if the model's family were unknown", as_unknown(), "family left out"
    yield (
        f"best constant, fitted log-linearly: {np.exp(constants[1]):.3g}",
        np.full(n, constants[1]),
        "shipped sweep",
    )
    yield (
        f"best constant, fitted quadratically: {np.exp(constants[0]):.3g}",
        np.full(n, constants[0]),
        "shipped sweep",
    )
    yield "tinker-cookbook, Qwen's exponent for the families it refuses", rates(TINKER), "as published"


def regret_table() -> list[str]:
    """Every rule on the blind set."""
    keep: NDArray[np.bool_] = np.ones(blind().cells.n, dtype=bool)
    return HEAD + [row(blind(), name, x, basis, keep) for name, x, basis in rules()]


def difference_table() -> list[str]:
    """Ours minus the constant 3e-4, over models (blind) or families (left out), with 90% intervals."""
    lines = ["| rule | cells | quadratic | log-linear |", "|---|---|---|---|"]
    data, own = fitted(), similar(fitted())
    assert own is not None
    cases = (
        ("models left out", data, own.left_out, data.features.model),
        ("families left out", data, own.family_out, data.features.family),
        ("blind, known families", blind(), rates(DEFAULT_LAW), blind().features.model),
        ("blind, as unknown families", blind(), as_unknown(), blind().features.model),
    )
    for name, where, x, group in cases:
        parts = [_difference(where, x, group, kind) for kind in INTERPOLATIONS]
        lines.append(f"| {name} | {where.cells.n} | {' | '.join(parts)} |")
    return lines


def _difference(data: Data, x: Floats, group: NDArray[np.int64], kind: str) -> str:
    gap = data.regret(x, kind) - data.regret(np.full(data.cells.n, np.log(3e-4)), kind)
    n = int(group.max()) + 1
    weights = np.random.default_rng(0).exponential(size=(DRAWS, n))
    means = (weights @ np.bincount(group, gap, n)) / (weights @ np.bincount(group, minlength=n))
    low, high = np.quantile(means, [0.05, 0.95])
    return f"{gap.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def interval_table() -> list[str]:
    """How many best rates of blind cells lie inside each law's interval."""
    lines = ["| law | interval | best rates inside | mean high over low |", "|---|---|---|---|"]
    best, edge = blind().fit_curves.best, blind().fit_curves.censored
    for law in (DEFAULT_LAW, FIRST, TINKER):
        found = looked_up(law)
        low, high = (np.log([getattr(one, end) for one in found]) for end in ("low", "high"))
        inside = ((best >= low) | (edge > 0)) & ((best <= high) | (edge < 0))
        level = "90%" if law != TINKER else "80%"
        lines.append(
            f"| {law} | {level} | {int(inside.sum())} of {len(best)} | {np.exp((high - low).mean()):.1f} |"
        )
    return lines


def main() -> None:
    """Print the tables."""
    for made in (regret_table(), difference_table(), interval_table()):
        print("\n".join(made), end="\n\n")


if __name__ == "__main__":
    main()
