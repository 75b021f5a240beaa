"""What torch's allocator reserves where micro-steps differ in length, by the order in which the lengths come.

A step that makes the allocator reserve nothing leaves it as it was: all that it took it gave back, freed neighbours
join, and what stays stands where it stood. So only steps that need something more count, and those are the ones that
are longer than all before, of lengths aligned alike and since the first step, behind which the optimizer's states are
there too; the others are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from statistics import median_low
from typing import Any

from ..dataclass import dataclass
from .allocator import Block, CachingAllocator, OutOfMemoryError
from .between import Between, Each, Recorded, aligned
from .reserving import ROOM, Requests, Training

AFTER = 4  # optimizer steps that are played after one that needed more


@dataclass(frozen=True)
class Orders:
    """Bytes `reserved` and `allocated` at the most in each order of lengths, of `micro_steps` each; in how many of
    them a card serves all (None where none was named)."""

    reserved: tuple[int, ...]
    allocated: tuple[int, ...]
    micro_steps: int
    lengths: int
    served: int | None = None

    @property
    def median(self) -> int:
        """The middle order's bytes, the lower of two."""
        return median_low(self.reserved)

    @property
    def most_allocated_bytes(self) -> int:
        """The most of any order."""
        return max(self.allocated)

    def to_dict(self) -> dict[str, Any]:
        """The contract's entry."""
        return {
            "reserved_bytes": self.median,
            "least_reserved_bytes": min(self.reserved),
            "most_reserved_bytes": max(self.reserved),
            "allocated_bytes": self.most_allocated_bytes,
            "orders": len(self.reserved),
            "orders_served": self.served,
            "micro_steps": self.micro_steps,
            "lengths": self.lengths,
        }


def orders(
    found: Requests,
    between: Between | Each,
    drawn: Sequence[Sequence[int]],
    accumulation: int = 1,
    room: int | None = None,
) -> Orders:
    """What is reserved for micro-steps of the lengths `drawn`, each an order, and whether `room` bytes serve it.

    Neglects what loading the model left free, other streams, and that a shorter step than one before may need more,
    where its blocks are cut otherwise, beyond the AFTER steps that follow one that needed more: of 400 micro-steps of
    SmolLM2-135M 0 to 2% of what all reserve, 6% where many samples are cut at the greatest length, which comes early
    then: so much too little. Of a loss in pieces, whose steps tell of themselves alone, those that follow are of a
    length near theirs that is known: up to 6% off, of a step of half a GB 9%. Source: planner/simulate/allocator.py.
    """
    cards = [_played(found, between, each, accumulation, ROOM) for each in drawn]
    served = None
    if room is not None:
        served = sum(
            _serves(found, between, each, accumulation, room, card)
            for each, card in zip(drawn, cards, strict=True)
        )
    return Orders(
        tuple(card.most_reserved for card in cards),
        tuple(card.most_allocated for card in cards),
        len(drawn[0]),
        len(between.lengths),
        served,
    )


def _serves(
    found: Requests, between: Between | Each, drawn: Sequence[int], accumulation: int, room: int,
    free: CachingAllocator,
) -> bool:  # fmt: skip
    """Whether a card of so many bytes serves an order, of which one with room for everything is `free`."""
    if found.expandable or free.most_allocated > room:
        return free.most_allocated <= room
    if free.most_reserved <= room:
        return True
    try:
        _played(found, between, drawn, accumulation, room)
    except OutOfMemoryError:
        return False
    return True


def _played(
    found: Requests, between: Between | Each, drawn: Sequence[int], accumulation: int, room: int
) -> CachingAllocator:
    """The allocator of a card of so many bytes after the micro-steps of an order. Raises OutOfMemoryError."""
    training = Training(found, room)
    longest = dict.fromkeys((True, False), 0)
    quiet = AFTER  # optimizer steps since the last that needed more
    for start in range(0, len(drawn), accumulation):
        some = drawn[start : start + accumulation]
        part = [length for length in some if quiet < AFTER or length > longest[aligned(length)]]
        if not part:
            continue
        steps = [_step(between, length, longest[aligned(length)]) for length in part]
        if training.steps:  # the first finds no states of the optimizer beside it
            for length in part:
                longest[aligned(length)] = max(longest[aligned(length)], length)
        before = training.allocator.reserved
        training.step(partial(_micro_steps, training.allocator, steps))
        quiet = 0 if training.allocator.reserved > before else quiet + 1
    training.evaluate()
    return training.allocator


def _step(between: Between | Each, length: int, longest: int) -> Recorded:
    """A step of a length, or, where it is none of those that are longer than all before, of one that is near it."""
    return between.at(length) if length > longest or isinstance(between, Between) else between.near(length)


def _micro_steps(allocator: CachingAllocator, steps: Iterable[Recorded]) -> list[Block]:
    """What they leave, one after another."""
    return [block for step in steps for block in _play(allocator, step)]


def _play(allocator: CachingAllocator, step: Recorded) -> list[Block]:
    """A micro-step's requests as they come; what it leaves."""
    take, give, sizes = allocator.take, allocator.give, step.sizes
    at: dict[int, Block] = {}
    for number in step.order:
        if number >= 0:
            at[number] = take(sizes[number])
        else:
            give(at.pop(~number))
    return list(at.values())
