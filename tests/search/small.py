"""A job and accelerators that the tests of a search share."""

from __future__ import annotations

import inspect
from typing import Any

from planner import hardware
from planner.adapter import AdapterSpec
from planner.estimator import load
from planner.search import api
from planner.search.space import Job, Space
from planner.setup import Setup

GPUS = tuple(hardware.find(name) for name in ("rtx 4090", "a100 80gb", "h100"))


def job_of(model: str, **change: Any) -> Job:
    values = {
        "arch": load(model)[1], "setup": Setup(seq_len=2048), "spec": AdapterSpec(), "tokens": 20_000_000,
        "loss_tokens": 8_000_000,
    }  # fmt: skip
    return Job(**{**values, **change})


def search_of(model: str, options: dict[str, Any]) -> tuple[Job, Space]:
    """The job and the space of a search, as `planner.plan` makes them of its options."""
    parameters = inspect.signature(api.plan).parameters.values()
    usual = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    asked = {**usual, **{name: value for name, value in options.items() if name in usual}, "model": model}
    setup = {name: value for name, value in options.items() if name not in usual}
    job, _, _ = api._job(asked, setup)
    return job, api._with_makers(job, api._shared_out(job, api._space(asked), asked), asked)
