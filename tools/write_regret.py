"""The tables of docs/learning_rate.md: laws on the shipped sweep by regret, ours out of sample.

    python tools/write_regret.py [--check]

Every rule is scored on the same cells by both interpolations and, without any, at the nearest rate that was run; ours
and the best constant are predicted for each model from the others. Blocks of the page between marks are written anew;
--check writes nothing and exits 1 where they differ."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from planner import facts
from planner.learning_rate.fit import FitResult, fit
from planner.learning_rate.fit.cells import Floats, make_cells
from planner.learning_rate.fit.compare import Data, FormFit, fit_form
from planner.learning_rate.fit.curves import INTERPOLATIONS, Interpolation, fit_curves, make_curves
from planner.learning_rate.fit.forms import parse_form
from planner.learning_rate.fit.losses import Losses
from planner.learning_rate.fit.similar import Similar, similar
from planner.learning_rate.lookup import look_up
from planner.learning_rate.sweep import read_sweep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import judge_blind, nested_regret, other_data
from tools.regret_rows import HEAD, plain, row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "learning_rate.md"
SWEEP = facts.data_dir() / "sweeps" / "tinker_sft.csv"
TINKER = "tinker-cookbook-2025-11"
BLOCK = re.compile(r"(<!-- table: (?P<name>\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def shipped() -> FitResult:
    """The fit to the shipped sweep."""
    return fit(SWEEP)


@cache
def data() -> Data:
    """The shipped sweep made ready."""
    return plain(make_cells(read_sweep(SWEEP)), "quadratic")


@cache
def by_form(form: str, kind: Interpolation = "quadratic") -> FormFit:
    """A form fitted to the shipped sweep by one reading; without terms the best constant."""
    terms = parse_form(form) if form else ()
    return fit_form(data() if kind == "quadratic" else plain(data().cells, kind), terms)


@cache
def ours() -> Similar:
    """The rates of similar sweeps."""
    found = similar(data())
    assert found is not None
    return found


def published(which: str) -> Floats:
    """tinker-cookbook's log rate for each cell; `which` says what other families than its two get."""
    table = data().cells.table
    rates = []
    for model, width in zip(table["model"].astype(str), table["hidden_size"], strict=True):
        found = look_up(model_id=model, model_type="", hidden_size=int(width), named=True, law=TINKER)
        if found.value is None and which == "all":
            found = look_up(
                model_id=model,
                model_type="",
                hidden_size=int(width),
                named=True,
                law=TINKER,
                family="qwen",
            )
        rates.append(np.nan if found.value is None else np.log(found.value))
    return np.array(rates)


@cache
def rules() -> tuple[tuple[str, Floats, str], ...]:
    """Each rule with its log rates and what they rest on."""
    return tuple(_rules())


def _rules() -> Iterator[tuple[str, Floats, str]]:
    n = data().cells.n
    table = data().cells.table
    yield "**ours**: the rates of similar sweeps", ours().left_out, "left out"
    yield (
        "the best of all rules, chosen without the model as well",
        nested_regret.nested()[0],
        "left out, nested",
    )
    yield (
        "family and a rank that levels off (our law before)",
        by_form("family+rank_sat").left_out,
        "left out",
    )
    yield (
        "family and a power of the rank",
        by_form("family+rank").left_out,
        "left out",
    )
    yield (
        "a rank that levels off, no family",
        by_form("rank_sat").left_out,
        "left out",
    )
    yield "best constant", by_form("").left_out, "left out"
    yield "best constant, fitted log-linearly", by_form("", "log-linear").left_out, "left out"
    yield "constant 3e-4, a rate of the grid", np.full(n, np.log(3e-4)), "as it is"
    width = table["hidden_size"].to_numpy(dtype=float)
    rank = table["rank"].to_numpy(dtype=float)
    yield (
        "3.9e-4 (2000/H)^0.18 (r/32)^0.175",
        np.log(3.9e-4 * (2000 / width) ** 0.18 * (rank / 32) ** 0.175),
        "in sample",
    )
    yield "tinker-cookbook, Qwen's exponent for the families it refuses", published("all"), "as published"


def older_population() -> Floats:
    """Unknown families as lora-plan-2026-11-28 had them: every cell counts alike, the reach is 1, and the log-linear
    reading weighs a fifth."""
    losses = Losses.of(data())
    others = losses.family[:, None] != losses.family
    total = (losses.near(losses.log_rank, 1.0) * others) @ losses.mixed(0.2)
    return np.asarray(losses.at[np.argmin(total, axis=1)])


def families_left_out() -> list[str]:
    """Rules for a family that was not seen: each family's rates come from the others."""
    found = {
        "**ours**: population of the shipped law": ours().family_out,
        "population of lora-plan-2026-11-28, constants set by hand": older_population(),
        "family and a rank that levels off": by_form("family+rank_sat").family_out,
        "a rank that levels off, no family": by_form("rank_sat").family_out,
        "best constant": by_form("").family_out,
        "best constant, fitted log-linearly": by_form("", "log-linear").family_out,
    }
    everything = np.ones(data().cells.n, dtype=bool)
    return HEAD + [row(data(), name, x, "family left out", everything) for name, x in found.items()]


def interpolation_errors(kind: Interpolation, *, shared: bool = False) -> Floats:
    """Errors, in percent of the loss, of reading each finished rate that has others on both sides, in cells of at
    least four, from the other rates of its cell; `shared`: with the asymmetry of all curves but that rate."""
    cells = data().cells
    inner = [
        (cell, point) for cell in range(cells.n) if cells.start[cell + 1] - cells.start[cell] >= 4
        for point in range(cells.start[cell] + 1, cells.start[cell + 1] - 1)
    ]  # fmt: skip
    errors = []
    for cell, point in inner:
        keep = np.arange(len(cells.x)) != point
        start = cells.start - (np.arange(cells.n + 1) > cell)
        others = replace(cells, start=start, x=cells.x[keep], loss=cells.loss[keep], runs=cells.runs[keep])
        curves = fit_curves(others, kind) if shared else make_curves(others, kind)
        at = curves.low.copy()
        at[cell] = cells.x[point]
        read = curves.best_loss[cell] * (1 + curves.value(at)[cell] / 100)
        errors.append((read / cells.loss[point] - 1) * 100)
    return np.array(errors)


def interpolations_table() -> list[str]:
    """How well each interpolation reads rates that were run and left out."""
    lines = ["| interpolation | rates | mean error | mean size | 90% below |", "|---|---|---|---|---|"]
    readings: dict[str, Floats] = {kind: interpolation_errors(kind) for kind in INTERPOLATIONS}
    readings |= {
        "quadratic, with the asymmetry of all sweeps": interpolation_errors("quadratic", shared=True)
    }
    for kind, found in readings.items():
        size = np.abs(found)
        figures = f"{found.mean():+.2f} | {size.mean():.2f} | {np.quantile(size, 0.9):.2f}"
        lines.append(f"| {kind} | {len(found)} | {figures} |")
    return lines


def regret_table(keep: np.ndarray, *, with_oracle: bool = True) -> list[str]:
    """The table over some cells."""
    lines = HEAD + [row(data(), name, x, basis, keep) for name, x, basis in rules()]
    if with_oracle:
        best = data().score_curves["quadratic"].best
        lines.append(row(data(), "each cell's own best rate, quadratic", best, "known", keep))
    return lines


def forms_table() -> list[str]:
    """The comparison of forms."""
    lines = ["| form | constants | in sample | model left out | family left out |", "|---|---|---|---|---|"]
    for one in shipped().forms:
        out = [one.in_sample, one.leave_one_model_out, one.leave_one_family_out]
        figures = " | ".join("" if value is None else f"{value:.3f}" for value in out)
        lines.append(f"| {one.form} | {one.coefficients} | {figures} |")
    return lines


def verdicts_table() -> list[str]:
    """What the sweep decides."""
    lines = ["| question | answer | difference, points of regret (90%) | compared |", "|---|---|---|---|"]
    for one in shipped().verdicts:
        gap = f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
        lines.append(f"| {one.question} | {one.verdict} | {gap} | {one.form} against {one.other} |")
    return lines


def tables() -> dict[str, list[str]]:
    """Every block of the page."""
    everything = np.ones(data().cells.n, dtype=bool)
    theirs = np.isfinite(published("own"))
    return {
        "regret": regret_table(everything),
        "regret-families": families_left_out(),
        "regret-llama-qwen": regret_table(theirs, with_oracle=False),
        "interpolations": interpolations_table(),
        "blind": judge_blind.regret_table(),
        "differences": judge_blind.difference_table(),
        "blind-intervals": judge_blind.interval_table(),
        "published": other_data.published_table(),
        "other-data": other_data.summary_table(),
        "batches": other_data.batch_table(),
        "forms": forms_table(),
        "verdicts": verdicts_table(),
    }


def page(text: str) -> str:
    """The page with its blocks written anew."""
    made = tables()
    return BLOCK.sub(lambda found: found[1] + "\n".join(made[found["name"]]) + "\n" + found[3], text)


def main() -> int:
    """Write the page, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page differs")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    new = page(text)
    if check:
        return 0 if new == text else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
