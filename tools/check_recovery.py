"""Whether planted laws come back: coverage of the 90% intervals, bias and error of every constant.

    python tools/check_recovery.py [--only NAME] [--form auto] [--jobs 1] [--write]

Sweeps are made from known constants (tools/plant_sweep.py) with noise as measured between repeated runs of the
shipped sweep (0.02%) and larger, missing runs, divergence, optima at the ends of the grid, and models that lie off
the law; each is fitted with the planted form (--form auto: as `lora-plan fit` does by default). 90% intervals should
hold the truth in 85 to 95% of 200 sweeps (seeds 0 to 199). Since that share has a standard error of 2 points, each is
shown beside the share in 1,000 sweeps of other seeds (1,000 to 1,999; standard error 1 point), and the number of
shares over 200 outside of 85 to 95% beside the number that chance expects. --write puts the tables into
docs/learning_rate.md. An hour on one core; the seeds are fixed."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from planner.learning_rate.fit import Estimate, FitResult, fit
from planner.learning_rate.fit.cells import make_cells
from planner.learning_rate.fit.compare import Data, fit_form
from planner.learning_rate.fit.forms import parse_form
from planner.learning_rate.fit.intervals import LEVEL
from planner.learning_rate.fit.terms import Coefficients, unpooled
from planner.learning_rate.sweep import read_sweep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.plant_sweep import Planted, best_rate, plant

FACTORS = ("base", "m_lora", "base_lora", "family")
PAGE = Path(__file__).resolve().parent.parent / "docs" / "learning_rate.md"
BLOCK = re.compile(r"(<!-- (?P<name>recovery[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
ASKED, OTHERS = 200, 1000  # seeds 0 to 199, and 1,000 to 1,999
DRAWS = 10  # of the bootstrap, on which the intervals of constants do not depend
SCENARIOS = {
    "measured noise": Planted(),
    "twice the noise, models off the law by 10%": Planted(noise=0.0005, spread=0.1),
    "narrow grid: many optima at its ends": Planted(
        rates=tuple(8e-6 * 2.2**i for i in range(6)), missing=0.05
    ),
    "eight times the noise, three seeds": Planted(noise=0.002, seeds=3),
    "unequal grids, two seeds": Planted(uneven=True, seeds=2),
    "half the runs missing, 20 models": Planted(models=20, missing=0.5),
    "steeper above than below": Planted(skew=0.0015),
    "six models": Planted(models=6),
    "six models, off the law by 10%": Planted(models=6, spread=0.1),
    "ten models, off the law by 25%, a third of the runs missing": Planted(
        models=10, spread=0.25, missing=0.3
    ),
}


# Like the shipped sweep: 28 models of 7 families, LoRA at four ranks, its grid; families differ by a factor of 1.2.
MULTIPLIERS = dict(
    zip("abcdefg", np.exp(0.2 * np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])), strict=True)
)
SHIPPED_LIKE = Planted(
    base=5e-5, m_lora=10.0, model_pow=dict.fromkeys("abcdefg", 0.0), family=MULTIPLIERS, rank_pow=0.0,
    rank_sat_pow=0.55, models=28, methods=("lora",), ranks=(1, 4, 16, 64), rates=(4e-6, 1e-5, 3e-5, 1e-4, 3e-4),
)  # fmt: skip
FAMILY_SCENARIOS = {
    "models on the law": SHIPPED_LIKE,
    "models off the law by 25%, as in the shipped sweep": replace(SHIPPED_LIKE, spread=0.25),
}


EVERY = SCENARIOS | FAMILY_SCENARIOS


def is_factor(name: str) -> bool:
    """Whether a constant multiplies the rate: its error is relative."""
    return name.split()[0] in FACTORS


def truths(law: Planted) -> dict[str, float]:
    """The planted constants by name."""
    if law.family:
        own = {f"family {name}": value for name, value in law.family.items()}
        return {"base_lora": law.base * law.m_lora, "rank_sat_pow": law.rank_sat_pow, **own}
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


def constants(law: Planted, seed: int, form: str) -> tuple[dict[str, Estimate], np.ndarray]:
    """The constants that `fit` gives for a form, without its scores and without the constants that the form lacks;
    and the relative errors of the law's rates at the cells."""
    data = Data.of(make_cells(read_sweep(plant(law, seed))), "quadratic")
    found = fit_form(data, parse_form(form), nested=False)
    interval = unpooled(data, found.design, found.theta, data.features.model, DRAWS, 0)
    own = Coefficients(found.design.columns, found.theta, interval, LEVEL)
    names: dict[str, tuple[str, ...]] = {name: (name,) for name in found.design.columns}
    names["base_lora"] = ("base", "m_lora")
    names |= {name: ("model_pow", name) for name in names if name.startswith("model_pow[")}
    table = data.cells.table
    planted = [
        best_rate(law, str(row.family), int(row.hidden_size), str(row.method), int(row.rank))
        for row in table.itertuples()
    ]
    errors = np.abs(np.exp(found.predicted) / planted - 1)
    return {
        name.replace("[", " ").rstrip("]"): own.estimate(parts, factor=is_factor(name.replace("[", " ")))
        for name, parts in names.items()
    }, errors


def one_sweep(task: tuple[str, int, str]) -> tuple[dict[str, tuple[float, float, float]], np.ndarray, str]:
    """The constants of one sweep of a scenario (value, low, high), the errors of the law's rates, the form."""
    name, seed, form = task
    law = EVERY[name]
    if form == "auto":
        result = fit(plant(law, seed), draws=DRAWS)
        found, errors, form = estimates(result), np.zeros(0), result.form
    else:
        found, errors = constants(law, seed, form)
    kept = {}
    for name in truths(law):
        one = found[name]
        assert one.low is not None
        assert one.high is not None
        kept[name] = (one.value, one.low, one.high)
    return kept, errors, form


def recover(
    name: str, found: Sequence[tuple[dict[str, tuple[float, float, float]], np.ndarray, str]]
) -> pd.DataFrame:
    """A row for each constant: planted, mean and spread of the estimates, coverage. The last row, `rate`, has as bias
    and sd the median and 90th percentile of the errors of the law's rates at the cells."""
    rows: list[dict[str, object]] = []
    for constant, value in truths(EVERY[name]).items():
        values = np.array([kept[constant] for kept, _, _ in found])
        error = values[:, 0] / value - 1 if is_factor(constant) else values[:, 0] - value
        rows.append({
            "constant": constant, "planted": value, "mean": values[:, 0].mean(), "bias": error.mean(),
            "sd": error.std(), "within_0.03": float((np.abs(error) <= 0.03).mean()),
            "coverage": float(((values[:, 1] <= value) & (value <= values[:, 2])).mean()),
        })  # fmt: skip
    every = np.concatenate([errors for _, errors, _ in found])
    if len(every):
        rows.append({
            "constant": "rate", "bias": float(np.median(every)), "sd": float(np.quantile(every, 0.9)),
            "within_0.03": float((every <= 0.03).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Both:
    """A scenario over the sweeps asked for and over the others."""

    asked: pd.DataFrame
    other: pd.DataFrame

    def share(self, constants: Sequence[str]) -> str:
        """The coverage over both, the mean over these constants, and the spread of the estimates."""
        a, o = (t.set_index("constant").loc[list(constants)] for t in (self.asked, self.other))
        size = float(o["sd"].mean())
        told = f"{100 * size:.1f}%" if is_factor(constants[0]) else f"{size:.3f}"
        return f"{100 * a['coverage'].mean():.0f} / {100 * o['coverage'].mean():.1f}, {told}"

    @property
    def rate(self) -> str:
        """The errors of the law's rates: median, 90% below, share within 3%."""
        row = self.other.set_index("constant").loc["rate"]
        return f"{100 * row['bias']:.1f}%, {100 * row['sd']:.1f}%, {100 * row['within_0.03']:.0f}%"

    @property
    def constants(self) -> list[str]:
        """The names of the constants."""
        return [str(name) for name in self.asked["constant"] if name != "rate"]


def outside(share: float) -> float:
    """The chance that 200 sweeps show less than 85% or more than 95% where the interval holds that share."""
    return float(stats.binom.cdf(169, ASKED, share) + stats.binom.sf(190, ASKED, share))


def verdict(results: Mapping[str, Both]) -> str:
    """How many shares lie outside, and how many chance expects, in words."""
    asked = [c for both in results.values() for c in both.asked["coverage"].dropna()]
    other = [c for both in results.values() for c in both.other["coverage"].dropna()]
    out = sum(not 0.85 <= c <= 0.95 for c in asked)
    return (
        f"Of {len(asked)} shares over 200 sweeps {out} lie outside of 85 to 95%; chance expects "
        f"{sum(map(outside, other)):.1f} where the intervals hold what they do over 1,000 sweeps, and "
        f"{len(asked) * outside(0.9):.1f} were that 90% everywhere. Over 1,000 sweeps they hold "
        f"{100 * min(other):.1f} to {100 * max(other):.1f}%, {100 * float(np.mean(other)):.1f}% on average."
    )


def line(name: str, both: Both) -> str:
    """A row of the page: for each constant how often its interval holds it, and the spread of its errors."""
    return f"| {name} | {' | '.join(both.share([c]) for c in both.constants)} | {both.rate} |"


def family_line(name: str, both: Both) -> str:
    """A row of the page on families: base, rank, all families together, the two outermost."""
    own = [c for c in both.constants if c.startswith("family")]
    first = [both.share([c]) for c in both.constants if c not in own]
    return (
        f"| {name} | {' | '.join([*first, both.share(own), both.share([own[0], own[-1]])])} | {both.rate} |"
    )


def write(results: Mapping[str, Both]) -> None:
    """Put the tables and the verdict into the page."""
    names = next(iter(results.values())).constants
    blocks = {
        "recovery": [
            f"| setting | {' | '.join(names)} | rate |", "|---" * (len(names) + 2) + "|",
            *(line(name, results[name]) for name in SCENARIOS),
        ],
        "recovery: families": [
            "| setting | base_lora | rank_sat_pow | families | the two outermost | rate |",
            "|---|---|---|---|---|---|",
            *(family_line(name, results[name]) for name in FAMILY_SCENARIOS),
        ],
        "recovery: chance": [verdict(results)],
    }  # fmt: skip
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        BLOCK.sub(lambda m: f"{m[1]}{chr(10).join(blocks[m['name']])}\n{m[3]}", text), encoding="utf-8"
    )


def run(names: Sequence[str], seeds: range, form: str, jobs: int) -> dict[str, pd.DataFrame]:
    """The tables of some scenarios over some seeds."""
    forms = {name: "family+rank_sat" if EVERY[name].family and form != "auto" else form for name in names}
    tasks = [(name, seed, forms[name]) for name in names for seed in seeds]
    with ProcessPoolExecutor(jobs) as pool:
        found = list(pool.map(one_sweep, tasks, chunksize=10))
    tables = {}
    for i, name in enumerate(names):
        mine = found[i * len(seeds) : (i + 1) * len(seeds)]
        tables[name] = recover(name, mine)
        print(f"{name} ({len(seeds)} sweeps from {seeds[0]}; forms {dict(Counter(one[2] for one in mine))})")
        print(tables[name].to_string(index=False, float_format=lambda v: f"{v:.4g}"), end="\n\n", flush=True)
    return tables


def main() -> None:
    """Print a table for each scenario."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, help="so many sweeps from --first on, instead of both sets")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first sweep")
    parser.add_argument("--only", help="a scenario whose name contains this")
    parser.add_argument("--form", default="article+lora_pow+rank_pow")
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    names = [name for name in EVERY if not options.only or options.only in name]
    if options.repeats:
        seeds = range(options.first, options.first + options.repeats)
        run(names, seeds, options.form, options.jobs)
        return
    asked, other = (
        run(names, seeds, options.form, options.jobs) for seeds in (range(ASKED), range(OTHERS, 2 * OTHERS))
    )
    results = {name: Both(asked[name], other[name]) for name in names}
    print(verdict(results))
    if options.write and not options.only:
        write(results)


if __name__ == "__main__":
    main()
