"""Lengths of examples: percentiles, what a maximum length cuts off, and how full batches and packed sequences are."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

Histogram = Mapping[int, int]


@dataclass(frozen=True)
class Percentiles:
    """Lengths in tokens: at least this share of examples is at most so long."""

    p50: int
    p90: int
    p99: int
    max: int


def percentile(counts: Histogram, share: float) -> int:
    """The smallest length that at least `share` of the examples do not exceed (the nearest rank)."""
    total = sum(counts.values())
    wanted = max(1, -(-total * share // 1))
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= wanted:
            return length
    return 0


def percentiles(counts: Histogram) -> Percentiles:
    """The usual four."""
    p50, p90, p99 = (percentile(counts, share) for share in (0.5, 0.9, 0.99))
    return Percentiles(p50, p90, p99, max(counts, default=0))


def capped(counts: Histogram, seq_len: int | None) -> dict[int, int]:
    """The histogram with every longer example cut to `seq_len`."""
    if seq_len is None:
        return dict(counts)
    found: dict[int, int] = {}
    for length, count in counts.items():
        found[min(length, seq_len)] = found.get(min(length, seq_len), 0) + count
    return found


def expected_longest(counts: Histogram, batch: int) -> float:
    """The mean length of the longest of `batch` examples drawn at random: sum over n of 1 - F(n)^batch, F the share
    of examples of at most n tokens."""
    total, found, seen, before = sum(counts.values()), 0.0, 0, 0
    for length in sorted(counts):
        found += (length - before) * (1 - (seen / total) ** batch)
        seen, before = seen + counts[length], length
    return found


def records(counts: Histogram, batch: int) -> float:
    """How many times the longest is held by lengths that were each the longest so far, but for the last: the sum over
    lengths n below the longest L of n / L x p(n) / (p(n) + P(longer)), which is E of what stands if no block of one
    such length serves another. p is the chance that the longest of `batch` examples drawn at random has n tokens;
    that length is a record where it comes before all that are longer.

    Neglects that a pass has so many micro-steps and no more.
    """
    total, longest = sum(counts.values()), max(counts, default=0)
    found, longer, rest = 0.0, 0.0, total
    for length in sorted(counts, reverse=True):
        own = (rest / total) ** batch
        rest -= counts[length]
        chance = own - (rest / total) ** batch
        if longer and chance:
            found += length / longest * chance / (chance + longer)
        longer += chance
    return found


def padding_efficiency(counts: Histogram, batch: int) -> float:
    """Tokens over all places of batches of `batch` examples drawn at random and padded to their longest.

    mean length / E[longest of batch]. Neglects that the last batch may be smaller.
    """
    tokens = sum(length * count for length, count in counts.items())
    return tokens / sum(counts.values()) / expected_longest(counts, batch) if tokens else 1.0


def packed_sequences(counts: Histogram, seq_len: int) -> int:
    """Sequences of `seq_len` that hold all examples (cut to it), each where it leaves the least room: the longest
    first (best fit, decreasing), examples of one length together."""
    room: dict[int, int] = {}  # room left -> sequences that have it
    order: list[int] = []  # the rooms, sorted
    sequences = 0

    def put(left: int, count: int) -> None:
        if left in room:
            room[left] += count
        elif left:
            room[left] = count
            bisect.insort(order, left)

    short = capped(counts, seq_len)
    for length in sorted(short, reverse=True):
        count = short[length]
        if length == 0:
            continue
        while count:
            at = bisect.bisect_left(order, length)
            if at == len(order):
                each = seq_len // length
                full, rest = divmod(count, each)
                sequences += full + bool(rest)
                put(seq_len - each * length, full)
                if rest:
                    put(seq_len - rest * length, 1)
                break
            left = order[at]
            used = min(count, room[left])
            room[left] -= used
            if not room[left]:
                del room[left], order[at]
            put(left - length, used)
            count -= used
    return sequences


def packing_efficiency(counts: Histogram, seq_len: int) -> float:
    """Tokens over all places of packed sequences, examples over `seq_len` cut to it."""
    tokens = sum(length * count for length, count in capped(counts, seq_len).items())
    sequences = packed_sequences(counts, seq_len)
    return tokens / (sequences * seq_len) if sequences else 1.0
