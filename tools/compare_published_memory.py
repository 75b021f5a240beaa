"""Published measurements of memory against the formula, each with its trainer's profile.

    python -m tools.compare_published_memory          # docs/memory-published.md from the constants as they are
    python -m tools.compare_published_memory --fit    # fit the constants first, and write data/memory.toml

Constants are fitted on half of the groups of runs (source, model, method), chosen by a hash, and judged on the rest.
They matter for reserved and driver's figures alone; allocated memory has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from planner.errors import PlannerError
from planner.memory import constants as memory_constants
from planner.memory.constants import Constants
from planner.memory.overhead import cached, interval, overhead
from planner.moments import MemoryEstimate
from planner.running import running
from tools.published_memory import DRIVER, Case, Skipped, cases, model_of
from tools.published_memory_later import half
from tools.published_memory_page import page

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "memory.toml"
PAGE = ROOT / "docs" / "memory-published.md"
DATE = "2026-11-28"
COVERAGE = 0.9
FITTED = {
    "context_bytes": (5.5e8, 4e8, 8e8),
    "communication_bytes": (9e8, 3e8, 2e9),
    "cached_apart": (0.8, 0.0, 1.5),
    "cached_gathered": (1.0, 0.0, 4.0),
    "cached_varied": (1.5, 0.0, 4.0),
}


@dataclass(frozen=True)
class Compared:
    """A case with its estimate and the bytes predicted for what was measured."""

    case: Case
    found: MemoryEstimate
    predicted: float
    inside: bool

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.case.measured

    @property
    def error(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.ratio - 1)


def with_constants(found: MemoryEstimate, known: Constants) -> MemoryEstimate:
    """An estimate as other constants make it."""
    made = replace(
        found, overhead=overhead(found.setup, known),
        cached_bytes=cached(found.setup, found.apart_bytes, found.gathered_bytes, found.varied_bytes, known),
    )  # fmt: skip
    low, high = interval(made.per_gpu_bytes, made.cached_bytes, known)
    return replace(made, low=low, high=high)


def predicted(case: Case, found: MemoryEstimate) -> int:
    """The bytes of what a case measured."""
    if case.metric == "allocated":
        return found.allocated_bytes
    if case.metric == "needed":
        return found.per_gpu_bytes
    reserved = found.reserved_within(case.memory_bytes)
    beyond = sum(item.bytes for item in found.overhead)
    return reserved if case.metric == "reserved" else reserved + beyond


def compared(case: Case, found: MemoryEstimate) -> Compared:
    """A case against its estimate. The interval is about what a GPU must have: what was measured within torch is
    counted with the overhead on top."""
    beyond = 0 if case.metric in ("device", "needed") else sum(item.bytes for item in found.overhead)
    inside = found.low <= case.measured + beyond <= found.high
    return Compared(case, found, predicted(case, found), inside)


def estimates(found: Iterable[Case]) -> tuple[list[tuple[Case, MemoryEstimate]], list[Skipped]]:
    """The estimate of every case, and the cases that have none."""
    known, left = [], []
    for case in found:
        try:
            known.append((case, running(model_of(case.model), case.options).memory()))
        except PlannerError as error:
            left.append(Skipped(case.source, case.row, case.model, str(error).split(". ")[0]))
    return known, left


class Arrays:
    """What the constants act on, for all cases at once: `predicted` without the estimates' objects."""

    def __init__(self, pairs: Sequence[tuple[Case, MemoryEstimate]]) -> None:
        setups = [f.setup for _, f in pairs]
        self.several = np.array([s.gpus > 1 for s in setups])
        self.apart = np.array([f.apart_bytes for _, f in pairs], float)
        self.gathered = np.array([f.gathered_bytes for _, f in pairs], float) * self.several
        self.varied = np.array(
            [f.varied_bytes * s.lengths_vary for (_, f), s in zip(pairs, setups, strict=True)]
        )
        self.allocated = np.array([f.allocated_bytes for _, f in pairs], float)
        self.room = np.array([c.memory_bytes or np.inf for c, _ in pairs], float)
        self.metric = np.array([c.metric for c, _ in pairs])
        self.measured = np.array([c.measured for c, _ in pairs], float)

    def errors(self, known: Constants) -> Any:
        """Logarithms of predicted over measured."""
        beyond = known.context_bytes + known.communication_bytes * self.several
        kept = known.cached_apart * self.apart + known.cached_gathered * self.gathered
        kept = kept + known.cached_varied * self.varied
        reserved = np.maximum(self.allocated, np.minimum(self.allocated + kept, self.room - beyond))
        top = np.where(self.metric == "reserved", reserved, reserved + beyond)
        return np.log(np.where(self.metric == "needed", self.allocated + beyond, top) / self.measured)


def _weights(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> Any:
    """Every source counts by the root of its number of runs."""
    counts: dict[str, int] = {}
    for case, _ in pairs:
        counts[case.source] = counts.get(case.source, 0) + 1
    return np.array([counts[case.source] ** -0.5 for case, _ in pairs])


def fit(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> Constants:
    """The constants that bring reserved and driver's figures closest, by absolute errors of logarithms."""
    chosen = [(c, f) for c, f in pairs if c.metric != "allocated"]
    names = list(FITTED)
    start, low, high = (np.array([FITTED[name][i] for name in names]) for i in range(3))
    weights = _weights(chosen)
    base = Constants(**dict(zip(names, start, strict=True)), low=1.0, high=1.0, coverage=COVERAGE)

    def at(values: Any) -> Constants:
        kept = np.clip(values * start, low, high)
        return replace(base, **dict(zip(names, map(float, kept), strict=True)))

    arrays = Arrays(chosen)

    def loss(values: Any) -> float:
        return float(np.sum(weights * np.abs(arrays.errors(at(values)))))

    best = minimize(loss, np.ones(len(names)), method="Nelder-Mead", options={"maxiter": 400, "xatol": 1e-3})
    return at(best.x)


def others(pairs: Sequence[tuple[Case, MemoryEstimate]], source: str) -> list[tuple[Case, MemoryEstimate]]:
    """The pairs that do not come from a source."""
    name = source.removesuffix(DRIVER)
    return [(c, f) for c, f in pairs if c.source.removesuffix(DRIVER) != name]


def fit_with_bounds(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> Constants:
    """The constants, and an interval that holds its share of each source predicted from all others, and of half of
    the cases that were collected afterwards: so a new trainer is met."""
    known = fit(pairs)
    met = []
    for source in sorted({case.source for case, _ in pairs}):
        without = fit(others(pairs, source))
        met += [(c, with_constants(f, without)) for c, f in pairs if c.source == source]
    met += [(c, with_constants(f, known)) for c, f in half()]
    return _bounds(met, known)


def _bounds(pairs: Sequence[tuple[Case, MemoryEstimate]], known: Constants) -> Constants:
    """`low` and `high` such that as many measured peaks lie below as above, and `coverage` between."""
    lows, highs, weights = [], [], []
    counts: dict[str, int] = {}
    for case, _ in pairs:
        counts[case.source] = counts.get(case.source, 0) + 1
    for case, found in pairs:
        beyond = 0 if case.metric in ("device", "needed") else sum(item.bytes for item in found.overhead)
        lows.append((case.measured + beyond) / found.per_gpu_bytes)
        highs.append((case.measured + beyond - found.cached_bytes) / found.per_gpu_bytes)
        weights.append(1 / counts[case.source])
    tail = (1 - COVERAGE) / 2
    return replace(
        known, low=_quantile(lows, weights, tail), high=max(1.0, _quantile(highs, weights, 1 - tail))
    )


def _quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order]) / np.sum(weights)
    return float(np.array(values)[order][np.argmax(reached >= share)])


def _source(name: str, number: int) -> dict[str, str]:
    kind = "assumed" if name == "coverage" else "derived"
    locator = (
        "chosen"
        if name == "coverage"
        else f"fitted on {number} published measurements: docs/memory-published.md"
    )
    if name in ("low", "high"):
        locator += f"; and on {len(list(half()))} found afterwards, data/measured/memory_later.csv"
    return {
        "title": "tools/compare_published_memory.py --fit on data/measured/memory.csv",
        "url": "https://github.com/foundation-model-stack/fms-acceleration", "locator": locator, "date": DATE,
        "kind": kind,
    }  # fmt: skip


def write(known: Constants, number: int) -> None:
    """Write data/memory.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/compare_published_memory.py --fit. Bytes outside of torch's allocator, what it keeps for",
        "# later, and how far measured peaks lie from the formula.",
    ]
    entries = []
    for name, value in asdict(known).items():
        shown = float(f"{value:.4g}")
        source = _source(name, number)
        entries.append({"name": name, "value": shown, "source": source})
        inline = ", ".join(f"{key} = {json.dumps(text)}" for key, text in source.items())
        lines += ["", "[[constant]]", f'name = "{name}"', f"value = {shown!r}", f"source = {{ {inline} }}"]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps({"constant": entries}, ensure_ascii=False, indent=0)
    (ROOT / "data" / "compiled" / "memory.json").write_text(text + "\n", encoding="utf-8")
    memory_constants._shipped.cache_clear()


def left_out(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> list[Compared]:
    """Every source with constants fitted on all others, within the interval that ships."""
    result, shipped = [], memory_constants.constants()
    for source in sorted({case.source for case, _ in pairs}):
        known = replace(fit(others(pairs, source)), low=shipped.low, high=shipped.high)
        result += [compared(c, with_constants(f, known)) for c, f in pairs if c.source == source]
    return result


def main() -> None:
    """Fit where asked, and write the page."""
    every, skipped = cases()
    pairs, more = estimates(every)
    if "--fit" in sys.argv:
        chosen = [(c, f) for c, f in pairs if c.fitted]
        write(fit_with_bounds(chosen), len(chosen))
    known = memory_constants.constants()
    done = [compared(c, with_constants(f, known)) for c, f in pairs]
    PAGE.write_text(page(done, left_out(pairs), [*skipped, *more], known), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
