"""The requests for memory of a whole step, in their order: those of the layers that ran, repeated for the others.

Nothing here knows torch. A request is named by where and as which it came, so that a layer that frees what its
neighbour made frees that of its own neighbour wherever it is repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import Any

from ..dataclass import dataclass
from .layers import Stack
from .timeline import IrregularError, Place, Recording, last_readers

Name = tuple[Any, ...]
Request = tuple[Name, int]  # bytes that come, or 0 where they go


@dataclass
class _Cut:
    """What happens between entering a place and leaving it; `turn`: the how manyth run of layers of one stack."""

    place: Place
    turn: int
    events: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Birth:
    """Where a block came: the turn, the place, and the how manyth of that layer, or outside of all, in the turn."""

    turn: int
    place: Place
    order: int


def _cuts(recording: Recording) -> list[_Cut]:
    """The recording cut at its marks; neighbouring cuts of one place are one."""
    found: list[_Cut] = []
    ends = [start for start, _ in recording.marks[1:]] + [len(recording.events)]
    turn = 0
    for (start, place), end in zip(recording.marks, ends, strict=True):
        if not found or found[-1].place != place:
            if found and found[-1].place[:3] != place[:3]:
                turn += 1
            found.append(_Cut(place, turn))
        events = recording.events[start:end]
        found[-1].events += [event for event in events if recording.blocks[abs(event) - 1].bytes]
    return found


def _births(cuts: Iterable[_Cut]) -> dict[int, _Birth]:
    """Where each block came."""
    found: dict[int, _Birth] = {}
    numbers: dict[tuple[int, int], Iterator[int]] = {}
    for cut in cuts:
        number = numbers.setdefault((cut.turn, cut.place.layer), itertools.count())
        found |= {event: _Birth(cut.turn, cut.place, next(number)) for event in cut.events if event > 0}
    return found


class Unrolled:
    """The requests of all layers, from a recording of those that ran."""

    def __init__(self, recording: Recording, stacks: Iterable[Stack]) -> None:
        self.recording = recording
        self.stacks = {stack.path: stack for stack in stacks}
        self.cuts = _cuts(recording)
        self.births = _births(self.cuts)
        self.alive: dict[Name, int] = {}

    def __iter__(self) -> Iterator[Request]:
        index = 0
        while index < len(self.cuts):
            cut = self.cuts[index]
            if cut.place.layer < 0:
                yield from self._outside(cut)
                index += 1
                continue
            end = index
            while end < len(self.cuts) and self.cuts[end].turn == cut.turn:
                end += 1
            yield from self._turn(self.cuts[index:end], self.stacks[cut.place.stack])
            index = end

    def _come(self, event: int, layer: int) -> Request:
        birth = self.births[event]
        name = birth.turn, layer, birth.order
        size = self.alive[name] = self.recording.blocks[event - 1].bytes
        return name, size

    def _go(self, event: int, layer: int) -> Iterator[Request]:
        """What is freed where `event` frees it, of the block as `layer` made it."""
        birth = self.births[-event]
        name = birth.turn, layer, birth.order
        size = self.recording.blocks[-event - 1].bytes
        if self.alive.get(name) != size:  # made by a layer that makes others before it
            like = [each for each, held in self.alive.items() if each[:2] == name[:2] and held == size]
            if not like:
                raise IrregularError(f"a block of {size} bytes of layer {layer} is freed that never came")
            name = min(like, key=lambda each: abs(each[2] - birth.order))
        del self.alive[name]
        yield name, 0

    def _outside(self, cut: _Cut) -> Iterator[Request]:
        """A place outside of layers: what it frees of a layer, every layer frees that it stands for."""
        for event in cut.events:
            if event > 0:
                yield self._come(event, -1)
                continue
            made = self.births[-event].place
            if made.layer < 0:
                yield from self._go(event, -1)
                continue
            stack = self.stacks[made.stack]
            for layer in sorted(each for each, ran in stack.model_of.items() if ran == made.layer):
                yield from self._go(event, layer)

    def _turn(self, cuts: Sequence[_Cut], stack: Stack) -> Iterator[Request]:
        """The layers of one stack in one pass."""
        if stack.whole:
            for cut in cuts:
                for event in cut.events:
                    if event > 0:
                        yield self._come(event, cut.place.layer)
                    else:
                        yield from self._go(event, self.births[-event].place.layer)
            return
        ran = {cut.place.layer: cut for cut in cuts}
        backward = cuts[0].place.phase == "backward"
        ends = last_readers(stack, backward)
        for layer in sorted(stack.model_of, reverse=backward):
            shown = stack.model_of[layer]
            for event in ran[shown].events:
                if event > 0:
                    yield self._come(event, layer)
                    continue
                made = self.births[-event].place
                if made.stack == stack.path and made.layer >= 0:
                    yield from self._go(event, _maker(stack, layer, made.layer))
                elif layer == ends[shown]:
                    yield from self._go(event, made.layer)


def _maker(stack: Stack, layer: int, made: int) -> int:
    """The layer that made what `layer` frees, where the layer that shows it frees what `made` did: as far off among
    all layers as those are among the ones that ran; but where both stand for one layer alone, that one."""
    shown = stack.model_of[layer]
    if stack.times[shown] == stack.times[made] == 1:
        return next(each for each, ran in stack.model_of.items() if ran == made)
    return layer + stack.chosen.index(made) - stack.chosen.index(shown)
