"""Published measurements of memory against the formula, each with its trainer's profile.

    python -m tools.compare_published_memory          # docs/memory-published.md from the constants as they are
    python -m tools.compare_published_memory --fit    # constants and intervals first: all of data/memory.toml
    python -m tools.compare_published_memory --judge sixth  # how often a set that nothing rests on is held

Constants are fitted on half of the groups of runs (source, model, method), chosen by a hash, and judged on the rest;
what lengths that vary leave in the cache also on later sets but the newest.
They matter for reserved and driver's figures alone; allocated memory has none. Intervals rest on first predictions
(tools/interval_fit.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from planner.errors import PlannerError
from planner.memory import constants as memory_constants
from planner.memory.constants import Constants
from planner.memory.interval_kinds import KINDS
from planner.memory.overhead import beyond_peak, bounds_of, cached, kind_of, overhead, within_kind
from planner.moments import MemoryEstimate
from planner.running import running
from tools.interval_chain import chain_table, trainer_table
from tools.interval_fit import (
    COVERAGE,
    Ends,
    Ratio,
    Rule,
    held_by_others,
    intervals_of,
    share_of,
)
from tools.memory_calibrated import measured_interval
from tools.published_memory import DRIVER, Case, Skipped, cases, model_of, workspaces_of
from tools.published_memory_later import (
    RESTS_ON,
    about,
    as_case,
    estimate_of,
    first_ratios,
    inside,
    later,
    said_of,
)
from tools.published_memory_page import page

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "memory.toml"
PAGE = ROOT / "docs" / "memory-published.md"
DATE = "2026-12-01"
INTERVALS = {
    "title": "tools/compare_published_memory.py --fit on data/measured/memory_later_blind.csv, by hierarchical "
    "conformal prediction", "url": "https://arxiv.org/abs/2306.06342",
    "locator": "first predictions of published measurements: docs/memory-published.md", "date": DATE,
    "kind": "derived",
}  # fmt: skip
JUDGES = ("nineteenth", "twentieth", "twentyfirst")  # sets that judge what the others' lengths teach
CHOICES = ("coverage",)
STEPS = {"maxiter": 400, "xatol": 1e-3}
FITTED = {
    "context_bytes": (5.5e8, 4e8, 8e8),
    # Beyond 0.8 GB it only takes over what gathered units leave, which these measurements do not tell apart.
    "communication_bytes": (7e8, 3e8, 8e8),
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
    kept = cached(found.setup, found.apart_bytes, found.gathered_bytes, found.varied_bytes, known)
    kept += found.streams_bytes
    made = replace(
        found, overhead=overhead(found.setup, known),
        cached_bytes=beyond_peak(found.moments, kept, found.before_bytes),
    )  # fmt: skip
    if not known.intervals:
        return made
    kind = found.within.kind if found.within else ""
    low, high, within = bounds_of(made.per_gpu_bytes, made.cached_bytes, made.setup, known, kind)
    return replace(made, low=low, high=high, within=within)


def predicted(case: Case, found: MemoryEstimate) -> int:
    """The bytes of what a case measured."""
    if case.metric == "allocated":
        return found.allocated_bytes
    if case.metric == "needed":
        return found.per_gpu_bytes
    room = case.memory_bytes
    return found.reserved_within(room) if case.metric == "reserved" else found.device_within(room)


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
            made = running(model_of(case.model), {**case.options, **workspaces_of(case.gpu)}).memory()
            known.append((case, within_kind(made, kind_of(made.setup, not case.stated))))
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
        self.streams = np.array([f.streams_bytes for _, f in pairs], float)
        self.room = np.array([c.memory_bytes or np.inf for c, _ in pairs], float)
        self.metric = np.array([c.metric for c, _ in pairs])
        self.measured = np.array([c.measured for c, _ in pairs], float)

    def errors(self, known: Constants) -> Any:
        """Logarithms of predicted over measured."""
        beyond = known.context_bytes + known.communication_bytes * self.several
        kept = known.cached_apart * self.apart + known.cached_gathered * self.gathered
        kept = kept + known.cached_varied * self.varied + self.streams
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
    ones: dict[str, Any] = dict.fromkeys(names, 1.0)
    base = Constants(**ones, coverage=COVERAGE)

    def at(values: Any) -> Constants:
        kept = np.clip(values * start, low, high)
        fitted: dict[str, Any] = dict(zip(names, map(float, kept), strict=True))
        return replace(base, **fitted)

    arrays = Arrays(chosen)

    def loss(values: Any) -> float:
        return float(np.sum(weights * np.abs(arrays.errors(at(values)))))

    # Sums of absolute values, clipped at the bounds, have many hollows: the best of several starts goes on.
    ends = [np.unique([low[i], start[i], high[i]]) / start[i] for i in range(2)]
    firsts = [np.array([*both, *np.ones(len(names) - 2)]) for both in product(*ends)]
    tried = [minimize(loss, first, method="Nelder-Mead", options=STEPS) for first in firsts]
    best = minimize(loss, min(tried, key=lambda one: float(one.fun)).x, method="Nelder-Mead", options=STEPS)
    return at(best.x)


def of_many_lengths() -> list[tuple[Case, MemoryEstimate]]:
    """Figures of reserved memory that came later, of one GPU and of sequences whose lengths vary, everything stated,
    up to the sets that were found last: `cached_varied` would rest on one source without them. Those judge it."""
    found = []
    for each in later():
        if each.metric == "reserved" and each.stated and each.found not in JUDGES and each.gpu:
            made = estimate_of(each)
            alone = made.setup.gpus == 1 and not made.setup.expandable_segments
            if alone and made.setup.lengths_vary:
                found.append((replace(as_case(each), gpu=each.gpu), made))
    return found


def taught(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> list[tuple[Case, MemoryEstimate]]:
    """What constants are fitted on: half of the groups of runs, and lengths that vary of later sets."""
    return [*((c, f) for c, f in pairs if c.fitted), *of_many_lengths()]


def others(pairs: Sequence[tuple[Case, MemoryEstimate]], source: str) -> list[tuple[Case, MemoryEstimate]]:
    """The pairs that do not come from a source."""
    name = source.removesuffix(DRIVER)
    return [(c, f) for c, f in pairs if c.source.removesuffix(DRIVER) != name]


def met_first(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> list[Ratio]:
    """How the first table's measurements lie to estimates by constants fitted on other sources; profiles of trainers
    had been read beside them, so that no interval rests on them."""
    met = []
    fitted = taught(pairs)
    for source in sorted({case.source for case, _ in pairs}):
        without = fit(others(fitted, source))
        met += [ratio(c, with_constants(f, without)) for c, f in pairs if c.source == source]
    return met


def ratio(case: Case, found: MemoryEstimate) -> Ratio:
    """How a case lies to its estimate."""
    beyond = 0 if case.metric in ("device", "needed") else sum(item.bytes for item in found.overhead)
    measured, needed = case.measured + beyond, found.per_gpu_bytes
    kind, known = kind_of(found.setup, not case.stated), about("given", case, found.setup)
    return Ratio(
        case.source, kind, measured / needed, (measured - found.cached_bytes) / needed, needed, known
    )


def _source(name: str, locator: str) -> dict[str, str]:
    return {
        "title": "tools/compare_published_memory.py --fit on data/measured/memory.csv and memory_later.csv",
        "url": "https://github.com/foundation-model-stack/fms-acceleration", "locator": locator, "date": DATE,
        "kind": "assumed" if name in CHOICES else "derived",
    }  # fmt: skip


def write(known: Constants, number: int) -> None:
    """Write data/memory.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/compare_published_memory.py --fit. Bytes outside of torch's allocator, what it keeps for",
        "# later, and how far measured peaks lie from the formula, by kind of set-up.",
    ]
    table: dict[str, list[dict[str, Any]]] = {"constant": [], "interval": []}
    for name, value in asdict(replace(known, intervals=())).items():
        if name == "intervals":
            continue
        locator = (
            "chosen"
            if name in CHOICES
            else f"fitted on {number} published measurements: docs/memory-published.md"
        )
        table["constant"].append(
            {
                "name": name,
                "value": float(f"{value:.4g}"),
                "source": dict(INTERVALS) if name == "measured_share" else _source(name, locator),
            }
        )
    table["interval"] = [{**asdict(each), "source": dict(INTERVALS)} for each in known.intervals]
    for kind, entries in table.items():
        for entry in entries:
            lines += ["", f"[[{kind}]]", *(f"{key} = {_toml(value)}" for key, value in entry.items())]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(table, ensure_ascii=False, indent=0)
    (ROOT / "data" / "compiled" / "memory.json").write_text(text + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(text)}" for key, text in value.items()) + " }"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def left_out(pairs: Sequence[tuple[Case, MemoryEstimate]]) -> list[Compared]:
    """Every source with constants fitted on all others, within the interval that ships."""
    result, intervals = [], memory_constants.constants().intervals
    for source in sorted({case.source for case, _ in pairs}):
        known = replace(fit(others([*pairs, *of_many_lengths()], source)), intervals=intervals)
        result += [compared(c, with_constants(f, known)) for c, f in pairs if c.source == source]
    return result


def held_now(done: Sequence[Compared]) -> list[tuple[Ratio, bool]]:
    """Whether the interval that ships holds what is predicted today."""
    later = [(each, inside(case, said_of(case))) for case, each in first_ratios()]
    return [*((ratio(c.case, c.found), c.inside) for c in done), *later]


def shipped() -> Rule:
    """The rule that ships, with its ends rounded as they are written."""
    known = memory_constants.constants()
    return Rule({i.kind: Ends(i.low, i.high, i.sources, i.runs, i.extra_bytes) for i in known.intervals})


def judge(name: str) -> None:
    """Show how often the interval that ships holds a set's first predictions, by kind; a set that it rests on is
    refused."""
    if name in RESTS_ON:
        raise SystemExit(f"The interval rests on the {name} set.")
    found = [each for _, each in first_ratios((name,))]
    if not found:
        raise SystemExit(f"No set is called {name}.")
    rule = shipped()
    judged = [(each, rule.holds(each)) for each in found]
    for mark, test in (("all", ""), *((kind, kind) for kind in KINDS)):
        share = share_of(judged, lambda each, test=test: not test or each.kind == test)  # type: ignore[misc]
        if share:
            print(f"{mark}: {share.runs} runs of {share.sources} sources, held {share.of_runs:.0%}, ", end="")
            print(f"{share.of_sources:.0%} where sources count the same")


def order_of(table: Sequence[Ratio]) -> list[str]:
    """The lines on intervals by whose profile, and of sets that were known before, of each candidate of a rule."""
    sets = {name: [each for _, each in first_ratios((name,))] for name in RESTS_ON}
    return [*trainer_table([each for own in sets.values() for each in own]), *chain_table(sets, table)]


def main() -> None:
    """Fit where asked, and write the page."""
    if sys.argv[1:2] == ["--judge"]:
        judge(sys.argv[2])
        return
    every, skipped = cases()
    pairs, more = estimates(every)
    blind = [each for _, each in first_ratios()]
    if "--fit" in sys.argv:
        chosen = taught(pairs)
        share, after = measured_interval()
        intervals = (*intervals_of(blind), after)
        write(replace(fit(chosen), measured_share=share, intervals=intervals), len(chosen))
        # What was estimated by the constants before is remembered here and there: the page is a new process's.
        subprocess.run([sys.executable, "-m", "tools.compare_published_memory"], check=True)
        return
    known = memory_constants.constants()
    done = [compared(c, with_constants(f, known)) for c, f in pairs]
    table, rule = met_first(pairs), shipped()
    judged = [*held_by_others(blind), *((each, rule.holds(each)) for each in table)], held_now(done)
    in_order = order_of(table)
    PAGE.write_text(page(done, left_out(pairs), [*skipped, *more], known, judged, in_order), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
