"""Samples that are padded, not packed: how many steps they make, and how long their sequences are.

    steps  = ceil(samples x epochs / samples of a step)
    length = E[longest sequence of a micro-step], each cut to the length that is asked for

The mean stands for lengths that nobody counted, which leaves padding out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .dataclass import dataclass

if TYPE_CHECKING:
    from .given import Given

MOST_SEQUENCES = 256  # of a micro-step, of which records are told apart


@dataclass(frozen=True)
class Samples:
    """`count` samples of a pass, of sequences of `mean` tokens. `lengths` counts sequences by length where they were
    read, in units of so many tokens (1 where a tokenizer counted)."""

    count: int
    mean: float
    lengths: Mapping[int, int] | None = None
    unit: float = 1.0

    def padded(self, sequences: int, seq_len: int) -> int:
        """Tokens of a sequence in micro-steps of so many, each padded to its longest, on average; the mean length
        where lengths are not known."""
        if self.lengths is None or not self.mean:
            return max(1, min(seq_len, round(self.mean)))
        from .dataset.lengths import capped, expected_longest

        limit = math.ceil(seq_len / self.unit)
        longest = expected_longest(capped(self.lengths, limit), sequences) * self.unit
        return max(1, min(seq_len, math.ceil(longest)))

    def records(self, seq_len: int) -> tuple[float, ...]:
        """`dataset.lengths.records` of these samples, each cut to `seq_len` tokens, in micro-steps of 1, 2, 4, ... up
        to MOST_SEQUENCES; none where lengths are not known."""
        if not self.lengths:
            return ()
        from .dataset.lengths import capped, records

        counts = capped(self.lengths, math.ceil(seq_len / self.unit))
        return tuple(records(counts, 2**power) for power in range(MOST_SEQUENCES.bit_length()))

    def steps(self, epochs: int, batch: int) -> int:
        """Optimizer steps of `batch` samples each."""
        return max(1, math.ceil(self.count * epochs / batch))


def samples_of(given: Given) -> Samples | None:
    """The samples of supervised data or of preferences; None where nobody counted them, and of rollouts."""
    if given.info is None or given.info.kind == "rl":
        return None
    total = given.total_tokens or given.info.units
    if given.report is not None:
        report, counts = given.report, given.report.histogram
        units = sum(length * count for length, count in (counts or {}).items())
        unit = report.tokens.value / units if units else 1.0
        return Samples(report.examples, total / max(1, report.sequences), counts or None, unit)
    if given.fact is None or not given.fact.examples:
        return None
    return Samples(given.fact.examples, total / given.fact.examples)
