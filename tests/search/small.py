"""A job and accelerators that the tests of a search share."""

from __future__ import annotations

from typing import Any

from planner import hardware
from planner.adapter import AdapterSpec
from planner.estimator import load
from planner.search.space import Job
from planner.setup import Setup

GPUS = tuple(hardware.find(name) for name in ("rtx 4090", "a100 80gb", "h100"))


def job_of(model: str, **change: Any) -> Job:
    values = {
        "arch": load(model)[1], "setup": Setup(seq_len=2048), "spec": AdapterSpec(), "tokens": 20_000_000,
        "loss_tokens": 8_000_000,
    }  # fmt: skip
    return Job(**{**values, **change})
