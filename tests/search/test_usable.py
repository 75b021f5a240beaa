"""What a search finds for a trainer is what that trainer's file can say."""

from __future__ import annotations

from typing import Any

import pytest

import planner
from planner.cli.plan_page import target_of
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
