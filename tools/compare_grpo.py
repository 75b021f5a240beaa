"""Published figures of GRPO beside the formulas: what vLLM's share of a card holds.

python -m tools.compare_grpo           # the tables
python -m tools.compare_grpo --page    # into docs/grpo.md
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.estimator import load
from planner.memory.engine import Engine, engine, sequence_bytes
from planner.setup import Setup

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "data" / "measured"
PAGE = ROOT / "docs" / "grpo.md"
GIB = 2**30


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a table of data/measured."""
    with (MEASURED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def engine_of(row: dict[str, str]) -> tuple[Engine, int]:
    """vLLM as a row has it, and bytes of a token in its cache."""
    _, arch = load(row["model"], False)
    quantize: Any = row["quantize"]
    setup = Setup(
        method="lora" if quantize == "none" else "qlora", quantize=quantize, objective="grpo", loss="tiled",
        reference="none", packing="padded", generation="shared", vllm_memory=float(row["share"]),
        gpu_bytes=round(float(row["gpu_gib"]) * GIB), seq_len=int(row["length"]),
        micro_batch=int(row["sequences"] or 8),
    )  # fmt: skip
    found = engine(arch, setup)
    assert found is not None
    return found, sequence_bytes(arch, 16) // 16


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table in Markdown."""
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def memory_rows() -> Iterator[tuple[list[str], float]]:
    """A row of the table for each log of vLLM, and predicted over logged cache."""
    for row in rows_of("vllm_memory"):
        try:
            found, token = engine_of(row)
        except PlannerError as error:
            raise SystemExit(f"{row['model']}: {error}") from error
        weights, cache = found.weights_bytes / GIB, found.cache_bytes / GIB
        ratio = cache / float(row["cache_gib"])
        tokens = round(float(row["cache_gib"]) * GIB / token)
        yield [
            f"[{row['model']}]({row['url']})", row["quantize"], f"{row['gpu']}, {float(row['share']):.0%}",
            f"{weights:.2f} / {float(row['weights_gib']):.2f}", f"{cache:.2f} / {float(row['cache_gib']):.2f}",
            f"{ratio:.2f}", f"{tokens:,} / {int(row['cache_tokens']):,}",
        ], ratio  # fmt: skip


def memory_lines() -> Iterator[str]:
    """The section on memory."""
    found = list(memory_rows())
    ratios = [ratio for _, ratio in found]
    middle = statistics.median(ratios)
    yield "## vLLM beside the trainer: its cache\n"
    yield (
        f"What vLLM logged as it started in {len(ratios)} notebooks of Unsloth, against the formula: predicted / "
        f"logged. Of the cache the median is {middle:.2f} of what was logged, from {min(ratios):.2f} to "
        f"{max(ratios):.2f}; these versions (0.7 and 0.8) took CUDA graphs from outside their share, later ones and "
        "the formula from inside it. Tokens are the logged cache over the formula's bytes of a token, against the "
        "tokens that were logged.\n"
    )
    head = ("model", "base", "GPU, share", "weights, GiB", "cache, GiB", "ratio", "tokens of the cache")
    yield from table(head, (row for row, _ in found))


def page() -> str:
    """The page."""
    lines = [
        "# GRPO: time and memory against published runs\n",
        "Written by `python -m tools.compare_grpo --page`; how it is computed stands in [methods](methods.md).\n",
        *memory_lines(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page, or write it."""
    if "--page" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page())


if __name__ == "__main__":
    main()
