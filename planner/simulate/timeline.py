"""What a recorded step says: blocks of memory that come and go at places, unrolled from a few layers to all of them.

Nothing here knows torch. A `Recording` is written by the tracker while a step runs; `unroll` repeats the stretches
of the layers that ran for the layers that did not, and finds the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Phase = Literal["forward", "backward", "optimizer"]
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "temporary")
GRADIENTS, ACTIVATIONS, LOGITS, TEMPORARY = (
    PARTS.index(n) for n in ("gradients", "activations", "logits", "temporary")
)


class Place(NamedTuple):
    """Where a step stands: in a layer (`stack` and `layer`), or outside of all of them at a named part."""

    phase: Phase
    part: str
    stack: str = ""
    layer: int = -1

    def at(self, layer: int) -> Place:
        """The same place in another layer."""
        return self._replace(layer=layer)


@dataclass
class Block:
    """A stretch of memory: its bytes, the place where it was allocated, and the part that it counts as."""

    bytes: int
    place: Place
    part: int | None = None


@dataclass
class Recording:
    """Everything that a step allocated and freed, in order.

    `events` holds block numbers, +n+1 where block n came and -n-1 where it went; `marks` says from which event on
    the step stood where; `flops` counts by place and operator.
    """

    blocks: list[Block] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    marks: list[tuple[int, Place]] = field(default_factory=list)
    flops: dict[tuple[Place, str], int] = field(default_factory=dict)

    def part_of(self, number: int) -> int:
        """The part that a block counts as: its label, what the unembedding and the loss made, or a temporary."""
        block = self.blocks[number]
        if block.place.part == "head" and block.part != GRADIENTS:
            return LOGITS
        return TEMPORARY if block.part is None else block.part


@dataclass
class Stretch:
    """What happens between entering a place and leaving it, relative to the bytes at its start: `change` and the
    highest point by part."""

    place: Place
    change: list[int]
    highest: list[int]


@dataclass(frozen=True)
class Peak:
    """The largest sum of all parts, what it consists of, and where it is reached."""

    place: Place
    parts: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """The sum."""
        return sum(self.parts)


def stretches(recording: Recording, times: Mapping[tuple[str, int], int]) -> list[Stretch]:
    """The recording cut at its marks; neighbouring cuts of one place are one stretch. `times` says how many layers
    each layer that ran stands for: what they made and a place outside of layers frees goes as often as it came."""
    found: list[Stretch] = []
    ends = [start for start, _ in recording.marks[1:]] + [len(recording.events)]
    for (start, place), end in zip(recording.marks, ends, strict=True):
        if not found or found[-1].place != place:
            found.append(Stretch(place, [0] * len(PARTS), [0] * len(PARTS)))
        _extend(found[-1], recording, range(start, end), times)
    return found


def _extend(
    stretch: Stretch, recording: Recording, events: Iterable[int], times: Mapping[tuple[str, int], int]
) -> None:
    change, top = stretch.change, sum(stretch.highest)
    level, outside = sum(change), stretch.place.layer < 0
    for index in events:
        event = recording.events[index]
        number = abs(event) - 1
        block = recording.blocks[number]
        size = block.bytes if event > 0 else -block.bytes
        if outside and block.place.layer >= 0:
            size *= times.get((block.place.stack, block.place.layer), 1)
        change[recording.part_of(number)] += size
        level += size
        if level > top:
            top, stretch.highest = level, list(change)


class IrregularError(Exception):
    """The layers do not come one after another, so that a few of them cannot stand for all."""


def unroll(found: Sequence[Stretch], stands_for: Mapping[str, Mapping[int, int]]) -> Iterator[Stretch]:
    """The stretches of the whole model: each layer of a stack by that of the layer that stands for it.

    `stands_for` maps every layer of a stack to one that ran. Raises IrregularError where layers are entered
    out of order.
    """
    index = 0
    while index < len(found):
        place = found[index].place
        if place.layer < 0 or place.stack not in stands_for:
            yield found[index]
            index += 1
            continue
        end = index
        while end < len(found) and found[end].place[:3] == place[:3] and found[end].place.layer >= 0:
            end += 1
        ran = {item.place.layer: item for item in found[index:end]}
        order = [item.place.layer for item in found[index:end]]
        backward = place.phase == "backward"
        if len(ran) != len(order) or order != sorted(order, reverse=backward):
            raise IrregularError(f"layers of {place.stack} ran in the order {order}")
        if not set(ran) >= set(stands_for[place.stack].values()):
            raise IrregularError(f"some layers of {place.stack} did not run in one go")
        for layer in sorted(stands_for[place.stack], reverse=backward):
            item = ran[stands_for[place.stack][layer]]
            yield Stretch(item.place.at(layer), item.change, item.highest)
        index = end


def peaks(start: Sequence[int], whole: Sequence[Stretch]) -> tuple[dict[str, Peak], list[int]]:
    """The highest point of each phase ("forward", "loss" from the unembedding on, "backward"), and the bytes by part
    at the end."""
    level = list(start)
    found: dict[str, Peak] = {}
    for item in whole:
        forward = item.place.phase == "forward"
        name = "loss" if forward and item.place.part == "head" else item.place.phase
        parts = tuple(a + b for a, b in zip(level, item.highest, strict=True))
        if name not in found or sum(parts) > found[name].bytes:
            found[name] = Peak(item.place, parts)
        level = [a + b for a, b in zip(level, item.change, strict=True)]
    return found, level


def multiplicity(stands_for: Mapping[str, Mapping[int, int]]) -> dict[tuple[str, int], int]:
    """How many layers of its stack each layer that ran stands for."""
    times: dict[tuple[str, int], int] = {}
    for stack, layers in stands_for.items():
        for ran in layers.values():
            times[stack, ran] = times.get((stack, ran), 0) + 1
    return times


def unroll_flops(
    flops: Mapping[tuple[Place, str], int], times: Mapping[tuple[str, int], int]
) -> dict[str, dict[str, int]]:
    """FLOPs by phase and operator of the whole model."""
    found: dict[str, dict[str, int]] = {}
    for (place, operator), count in flops.items():
        by_operator = found.setdefault(place.phase, {})
        n = times.get((place.stack, place.layer), 0) if place.layer >= 0 else 1
        by_operator[operator] = by_operator.get(operator, 0) + count * n
    return found
