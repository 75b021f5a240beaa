"""The requests of a step at any length, from steps that were recorded at a few.

Nothing here knows torch. Most blocks grow in a straight line with the length, scores of attention with its square: a
parabola through three lengths gives both exactly. Where the requests of two lengths are not the same ones in the same
order (a loss in pieces, of which there are more), what lies between is recorded too, until each stretch has one, or
else all that is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..dataclass import dataclass
from ..memory.bias import ALIGNED
from .requests import Request
from .timeline import IrregularError

MOST_RUNS = 16  # steps that are recorded at the most of those aligned alike, of a few tenths of a second each
MOST_EACH = 80  # and where each tells of itself alone
NEAR = 5e-3  # of all bytes: how near to what is recorded a parabola must come where it is not a straight line


@dataclass(frozen=True)
class Recorded:
    """A micro-step of one length: `order` has n where its nth block comes and ~n where that goes, `sizes` its blocks'
    bytes."""

    order: tuple[int, ...]
    sizes: tuple[int, ...]


def aligned(length: int) -> bool:
    """Whether rows of a mask are as attention wants them."""
    return length % ALIGNED == 0


def recorded(requests: Iterable[Request]) -> Recorded:
    """Requests by number in place of names. Raises IrregularError where one frees what it did not make."""
    known: dict[object, int] = {}
    order: list[int] = []
    sizes: list[int] = []
    for name, size in requests:
        if size:
            known[name] = len(sizes)
            order.append(len(sizes))
            sizes.append(size)
        elif name in known:
            order.append(~known.pop(name))
        else:
            raise IrregularError(f"a step frees {name}, which it did not make")
    return Recorded(tuple(order), tuple(sizes))


class _Stretch:
    """Lengths between which requests keep their order, and the parabola of every block's bytes through three."""

    def __init__(self, found: Sequence[tuple[int, Recorded]]) -> None:
        self.lengths = [length for length, _ in found]
        self.order = found[0][1].order
        self.sizes = np.array([each.sizes for _, each in found], dtype=np.float64)

    def at(self, length: int) -> Recorded:
        """The step of a length: sum over the recorded ones l of bytes(l) x product of (length - m) / (l - m), m the
        others (Lagrange)."""
        weights = [
            np.prod([(length - other) / (one - other) for other in self.lengths if other != one])
            for one in self.lengths
        ]
        return Recorded(self.order, tuple(np.rint(np.array(weights) @ self.sizes).astype(np.int64).tolist()))

    def straight(self) -> bool:
        """Whether every block of three lengths lies on the line of the outer two."""
        (low, middle, high), (first, second, third) = self.lengths, self.sizes
        return bool(np.all((second - first) * (high - low) == (third - first) * (middle - low)))


class Between:
    """Steps of all `lengths`, of which `run` records those that are needed. Lengths that are multiples of ALIGNED and
    those that are not are told apart: attention copies a mask of the latter to rows that are.

    Raises IrregularError where MOST_RUNS do not tell the others.
    """

    def __init__(self, run: Callable[[int], Recorded], lengths: Iterable[int]) -> None:
        self.lengths = sorted(set(lengths))
        kinds: dict[bool, list[int]] = {}
        for length in self.lengths:
            kinds.setdefault(aligned(length), []).append(length)
        self._alike = {kind: _Alike(run, found) for kind, found in kinds.items()}

    @property
    def runs(self) -> int:
        """Steps that were recorded."""
        return sum(len(alike.runs) for alike in self._alike.values())

    def at(self, length: int) -> Recorded:
        """The step of one of the lengths."""
        return self._alike[aligned(length)].at(length)


class Each:
    """Steps of the lengths that are asked for, each as it is recorded: where a few do not tell the others.

    Raises IrregularError where more than MOST_EACH are.
    """

    def __init__(self, run: Callable[[int], Recorded], lengths: Iterable[int]) -> None:
        self.lengths = sorted(set(lengths))
        self.run = run
        self._known: dict[int, Recorded] = {}

    @property
    def runs(self) -> int:
        """Steps that were recorded."""
        return len(self._known)

    def at(self, length: int) -> Recorded:
        """The step of a length."""
        if length not in self._known:
            if len(self._known) >= MOST_EACH:
                raise IrregularError("too many lengths are longer than all before them")
            self._known[length] = self.run(length)
        return self._known[length]

    def near(self, length: int) -> Recorded:
        """The step of a length, or of the nearest that was recorded and is aligned alike, where one was."""
        like = [known for known in self._known if aligned(known) == aligned(length)]
        return self.at(min(like, key=lambda known: abs(known - length), default=length))


class _Alike:
    """Steps of lengths that are aligned alike."""

    def __init__(self, run: Callable[[int], Recorded], lengths: list[int]) -> None:
        self.run = run
        self.lengths = lengths
        self.runs: dict[int, Recorded] = {}
        self._stretches: list[tuple[int, _Stretch]] = []  # by their last lengths, in order
        self._known: dict[int, Recorded] = {}
        self._solve(0, len(self.lengths) - 1)
        self._ends = [last for last, _ in self._stretches]

    def at(self, length: int) -> Recorded:
        """The step of one of the lengths."""
        if length not in self._known:
            stretch = self._stretches[bisect_left(self._ends, length)][1]
            self._known[length] = self.runs.get(length) or stretch.at(length)
        return self._known[length]

    def _run(self, index: int) -> tuple[int, Recorded]:
        length = self.lengths[index]
        if length not in self.runs:
            if len(self.runs) >= MOST_RUNS:
                raise IrregularError("the requests of many lengths differ in their order or number")
            self.runs[length] = self.run(length)
        return length, self.runs[length]

    def _middle(self, low: int, high: int) -> int:
        """The index of a length between two others, near the mean of both."""
        mean = (self.lengths[low] + self.lengths[high]) // 2
        return min(max(bisect_left(self.lengths, mean), low + 1), high - 1)

    def _solve(self, low: int, high: int) -> None:
        """Stretches from one index to another, both among them."""
        if high - low < 2:
            for index in dict.fromkeys((low, high)):
                self._add(index, _Stretch([self._run(index)]))
            return
        middle = self._middle(low, high)
        ends = self._run(low), self._run(high)
        found = [ends[0], self._run(middle), ends[1]]
        if len({each.order for _, each in found}) == 1:
            stretch = _Stretch(found)
            if stretch.straight() or self._holds(stretch, low, middle, high):
                self._add(high, stretch)
                return
        self._solve(low, middle)
        self._solve(middle, high)

    def _holds(self, stretch: _Stretch, low: int, middle: int, high: int) -> bool:
        """Whether a parabola gives what is recorded at a fourth length, in the wider half."""
        wide = (low, middle) if middle - low > high - middle else (middle, high)
        if wide[1] - wide[0] < 2:
            return True
        length, found = self._run(self._middle(*wide))
        if found.order != stretch.order:
            return False
        sizes = np.array(found.sizes)
        return bool(np.abs(sizes - stretch.at(length).sizes).sum() <= NEAR * sizes.sum())

    def _add(self, index: int, stretch: _Stretch) -> None:
        last = self.lengths[index]
        if not self._stretches or self._stretches[-1][0] < last:
            self._stretches.append((last, stretch))
