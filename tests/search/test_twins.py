"""Memory and work in float16 from those in bfloat16: the same to the bit as when each is counted by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner import facts
from planner.adapter import AdapterSpec, adapt
from planner.adapter.whole import NOTHING_WHOLE
from planner.errors import PlannerError
from planner.estimator import load
from planner.hardware import find
from planner.memory import estimate_memory
from planner.search import parts
from planner.search.layout import Layout
from planner.search.screen import AXES, screen
from planner.search.space import Job, Space, with_makers
from planner.search.twins import _alike, twin_of
from planner.setup import Setup
from planner.speed import time_gap

# T4 and V100 have no units for bfloat16; H100 and MI300X have larger workspaces, each its own.
GPUS = ("a100-80gb", "h100", "mi300x", "t4", "v100-32gb")
LAYOUTS = (Layout(1, "none"), Layout(2, "ddp"), Layout(4, "fsdp"), Layout(4, "fsdp", tensor_parallel=2))
OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {},
    "grpo": {"objective": "grpo", "reference": "none", "loss": "tiled", "prompt_tokens": 64},
}


def _space(job: Job, objective: str) -> Space:
    gpus = tuple(map(find, GPUS))
    found: tuple[Layout, ...] = LAYOUTS
    if objective == "grpo":
        found = with_makers(job.on(find("h100")), LAYOUTS[:3], ("transformers", "colocate"), (1,))
    return Space(gpus, found, ranks=(1, 16, 64), micro_batches=(1, 2, 8), batches=(8, 16))


def _job(model: str, said: dict[str, Any]) -> Job:
    given = {"adapter_dtype": "float32", **said}
    setup = Setup(**given, seq_len=512)
    return Job(load(model)[1], setup, AdapterSpec(), tokens=10**7, loss_tokens=10**7, given=given)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("model", ["meta-llama/Llama-3.2-1B", "Qwen/Qwen3-30B-A3B", "google/gemma-3-27b-it"])
def test_every_figure_is_that_of_each_by_itself(
    model: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds, dollars, memory and its interval, of supervised training and of GRPO."""
    joined, job = [], _job(model, OBJECTIVES[objective])

    def seen(own: Job, base: Job, space: Space) -> Job:
        joined.append(own.setup.precision == "fp16" and twin_of(own, base, space) is base)
        return twin_of(own, base, space)

    monkeypatch.setattr(parts, "twin_of", seen)
    together = screen(job, _space(job, objective))
    assert any(joined)
    monkeypatch.setattr(parts, "twin_of", lambda own, base, space: own)
    apart = screen(_job(model, OBJECTIVES[objective]), _space(job, objective))
    for name in AXES:
        assert np.array_equal(getattr(together, name), getattr(apart, name), equal_nan=True), name


@pytest.mark.parametrize("said", [{"attention_kernel": "eager"}, {"adapter_dtype": "bfloat16"}])
def test_a_rule_that_tells_the_types_apart_keeps_them_apart(said: dict[str, Any]) -> None:
    """Eager attention's softmax widens float16 by itself; an adapter in bfloat16 stays in it."""
    job = _job("meta-llama/Llama-3.2-1B", said)
    own = job.on(find("t4"))
    assert own.setup.precision == "fp16"
    assert twin_of(own, job, Space((), LAYOUTS)) is own
    plain = _job("meta-llama/Llama-3.2-1B", {})
    assert twin_of(plain.on(find("t4")), plain, Space((), LAYOUTS)) is plain


def test_memory_of_every_family_is_alike_in_both_types() -> None:
    """The estimate of one model of each type in the catalogue, wherever none of the rules is met."""
    seen, held = set[str](), 0
    for model in facts.model_ids():
        try:
            arch = load(model)[1]
        except PlannerError:
            continue
        if arch.model_type in seen or time_gap(arch):
            continue
        seen.add(arch.model_type)
        setup = Setup(seq_len=256, micro_batch=2, adapter_dtype="float32", checkpointing="layer")
        if not _alike(arch, setup):
            continue
        pairs = adapt(arch, AdapterSpec(rank=8))
        one, other = (
            estimate_memory(arch, replace(setup, precision=each), pairs, NOTHING_WHOLE)
            for each in ("bf16", "fp16")
        )
        assert [(m.where, m.items) for m in one.moments] == [(m.where, m.items) for m in other.moments]
        assert (one.cached_bytes, one.overhead) == (other.cached_bytes, other.overhead)
        held += 1
    assert held > 20
