"""A simulated step on a GPU that is named: whether it fits there, as its allocator serves it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import facts, hardware, simulate
from planner.errors import InputError
from planner.running import running
from planner.simulate.reserving import ROOM

SMALL = "HuggingFaceTB/SmolLM2-135M"
STEP: dict[str, Any] = {"methods": "lora", "seq_len": 128}
WORKSPACES = 2 * 8_519_680  # two threads' on most GPUs, 32 MiB each on an H100: data/workspaces.toml


@pytest.mark.parametrize(("gpu", "workspaces"), [("rtx-4090", WORKSPACES), ("h100", 2 * 32 * 2**20)])
def test_a_gpu_that_has_room(gpu: str, workspaces: int) -> None:
    found = simulate(SMALL, gpu=gpu, **STEP)
    step = found.steps["lora"]
    assert step.fits is True and found.gpu == facts.accelerator(gpu)
    assert step.per_gpu_bytes == step.peak_bytes + workspaces + 800_000_000
    written = found.to_dict()
    assert written["gpu"] == {"name": found.gpu.name, "memory_bytes": found.gpu.memory_bytes}
    assert written["lora"]["fits"] is True and written["lora"]["per_gpu_bytes"] == step.per_gpu_bytes
    assert "fragmented" not in {notice.code for notice in found.warnings}


def test_without_a_gpu_nothing_is_said_of_fitting() -> None:
    found = simulate(SMALL, **STEP).to_dict()
    assert found["gpu"] is None and found["lora"]["fits"] is None


def test_what_fits_is_what_the_allocator_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """On cards of ever less memory: it fits, then the tensors alone would, which is said, then neither."""
    card = facts.accelerator("rtx-4090")
    peak = simulate(SMALL, **STEP).steps["lora"]
    needed = peak.per_gpu_bytes
    seen = []
    for memory_bytes in (needed + 2**29, needed, needed - 2**22):
        monkeypatch.setattr(hardware, "find", lambda name, own=memory_bytes: replace(card, memory_bytes=own))
        found = simulate(SMALL, gpu="rtx-4090", **STEP)
        seen.append((found.steps["lora"].fits, "fragmented" in {notice.code for notice in found.warnings}))
    assert seen == [(True, False), (False, True), (False, False)]
    assert peak.reserved_bytes is not None and peak.reserved_bytes < ROOM
    grown = simulate(SMALL, gpu="rtx-4090", expandable_segments=True, **STEP)
    assert grown.steps["lora"].fits is False  # the last card's


def test_a_gpu_without_bfloat16_computes_in_float16() -> None:
    assert simulate(SMALL, gpu="t4", **STEP).steps["lora"].setup.precision == "fp16"
    assert running(SMALL, {"gpu": "t4"}).setup.precision == "fp16"


def test_a_gpu_whose_memory_is_not_known() -> None:
    found = simulate(SMALL, gpu="Apple M2", **STEP)
    assert found.steps["lora"].fits is None
    assert "gpu-memory-unknown" in {notice.code for notice in found.warnings}


def test_an_unknown_gpu_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="H100"):
        simulate(SMALL, gpu="h1000", **STEP)
