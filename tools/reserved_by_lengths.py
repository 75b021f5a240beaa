"""What torch's allocator reserves in training on samples of many lengths, by the order in which they come.

    python -m tools.reserved_by_lengths 287            # a row of data/measured/memory.csv: ms-swift's benchmark
    python -m tools.reserved_by_lengths 277 --orders 20
    python -m tools.reserved_by_lengths 287 --no-checkpointing --seq-len 2048
    python -m tools.reserved_by_lengths --shapes Qwen/Qwen3-1.7B --seq-len 512   # by how lengths are spread

A micro-step is run on fake tensors at two lengths, all layers; every block grows in a straight line between. Its
requests then go to the allocator for one sample after another. Lengths are drawn from a gamma distribution with the
mean and spread that the benchmark states for its data (3234.4 and 2547.5 tokens, at least 91), those beyond the
greatest length left out, of 4,959 samples up to 2,048 tokens and of 1,000 beyond (modelscope/ms-swift cdb169b78,
docs/source_en/LLM/Benchmark.md and scripts/benchmark/test_memory_time/run_single.py). Nothing is fitted. Neglects
what the optimizer makes in its step, and that another model's tokenizer counts other lengths.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median, quantiles

import numpy as np

from planner.estimator import load
from planner.running import running
from planner.setup import Setup
from planner.simulate.allocator import Block, CachingAllocator
from planner.simulate.layers import everyone, stacks
from planner.simulate.model import make
from planner.simulate.step import run
from planner.simulate.tracker import Tracker
from tools.published_memory import Case, cases, model_of

MEAN, SPREAD, LEAST = 3234.4, 2547.5, 91
SAMPLES, SAMPLES_LONG, LONG = 4959, 1000, 2048
ROOM = 84_200_000_000  # of an A100 with 80 GiB, less CUDA's context
SHAPED = 300  # samples of a spread
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
    model, options = model_of(case.model), case.options
    if case.model in AS_LLAMA:
        model, options = AS_LLAMA[case.model], {**options, "targets": "q_proj,k_proj,v_proj"}
    found = running(model, options)
    config = load(model)[0].config
    return record(config, found.spec, found.setup, found.arch)


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


def shapes(number: int, most: int, seed: int) -> dict[str, list[int]]:
    """Lengths of samples up to `most` as data have them: evenly spread, most of them short and one the longest, and
    cut at it, where 29% are as long."""
    draw = np.random.default_rng(seed)
    short = np.minimum(1, draw.gamma(1.5, 0.12, number))
    short[draw.integers(number)] = 1
    spread = {
        "even": draw.uniform(0.05, 1, number), "mostly short": short,
        "cut": np.minimum(1, draw.gamma(2, 0.4, number)),
    }  # fmt: skip
    return {name: [max(16, int(most * share)) for share in found] for name, found in spread.items()}


def by_shape(model: str, most: int, orders: int) -> None:
    """Show what lengths of each spread leave reserved beyond what one length does, of LoRA without checkpointing and
    with all logits at once, over what of the peak grows with the length: `cached_varied` as the allocator has it."""
    options = {"method": "lora", "trainer": "trl-0.21", "checkpointing": "none", "seq_len": most}
    found = running(model, {**options, "packing": "padded", "lengths_vary": True})
    step = record(load(model)[0].config, found.spec, found.setup, found.arch, (most // 2, most))
    varied, plain = found.memory().varied_bytes, reserved(step, [most] * 3)[1]
    for name in shapes(1, most, 0):
        more = [reserved(step, shapes(SHAPED, most, seed)[name])[1] - plain for seed in range(orders)]
        low, high = min(more) / varied, max(more) / varied
        print(f"{name:12} {median(more) / varied:.2f} ({low:.2f} to {high:.2f}) of {varied / 1e9:.2f} GB")


def main() -> None:
    """Show a row's figure among those of many orders."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    read.add_argument("row", type=int, nargs="?")
    read.add_argument("--shapes", metavar="MODEL", help="instead of a row: by how lengths are spread")
    read.add_argument("--orders", type=int, default=10)
    read.add_argument("--no-checkpointing", action="store_true", help="as if nothing ran again")
    read.add_argument("--seq-len", type=int, help="another greatest length")
    given = read.parse_args()
    if given.shapes:
        by_shape(given.shapes, given.seq_len or LONG, given.orders)
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
