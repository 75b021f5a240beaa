"""What lengths that vary leave reserved, by how they are spread: as an estimate has it from the data's lengths, and
by torch's allocator itself, which gets the requests of simulated micro-steps of those lengths in shuffled orders.

    python -m tools.lengths_kept Qwen/Qwen3-1.7B --seq-len 1024 --batch 4
    python -m tools.lengths_kept meta-llama/Llama-3.1-8B --checkpointing none --trainer trl-0.21

Both are told over what of the peak grows with the length (`varied_bytes`): `KEPT_OF_RECORDS` rests on these.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from planner.adapter import AdapterSpec
from planner.estimator import load
from planner.memory.constants import constants
from planner.memory.overhead import times_kept
from planner.pacing import by_data
from planner.running import running
from planner.samples import Samples
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.simulate.spread import Spread

SAMPLES = 1000
LEAST = 16


@dataclass(frozen=True)
class Kept:
    """How many times over what grows with the length is kept: `told` by an estimate, and of each order by the
    allocator."""

    told: float
    orders: tuple[float, ...]


def spreads(number: int, most: int, seed: int) -> dict[str, list[int]]:
    """Lengths of samples up to `most`: evenly spread; most of them short and one the longest; log-normal; near one
    length; and cut at the greatest, where three in ten are as long."""
    draw = np.random.default_rng(seed)
    short = np.minimum(1, draw.gamma(1.5, 0.12, number))
    short[draw.integers(number)] = 1
    log_normal = draw.lognormal(0, 0.8, number)
    found = {
        "even": draw.uniform(0.05, 1, number), "mostly short": short, "log-normal": log_normal / log_normal.max(),
        "near one": np.clip(draw.normal(0.7, 0.1, number), 0.05, 1), "cut": np.minimum(1, draw.gamma(2, 0.4, number)),
    }  # fmt: skip
    return {name: [max(LEAST, int(most * share)) for share in shares] for name, shares in found.items()}


def kept_of(config: Any, spec: AdapterSpec | None, setup: Setup, varied: int, lengths: list[int]) -> Kept:
    """Of samples of these lengths; `varied` bytes of the set-up's peak grow with its length."""
    counts = Counter(lengths)
    longest = max(counts)
    samples = Samples(len(lengths), sum(lengths) / len(lengths), counts)
    own = by_data(replace(setup, seq_len=longest, packing="padded"), samples, {})
    found = simulate_step(config, spec, own, reserve=True, spread=Spread(tuple(sorted(counts.items()))))
    if found.varied is None or found.reserved_bytes is None:
        raise SystemExit("What is reserved cannot be told of this step.")
    grows = varied * longest / setup.seq_len
    orders = tuple((each - found.reserved_bytes) / grows for each in found.varied.reserved)
    return Kept(times_kept(own, constants()), orders)


def kept(
    model: str, options: dict[str, Any], number: int = SAMPLES, seed: int = 0
) -> Iterator[tuple[str, Kept]]:
    """Of each spread, for a model's run of as many tokens as the options say."""
    found = running(model, {**options, "packing": "padded", "lengths_vary": True})
    varied, config = found.memory().varied_bytes, load(model)[0].config
    for name, lengths in spreads(number, found.setup.seq_len, seed).items():
        yield name, kept_of(config, found.spec, found.setup, varied, lengths)


def main() -> None:
    """Show a line for each spread."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    read.add_argument("model")
    read.add_argument("--method", default="lora")
    read.add_argument("--seq-len", type=int, default=1024)
    read.add_argument("--batch", type=int, default=1)
    read.add_argument("--checkpointing", default="layer")
    read.add_argument("--trainer", default="trl-0.21")
    given = vars(read.parse_args())
    for name, each in kept(given.pop("model"), given):
        low, high = min(each.orders), max(each.orders)
        print(
            f"{name:13} told {each.told:.2f}, allocator {median(each.orders):.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
