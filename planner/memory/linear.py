"""Sizes that are linear in ranks: what a walk makes of pairs whose ranks are symbols.

A walk over such pairs gives every size as c0 + c1 r1 + c2 r2 ..., once for all ranks. Where the micro-batch is a
symbol too, `more` sequences beside so many, every size is (c0 + c1 r1 + ...) + more x (d0 + d1 r1 + ...).
Ranks and `more` are at least 1. What is compared has to come out alike at all of these: else a walk has to be made
for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add, mul
from typing import Any, NoReturn

EXACT_PARTS = 1024  # of a byte: floats of so many parts and below LARGEST add up exactly
LARGEST = 2.0**43


class NotLinearError(Exception):
    """A size that ranks enter otherwise, or a step that depends on them."""


class More(int):
    """Sequences of a micro-batch beside the fewest less one, in whose place a symbol stood."""


class AtPoints:
    """Some of the points, whose sizes are arrays (planner.search.points), and their `places` among all."""

    places: Any

    def beside(self, others: Sequence[Any]) -> AtPoints:
        """These and others of the same symbols."""
        raise NotImplementedError

    def stretch(self, part: Any) -> Any:
        """A stretch over symbols at every point."""
        raise NotImplementedError


class Points:
    """Ranks of one adapter's shape, each with all of these micro-batches."""

    batches: tuple[int, ...]

    def of(self, batches: tuple[int, ...], least: int) -> AtPoints:
        """Those of some micro-batches, of a walk for so many sequences and more; for one alone where that is 0."""
        raise NotImplementedError


class Joined:
    """Points of several jobs, whose steps go alike. `buffer`: what FSDP 2 reduces gradients in; `spread`: over how
    many GPUs gradients are."""

    buffer: Any
    spread: Mapping[str, Any]
    parts: Sequence[tuple[Any, Points]]

    def stretch(self, places: Sequence[Any], each: Sequence[Any]) -> Any:
        """Stretches at some of the places each as one."""
        raise NotImplementedError


Values = Sequence[int] | More | AtPoints  # what is put in the place of symbols


class Linear:
    """constant + sum of factors x symbols. The symbols are ranks; of what is `mixed` ranks, `more`, and `more` times
    each rank."""

    __slots__ = ("constant", "factors", "mixed")

    def __init__(self, constant: float, factors: tuple[float, ...], mixed: bool = False) -> None:
        self.constant = constant
        self.factors = factors
        self.mixed = mixed

    def __add__(self, other: Linear | float) -> Linear:
        if isinstance(other, Linear):
            factors = tuple(map(add, self.factors, other.factors))
            return Linear(self.constant + other.constant, factors, self.mixed)
        return Linear(self.constant + other, self.factors, self.mixed)

    __radd__ = __add__

    def __mul__(self, times: Linear | float) -> Linear:
        if isinstance(times, Linear):
            return self._product(times)
        return Linear(self.constant * times, tuple([factor * times for factor in self.factors]), self.mixed)

    __rmul__ = __mul__

    def _product(self, other: Linear) -> Linear:
        """Of what grows with the micro-batch alone and what grows with ranks alone."""
        place = len(self.factors) // 2
        for batch, ranks in ((self, other), (other, self)):
            each = batch.factors[place]
            if self.mixed and any(ranks.factors[:place]) and not any(ranks.factors[place:]):
                own = ranks.factors[:place]
                if not any((*batch.factors[:place], *batch.factors[place + 1 :])):
                    first = tuple(batch.constant * factor for factor in own)
                    further = (each * ranks.constant, *(each * factor for factor in own))
                    return Linear(batch.constant * ranks.constant, (*first, *further), True)
        raise NotLinearError

    def __neg__(self) -> Linear:
        return self * -1

    def __sub__(self, other: Linear | float) -> Linear:
        return self + -other

    def __rsub__(self, other: float) -> Linear:
        return -self + other

    def __floordiv__(self, by: int) -> Linear:
        if any(each % by for each in self.row):
            raise NotLinearError
        return Linear(self.constant // by, tuple(factor // by for factor in self.factors), self.mixed)

    def __bool__(self) -> bool:
        return bool(self.constant) or any(self.factors)

    def _sign(self) -> int:
        """1, 0 or -1 where it is above, at or below 0 at all values of the symbols."""
        end = self.constant + sum(self.factors)  # at the least values
        if all(factor >= 0 for factor in self.factors) and end > 0:
            return 1
        if all(factor <= 0 for factor in self.factors) and end < 0:
            return -1
        if self:
            raise NotLinearError
        return 0

    def __lt__(self, other: Linear | float) -> bool:
        return (self - other)._sign() < 0

    def __le__(self, other: Linear | float) -> bool:
        return (self - other)._sign() <= 0

    def __gt__(self, other: Linear | float) -> bool:
        return (self - other)._sign() > 0

    def __ge__(self, other: Linear | float) -> bool:
        return (self - other)._sign() >= 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Linear, int, float)):
            return NotImplemented
        return (self - other)._sign() == 0

    def _refuse(self, *_: object) -> NoReturn:
        raise NotLinearError

    __hash__ = __round__ = __int__ = __float__ = __index__ = _refuse
    __mod__ = __rmod__ = __truediv__ = __rtruediv__ = __rfloordiv__ = __pow__ = __abs__ = _refuse

    def at(self, values: Sequence[int] | More) -> Linear | float:
        """Its value at these ranks, or what it is in ranks at this micro-batch."""
        if isinstance(values, More):
            place = len(self.factors) // 2
            first, further = self.factors[:place], self.factors[place + 1 :]
            factors = tuple(a + values * b for a, b in zip(first, further, strict=True))
            constant = self.constant + values * self.factors[place]
            return Linear(constant, factors) if any(factors) else constant
        return sum(map(mul, self.factors, values), self.constant)

    @property
    def row(self) -> tuple[float, ...]:
        """The constant and the factors."""
        return (self.constant, *self.factors)


def is_exact(size: Linear | float) -> bool:
    """Whether sums of such sizes come out to the last bit in whatever order they are added."""
    if type(size) is int:
        return True
    for each in size.row if isinstance(size, Linear) else (size,):
        if type(each) is not int and not (
            isinstance(each, int) or (abs(each) < LARGEST and (each * EXACT_PARTS).is_integer())
        ):
            return False
    return True


def symbols(count: int, *, mixed: bool = False) -> list[Linear]:
    """So many ranks; with `mixed` `more` behind them, and what they are multiplied with it."""
    width = 2 * count + 1 if mixed else count
    return [
        Linear(0, tuple(int(i == own) for i in range(width)), mixed)
        for own in range(count + 1 if mixed else count)
    ]
