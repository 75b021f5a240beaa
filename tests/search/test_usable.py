"""What a search finds for a trainer is what that trainer's file can say."""

from __future__ import annotations

from typing import Any

import pytest

import planner
from planner.cli.plan_page import target_of
from planner.errors import InputError
from planner.search.usable import RUNS, USUAL

TRAINERS = ("trl", "unsloth", "torchtune", "megatron", "axolotl", "llama-factory")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_what_a_search_finds_for_a_trainer_can_be_exported(trainer: str) -> None:
    model = "meta-llama/Llama-3.1-8B" if trainer == "torchtune" else "Qwen/Qwen3-8B"
    options: dict[str, Any] = {"tokens": "50M", "gpu": "h100,rtx 4090", "ranks": (8, 64)}
    found = planner.plan(model, trainer=trainer, **options)
    for each in (found.best, *found.alternatives, *found.frontier[::3]):
        assert planner.export(target_of(trainer), **found.options(each)).text
    told = {notice.code: notice.message for notice in found.warnings}.get("as-trainer-can", "")
    assert bool(told) == (trainer in RUNS)
    for axis, values in RUNS.get(trainer, {}).items():
        assert (
            set(values) < set(USUAL[axis]) | {"all-linear", "zero1"}
            and f"--{axis} {','.join(values)}" in told
        )


def test_what_is_typed_is_kept() -> None:
    found = planner.plan(
        "Qwen/Qwen3-8B", tokens="5M", gpu="rtx 4090", trainer="unsloth", quantize="nf4", layers="all"
    )
    assert found.best.choice.quantize == "nf4" and found.best.choice.layers == "all"
    assert "--quantize" not in next(n.message for n in found.warnings if n.code == "as-trainer-can")


def test_layouts_that_are_asked_for_can_be_exported() -> None:
    """Megatron's file says how GPUs share matrices, layers and sequences."""
    ways = {"tensor_parallel": (1, 2), "pipeline_parallel": (1, 2), "sequence_parallel": (1, 2)}
    found = planner.plan(
        "Qwen/Qwen3-8B", tokens="50M", gpu="h100", gpus=8, trainer="megatron", ranks=8, alternatives=8, **ways
    )
    plans = [found.best, *found.alternatives, *(each.plan for each in found.rejected)]
    seen: set[str] = set()
    for each in plans:
        text = planner.export("megatron", **found.options(each)).text
        for way, name in (
            ("tensor", "tensor_model"),
            ("pipeline", "pipeline_model"),
            ("sequence", "context"),
        ):
            count = getattr(each.choice.layout, f"{way}_parallel")
            assert f"model.{name}_parallel_size = {count}" in text
            seen |= {way} if count > 1 else set()
    assert seen == {"tensor", "pipeline", "sequence"}


@pytest.mark.parametrize(("trainer", "shares"), [("torchtune", False), ("axolotl", True), ("plain", True)])
def test_sequences_are_shared_unasked_where_the_trainer_can(trainer: str, shares: bool) -> None:
    options: dict[str, Any] = {
        "tokens": "20M", "gpu": "h100", "gpus": 8, "seq_len": 131072, "trainer": trainer, "ranks": 16,
        "layers": "all-linear", "sharding": "fsdp", "loss": "full",
    }  # fmt: skip
    if shares:
        assert planner.plan("meta-llama/Llama-3.1-8B", **options).best.choice.layout.sequence_parallel > 1
        return
    with pytest.raises(InputError, match="Nothing fits: the nearest is"):
        planner.plan("meta-llama/Llama-3.1-8B", **options)


@pytest.mark.parametrize("trainer", ["unsloth", "megatron", "plain"])
def test_offloading_is_said_to_help_where_the_trainer_can(trainer: str) -> None:
    options: dict[str, Any] = {"tokens": "1M", "gpu": "t4", "gpus": 1, "quantize": "none", "seq_len": 512}
    with pytest.raises(InputError, match="Nothing fits") as told:
        planner.plan("meta-llama/Llama-3.1-8B", trainer=trainer, ranks=8, **options)
    assert ("--offload all would do" in str(told.value)) == (trainer == "plain")
