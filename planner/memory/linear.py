"""Sizes that are linear in ranks: what a walk makes of pairs whose ranks are symbols.

A walk over such pairs gives every size as c0 + c1 r1 + c2 r2 ..., once for all ranks. Nothing may compare these:
where that is tried, a walk has to be made for each rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, mul
from typing import NoReturn

EXACT_PARTS = 1024  # of a byte: floats of so many parts and below LARGEST add up exactly
LARGEST = 2.0**43


class NotLinearError(Exception):
    """A size that ranks enter otherwise, or a step that depends on them."""


class Linear:
    """constant + sum of factors x ranks."""

    __slots__ = ("constant", "factors")

    def __init__(self, constant: float, factors: tuple[float, ...]) -> None:
        self.constant = constant
        self.factors = factors

    def __add__(self, other: Linear | float) -> Linear:
        if isinstance(other, Linear):
            return Linear(self.constant + other.constant, tuple(map(add, self.factors, other.factors)))
        return Linear(self.constant + other, self.factors)

    __radd__ = __add__

    def __mul__(self, times: Linear | float) -> Linear:
        if isinstance(times, Linear):
            raise NotLinearError
        return Linear(self.constant * times, tuple(factor * times for factor in self.factors))

    __rmul__ = __mul__

    def __neg__(self) -> Linear:
        return self * -1

    def __sub__(self, other: Linear | float) -> Linear:
        return self + -other

    def __rsub__(self, other: float) -> Linear:
        return -self + other

    def __bool__(self) -> bool:
        return bool(self.constant) or any(self.factors)

    def _compare(self, other: object) -> NoReturn:
        raise NotLinearError

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def __round__(self) -> NoReturn:
        raise NotLinearError

    def at(self, ranks: Sequence[int]) -> float:
        """Its value at these ranks."""
        return sum(map(mul, self.factors, ranks), self.constant)

    @property
    def row(self) -> tuple[float, ...]:
        """The constant and the factors."""
        return (self.constant, *self.factors)


def is_exact(size: Linear | float) -> bool:
    """Whether sums of such sizes come out to the last bit in whatever order they are added."""
    parts = (size.constant, *size.factors) if isinstance(size, Linear) else (size,)
    return all(
        isinstance(each, int) or (abs(each) < LARGEST and (each * EXACT_PARTS).is_integer()) for each in parts
    )


def symbols(count: int) -> list[Linear]:
    """So many ranks."""
    return [Linear(0, tuple(int(i == own) for i in range(count))) for own in range(count)]
