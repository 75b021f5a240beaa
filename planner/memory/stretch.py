"""What a stretch of a tape does to memory: how much is left at its end, and the highest point, by part and name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import field
from itertools import zip_longest
from operator import add, le, neg

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
    """`change` from beginning to end and the `highest` point above the beginning, both by label."""

    change: Held = field(default_factory=dict)
    highest: Held = field(default_factory=dict)


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
    if not all(map(is_exact, tape.sizes)):
        raise NotLinearError
    some = next(size for size in tape.sizes if isinstance(size, Linear))
    count, mixed = len(some.factors), some.mixed
    rows = [size.row if isinstance(size, Linear) else (size, *count * (0,)) for size in tape.sizes]
    level: Row = (count + 1) * (0,)
    held: dict[str, Row] = {}
    tops: list[tuple[Row, dict[str, Row]]] = [(level, {})]
    for event in tape.events[start:end]:
        index = event if event >= 0 else ~event
        if left_out and index in left_out:
            continue
        row, label = rows[index], tape.labels[index] or "temporary"
        if event < 0:
            row = tuple(map(neg, row))
        level = tuple(map(add, level, row))
        held[label] = tuple(map(add, held[label], row)) if label in held else row
        if event >= 0 and not any(all(map(le, level, top)) for top, _ in tops):
            tops = [(top, then) for top, then in tops if not all(map(le, top, level))]
            tops.append((level, dict(held)))
    return Stretch(_sizes(held, mixed), Peaks([_sizes(then, mixed) for _, then in tops]))


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
