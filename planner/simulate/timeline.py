"""What a recorded step says: blocks of memory that come and go at places, unrolled from a few layers to all of them.

Nothing here knows torch. A `Recording` is written by the tracker while a step runs; `unroll` repeats the stretches
of the layers that ran for the layers that did not, and finds the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Literal, NamedTuple

from ..dataclass import dataclass
from .layers import Stack

Phase = Literal["forward", "backward", "optimizer", "evaluation"]
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
class Level:
    """Bytes by part since some moment, and the highest point since then."""

    change: list[int] = field(default_factory=lambda: [0] * len(PARTS))
    highest: list[int] = field(default_factory=lambda: [0] * len(PARTS))

    def add(self, part: int, size: int) -> None:
        """Add bytes, or take them away where `size` is negative."""
        self.change[part] += size
        if size > 0 and sum(self.change) > sum(self.highest):
            self.highest = list(self.change)


@dataclass
class Stretch:
    """What happens between entering a place and leaving it, relative to the bytes at its start.

    `here` is what happened there; `usual` is without what the layer freed of others: of tensors that all layers
    read and the last reader frees, which happens once however many layers there are.
    """

    place: Place
    here: Level = field(default_factory=Level)
    usual: Level = field(default_factory=Level)

    @property
    def once(self) -> bool:
        """Whether something happened there that happens in no other layer."""
        return self.here.change != self.usual.change


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
    """The recording cut at its marks; neighbouring cuts of one place are one stretch.

    `times` says how many layers each layer that ran stands for: what these made and a place outside of layers frees
    goes as often as it came.
    """
    found: list[Stretch] = []
    ends = [start for start, _ in recording.marks[1:]] + [len(recording.events)]
    for (start, place), end in zip(recording.marks, ends, strict=True):
        if not found or found[-1].place != place:
            found.append(Stretch(place))
        for event in recording.events[start:end]:
            _add(found[-1], recording, event, times)
    return found


def _add(stretch: Stretch, recording: Recording, event: int, times: Mapping[tuple[str, int], int]) -> None:
    number = abs(event) - 1
    block, part = recording.blocks[number], recording.part_of(number)
    size = block.bytes if event > 0 else -block.bytes
    if stretch.place.layer < 0 <= block.place.layer:
        size *= times.get((block.place.stack, block.place.layer), 1)
    stretch.here.add(part, size)
    if block.place.stack == stretch.place.stack or event > 0:
        stretch.usual.add(part, size)


class IrregularError(Exception):
    """The layers do not come one after another, so that a few of them cannot stand for all."""


def unroll(found: Sequence[Stretch], stacks: Iterable[Stack]) -> Iterator[tuple[Place, Level]]:
    """What happens in the whole model, place by place: in each layer what happened in the layer that shows it.

    Raises IrregularError where layers were entered out of order.
    """
    known = {stack.path: stack for stack in stacks}
    index = 0
    while index < len(found):
        place = found[index].place
        if place.layer < 0:
            yield place, found[index].here
            index += 1
            continue
        end = index
        while end < len(found) and found[end].place[:3] == place[:3] and found[end].place.layer >= 0:
            end += 1
        yield from _unroll(found[index:end], known[place.stack])
        index = end


def last_readers(stack: Stack, backward: bool) -> dict[int, int]:
    """For each layer that ran, the last of its kind to come: it frees what all of them read."""
    found = {}
    for ran in stack.chosen:
        like = [other for other, shown in stack.model_of.items() if shown == stack.same[ran]]
        found[ran] = min(like) if backward else max(like)
    return found


def _unroll(found: Sequence[Stretch], stack: Stack) -> Iterator[tuple[Place, Level]]:
    """The layers of one stack in one pass."""
    ran = {item.place.layer: item for item in found}
    if stack.whole:
        yield from ((item.place, item.here) for item in found)
        return
    backward = found[0].place.phase == "backward"
    order = [item.place.layer for item in found]
    if order != sorted(stack.chosen, reverse=backward):
        raise IrregularError(f"layers {stack.chosen} of {stack.path} ran in the order {order}")
    ends = last_readers(stack, backward)
    last = {ends[layer]: item.here for layer, item in ran.items() if item.once}
    for layer in sorted(stack.model_of, reverse=backward):
        item = ran[stack.model_of[layer]]
        yield item.place._replace(layer=layer), last.get(layer, item.usual)


def peaks(start: Sequence[int], whole: Iterable[tuple[Place, Level]]) -> tuple[dict[str, Peak], list[int]]:
    """The highest point of each phase ("forward", "loss" from the unembedding on, "backward"), and the bytes by part
    at the end."""
    level = list(start)
    found: dict[str, Peak] = {}
    for place, item in whole:
        name = "loss" if place.phase == "forward" and place.part == "head" else place.phase
        parts = tuple(a + b for a, b in zip(level, item.highest, strict=True))
        if name not in found or sum(parts) > found[name].bytes:
            found[name] = Peak(place, parts)
        level = [a + b for a, b in zip(level, item.change, strict=True)]
    return found, level


def multiplicity(stacks: Iterable[Stack]) -> dict[tuple[str, int], int]:
    """How many layers of its stack each layer that ran stands for."""
    return {(stack.path, layer): n for stack in stacks for layer, n in stack.times.items()}


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
