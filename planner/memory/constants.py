"""The constants of memory that no formula gives, from data/memory.toml: what lies outside of torch's allocator, what
the allocator keeps for later, and how far measured peaks lie from the formula."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from ..dataclass import dataclass
from ..errors import FactError
from ..facts import read_data, source_from
from ..moments import Interval
from ..schema import Source
from .interval_kinds import KINDS, MEASURED


@dataclass(frozen=True)
class Constants:
    """`context_bytes`: CUDA's context and the libraries' kernels on a GPU; `communication_bytes`: NCCL's channels and
    buffers, where GPUs talk to each other. Of what the caching allocator keeps where there is room: `cached_apart` of
    the transient bytes of the phases but the largest, `cached_gathered` of gathered units, `cached_varied` of what
    grows with the length where lengths vary. `intervals`, one of each kind (`KINDS`) and one after a measured peak,
    are to hold the share `coverage` of measured peaks. `measured_share` of what a measured peak says is believed."""

    context_bytes: float
    communication_bytes: float
    cached_apart: float
    cached_gathered: float
    cached_varied: float
    coverage: float
    measured_share: float = 1.0
    intervals: tuple[Interval, ...] = ()

    def of_kind(self, kind: str) -> Interval:
        """The interval of a kind of set-up."""
        return next(each for each in self.intervals if each.kind == kind)

    def bounds(self, kind: str) -> tuple[float, float]:
        """Its `low` and `high`."""
        found = self.of_kind(kind)
        return found.low, found.high


def parse(table: Mapping[str, Any]) -> tuple[Constants, tuple[tuple[str, Source], ...]]:
    """The constants of a table with their sources; one that is missing, unknown or without a source is refused."""
    values: dict[str, float] = {}
    sources = []
    for entry in table.get("constant", ()):
        name, value = str(entry.get("name")), entry.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise FactError(f"memory.toml: {name} is {value!r}, expected a number from 0.")
        values[name] = float(value)
        sources.append((name, source_from(entry.get("source"), f"memory.toml: {name}")))
    odd = sorted({field.name for field in fields(Constants)} - {"intervals"} ^ set(values))
    if odd:
        raise FactError(f"memory.toml: {', '.join(odd)} missing or not known.")
    intervals = tuple(_interval(entry) for entry in table.get("interval", ()))
    kinds = (*KINDS, MEASURED)
    if sorted(each.kind for each in intervals) != sorted(kinds):
        raise FactError(f"memory.toml: expected one interval of each kind: {', '.join(kinds)}.")
    sources += [
        (str(entry["kind"]), source_from(entry.get("source"), f"memory.toml: {entry['kind']}"))
        for entry in table["interval"]
    ]
    return Constants(**values, intervals=intervals), tuple(sources)


def _interval(entry: Mapping[str, Any]) -> Interval:
    """A kind's interval; refused where it is none."""
    names = [field.name for field in fields(Interval)]
    if sorted({*entry} - {"source"}) != sorted(names):
        raise FactError(f"memory.toml: interval {entry.get('kind')}: expected {', '.join(names)}.")
    found = Interval(**{name: entry[name] for name in names})
    if (
        not 0 < found.low <= 1 <= found.high
        or not found.extra_bytes >= 0
        or not 0 <= found.held <= 1
        or not 1 <= found.judged <= found.sources
    ):
        raise FactError(f"memory.toml: {found.kind}, {found.low} to {found.high}, held {found.held}.")
    return found


@cache
def _shipped() -> tuple[Constants, tuple[tuple[str, Source], ...]]:
    try:
        table = json.loads(read_data("compiled", "memory.json"))
    except ValueError as error:
        raise FactError(f"data/compiled/memory.json cannot be read: {error}.") from error
    return parse(table)


def constants() -> Constants:
    """The constants that ship."""
    return _shipped()[0]


def sources() -> tuple[tuple[str, Source], ...]:
    """Where they come from, each source once."""
    return tuple(
        ("memory beyond the formula, and its interval", source)
        for source in dict.fromkeys(source for _, source in _shipped()[1])
        if source.kind != "assumed"
    )
