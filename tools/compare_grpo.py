"""Published figures of GRPO beside the formulas: what vLLM's share of a card holds, passes, and steps.

python -m tools.compare_grpo           # the tables
python -m tools.compare_grpo --page    # into docs/grpo.md
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from planner.errors import PlannerError
from planner.estimator import load
from planner.memory.engine import Engine, engine, sequence_bytes
from planner.setup import Setup
from planner.speed.decode import decoding
from tools.fit_decode import by_group, first_ratios
from tools.grpo_rows import ROOT, Pass, rows_of, step_of

PAGE = ROOT / "docs" / "grpo.md"
GIB = 2**30


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


def off(ratios: Iterable[float]) -> float:
    """The median distance of ratios from 1, as a share: of 2 and of a half 100%."""
    return statistics.median(math.exp(abs(math.log(ratio))) - 1 for ratio in ratios)


def pass_lines() -> Iterator[str]:
    """The section on passes."""
    groups = by_group(Pass(row) for row in rows_of("decode"))
    vllm = decoding().vllm
    found = {key: [each.predicted(vllm) / each.seconds for each in group] for key, group in groups.items()}
    judged = {key: some for key, some in found.items() if groups[key][0].row["half"] == "judge"}
    one = {key: some for key, some in judged.items() if groups[key][0].row["gpus"] == "1"}
    several = [r for key, some in judged.items() if key not in one for r in some]
    hopper = [r for key, some in one.items() if "vllm" in key and "B200" not in key[3] for r in some]
    blackwell = [r for key, some in one.items() if "B200" in key[3] for r in some]
    own = [r for key, some in judged.items() if "transformers" in key for r in some]
    yield "## A pass that makes a token of each sequence\n"
    yield (
        "vLLM's three constants (the share of the bandwidth that it reaches, and its own seconds of a pass and of "
        "each sequence in it) are fitted on half of the models on H100 and A100; the others judge them: "
        f"{len(hopper)} passes with a median error of {off(hopper):.0%}, and {len(blackwell)} on B200, whose "
        f"published passes jump (33 ms for a batch of 8 whatever the model), of {off(blackwell):.0%}. "
        f"Nothing was fitted to another {len(several)} passes, of vLLM over 2, 4 and 8 GPUs together: "
        f"{off(several):.0%}. transformers' generate has no constant of its own: {len(own)} passes, {off(own):.0%}, "
        "which is what hosts differ by. Predicted over published, in the middle and from the least to the most.\n"
    )
    head = ("source", "engine", "model", "GPU", "", "passes", "middle", "range")
    yield from table(head, (
        [source, engine, model, gpu, groups[source, engine, model, gpu][0].row["half"], str(len(some)),
         f"{statistics.median(some):.2f}", f"{min(some):.2f} to {max(some):.2f}"]
        for (source, engine, model, gpu), some in found.items()
    ))  # fmt: skip


def step_lines() -> Iterator[str]:
    """The section on steps."""
    known, blind = decoding(), rows_of("grpo_steps_blind")
    first, later = ([row for row in blind if row["set"] == name] for name in ("first", "later"))
    ratios = [float(row["predicted_s"]) / float(row["step_s"]) for row in first]
    since = [float(row["step_s"]) / float(row["predicted_s"]) for row in later]
    inside = sum(known.low <= ratio <= known.high for ratio in since)
    stated = [r for r, row in zip(ratios, first, strict=True) if row["stated"] == "yes"]
    held = [
        statistics.mean(known.low <= ratio <= known.high for ratio in some)
        for some in first_ratios().values()
    ]
    yield "## Whole steps\n"
    yield (
        f"{len(ratios)} published steps of {known.sources} sources, predicted once, by the formula and constants as "
        f"they stood before any was looked at: median error {off(ratios):.0%}; of the {len(stated)} with all but "
        f"prompts stated {off(stated):.0%}. What a source does not state was filled in with its time in sight, "
        f"before it was predicted. The interval, {known.low:g} to {known.high:g} times what is predicted, rests on "
        f"these {known.sources} sources, fewer than ten, and holds {statistics.mean(held):.0%} of them, a source "
        f"counting as one; made without the source that it judges, {known.held:.0%} of {known.judged}, later ones "
        f"among them. {len(since)} steps of {len({row['source'] for row in later})} sources found afterwards "
        f"(`later`) have no part in it: median error {off(since):.0%}, {inside} of {len(since)} within. What is "
        "published includes rewards, logging and saving, which the formula leaves out. Marked `no`: something that "
        "matters was guessed (mostly how long completions were, or the batch). Nothing was mended since.\n"
    )
    head = (
        "source",
        "model",
        "method",
        "GPUs",
        "published, s",
        "first, s",
        "now, s",
        "stated",
        "set",
        "how it was run",
    )
    notes = {(row["source"], row["model"], row["options"]): row for row in rows_of("grpo_steps")}
    rows = []
    for row in blind:
        said = notes[row["source"], row["model"], row["options"]]
        rows.append([
            f"[{row['source']}]({said['url']})", row["model"], row["method"], f"{row['gpus']} x {row['gpu']}",
            f"{float(row['step_s']):.1f}", f"{float(row['predicted_s']):.1f}", f"{step_of(row).seconds:.1f}",
            row["stated"], row["set"], f"`{row['options']}` {said['notes']}",
        ])  # fmt: skip
    yield from table(head, rows)


def page() -> str:
    """The page."""
    lines = [
        "# GRPO: time and memory against published runs\n",
        "Written by `python -m tools.compare_grpo --page`; how it is computed stands in [methods](methods.md).\n",
        *step_lines(),
        "",
        *pass_lines(),
        "",
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
