"""Cases of memory that were collected after every rule was made: each with the command that a user would type.

data/measured/memory_later.csv holds what is published and, as `options`, what follows `lora-plan estimate --model M`.
The commands were written and the first predictions kept (memory_later_blind.csv) before any rule was changed for
them. `fits` and `oom` are runs of which only that is known, on the GPU that the command names.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from planner import facts, hardware
from planner.cli.config_option import given
from planner.cli.estimate import command
from planner.cli.main import CONTEXT_SETTINGS
from planner.errors import PlannerError
from planner.estimator import load
from planner.memory.overhead import kind_of, within_kind
from planner.moments import MemoryEstimate
from planner.running import running
from planner.setup import SHARDS_PARAMETERS, Setup
from planner.trainers import PLAIN
from planner.trainers import known as trainer_known
from tools.interval_fit import Ratio
from tools.measured_models import CONFIGS, NAMES
from tools.published_memory import Case, model_of, workspaces_of
from tools.published_memory_readers import GIB

ROOT = Path(__file__).resolve().parents[1]
BLIND = "memory_later_blind.csv"
STAND_INS = "memory_stand_ins.csv"
UNITS = {"GB": 10**9, "GiB": GIB, "MiB": 2**20, "": 1}
RUN = ("fits", "oom")


@dataclass(frozen=True)
class Later:
    """A published case: what was run, and what was measured, in bytes (0 where only whether it fits is known).
    `found`: with which set. Those of "after" were collected when the rules had been mended for the "first" ones, as a
    test of that; no constant is fitted on the "fourth" and those behind it."""

    number: int
    source: str
    url: str
    model: str
    method: str
    metric: str
    measured: float
    stated: bool
    gpu: str
    options: str
    notes: str
    now: str = ""
    found: str = "first"

    @property
    def words(self) -> str:
        """The options of today: `now` stands over those of the first prediction, or in their place behind "="."""
        return self.now[1:] if self.now.startswith("=") else f"{self.options} {self.now}"

    @property
    def line(self) -> str:
        """The command."""
        return f"lora-plan estimate --model {self.model} {self.options}"


@cache
def _stand_ins() -> frozenset[tuple[str, str, str]]:
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", STAND_INS)))
    return frozenset((row["source"], row["model"], row["named"]) for row in rows)


def stands_in(case: Later, now: bool = True) -> bool:
    """Whether the profile that a command names was another program's or version's than that which ran. It is the
    program's own where its title, as it was when the command was written, names the program whose code makes the
    step, and a version of the source's lies in the range that the title states; a version that is not known is taken
    to lie there. Judged by the source and the title alone, before errors were looked at."""
    words = case.words if now else case.options
    named = re.findall(r"--trainer (\S+)", words)[-1:]
    source = case.source.removesuffix(", reserved")
    return any((source, model, name) in _stand_ins() for name in named for model in ("", case.model))


def trainer_of(setup: Setup, stands_in: bool) -> str:
    """Whose profile a prediction goes by: the trainer's own, that of a near one, of a sort of programs, or none."""
    if setup.trainer == PLAIN:
        return "none"
    return "near" if stands_in else "own" if trainer_known(setup.trainer) else "general"


def about(found: str, case: Case, setup: Setup, stands_in: bool = False) -> frozenset[str]:
    """What is known of a measurement beside its kind: words that tables on how often an interval holds go by."""
    return frozenset((
        f"set {found}", f"measured {case.metric}", f"method {setup.method}",
        f"trainer {trainer_of(setup, stands_in)}",
        f"sequences {'vary' if setup.lengths_vary else setup.packing}",
        "lengths stated" if case.stated else "lengths open",
        "several GPUs" if setup.gpus > 1 else "one GPU",
        "experts routed" if load(model_of(case.model))[1].has_experts else "dense",
        "parameters sharded" if setup.sharding in SHARDS_PARAMETERS else "parameters whole",
    ))  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What the planner says of a case: bytes of what was measured, and the interval of what a GPU must have, with the
    bytes that are `needed`, and `cached` on top."""

    predicted: float
    low: float
    high: float
    beyond: float
    room: float
    problem: str = ""
    needed: float = 0
    cached: float = 0


def later() -> list[Later]:
    """Every case."""
    return list(_later())


@cache
def _later() -> tuple[Later, ...]:
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", "memory_later.csv")))
    return tuple(
        Later(
            number, row["source"], row["url"], row["model"], row["method"], row["metric"],
            float(row["measured"] or 0) * UNITS[row["unit"]], row["stated"] == "yes", row["gpu"], row["options"],
            row["notes"], row["now"], row["set"],
        )
        for number, row in enumerate(rows, start=2)
    )  # fmt: skip


def options_of(case: Later) -> dict[str, Any]:
    """The options of the command, as the command line reads them; `now` stands over those of the first prediction,
    where a profile of the version that was measured has come since, or an option was misread."""
    return _options(case.model, case.method, case.words)


def _options(model: str, method: str, words: str) -> dict[str, Any]:
    return {**_read(model, words), "method": method}


@cache
def _read(model: str, words: str) -> Mapping[str, Any]:
    context = command.make_context("estimate", ["--model", model, *shlex.split(words)], **CONTEXT_SETTINGS)
    found = given(context, dict(context.params))
    found.pop("model")
    return found


@cache  # tables and tests ask for the same ones
def _estimated(model: str, method: str, words: str, gpu: str) -> MemoryEstimate:
    options = {**_options(model, method, words), **workspaces_of(gpu)}
    return running(CONFIGS.get(model) or NAMES.get(model, model), options).memory()


def estimate_of(case: Later) -> MemoryEstimate:
    """The estimate of a case. Raises PlannerError."""
    found = _estimated(case.model, case.method, case.words, case.gpu)
    named = trainer_known(found.setup.trainer) and not stands_in(case)
    return within_kind(found, kind_of(found.setup, not case.stated, named))


def as_case(each: Later) -> Case:
    """A case as the other published ones are."""
    options = {"method": each.method}
    return Case(each.source, each.number, "A", each.model, options, each.metric, each.measured, each.stated)


RESTS_ON = ("first", "third", "fourth", "fifth", "sixth")  # sets that the interval rests on, in order of time
# `low` and `high` of data/memory.toml when first predictions were kept without what was needed.
OF_THEN = {
    "sixth": {
        "alone": (0.8672, 1.3), "open": (0.7141, 1.858), "shared": (0.7538, 1.682), "shared-open": (0.5897, 2.641),
        "split": (0.5949, 2.599), "offloaded": (0.4919, 3.688),
    },
}  # fmt: skip


def _needed(each: Later, said: Said, kind: str) -> tuple[float, float]:
    """Bytes that were needed and cached by a first prediction; from its ends, where they were not kept."""
    if said.needed:
        return said.needed, said.cached
    low, high = OF_THEN[each.found]["alone" if kind == "alone-lora" else kind]
    return said.low / low, said.high - high * said.low / low


def first_ratios(sets: Sequence[str] = RESTS_ON) -> Iterator[tuple[Later, Ratio]]:
    """Cases with a figure, as they were predicted first."""
    first = blind()
    for each in later():
        said = first[each.number]
        if each.metric in RUN or each.found not in sets or said.problem:
            continue
        setup = estimate_of(replace(each, now="")).setup
        near, was = stands_in(each, now=False), kind_of(setup, not each.stated, named=True)
        needed, cached = _needed(each, said, was)
        kind = kind_of(setup, not each.stated, trainer_known(setup.trainer) and not near)
        measured = each.measured + (0 if each.metric in ("device", "needed") else said.beyond)
        low, high = measured / needed, (measured - cached) / needed
        yield each, Ratio(each.source, kind, low, high, needed, about(each.found, as_case(each), setup, near))


def said_of(case: Later) -> Said:
    """The prediction of a case; a problem where there is none."""
    try:
        found = estimate_of(case)
    except PlannerError as error:
        return Said(0, 0, 0, 0, 0, str(error).split(". ")[0])
    gpu = options_of(case).get("gpu") or case.gpu
    try:
        room = hardware.find(gpu).memory_bytes
    except PlannerError:
        room = None
    beyond = sum(item.bytes for item in found.overhead)
    predicted = _predicted(case.metric, found, room)
    paged = (
        found.paged_bytes if case.metric == "device" else 0
    )  # which the driver shows, and no GPU must have
    needed, cached = found.per_gpu_bytes, found.cached_bytes + paged
    return Said(predicted, found.low, found.high + paged, beyond, room or 0, "", needed, cached)


def _predicted(metric: str, found: MemoryEstimate, room: int | None) -> float:
    if metric == "allocated":
        return found.allocated_bytes
    if metric in ("needed", *RUN):
        return found.per_gpu_bytes
    return found.reserved_within(room) if metric == "reserved" else found.device_within(room)


def inside(case: Later, said: Said) -> bool:
    """Whether the interval allows what happened. Within torch measured, the overhead comes on top."""
    if case.metric == "fits":
        return said.low <= said.room
    if case.metric == "oom":
        return said.high > said.room
    beyond = 0 if case.metric in ("device", "needed") else said.beyond
    return said.low <= case.measured + beyond <= said.high


def right(case: Later, said: Said) -> bool:
    """Whether the verdict fits is what happened."""
    return (said.predicted <= said.room) == (case.metric == "fits")


@cache
def blind() -> Mapping[int, Said]:
    """The first predictions."""
    return as_said(csv.DictReader(io.StringIO(facts.read_data("measured", BLIND))))


def as_said(rows: Iterable[Mapping[str, str]]) -> Mapping[int, Said]:
    """Predictions that were kept, by the row of their case."""
    found = {}
    for row in rows:
        predicted, low, high, beyond, room = (
            float(row[name]) for name in ("predicted", "low", "high", "beyond", "room")
        )
        needed, cached = (float(row.get(name) or 0) for name in ("needed", "cached"))
        found[int(row["row"])] = Said(predicted, low, high, beyond, room, row["problem"], needed, cached)
    return found


def keep(path: Path) -> None:
    """Write the predictions of now."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("row", "predicted", "low", "high", "beyond", "room", "problem", "needed", "cached"))
        for case in later():
            said = said_of(case)
            values = (round(v) for v in (said.predicted, said.low, said.high, said.beyond, said.room))
            table.writerow((case.number, *values, said.problem, round(said.needed), round(said.cached)))


def main() -> None:
    """Show every case with its prediction; --keep FILE writes the predictions."""
    if sys.argv[1:2] == ["--keep"]:
        keep(Path(sys.argv[2]))
        return
    for case in later():
        said = said_of(case)
        start = f"{case.number:4} {case.source[:24]:24} {case.model[:40]:40} {case.method:5} {case.metric:9}"
        within = "in" if inside(case, said) else "OUT"
        if said.problem:
            print(start, said.problem)
        elif case.metric in RUN:
            verdict = "right" if right(case, said) else "WRONG"
            print(start, verdict, f"{said.predicted / 1e9:.1f} of {said.room / 1e9:.1f}", within)
        else:
            stated = "" if case.stated else "(not stated)"
            print(start, f"{said.predicted / case.measured:5.2f} {case.measured / 1e9:6.2f}", within, stated)


if __name__ == "__main__":
    main()
