"""The vectorised screen against the scalar formulas where most is held before the first step."""

from __future__ import annotations

import numpy as np
import pytest

from planner import hardware
from planner.adapter import AdapterSpec
from planner.estimator import load
from planner.search.evaluate import evaluate
from planner.search.layout import layouts
from planner.search.screen import screen
from planner.search.space import Job, Space
from planner.setup import Setup
from planner.trainers import filled


@pytest.mark.parametrize("trainer", ["hf-trainer-5.3", "trl-0.24"])
def test_the_screen_knows_what_is_held_before_the_first_step(trainer: str) -> None:
    """Loading and preparing as the scalar formulas have them: in what has to fit, and in what the allocator keeps."""
    said = {"trainer": trainer, "lora_dropout": 0.0}
    job = Job(
        arch=load("meta-llama/Llama-3.1-8B")[1], setup=Setup(**{**filled(said), "seq_len": 512}), spec=AdapterSpec(),
        tokens=20_000_000, loss_tokens=8_000_000, given=said,
    )  # fmt: skip
    space = Space(
        (hardware.find("rtx 4090"),),
        layouts((1, 2)),
        micro_batches=(1, 8),
        ranks=(4, 64),
        quantize=("none", "nf4"),
        batches=(32,),
    )
    cells, phases = screen(job, space), set()
    for cell in np.flatnonzero(np.isfinite(cells.over)):
        full = evaluate(job, cells.choice(int(cell)))
        phases.add(full.memory.peak.phase)
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text
        most = (cells.over_high[cell] + 1) * full.memory_bytes
        assert most == pytest.approx(full.memory.high, rel=1e-8), full.choice.text
    assert phases & {"loading", "preparing"} and "backward" in phases
