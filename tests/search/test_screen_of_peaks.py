"""The screen of a search against the scalar formulas where measured peaks correct memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.measuring import calibrate
from planner.memory import overhead
from planner.memory.constants import constants
from planner.memory.interval_kinds import MEASURED
from planner.running import running
from planner.search import peaks
from planner.search.evaluate import Evaluated, evaluate
from planner.search.screen import screen
from planner.speed import Calibration

from .small import search_of

SMALL = "Qwen/Qwen2.5-0.5B"
AXES = {"ranks": (1, 64), "micro_batch": (1, 4), "quantize": "none", "checkpointing": "layer", "batch": (16,)}


def corrected_plans(factor: float, said: dict[str, Any], measured: dict[str, Any]) -> list[Evaluated]:
    """Every plan of a space after a peak that was `factor` times the predicted: needed and upper end to the byte."""
    own = running(SMALL, measured)
    alone = {**measured, "objective": "sft"}
    found = calibrate(
        SMALL, peak=factor * running(SMALL, alone).memory().allocated_bytes, peak_of="allocated", **alone
    ).peak
    assert found
    peak = replace(
        found, objective=own.setup.objective, loss=own.setup.loss
    )  # GRPO's own is not measured yet
    known = Calibration(peaks=(peak,))
    assert peak.tells_of(own.arch, own.setup)
    job, space = search_of(SMALL, {**AXES, **said, "calibration": known})
    cells, plans = screen(job, space), []
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = evaluate(job, cells.choice(int(cell)))
        held, most = ((over[cell] + 1) * full.memory_bytes for over in (cells.over, cells.over_high))
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text
        assert most == pytest.approx(full.memory.high, rel=1e-8), full.choice.text
        plans.append(full)
    assert any(full.memory.corrected for full in plans)
    return plans


def test_upper_ends_are_the_lower_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the interval after a peak and that of the set-up's own kind, either holds for some plans where the one
    stretches less and the other adds less beforehand. Today's constants have the former lower in both."""
    own = "alone-lora"
    known = constants()
    changed = (
        replace(each, extra_bytes=0.0) if each.kind == own else replace(each, extra_bytes=5e8)
        for each in known.intervals
    )
    other = replace(known, intervals=tuple(changed))
    assert other.of_kind(MEASURED).high < other.of_kind(own).high
    for module in (overhead, peaks):
        monkeypatch.setattr(module, "constants", lambda: other)
    run = {"rank": 16, "batch": 1, "seq_len": 128, "trainer": "trl-0.24", "checkpointing": "layer"}
    said = {"gpu": "t4,h100", "gpus": (1, 2), "tokens": 10**6, "seq_len": 128, "trainer": "trl-0.24"}
    found = corrected_plans(1.4, {**said, "micro_batch": (1, 4, 16)}, run)
    bound = {
        full.memory.high < overhead.within_kind(full.memory, MEASURED).high
        for full in found
        if full.memory.corrected and overhead.kind_of(full.memory.setup) == own
    }
    assert bound == {True, False}


@pytest.mark.parametrize("factor", [0.8, 1.5])
@pytest.mark.parametrize(
    "said",
    [
        {"generation": "transformers,colocate", "prompt_tokens": 60, "mean_completion": 100},
        {"generation": "colocate,server", "vllm_memory": 0.4, "vllm_gpus": 1},
        {"generation": "transformers", "lengths_vary": True},
    ],
    ids=str,
)
def test_completions_are_corrected_as_an_estimate_corrects_them(said: dict[str, Any], factor: float) -> None:
    grpo = {"objective": "grpo", "seq_len": 256, "trainer": "trl-0.24"}
    run = {**grpo, "rank": 16, "batch": 8, "accumulation": 2, "checkpointing": "layer", "gpu": "h100"}
    corrected_plans(factor, {**grpo, **said, "gpu": "rtx 4090,h100", "gpus": (1, 2), "episodes": 5000}, run)
