"""Best rates that others published on their own data, beside `lr`; what that says of the rate on any other data.

    python tools/other_data.py

data/sweeps/published_best.csv holds best rates of other data, schedules and grids; no law was fitted on them. For
each the rate of `lr` with the row's own alpha, batch and steps is compared. How far best rates lie from it beyond the
law's own scatter is the scatter of data sets, the entry `other-data` of data/rate_contexts.toml: each source is
judged with a scatter that was set on the other sources. data/sweeps/published_batches.csv holds sweeps at several
batch sizes, which say how the best rate moves with the batch. tools/write_regret.py puts the tables into
docs/learning_rate.md."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from planner import facts, lr
from planner.learning_rate.advice import Advice

SWEEPS = facts.data_dir() / "sweeps"
HALF = 1.6449  # standard deviations to either end of the middle 90% of a normal distribution


@dataclass(frozen=True)
class Best:
    """A published best rate beside `lr`: `gap` is its log over the rate of `lr`, `spread` the standard deviation of a
    model's log best rate around the law."""

    row: Mapping[str, str]
    advice: Advice
    rate: float
    gap: float
    spread: float

    @property
    def bound(self) -> bool:
        """Whether it is the highest rate of its grid: the best lies there or above."""
        return self.row["at_edge"] == "highest"

    @property
    def tells(self) -> bool:
        """Whether it says how far best rates scatter: a bound does where the law's own interval does not reach it."""
        return not self.bound or self.gap > HALF * self.spread

    @property
    def unit(self) -> tuple[str, str]:
        """What counts once: the source and the model."""
        return self.row["source"], self.row["model"]

    def inside(self, scatter: float) -> bool:
        """Whether it lies in the interval of `lr` widened by a factor exp(scatter) to either side; one at the upper
        end of its grid wherever the interval reaches it."""
        low, high = ends(self.advice)
        down, up = (
            math.hypot(math.log(part), scatter)
            for part in (self.advice.value / low, high / self.advice.value)
        )
        return (self.bound or self.gap >= -down) and self.gap <= up


def ends(advice: Advice) -> tuple[float, float]:
    """The interval of `lr`, which every rate here has."""
    assert advice.low is not None
    assert advice.high is not None
    return advice.low, advice.high


def read(name: str) -> list[dict[str, str]]:
    """A table of data/sweeps."""
    with (SWEEPS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def published() -> tuple[Best, ...]:
    """Every published best rate."""
    found = []
    for row in read("published_best.csv"):
        given = {name: int(row[name]) for name in ("rank", "alpha", "batch", "steps") if row[name]}
        advice = lr(
            family=row["family"], hidden_size=int(row["hidden_size"]), rank=given["rank"], alpha=given["alpha"],
            batch=given.get("batch"), steps=given.get("steps"),
        )  # fmt: skip
        rate, law = float(row["best_lr"]), facts.law(advice.law)
        spread = law.spread["known_family" if advice.family in law.families else "unknown_family"]
        found.append(Best(row, advice, rate, math.log(rate / advice.value), spread))
    return tuple(found)


def sources(found: Iterable[Best]) -> list[str]:
    """The sources in the order of their names."""
    return sorted({one.row["source"] for one in found})


def scatter(found: Iterable[Best]) -> float:
    """Half the log width of the factor that holds nine in ten data sets: the mean over sources, and over models
    within a source, of the squared gap less the law's own variance, by Student's t with one degree of freedom for
    each source. What factors of a run allow for is not taken off, since their ranges are assumed."""
    found = [one for one in found if one.tells]
    means = []
    for source in sources(found):
        units: dict[tuple[str, str], list[float]] = {}
        for one in found:
            if one.row["source"] == source:
                units.setdefault(one.unit, []).append(one.gap**2 - one.spread**2)
        means.append(float(np.mean([np.mean(values) for values in units.values()])))
    variance = max(0.0, float(np.mean(means)))
    return float(stats.t.ppf(0.95, len(means))) * math.sqrt(variance)


def others(source: str) -> float:
    """The scatter set on all sources but one."""
    return scatter(one for one in published() if one.row["source"] != source)


def halves() -> tuple[float, list[Best]]:
    """The scatter set on every second source, from the first on, and the rows of the other sources."""
    names = sources(published())
    first = set(names[::2])
    return scatter(one for one in published() if one.row["source"] in first), [
        one for one in published() if one.row["source"] not in first
    ]


def published_table() -> list[str]:
    """Every published best rate beside `lr` and both intervals."""
    lines = [
        "| model, rank | data | alpha, batch, steps | published best | `lr` | interval | wider | quotient | inside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in published():
        row, (low, high) = one.row, ends(one.advice)
        setting = ", ".join(row[name] or "?" for name in ("alpha", "batch", "steps"))
        wide = others(row["source"])
        down, up = (
            math.exp(math.hypot(math.log(p), wide)) for p in (one.advice.value / low, high / one.advice.value)
        )
        bound = "at least " if one.bound else ""
        mark = "yes" if one.inside(0.0) else "the wider" if one.inside(wide) else "no"
        lines.append(
            f"| {row['model'].split('/')[1]}, {row['rank']} | {row['dataset']} | {setting} | {bound}{one.rate:.2g} | "
            f"{one.advice.value:.2g} | {low:.2g} to {high:.2g} | {one.advice.value / down:.2g} to "
            f"{one.advice.value * up:.2g} | {one.rate / one.advice.value:.2g} | {mark} |"
        )
    return lines


def counts(found: Iterable[Best], by_source: Mapping[str, float]) -> str:
    """How many rates lie inside, and of the models how many by the share of their rates."""
    found = list(found)
    inside = [one.inside(by_source[one.row["source"]]) for one in found]
    units = {one.unit for one in found}
    share = sum(
        float(np.mean([i for i, one in zip(inside, found, strict=True) if one.unit == u])) for u in units
    )
    return f"{sum(inside)} of {len(inside)} | {share:.1f} of {len(units)}"


def summary_table() -> list[str]:
    """How many published best rates lie in each interval."""
    found, names = published(), sources(published())
    set_on, judged = halves()
    lines = ["| interval | judged on | rates inside | models, each counting once |", "|---|---|---|---|"]
    none = dict.fromkeys(names, 0.0)
    wide = {name: others(name) for name in names}
    lines.append(f"| of `lr`, for data like the sweep's | all | {counts(found, none)} |")
    lines.append(f"| with the scatter of data sets, set without the source | all | {counts(found, wide)} |")
    half = dict.fromkeys(names, set_on)
    lines.append(f"| with a scatter set on half of the sources | the other half | {counts(judged, half)} |")
    low, high = math.exp(-scatter(found)), math.exp(scatter(found))
    return [*lines, f"| factor that ships, set on all: {low:.2f} to {high:.1f} | | | |"]


def best_of_parabola(rates: list[float], scores: list[float]) -> float:
    """The rate at the top of the parabola in log rate through the highest score and its neighbours."""
    i = int(np.argmax(scores))
    x, y = np.log(rates[i - 1 : i + 2]), np.asarray(scores[i - 1 : i + 2])
    square, slope, _ = np.polyfit(x, y, 2)
    return float(np.exp(-slope / (2 * square)))


def batch_bests() -> dict[str, dict[int, float]]:
    """The best rate by variant of LoRA and batch."""
    cells: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in read("published_batches.csv"):
        cells.setdefault((row["variant"], int(row["batch"])), []).append(
            (float(row["lr"]), float(row["accuracy"]))
        )
    found: dict[str, dict[int, float]] = {}
    for (variant, batch), points in cells.items():
        rates, scores = map(list, zip(*sorted(points), strict=True))
        found.setdefault(variant, {})[batch] = best_of_parabola(rates, scores)
    return found


def batch_exponent(bests: Mapping[int, float]) -> float:
    """The slope of log best rate against log batch."""
    return float(np.polyfit(np.log(list(bests)), np.log(list(bests.values())), 1)[0])


def batch_table() -> list[str]:
    """Best rates by batch, and the exponent they follow."""
    found = batch_bests()
    sizes = sorted(next(iter(found.values())))
    lines = [
        f"| variant | {' | '.join(f'batch {b}' for b in sizes)} | exponent |", "|---" * (len(sizes) + 2) + "|"
    ]  # fmt: skip
    for name, bests in found.items():
        rates = " | ".join(f"{bests[b]:.2g}" for b in sizes)
        lines.append(f"| {name} | {rates} | {batch_exponent(bests):.2f} |")
    return lines


def main() -> None:
    """Print the tables."""
    for made in (published_table(), summary_table(), batch_table()):
        print("\n".join(made), end="\n\n")


if __name__ == "__main__":
    main()
