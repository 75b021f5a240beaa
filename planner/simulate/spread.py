"""Micro-steps whose samples are as long as data has them: the orders in which their lengths come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from ..dataclass import dataclass
from ..errors import InputError
from ..estimator import model_of, sequence_length
from ..given import OF_DATA, check_unread
from ..running import data_of
from ..samples import Samples
from ..schema import Architecture, Notice
from ..setup import Setup

ORDERS = 3  # shuffled ones, by seeds 0, 1, ...
MOST = 10_000  # micro-steps of an order, of a pass over the data


@dataclass(frozen=True)
class Spread:
    """Sequences of a pass by length in tokens, none longer than the set-up's."""

    lengths: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> int:
        """The greatest length."""
        return max(length for length, _ in self.lengths)

    def drawn(self, setup: Setup) -> list[list[int]]:
        """Lengths of micro-steps in each order: the longest of the sequences that a micro-step takes, of a pass over
        the shuffled data, of its first MOST and in whole optimizer steps. A last micro-step that is not full is left
        out, but where there is no other."""
        every = [length for length, count in self.lengths for _ in range(count)]
        found = []
        for seed in range(ORDERS):
            Random(seed).shuffle(shuffled := list(every))
            size = setup.sequences
            steps = [max(shuffled[at : at + size]) for at in range(0, len(shuffled), size)]
            full = max(1, min(len(shuffled) // size, MOST))
            whole = max(setup.accumulation, full // setup.accumulation * setup.accumulation)
            found.append((steps * math.ceil(whole / len(steps)))[:whole])
        return found


def spread_of(samples: Samples, most: int) -> Spread:
    """The lengths of samples that were read, each cut to `most` tokens."""
    found: dict[int, int] = {}
    for length, count in (samples.lengths or {}).items():
        tokens = max(1, min(most, math.ceil(length * samples.unit)))
        found[tokens] = found.get(tokens, 0) + count
    return Spread(tuple(sorted(found.items())))


def lengths_of(options: dict[str, Any], arch: Architecture) -> tuple[Spread | None, tuple[Notice, ...]]:
    """The lengths of the data that options name, and what to say of them; None without. The `options` then say that
    sequences are padded, with lengths that vary, and are as long as the longest where they said nothing.

    Raises InputError where lengths do not count, of packed sequences, of completions, of images, and where an option
    says how data are read that are not there.
    """
    if options["data"] is None:
        check_unread(options)
        return None, ()
    for field, wrong in (("packing", "packed"), ("packing", "full"), ("objective", "grpo")):
        if options[field] == wrong:
            expected = "padded" if field == "packing" else "sft, dpo, orpo or kto"
            raise InputError(field, wrong, f"{expected} with --data, whose lengths it is about")
    if options["images"]:
        raise InputError("images", options["images"], "none with --data: images are part of lengths")
    limit = sequence_length(arch, options["seq_len"])
    read = data_of(model_of(options), _of_data(options), limit)
    samples = None if read is None else read.samples
    if read is None or samples is None or not samples.lengths:
        raise InputError("data", options["data"], "supervised samples or pairs, whose lengths can be read")
    most = limit if options["seq_len"] else arch.max_position or 2**31
    spread = spread_of(samples, most)
    options.update(packing="padded", lengths_vary=True, seq_len=spread.longest)
    return spread, read.notices


def _of_data(options: Mapping[str, Any]) -> dict[str, Any]:
    names = ("data", *OF_DATA, "batch", "seq_len")
    return {name: options[name] for name in names}
