"""How many full estimates (request to dictionary) one warm process makes in a second of processor time.

Rank and tokens change from call to call, as in a search over plans, so that no answer can be a repeated one. The
ratio is to writing the same dictionary with json.dumps, timed in the same run, in alternating blocks. The target
is at least 2,000 estimates a second.

    python benchmarks/warm_rate.py [--blocks 20] [--out record.json] [--check 2000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from machine import about_this_machine, write_record

from planner import PlannerError, estimate

MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-30B-A3B",
    "moonshotai/Kimi-K2-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
)
RANKS = range(1, 2049)  # more than any cache holds
CALLS = 256


def requests(start: int) -> Iterator[tuple[int, int]]:
    """Pairs of rank and tokens that do not come back within a run."""
    for number in itertools.count(start):
        yield RANKS[number % len(RANKS)], 1_000_000 + number


def rate(call: Callable[[int, int], object], start: int) -> float:
    """Calls per second of processor time over one block."""
    pairs = list(itertools.islice(requests(start), CALLS))
    started = time.process_time()
    for rank, tokens in pairs:
        call(rank, tokens)
    return CALLS / (time.process_time() - started)


def measure(model: str, blocks: int) -> dict[str, object]:
    """Medians of the rates of estimates and of json.dumps, and their ratio."""

    def plan(rank: int, tokens: int) -> object:
        return estimate(model=model, rank=rank, tokens=tokens).to_dict()

    answer = plan(32, 1_000_000)
    ours, dumps = [], []
    for number in range(blocks + 1):
        first = rate(plan, number * CALLS)
        second = rate(lambda rank, tokens: json.dumps(answer), number * CALLS)
        if number:  # the first block fills the caches that a warm process has
            ours.append(first)
            dumps.append(second)
    middle, base = statistics.median(ours), statistics.median(dumps)
    return {
        "model": model,
        "estimates_per_s": middle,
        "slowest_block_per_s": min(ours),
        "dumps_per_s": base,
        "time_ratio": base / middle,
        "n": blocks,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--blocks", type=int, default=20, help=f"blocks of {CALLS} calls (default 20)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument(
        "--check", type=float, metavar="RATE", help="exit 1 if a model's median is below this"
    )
    return parser.parse_args()


def main() -> int:
    """Measure, print, and check if asked to."""
    options = arguments()
    rows = []
    print(
        f"{'estimates/s':>11} {'slowest':>8} {'time / json.dumps':>17}  model (medians of {options.blocks} blocks)"
    )
    for model in options.models:
        try:
            row = measure(model, options.blocks)
        except PlannerError as error:
            print(f"{'-':>11} {'-':>8} {'-':>17}  {model}: {error}")
            continue
        rows.append(row)
        print(
            f"{row['estimates_per_s']:11,.0f} {row['slowest_block_per_s']:8,.0f} {row['time_ratio']:17.2f}  {model}"
        )
    if options.out:
        write_record(options.out, {"benchmark": "warm_rate", **about_this_machine(), "rows": rows})
    slow = [row["model"] for row in rows if float(str(row["estimates_per_s"])) < (options.check or 0)]
    if slow:
        print(f"FAILED: below {options.check:,.0f} estimates a second: {slow}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
