"""What a stretch of a tape does to memory: how much is left at its end, and the highest point, by part and name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import field
from itertools import zip_longest
from typing import Any

from ..dataclass import dataclass
from .linear import EXACT_PARTS, AtPoints, Linear, More, NotLinearError, Values, is_exact
from .tape import Size, Tape

Held = dict[str, Size]  # bytes by label
Row = tuple[float, ...]  # of a size that is linear in symbols: its constant and its factors
LANE = 96  # bits of a number among several that are packed into one
HALF_LANE, FULL_LANE = 1 << (LANE - 1), (1 << LANE) - 1
MOST = 2.0**64  # bytes: of so many a hundred thousand still add up within a quarter of a lane


class Peaks(Held):
    """What may be the highest point where ranks are symbols, in order of time: one is, at any ranks."""

    def __init__(self, each: list[Held]) -> None:
        super().__init__()
        self.each = each


@dataclass
class Stretch:
    """`change` from beginning to end and the `highest` point above the beginning, both by label; `arrays` is both as
    who evaluates a finished one at many points has them."""

    change: Held = field(default_factory=dict)
    highest: Held = field(default_factory=dict)
    arrays: Any = field(default=None, compare=False, repr=False)


def plus(a: Held, b: Held, sign: int = 1) -> Held:
    """a + b, or a - b."""
    if isinstance(a, Peaks):
        return Peaks([plus(each, b, sign) for each in a.each])
    total = dict(a)
    for label, size in b.items():
        total[label] = total.get(label, 0) + sign * size
    return total


def stretch(
    tape: Tape, start: int, end: int, *, skip: tuple[int, int] = (0, 0), first: tuple[int, int, int] = (0, 0, 0),
    waits: bool = False,
) -> Stretch:  # fmt: skip
    """The events from `start` to `end`; buffers that come between the two positions of `skip` are left out
    (what early-stopped recomputation never reaches), and events between the last two positions of `first` come at
    the first one. `waits`: gradients that the tape lets go stay."""
    events = _events(tape, start, end, skip, first, waits)
    sizes = tape.sizes
    if Linear in map(type, sizes):
        return _over_ranks(tape, events)
    level: Size = 0
    top: Size = 0
    at = -1
    for position, event in enumerate(events):
        if event >= 0:
            level += sizes[event]
            if level > top:
                top, at = level, position
        else:
            level -= sizes[~event]
    return Stretch(_by_label(tape, events), _by_label(tape, events[: at + 1]))


def _events(
    tape: Tape, start: int, end: int, skip: tuple[int, int], first: tuple[int, int, int], waits: bool
) -> list[int]:
    """What comes (a buffer's number) and goes (its complement)."""
    at, low, high = first
    events = tape.events[start:end]
    if high:
        events = tape.events[start:at] + tape.events[low:high] + tape.events[at:low] + tape.events[high:end]
    out = {event for event in tape.events[skip[0] : skip[1]] if event >= 0} if skip[1] else set()
    out |= {~event for event in out}
    if waits:
        out |= {~index for index in tape.let_go}
    return [event for event in events if event not in out] if out else events


def _over_ranks(tape: Tape, events: list[int]) -> Stretch:
    """The same where sizes are linear in symbols: the points that are the highest at some of their values."""
    some = next(size for size in tape.sizes if isinstance(size, Linear))
    width = 1 + len(some.factors)
    packed = _packed(tape)
    marks = [*_tops(packed, tape.falling, events, width), len(events)]
    *tops, last = (_sizes(held, width, some.mixed) for held in _held_at(tape, packed, events, marks))
    return Stretch(last, Peaks(tops))


def _packed(tape: Tape) -> list[int]:
    """A tape's sizes, each as one whole number in which its constant and its factors have LANE bits each: numbers
    that are added up many times are one addition each. Raises NotLinearError where sums of them do not add up
    exactly."""
    start = len(tape.packed)
    for number, size in enumerate(tape.sizes[start:], start):
        if type(size) is int and 0 <= size < MOST:  # most are
            tape.packed.append(size * EXACT_PARTS)
            continue
        row = size.row if isinstance(size, Linear) else (size,)
        if not is_exact(size):
            raise NotLinearError
        if min(row) < 0:
            tape.falling.add(number)
        tape.packed.append(packed(row))
    return tape.packed


def packed(row: Row) -> int:
    """A row as one number, in parts of a byte. Raises NotLinearError where it is so large that sums of many might not
    stay apart."""
    found = 0
    for place, each in enumerate(row):
        if each:
            if not -MOST < each < MOST:
                raise NotLinearError
            found += int(each * EXACT_PARTS) << (LANE * place)
    return found


def unpacked(number: int, width: int) -> Row:
    """The row of so many places that a number, or a sum of them, is made of: its lowest LANE bits with their sign,
    and so on; whole bytes as such."""
    row: list[float] = []
    while number and len(row) < width:
        low = ((number + HALF_LANE) & FULL_LANE) - HALF_LANE
        row.append(low // EXACT_PARTS if low % EXACT_PARTS == 0 else low / EXACT_PARTS)
        number = (number - low) >> LANE
    return (*row, *(width - len(row)) * (0,))


def _tops(packed: list[int], falling: Collection[int], events: list[int], width: int) -> list[int]:
    """The positions before which it is highest at some values of the symbols, in order of time: ends of rises that no
    other is above, whatever the values. What comes of `falling` size is none."""
    guards = sum(HALF_LANE << (LANE * place) for place in range(width))
    raised = guards >> 1  # what makes every coefficient one above 0, below its guard
    tops = [(raised, 0)]

    def ended(level: int, at: int) -> None:
        """Each difference of coefficients takes the guard above it where it is below 0."""
        new = level + raised
        if not any(((top | guards) - new) & guards == guards for top, _ in tops):
            tops[:] = [(top, place) for top, place in tops if ((new | guards) - top) & guards != guards]
            tops.append((new, at))

    level, rising = 0, False
    for position, event in enumerate(events):
        if event >= 0:
            if rising and event in falling:
                ended(level, position)
            level += packed[event]
            rising = True
        else:
            if rising:
                ended(level, position)
            level -= packed[~event]
            rising = False
    if rising:
        ended(level, len(events))
    return [place for _, place in tops]


def _held_at(
    tape: Tape, packed: list[int], events: list[int], marks: Sequence[int]
) -> Iterator[dict[str, int]]:
    """What is held before each of some positions, in order, by label."""
    labels, held, position = tape.labels, dict[str, int](), 0
    for mark in marks:
        for event in events[position:mark]:
            if event >= 0:
                label = labels[event] or "temporary"
                held[label] = held.get(label, 0) + packed[event]
            else:
                label = labels[~event] or "temporary"
                held[label] = held.get(label, 0) - packed[~event]
        position = mark
        yield held


def _sizes(held: dict[str, int], width: int, mixed: bool) -> Held:
    """Packed sums as sizes, those of nothing left out."""
    found: Held = {}
    for label, number in held.items():
        if number:
            constant, *factors = unpacked(number, width)
            found[label] = Linear(constant, tuple(factors), mixed) if any(factors) else constant
    return found


def at_values(part: Stretch, values: Values) -> Stretch:
    """A stretch over symbols at these ranks, at many points, or over ranks at this micro-batch."""
    if isinstance(values, AtPoints):
        found: Stretch = values.stretch(part)
        return found
    change, highest = _at(part.change, values), part.highest
    if isinstance(highest, Peaks):
        each = [_at(then, values) for then in highest.each]
        highest = Peaks(_highest(each)) if isinstance(values, More) else max(each, key=_total)
    return Stretch(change, highest)


def _at(held: Held, values: Sequence[int] | More) -> Held:
    return {label: size.at(values) if type(size) is Linear else size for label, size in held.items()}


def _total(held: Held) -> Size:
    return sum(held.values())


def _highest(each: list[Held]) -> list[Held]:
    """Those of points, in order of time, that are the highest at some ranks."""
    tops: list[tuple[Row, Held]] = []
    for held in each:
        total = _total(held)
        row = total.row if isinstance(total, Linear) else (total,)
        if not any(_within(row, top) for top, _ in tops):
            tops = [(top, then) for top, then in tops if not _within(top, row)]
            tops.append((row, held))
    return [held for _, held in tops]


def _within(low: Row, high: Row) -> bool:
    """Whether no coefficient is above the other's; what has none has 0."""
    return all(a <= b for a, b in zip_longest(low, high, fillvalue=0))


def _by_label(tape: Tape, events: list[int]) -> Held:
    """Bytes that came less those that went, by label; what has none is a temporary."""
    found: Held = {}
    sizes, labels = tape.sizes, tape.labels
    for event in events:
        index = event if event >= 0 else ~event
        label = labels[index] or "temporary"
        found[label] = found.get(label, 0) + (sizes[index] if event >= 0 else -sizes[index])
    return {label: size for label, size in found.items() if size}


def label_kept(tape: Tape, label: str, also: str | None = None) -> None:
    """Everything that is alive and has no label yet, or the label `also`, is kept for the backward pass."""
    alive: set[int] = set()
    for event in tape.events:
        if event >= 0:
            alive.add(event)
        else:
            alive.discard(~event)
    for index in alive:
        if tape.labels[index] in (None, also):
            tape.labels[index] = label
