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
from ..schema import Source

KINDS = ("alone", "varied", "shared", "split", "offloaded")


@dataclass(frozen=True)
class Bounds:
    """`low` and `high` of a trainer whose own figures of a kind of set-up were compared."""

    trainer: str
    kind: str
    low: float
    high: float


@dataclass(frozen=True)
class Constants:
    """`context_bytes`: CUDA's context and the libraries' kernels on a GPU; `communication_bytes`: NCCL's channels and
    buffers, where GPUs talk to each other. Of what the caching allocator keeps where there is room: `cached_apart` of
    the transient bytes of the phases but the largest, `cached_gathered` of gathered units, `cached_varied` of what
    grows with the length where lengths vary. `low` and `high`: the share
    `coverage` of measured peaks lies between these multiples of the formula's, what is cached on top of the
    latter; of one GPU with sequences of one length, and with a kind's name (`KINDS`) those of other set-ups."""

    context_bytes: float
    communication_bytes: float
    cached_apart: float
    cached_gathered: float
    cached_varied: float
    low: float
    high: float
    low_varied: float
    high_varied: float
    low_shared: float
    high_shared: float
    low_split: float
    high_split: float
    low_offloaded: float
    high_offloaded: float
    coverage: float
    trainers: tuple[Bounds, ...] = ()

    def bounds(self, kind: str, trainer: str = "") -> tuple[float, float]:
        """`low` and `high` of a kind of set-up: the trainer's own where enough of its figures were compared."""
        for each in self.trainers:
            if (each.trainer, each.kind) == (trainer, kind):
                return each.low, each.high
        end = "" if kind == "alone" else f"_{kind}"
        return getattr(self, f"low{end}"), getattr(self, f"high{end}")


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
    odd = sorted({field.name for field in fields(Constants)} - {"trainers"} ^ set(values))
    if odd:
        raise FactError(f"memory.toml: {', '.join(odd)} missing or not known.")
    trainers = tuple(_bounds(entry) for entry in table.get("trainer", ()))
    return Constants(**values, trainers=trainers), tuple(sources)


def _bounds(entry: Mapping[str, Any]) -> Bounds:
    """A trainer's own interval; refused without a source."""
    source_from(entry.get("source"), f"memory.toml: {entry.get('name')}")
    found = Bounds(str(entry.get("name")), str(entry.get("kind")), entry["low"], entry["high"])
    if found.kind not in KINDS or not 0 < found.low < found.high:
        raise FactError(f"memory.toml: {found.trainer}: {found.kind}, {found.low} to {found.high}.")
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
