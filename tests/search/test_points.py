"""Memory at many ranks and micro-batches at once against the scalar formula at each, byte for byte."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

from planner.errors import PlannerError
from planner.memory.linear import NotLinearError
from planner.memory.making import making_moment
from planner.memory.peak import estimate_memory, estimate_stages
from planner.search import peaks, points
from planner.search.layout import Layout, check_layout, layouts
from planner.search.space import Job
from planner.search.tables import Table, tables
from planner.setup import Setup

from .small import search_of

MODELS = (
    "meta-llama/Llama-3.2-1B", "Qwen/Qwen3-30B-A3B", "openai-community/gpt2", "google/gemma-3-27b-it",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
)  # fmt: skip
GRPO = {"objective": "grpo", "reference": "none", "loss": "tiled", "generation": "transformers"}
SAID: tuple[dict[str, Any], ...] = (
    {}, {"trainer": "trl"}, {"trainer": "axolotl"}, {"trainer": "torchtune"}, {"trainer": "llama-factory"},
    {"trainer": "unsloth", "sharding": "ddp"}, {"packing": "padded"}, {"attention_kernel": "eager"},
    {"objective": "dpo", "reference": "precomputed"}, GRPO,
    {"optimizer": "adamw-8bit"}, {"loss": "split"}, {"precision": "autocast"}, {"precision": "fp32"},
)  # fmt: skip
LAYOUTS = (
    *layouts((1, 4), ("ddp", "zero2", "zero3", "fsdp")), Layout(2, "none", tensor_parallel=2),
    Layout(8, "fsdp", pipeline_parallel=2), Layout(3, "zero3"),
)  # fmt: skip
BATCHES, RANKS = (1, 2, 3, 8, 64), (1, 8, 64, 256)


def asked_of(job: Job, found: list[Table], layout: Layout, micro_steps: int) -> list[points.Asked]:
    """Groups of tables that differ in layers and in the base's form in 4 bits."""
    groups: dict[Any, list[Table]] = {}
    for table in found:
        groups.setdefault((table.layers, table.quantize, table.checkpointing), []).append(table)
    return [
        points.Asked(peaks._Samples.of(job, layout, BATCHES, micro_steps, own).setups, own)
        for own in groups.values()
    ]


@pytest.mark.parametrize("seed", range(8))
def test_many_at_once_are_what_each_is(seed: int) -> None:
    chance, judged = random.Random(seed), 0
    for _ in range(3):
        said: dict[str, Any] = {
            "tokens": 10**7,
            "seq_len": 96,
            "batch": (64,),
            "gpu": "h100",
            **chance.choice(SAID),
        }
        if said.get("objective") == "grpo":
            said |= {"tokens": None, "episodes": 1000, "prompt_tokens": 32, "mean_completion": 40}
        base = chance.choice((("none",), ("nf4", "nf4-double")))
        again = chance.choice(("none", "layer"))
        job, space = search_of(
            chance.choice(MODELS), {**said, "ranks": RANKS, "quantize": base, "checkpointing": again}
        )
        found = list(tables(job, space))
        for layout in chance.sample(LAYOUTS, 4):
            try:
                asked = asked_of(job, found, layout, chance.choice((1, 2)))
                made = points.figures(job.arch, asked)
            except PlannerError:  # a layout that does not go with the rest
                continue
            for each, own in zip(asked, made or (), strict=False):
                for table, batch in ((t, b) for t in range(len(each.tables)) for b in range(len(BATCHES))):
                    setup, some = each.setups[batch], each.tables[table]
                    stages = estimate_stages(job.arch, setup, some.pairs, some.whole)
                    expected = np.stack([peaks._figures(stage, setup) for stage in stages])
                    np.testing.assert_array_equal(own[table, batch], expected, err_msg=f"{setup} {some.rank}")
                    judged += 1
    assert judged > 40


MAKING: tuple[dict[str, Any], ...] = (
    {"generation": "transformers"}, {"generation": "transformers", "sharding": "zero3", "gpus": 4},
    {"generation": "transformers", "prompt_tokens": 0, "precision": "autocast"},
    {"generation": "colocate", "vllm_memory": 0.4, "gpu_bytes": 10**12},
    {"generation": "colocate", "vllm_memory": 0.4, "gpu_bytes": 10**12, "sharding": "zero3", "gpus": 4},
    {"generation": "shared", "vllm_memory": 0.4, "gpu_bytes": 10**12, "vllm_sleep": True},
)  # fmt: skip


@pytest.mark.parametrize("said", MAKING)
@pytest.mark.parametrize("model", MODELS)
def test_what_is_held_while_completions_are_made_is_the_estimates(model: str, said: dict[str, Any]) -> None:
    own = {"prompt_tokens": 32, **GRPO, **said}
    job, space = search_of(model, {"tokens": 10**7, "seq_len": 96, "gpu": "h100", "ranks": RANKS})
    tried = [table for table in tables(job, space) if table.checkpointing == "none"]
    for number, table in enumerate(tried):
        method = "lora" if table.quantize == "none" else "qlora"
        values = {"method": method, "quantize": table.quantize, "seq_len": 96, **own}
        setup = Setup(**values, micro_batch=1 + number % 3, accumulation=2)
        found = estimate_memory(job.arch, setup, table.pairs, table.whole)
        expected = next(moment for moment in found.moments if moment.phase == "generation")
        assert making_moment(job.arch, setup, table.pairs, table.whole) == expected


def test_sizes_are_not_compared() -> None:
    some = points.sizes([1, 2])
    for compare in (lambda: max(some, 1), lambda: some == 1, lambda: some < 2, lambda: hash(some)):
        with pytest.raises(NotLinearError):
            compare()
    assert some
    assert not points.sizes([0, 0])


WIDE: dict[str, dict[str, Any]] = {
    "copies": {}, "matrices": {"tensor_parallel": 2}, "layers": {"pipeline_parallel": 2},
    "sequences": {"sequence_parallel": 2}, "experts": {"expert_parallel": 2},
}  # fmt: skip


@pytest.mark.parametrize("way", WIDE)
@pytest.mark.parametrize("model", MODELS[:2])
def test_numbers_of_gpus_at_once_are_what_each_is(model: str, way: str) -> None:
    """Layouts of 4 to 32 GPUs whose courses are alike in one, each with its own micro-batches, by every sharding."""
    job, space = search_of(model, {"tokens": 10**7, "seq_len": 96, "gpu": "h100", "ranks": (1, 16, 256)})
    found = [table for table in tables(job, space) if table.quantize == "nf4"]
    judged = 0
    for sharding in ("zero1", "zero2", "zero3", "fsdp"):
        for checkpointing, micro_steps in itertools.product(("none", "layer"), (1, 2)):
            own = [table for table in found if table.checkpointing == checkpointing]
            groups: dict[Any, list[points.Asked]] = {}
            for number, gpus in enumerate((4, 8, 32)):
                try:
                    layout = Layout(gpus, sharding, **WIDE[way])
                    check_layout(job.arch, job.setup, layout)
                except PlannerError:
                    continue
                sizes = (1, 2, 8)[number:]
                for layers in space.layers:
                    alike = [table for table in own if table.layers == layers]
                    one = points.Asked(
                        peaks._Samples.of(job, layout, sizes, micro_steps, alike).setups, alike
                    )
                    groups.setdefault(points.passing(job.arch, one.setups[0]), []).append(one)
            for asked in groups.values():
                made = points.figures(job.arch, asked)
                for each, together in zip(asked, made or (), strict=True):
                    alone = points.figures(job.arch, [each])
                    assert alone is not None
                    np.testing.assert_array_equal(together, alone[0])
                    judged += len(asked) > 2
    assert judged or (way, model) == ("experts", MODELS[0])
