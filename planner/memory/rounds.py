"""Layers in rounds: an order of kinds that repeats (all alike, or five of one and one of another) taken together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

LONGEST = 12  # layers of a round
FEWEST = 3  # rounds, below which nothing is gained

Layer = tuple[str, int]  # its place, and which kind it is
Round = tuple[Layer, ...]


@lru_cache(maxsize=512)
def in_rounds(order: tuple[Layer, ...]) -> tuple[tuple[Round, ...], ...]:
    """The layers in their order, cut into stretches of rounds that are alike; what repeats too seldom is a stretch of
    one round."""
    kinds = [kind for _, kind in order]
    found: list[tuple[Round, ...]] = []
    start = 0
    while start < len(order):
        length, count = _best(kinds, start)
        rounds = tuple(
            order[begin : begin + length] for begin in range(start, start + length * count, length)
        )
        found.append(rounds)
        start += length * count
    return tuple(found)


def _best(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """The length and the number of rounds from here that cover most layers, the shortest of equals."""
    best = (1, 1)
    for length in range(1, LONGEST + 1):
        first, count = kinds[start : start + length], 1
        while kinds[start + length * count : start + length * (count + 1)] == first:
            count += 1
        if count >= FEWEST and length * count > best[0] * best[1]:
            best = (length, count)
    return best
