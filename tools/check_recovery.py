"""Whether planted laws come back: coverage of the 90% intervals, bias and error of every constant.

    python tools/check_recovery.py [--repeats 200] [--first 0] [--only NAME] [--form auto] [--jobs 1] [--write]

Sweeps are made from known constants (tools/plant_sweep.py) with noise as measured between repeated runs of the
shipped sweep (0.02%) and larger, missing runs, divergence, optima at the ends of the grid, and models that lie off
the law; each is fitted with the planted form (--form auto: as `lora-plan fit` does by default). A coverage of 85 to
95% over 200 repeats is what 90% intervals should show (its own standard error is 2 points). --write puts the table
into docs/learning_rate.md."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

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
BLOCK = re.compile(r"(<!-- recovery -->\n).*?(<!-- end -->)", re.DOTALL)
FAMILY_BLOCK = re.compile(r"(<!-- recovery: families -->\n).*?(<!-- end -->)", re.DOTALL)
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


def constants(law: Planted, seed: int, form: str, draws: int) -> tuple[dict[str, Estimate], np.ndarray]:
    """The constants that `fit` gives for a form, without its scores and without the constants that the form lacks;
    and the relative errors of the law's rates at the cells."""
    data = Data.of(make_cells(read_sweep(plant(law, seed))), "quadratic")
    found = fit_form(data, parse_form(form), nested=False)
    interval = unpooled(data, found.design, found.theta, data.features.model, draws, 0)
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


def recover(
    law: Planted, repeats: int, form: str, first: int = 0, draws: int = 300
) -> tuple[pd.DataFrame, Counter[str]]:
    """A row for each constant: planted, mean and spread of the estimates, coverage; and the forms chosen. The last
    row, `rate`, has as bias and sd the median and 90th percentile of the errors of the law's rates at the cells."""
    truth = truths(law)
    values = {name: np.full(repeats, np.nan) for name in truth}
    inside = {name: np.zeros(repeats, dtype=bool) for name in truth}
    forms: Counter[str] = Counter()
    errors = []
    for i in range(repeats):
        if form == "auto":
            result = fit(plant(law, first + i), form=form, draws=draws)
            forms[result.form] += 1
            found = estimates(result)
        else:
            forms[form] += 1
            found, error = constants(law, first + i, form, draws)
            errors.append(error)
        for name, value in truth.items():
            one = found[name]
            assert one.low is not None
            assert one.high is not None
            values[name][i] = one.value
            inside[name][i] = one.low <= value <= one.high
    rows = []
    for name, value in truth.items():
        error = values[name] / value - 1 if is_factor(name) else values[name] - value
        rows.append({
            "constant": name, "planted": value, "mean": values[name].mean(), "bias": error.mean(), "sd": error.std(),
            "within_0.03": float((np.abs(error) <= 0.03).mean()), "coverage": float(inside[name].mean()),
        })  # fmt: skip
    if errors:
        every = np.concatenate(errors)
        rows.append({
            "constant": "rate", "bias": float(np.median(every)), "sd": float(np.quantile(every, 0.9)),
            "within_0.03": float((every <= 0.03).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows), forms


def rate_error(table: pd.DataFrame) -> str:
    """The errors of the law's rates: median, 90% below, share within 3%."""
    row = table[table["constant"] == "rate"].iloc[0]
    return f"{100 * row['bias']:.1f}%, {100 * row['sd']:.1f}%, {100 * row['within_0.03']:.0f}%"


def line(name: str, table: pd.DataFrame) -> str:
    """A row of the page: for each constant how often its interval holds it, and the spread of its errors."""
    cells = []
    for row in table[~table["constant"].isin(["rate"])].itertuples():
        size = f"{100 * row.sd:.1f}%" if is_factor(str(row.constant)) else f"{row.sd:.3f}"
        cells.append(f"{100 * row.coverage:.0f}%, {size}")
    return f"| {name} | {' | '.join(cells)} |"


def with_rate(text: str, table: pd.DataFrame) -> str:
    """A row of the page with the errors of the rates at its end."""
    return f"{text} {rate_error(table)} |"


def family_line(name: str, table: pd.DataFrame) -> str:
    """A row of the page on families: base, rank, all families together, the two outermost."""
    own = table[table["constant"].str.startswith("family")]
    outer = own.iloc[[0, -1]]
    both = [f"{100 * part['coverage'].mean():.0f}%, {100 * part['sd'].mean():.1f}%" for part in (own, outer)]
    first = line(name, table[~table["constant"].str.startswith("family")])
    return f"{first} {' | '.join(both)} |"


def write_families(results: Mapping[str, pd.DataFrame]) -> None:
    """Put the table on families into the page."""
    head = [
        "| setting | base_lora | rank_sat_pow | families | the two outermost | rate |",
        "|---|---|---|---|---|---|",
    ]
    made = "\n".join([*head, *(with_rate(family_line(name, t), t) for name, t in results.items())])
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(FAMILY_BLOCK.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text), encoding="utf-8")


def write(results: Mapping[str, pd.DataFrame]) -> None:
    """Put the table into the page."""
    names = list(next(iter(results.values()))["constant"])
    head = [f"| setting | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    made = "\n".join([*head, *(with_rate(line(name, table), table) for name, table in results.items())])
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}{made}\n{found[2]}", text), encoding="utf-8")


def main() -> None:
    """Print a table for each scenario."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first sweep")
    parser.add_argument("--only", help="a scenario whose name contains this")
    parser.add_argument("--form", default="article+lora_pow+rank_pow")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    results: dict[str, pd.DataFrame] = {}
    chosen = {
        k: v for k, v in (SCENARIOS | FAMILY_SCENARIOS).items() if not options.only or options.only in k
    }
    with ProcessPoolExecutor(options.jobs) as pool:
        form = {
            k: "family+rank_sat" if v.family and options.form != "auto" else options.form
            for k, v in chosen.items()
        }
        running = {
            k: pool.submit(recover, law, options.repeats, form[k], options.first) for k, law in chosen.items()
        }
        for name, future in running.items():
            results[name], forms = future.result()
            print(f"{name} ({options.repeats} sweeps; forms {dict(forms)})")
            print(results[name].to_string(index=False, float_format=lambda v: f"{v:.4g}"), flush=True)
            print()
    if options.write and not options.only:
        write({name: results[name] for name in SCENARIOS})
    if options.write:
        write_families({name: results[name] for name in FAMILY_SCENARIOS})


if __name__ == "__main__":
    main()
