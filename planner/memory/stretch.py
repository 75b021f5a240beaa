"""What a stretch of a tape does to memory: how much is left at its end, and the highest point, by part and name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field
from itertools import zip_longest
from operator import add, le, sub
from typing import Any

from ..dataclass import dataclass
from .linear import AtPoints, Linear, More, NotLinearError, Values, is_exact
from .tape import Size, Tape

Held = dict[str, Size]  # bytes by label
Row = tuple[float, ...]  # of a size that is linear in symbols: its constant and its factors


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


def stretch(tape: Tape, start: int, end: int, *, skip: tuple[int, int] = (0, 0)) -> Stretch:
    """The events from `start` to `end`; buffers that come between the two positions of `skip` are left out
    (what early-stopped recomputation never reaches)."""
    sizes, events = tape.sizes, tape.events
    left_out: Collection[int] = {e for e in events[skip[0] : skip[1]] if e >= 0} if skip[1] else ()
    if Linear in map(type, sizes):
        return _over_ranks(tape, start, end, left_out)
    level: Size = 0
    top: Size = 0
    at = start - 1
    for position in range(start, end):
        event = events[position]
        if event >= 0:
            if left_out and event in left_out:
                continue
            level += sizes[event]
            if level > top:
                top, at = level, position
        elif not left_out or ~event not in left_out:
            level -= sizes[~event]
    return Stretch(_by_label(tape, start, end, left_out), _by_label(tape, start, at + 1, left_out))


def _over_ranks(tape: Tape, start: int, end: int, left_out: Collection[int]) -> Stretch:
    """The same where sizes are linear in symbols: the points that are the highest at some of their values."""
    rows = _rows(tape)
    marks = [*_tops(tape, rows, start, end, left_out), end]
    *tops, last = _held_at(tape, rows, start, marks, left_out)
    mixed = next(size.mixed for size in tape.sizes if isinstance(size, Linear))
    return Stretch(_sizes(last, mixed), Peaks([_sizes(then, mixed) for then in tops]))


def _rows(tape: Tape) -> list[Row]:
    """The rows of a tape's sizes, those made anew that are not there yet. Raises NotLinearError where sums of them do
    not add up exactly."""
    more = tape.sizes[len(tape.rows) :]
    if not all(map(is_exact, more)):
        raise NotLinearError
    count = next(len(size.factors) for size in tape.sizes if isinstance(size, Linear))
    none = count * (0,)
    tape.rows += [size.row if isinstance(size, Linear) else (size, *none) for size in more]
    return tape.rows


def _tops(tape: Tape, rows: list[Row], start: int, end: int, left_out: Collection[int]) -> list[int]:
    """The positions before which it is highest at some values of the symbols, in order of time: ends of rises that no
    other is above, whatever the values."""
    level = len(rows[0]) * (0,)
    tops: list[tuple[Row, int]] = [(level, start)]

    def ended(at: int) -> None:
        if not any(all(map(le, level, top)) for top, _ in tops):
            tops[:] = [(top, place) for top, place in tops if not all(map(le, top, level))]
            tops.append((level, at))

    rising = False
    for position in range(start, end):
        event = tape.events[position]
        index = event if event >= 0 else ~event
        if left_out and index in left_out:
            continue
        row = rows[index]
        if rising and (event < 0 or min(row) < 0):
            ended(position)
        level = tuple(map(add if event >= 0 else sub, level, row))
        rising = event >= 0
    if rising:
        ended(end)
    return [place for _, place in tops]


def _held_at(
    tape: Tape, rows: list[Row], start: int, marks: Sequence[int], left_out: Collection[int]
) -> list[dict[str, Row]]:
    """What is held before each of some positions, in order, by label."""
    found: list[dict[str, Row]] = []
    there: dict[int, int] = {}  # 1 for what came, -1 for what went of what was there before
    labels: dict[str, None] = {}
    position = start
    for mark in marks:
        for event in tape.events[position:mark]:
            index = event if event >= 0 else ~event
            if left_out and index in left_out:
                continue
            labels.setdefault(tape.labels[index] or "temporary")
            if event < 0 and index in there:
                del there[index]
            else:
                there[index] = 1 if event >= 0 else -1
        position = mark
        held: dict[str, Row] = dict.fromkeys(labels, len(rows[0]) * (0,))
        for index, sign in there.items():
            label = tape.labels[index] or "temporary"
            held[label] = tuple(map(add if sign > 0 else sub, held[label], rows[index]))
        found.append(held)
    return found


def _sizes(held: dict[str, Row], mixed: bool) -> Held:
    """Rows of constants and factors as sizes, those of nothing left out."""
    return {
        label: Linear(row[0], row[1:], mixed) if any(row[1:]) else row[0]
        for label, row in held.items()
        if any(row)
    }


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


def _by_label(tape: Tape, start: int, end: int, left_out: Collection[int]) -> Held:
    """Bytes that came less those that went, by label; what has none is a temporary."""
    found: Held = {}
    sizes, labels = tape.sizes, tape.labels
    for event in tape.events[start:end]:
        index = event if event >= 0 else ~event
        if left_out and index in left_out:
            continue
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
