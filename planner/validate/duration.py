"""How long a claim takes here, before anything has run: steps measured now, scaled to the runs that it asks for."""

from __future__ import annotations

import statistics
import time
from functools import lru_cache

from . import zoo
from .batches import encode_batch, loss_of
from .claims import Claim, Setting
from .records import RunConfig
from .require import require
from .tasks import task
from .text import Characters

BATCH, SEQ_LEN = 16, 64
# Share of a step that does not grow with its tokens, and what one token sampled costs beside the update, both as
# measured on the smaller zoo models.
FIXED = 0.3
SAMPLING = 0.2
EVALUATION_STEPS = 6.0


@lru_cache(maxsize=16)
def step_seconds(model: str, threads: int = 1) -> float:
    """Seconds of a training step of 16 x 64 tokens of a zoo model here and now, the median of five, its weights as
    drawn."""
    torch = require()
    torch.set_num_threads(threads)
    known = task("dialect")
    batch = encode_batch([known.example(n) for n in range(BATCH)], Characters(), SEQ_LEN, "cpu")
    built = zoo.build(model).train()
    times = []
    for _ in range(7):
        started = time.perf_counter()
        loss_of(built, batch).backward()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def run_seconds(config: RunConfig, threads: int = 1) -> float | None:
    """Seconds that a run may take, None for a model that is none of the zoo's."""
    if config.model not in zoo.ZOO:
        return None
    step = step_seconds(config.model, threads)
    known = task(config.task)
    lengths = [len(e.prompt) + len(e.completion) for e in (known.example(0), known.example(1))]
    tokens = config.batch * min(config.seq_len, max(lengths))
    each = step * (FIXED + (1 - FIXED) * tokens / (BATCH * SEQ_LEN))
    if config.kind == "rl":
        each += step * (FIXED + SAMPLING * tokens / (BATCH * SEQ_LEN)) * len(known.example(0).completion)
    if config.kind in ("flops", "kernel"):
        return 2 * step * config.batch * config.steps
    return each * config.steps + step * EVALUATION_STEPS


def claim_seconds(claim: Claim, setting: Setting, threads: int = 1) -> float | None:
    """Seconds of a claim's expected runs, none being there: the mean of those that it asks for first times their
    number.

    Claims share runs, so that several together take less than the sum. Making a zoo model on first use comes on top.
    """
    number = claim.expected_runs(setting)
    first = claim.needs(setting, lambda _: None)
    if not number or not first:
        return 0.0 if not number else None
    found = [run_seconds(config, threads) for config in first]
    known = [seconds for seconds in found if seconds is not None]
    return statistics.fmean(known) * number if len(known) == len(found) else None
