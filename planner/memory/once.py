"""What is made once for all set-ups that are alike in what is read of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")
MOST = 256


class Once(Generic[Found]):
    """`make(*given)`, made anew only where what it reads of them (`seen`) is new."""

    def __init__(self, make: Callable[..., Found], seen: Callable[..., tuple[Hashable, ...]]) -> None:
        self._make, self._seen = make, seen
        self.__doc__ = make.__doc__

        @lru_cache(maxsize=MOST)
        def place(*_: Hashable) -> list[Found]:
            return []

        self._place, self.cache_clear = place, place.cache_clear

    def __call__(self, *given: Any) -> Found:
        """What was made of these, or of others that are alike."""
        place = self._place(*self._seen(*given))
        if not place:
            place.append(self._make(*given))
        return place[0]


def once(seen: Callable[..., tuple[Hashable, ...]]) -> Callable[[Callable[..., Found]], Once[Found]]:
    """Have a function run once for all that is alike in what it reads (`seen`, of the same arguments)."""
    return lambda make: Once(make, seen)
