"""What torch's allocator reserves in training on samples of many lengths, by the order in which they come.

    python -m tools.reserved_by_lengths 287            # a row of data/measured/memory.csv: ms-swift's benchmark
    python -m tools.reserved_by_lengths 277 --orders 20
    python -m tools.reserved_by_lengths 287 --no-checkpointing --seq-len 2048
    python -m tools.reserved_by_lengths --every   # all of its figures, and how many lie among those of the orders

A micro-step is run on fake tensors at two lengths, all layers; every block grows in a straight line between. Its
requests then go to the allocator for one sample after another. Lengths are drawn from a gamma distribution with the
mean and spread that the benchmark states for its data (3234.4 and 2547.5 tokens, at least 91), those beyond the
greatest length left out, of 4,959 samples up to 2,048 tokens and of 1,000 beyond (modelscope/ms-swift cdb169b78,
docs/source_en/LLM/Benchmark.md and scripts/benchmark/test_memory_time/run_single.py). Nothing is fitted. Neglects
what the optimizer makes in its step, and that another model's tokenizer counts other lengths.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median, quantiles

import numpy as np

from planner.dataset.lengths import records
from planner.estimator import load
from planner.running import Running, running
from planner.setup import Setup
from planner.simulate.allocator import Block, CachingAllocator, OutOfMemoryError
from planner.simulate.layers import everyone, stacks
from planner.simulate.model import make
from planner.simulate.step import run
from planner.simulate.tracker import Tracker
from tools.published_memory import Case, cases, model_of

MEAN, SPREAD, LEAST = 3234.4, 2547.5, 91
SAMPLES, SAMPLES_LONG, LONG = 4959, 1000, 2048
ROOM = 84_200_000_000  # of an A100 with 80 GiB, less CUDA's context
# ChatGLM3's code is its own: as Llama of the same shapes, whose blocks are as large (with its own code, run apart,
# 20.88 GB are allocated at the most, and 20.70 so).
AS_LLAMA = {
    "chatglm3-6b": {
        "model_type": "llama", "hidden_act": "silu", "hidden_size": 4096, "num_hidden_layers": 28,
        "vocab_size": 65024, "num_attention_heads": 32, "num_key_value_heads": 2, "intermediate_size": 13696,
        "attention_bias": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """Requests of a micro-step: `weights` that stay, blocks' bytes as (at length 0, for each token), and `events`:
    +n+1 where block n comes, -n-1 where it goes."""

    weights: tuple[int, ...]
    blocks: tuple[tuple[float, float], ...]
    events: tuple[int, ...]


def step_of(case: Case) -> Step:
    """A micro-step of a published run, all layers on fake tensors."""
    found = found_of(case)
    config = load(AS_LLAMA.get(case.model) or model_of(case.model))[0].config
    return record(config, found.spec, found.setup, found.arch)


def found_of(case: Case) -> Running:
    """The run of a case."""
    if case.model in AS_LLAMA:
        return running(AS_LLAMA[case.model], {**case.options, "targets": "q_proj,k_proj,v_proj"})
    return running(model_of(case.model), case.options)


def record(
    config: object, spec: object, setup: Setup, arch: object, at: tuple[int, int] = (1024, 3072)
) -> Step:
    """Requests of a micro-step `at` two lengths, and the straight lines between them."""
    made = None
    records = []
    for length in at:
        one = replace(setup, seq_len=length)
        made = make(config, spec, one, arch)  # type: ignore[arg-type]
        every = [everyone(stack.path, stack.length) for stack in stacks(made.model)]
        records.append(run(made, one, every, Tracker(1)))
    first, second = records
    assert made is not None
    if first.events != second.events:
        raise SystemExit("The two lengths make different requests: there are no straight lines between them.")
    lines = []
    for a, b in zip(first.blocks, second.blocks, strict=True):
        slope = (b.bytes - a.bytes) / (at[1] - at[0])
        lines.append((a.bytes - slope * at[0], slope))
    weights = tuple(p.numel() * p.element_size() for p in made.model.parameters())
    return Step(weights, tuple(lines), tuple(first.events))


def lengths(most: int, seed: int) -> list[int]:
    """Lengths of the benchmark's samples up to the greatest, in one order."""
    drawn = np.random.default_rng(seed).gamma(
        (MEAN / SPREAD) ** 2, SPREAD**2 / MEAN, SAMPLES if most <= LONG else SAMPLES_LONG
    )
    return [max(LEAST, int(each)) for each in drawn if each <= most]


def reserved(step: Step, order: Sequence[int], room: int = ROOM) -> tuple[int, int]:
    """The most bytes that are allocated and reserved, weights among them, when samples of these lengths come."""
    allocator = CachingAllocator(room)
    for size in step.weights:
        allocator.take(size)
    for length in order:
        at: dict[int, Block] = {}
        sizes = [round(start + slope * length) for start, slope in step.blocks]
        for event in step.events:
            if event > 0:
                at[event] = allocator.take(sizes[event - 1])
            else:
                allocator.give(at.pop(-event))
        for block in at.values():
            allocator.give(block)
    return allocator.most_allocated, allocator.most_reserved


def longer(order: Sequence[int], after: int = 4) -> list[int]:
    """The samples that are longer than all before, each with some `after` it: others need nothing more."""
    found, most, left = [], 0, 0
    for length in order:
        left = after + 1 if length > most else left
        if left:
            found.append(length)
        most, left = max(most, length), left - (left > 0)
    return found


def every(orders: int) -> None:
    """Show each figure of the benchmark with the least, the middle and the most of so many orders, and what is kept
    of each length that was the longest so far, as an estimate by the data has it."""
    inside, offs, shares = 0, [], []
    rows = [
        each
        for each in cases()[0]
        if each.metric == "reserved" and str(each.options.get("trainer")).startswith("ms-swift")
    ]
    for case in rows:
        try:
            step, most = step_of(case), int(case.options["seq_len"])
        except SystemExit:
            print(f"{case.row} {case.model}: {case.options['seq_len']} tokens make requests of their own")
            continue
        drawn = [lengths(most, seed) for seed in range(orders)]
        try:
            held = sorted(reserved(step, longer(order))[1] for order in drawn)
        except OutOfMemoryError:
            print(f"{case.row} {case.model}: not all orders are served by {ROOM / 1e9:.1f} GB")
            continue
        grows = found_of(case).memory().varied_bytes
        plain = reserved(step, [max(drawn[0])] * 3)[1]
        inside += held[0] <= case.measured <= held[-1]
        offs.append(abs(median(held) / case.measured - 1))
        shares.append((case.measured - plain) / grows / mean(records(Counter(order), 1) for order in drawn))
        print(
            f"{case.row} {case.model}, {most} tokens: {case.measured / 1e9:.1f} GB measured, {held[0] / 1e9:.1f} to "
            f"{held[-1] / 1e9:.1f}, half up to {median(held) / 1e9:.1f}; kept of each record {shares[-1]:.2f}"
        )
    print(f"{inside} of {len(offs)} within; the middle order {median(offs):.1%} off in the middle, ", end="")
    print(f"{max(offs):.0%} at the most; kept of each record {median(shares):.2f} in the middle")


def main() -> None:
    """Show a row's figure among those of many orders."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    read.add_argument("row", type=int, nargs="?")
    read.add_argument("--every", action="store_true", help="all figures of the benchmark")
    read.add_argument("--orders", type=int, default=10)
    read.add_argument("--no-checkpointing", action="store_true", help="as if nothing ran again")
    read.add_argument("--seq-len", type=int, help="another greatest length")
    given = read.parse_args()
    if given.every or given.row is None:
        every(given.orders)
        return
    case = next(each for each in cases()[0] if each.row == given.row and each.metric == "reserved")
    changed: dict[str, object] = {"checkpointing": "none"} if given.no_checkpointing else {}
    case = replace(case, options={**case.options, **changed})
    step, most = step_of(case), given.seq_len or int(case.options["seq_len"])
    found = sorted(reserved(step, lengths(most, seed)) for seed in range(given.orders))
    held = sorted(each for _, each in found)
    low, *_, high = quantiles(held, n=10)
    was = "" if changed or given.seq_len else f": {case.measured / 1e9:.2f} GB reserved were measured"
    print(f"{case.model}, up to {most} tokens{was}")
    print(f"{given.orders} orders: {held[0] / 1e9:.2f} to {held[-1] / 1e9:.2f} GB reserved, ", end="")
    print(
        f"four of five from {low / 1e9:.2f} to {high / 1e9:.2f}, half up to {median(held) / 1e9:.2f}; ",
        end="",
    )
    print(f"{found[-1][0] / 1e9:.2f} allocated")


if __name__ == "__main__":
    main()
