"""The vectorised screen of a search against the scalar formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner import hardware, plan
from planner.errors import InputError
from planner.search.evaluate import Evaluated, evaluate
from planner.search.layout import divided, layouts, shared
from planner.search.screen import screen
from planner.search.space import Job, Space, families
from planner.setup import Setup
from planner.trainers import filled

from .small import GPUS, job_of, search_of


def every_plan(job: Job, space: Space) -> list[Evaluated]:
    """All plans of a space in full, whose time and memory the screen has to the digit."""
    cells, found = screen(job, space), []
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text
        found.append(full)
    return found


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "google/gemma-2-2b"])
def test_the_screen_equals_the_scalar_formulas(model: str) -> None:
    space = Space(
        (*GPUS, hardware.find("t4")), layouts((1, 2, 8), ("ddp", "zero2", "fsdp", "zero3")), micro_batches=(1, 2, 8),
        ranks=(1, 16, 128), quantize=("none", "nf4"), batches=(16, 64),
    )  # fmt: skip
    cells = screen(job_of(model), space)
    possible = np.flatnonzero(np.isfinite(cells.over))
    for cell in np.random.default_rng(1).choice(possible, 40, replace=False):
        full = evaluate(cells.job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        assert cells.usd[cell] == pytest.approx(full.usd, rel=1e-9)
        assert full.regret and cells.regret[cell] == pytest.approx(full.regret.value, rel=1e-12)
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text
        most = (cells.over_high[cell] + 1) * full.memory_bytes
        assert most == pytest.approx(full.memory.high, rel=1e-8), full.choice.text


def test_the_screen_knows_that_a_trainer_computes_otherwise_under_a_sharding() -> None:
    """transformers' Trainer autocasts, but not under DeepSpeed: each layout by its own work."""
    said = {"trainer": "hf-trainer"}
    job = job_of("Qwen/Qwen3-4B", setup=Setup(**{**filled(said), "seq_len": 2048}), given=said)
    space = Space(
        GPUS, layouts((1, 2), ("ddp", "zero2", "fsdp")), micro_batches=(1, 8), ranks=(16,), quantize=("none", "nf4"),
        batches=(16,),
    )  # fmt: skip
    assert len(families(job, space)) == 2
    cells = screen(job, space)
    assert len(cells.seconds) == 3 * 4 * 2 * len(cells.tables)
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text


def test_the_screen_knows_that_padded_batches_take_a_mask() -> None:
    """One sequence needs none, several take the kernel that has one: both as the scalar formulas have them."""
    space = Space(
        GPUS, layouts((1,)), micro_batches=(1, 2, 8), ranks=(16,), quantize=("none", "nf4"), batches=(16,)
    )
    job = job_of("meta-llama/Llama-3.1-8B", setup=Setup(seq_len=2048, packing="padded"))
    cells = screen(job, space)
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text


@pytest.mark.parametrize(
    "said",
    [
        {"offload": "all", "eval_batch": 8}, {"trainer": "litgpt-2024", "packing": "padded"},
        {"trainer": "hf-trainer", "lengths_vary": True, "offload": "optimizer"},
        {"trainer": "trl-0.21", "lengths_vary": True, "length_records": (3.0, 2.5, 1.25, 0.5)},
        {"precision": "fp32", "tf32": True, "packing": "padded"},
    ],
    ids=str,
)  # fmt: skip
def test_the_screen_knows_what_lies_on_the_host_and_what_a_loop_holds(said: dict[str, Any]) -> None:
    """Of machines with and without units for bfloat16, which run in float16 where nobody says otherwise."""
    given = {**said, "adapter_dtype": "float32"}
    away = given.pop("offload", "none")
    spread = tuple(replace(own, offload=away) for own in layouts((1, 4), ("ddp", "zero2", "fsdp-hybrid")))
    job = job_of("Qwen/Qwen3-1.7B", setup=Setup(**{**filled(given), "seq_len": 512}), given=given)
    space = Space(
        (GPUS[0], hardware.find("t4")), spread, micro_batches=(1, 4),
        ranks=(4, 64), quantize=("none", "nf4"), batches=(16,),
    )  # fmt: skip
    kinds = {(full.choice.accelerator.name, full.memory.setup.precision) for full in every_plan(job, space)}
    asked = said.get("precision")
    assert kinds == {("RTX 4090", asked or "bf16"), ("T4", asked or "fp16")}


def test_the_screen_of_divided_experts_equals_the_scalar_formulas() -> None:
    """Experts are sent among the GPUs that hold the same ones, what is trained beside them among all."""
    apart = divided(layouts((2, 4, 8), ("ddp", "fsdp")), 128)
    assert {layout.expert_parallel for layout in apart} == {2, 4, 8}
    space = Space(
        GPUS, apart, micro_batches=(1, 2, 8), ranks=(1, 16, 128), quantize=("none",), batches=(16, 64)
    )
    cells = screen(job_of("Qwen/Qwen3-30B-A3B"), space)
    for cell in np.random.default_rng(1).choice(np.flatnonzero(np.isfinite(cells.over)), 30, replace=False):
        full = evaluate(cells.job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text


OBJECTIVES: list[dict[str, Any]] = [
    {"prompt_tokens": 100, "mean_completion": 150, "vllm_sleep": True, "generation": "transformers,colocate"},
    {
        "reference": "base",
        "vllm_memory": 0.5,
        "generation": "server,shared",
        "vllm_gpus": (1, 2),
        "gpus": (1,),
    },
    {"lengths_vary": True, "length_records": (2.0, 0.5), "objective": "dpo"},
    {"lengths_vary": True, "vllm_memory": 0.4, "generation": "transformers,colocate"},
    {"vllm_tensor_parallel": 2, "generation": "colocate,server", "vllm_gpus": 2, "gpus": (2, 4)},
    {"objective": "dpo"},
]


@pytest.mark.parametrize("said", OBJECTIVES, ids=str)
def test_the_screen_of_completions_and_of_preferences_equals_the_scalar_formulas(
    said: dict[str, Any],
) -> None:
    """Time and memory to the digit."""
    own = {
        "objective": "grpo",
        "gpu": "rtx 4090,h100",
        "gpus": (1, 2),
        "seq_len": 512,
        "batch": (16,),
        **said,
    }
    own |= {"ranks": (1, 64), "micro_batch": (1, 4), "quantize": "none,nf4", "checkpointing": "layer"}
    own |= {"tokens": 10**6} if own["objective"] == "dpo" else {"episodes": 5000}
    job, space = search_of("Qwen/Qwen3-1.7B", own)
    cells = screen(job, space)
    possible = np.flatnonzero(np.isfinite(cells.over))
    assert len(possible) > 20
    for cell in possible:
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        assert cells.usd[cell] == pytest.approx(full.usd, rel=1e-9), full.choice.text
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text
        most = (cells.over_high[cell] + 1) * full.memory_bytes
        assert most == pytest.approx(full.memory.high, rel=1e-8), full.choice.text


def test_the_screen_of_several_precisions_equals_the_scalar_formulas() -> None:
    """Each in its own time and memory, 16-bit cards without bfloat16 among them."""
    own = {
        "tokens": 10**6, "gpu": "t4,a100 80gb", "gpus": (1, 2), "batch": (16,), "ranks": (4, 64), "seq_len": 512,
        "micro_batch": (1, 4), "quantize": "none,nf4", "precision": "bf16,fp16,fp32,autocast", "tf32": True,
    }  # fmt: skip
    job, space = search_of("Qwen/Qwen3-1.7B", own)
    kinds = {full.memory.setup.precision for full in every_plan(job, space)}
    assert kinds == {"bf16", "fp16", "fp32", "autocast"}


def test_a_precision_is_a_step_from_the_best() -> None:
    """One is held, several are weighed, and each beside the best is told why it is not."""
    own: dict[str, Any] = {"tokens": "2M", "gpu": "l4", "gpus": 1, "ranks": 16}
    several = plan("Qwen/Qwen3-1.7B", precision="bf16,fp32,autocast", **own)
    best = several.best.choice
    others = {"bf16", "fp32", "autocast"} - {best.layout.precision}
    assert {f"precision {name}" for name in others} <= {each.change for each in several.rejected}
    one = plan("Qwen/Qwen3-1.7B", precision=str(best.layout.precision), **own)
    assert one.best.seconds == several.best.seconds and one.best.choice == best
    assert several.to_dict()["best"]["precision"] == best.layout.precision
    with pytest.raises(InputError) as caught:
        plan("Qwen/Qwen3-1.7B", precision="bf16,fp23", **own)
    assert caught.value.field == "precision" and "fp32" in str(caught.value)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-30B-A3B", "meta-llama/Llama-3.1-8B"])
def test_a_wider_space_is_screened_alike_with_what_the_first_one_found(model: str) -> None:
    job, known = job_of(model), dict[Any, Any]()
    first = Space(GPUS, layouts((1, 2, 4)), ranks=(1, 8, 64), micro_batches=(1, 4))
    screen(job, first, known)
    wider = (*divided(first.layouts, job.arch.n_experts), *shared(job.arch, job.setup, first.layouts))
    for layouts_ in (wider, tuple(replace(own, offload="all") for own in first.layouts)):
        space = replace(first, layouts=layouts_)
        again, alone = screen(job, space, known), screen(job_of(model), space)
        for name in ("seconds", "usd", "over", "over_high", "regret"):
            assert np.array_equal(getattr(again, name), getattr(alone, name), equal_nan=True), name
