"""What torch's allocator reserves for a step: its requests, in their order, given to a model of the allocator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..dataclass import dataclass
from .allocator import Block, CachingAllocator, OutOfMemoryError
from .optimizers import Update
from .requests import Name, Request

ROOM = 2**60  # bytes: a card with room for everything
STEPS = (
    3  # the first, that makes the optimizer's states, one that finds them, and one that finds what that left
)


@dataclass(frozen=True)
class Requests:
    """What a run asks the allocator for, bytes each: `weights` of base and adapter and what else stays, the
    `gradients` where a step finds them (`kept` from step to step), and the requests of a micro-step, of the update,
    and of an evaluation."""

    weights: tuple[int, ...]
    gradients: tuple[int, ...]
    kept: bool
    step: tuple[Request, ...]
    update: Update
    evaluation: tuple[Request, ...] = ()
    expandable: bool = False


class _Card:
    """An allocator, and the blocks that it gave out by their names."""

    def __init__(self, expandable: bool, room: int) -> None:
        self.allocator = CachingAllocator(room, expandable=expandable)
        self.at: dict[Name, Block] = {}

    def take(self, sizes: Iterable[int]) -> list[Block]:
        """A block of each size."""
        return [self.allocator.take(size) for size in sizes]

    def give(self, blocks: Iterable[Block]) -> None:
        """These blocks are free."""
        for block in blocks:
            self.allocator.give(block)

    def play(self, requests: Sequence[Request]) -> None:
        """Requests as they come. Where one leaves a block in the place of an earlier one (a state made anew), it goes
        by that one's name from then on, so that the same requests can come again."""
        take, give, at = self.allocator.take, self.allocator.give, self.at
        came: dict[Name, None] = {}
        went: list[Name] = []
        for name, size in requests:
            if size:
                at[name] = take(size)
                came[name] = None
            else:
                give(at.pop(name))
                if name in came:
                    del came[name]
                else:
                    went.append(name)
        at |= {old: at.pop(new) for old, new in zip(went, came, strict=False)}

    def left(self, before: set[Name]) -> list[Block]:
        """Blocks that came since and are still there, which are no longer known by name."""
        return [self.at.pop(name) for name in list(self.at) if name not in before]


class Training:
    """A run on a card of `room` bytes, whose weights stand: optimizer steps, one after another, and an evaluation.
    Each raises OutOfMemoryError where the card does not serve it."""

    def __init__(self, found: Requests, room: int) -> None:
        self.found = found
        self.card = _Card(found.expandable, room)
        self.card.take((*found.weights, *found.update.apart))
        self.gradients: list[Block] = []
        self.steps = 0

    @property
    def allocator(self) -> CachingAllocator:
        """The card's."""
        return self.card.allocator

    def step(self, micro_steps: Callable[[], list[Block]]) -> None:
        """Micro-steps, which tell what they leave, the update, and the end of what they left."""
        found, card = self.found, self.card
        self.gradients = self.gradients or card.take(found.gradients)
        made = micro_steps()
        card.play(found.update.later if self.steps else found.update.first)
        self.steps += 1
        card.give(made)
        if not found.kept:
            card.give(self.gradients)
            self.gradients = []

    def passes(self, requests: Sequence[Request]) -> list[Block]:
        """Requests of a pass as they come; what is left of them, which is no longer known by name."""
        before = set(self.card.at)
        self.card.play(requests)
        return self.card.left(before)

    def evaluate(self) -> None:
        """An evaluation, where the run has one."""
        self.card.give(self.passes(self.found.evaluation))


def serves(found: Requests, room: int) -> bool:
    """Whether a card with so many bytes for torch's allocator serves these requests, given back what is free where it
    is full.

    Neglects what loading the model left free and other streams; of expandable segments, whose free pages go back one
    by one, nothing but what is allocated counts, to the page. Source: planner/simulate/allocator.py.
    """
    if found.expandable:
        return _played(found, ROOM).most_allocated <= room
    try:
        _played(found, room)
    except OutOfMemoryError:
        return False
    return True


def reserved_bytes(found: Requests) -> int:
    """The most that torch.cuda.max_memory_reserved would show on a card with room: of the weights and STEPS steps,
    each micro-step followed by the update and the gradients' end, and an evaluation behind them.

    Neglects what loading the model left free, and other streams. Source: planner/simulate/allocator.py.
    """
    return _played(found, ROOM).most_reserved


def _played(found: Requests, room: int) -> CachingAllocator:
    """The allocator of a card of so many bytes after all requests. Raises OutOfMemoryError."""
    training = Training(found, room)
    for _ in range(STEPS):
        training.step(lambda: training.passes(found.step))
    training.evaluate()
    return training.allocator
