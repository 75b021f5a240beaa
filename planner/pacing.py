"""The steps and the time of a run: full sequences over its tokens, or samples as they are padded.

A step at the mean padded length stands for the mean of steps, which leaves out that attention grows with the square
of a length (a few per cent where it is a small part of a step).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import units
from .objective_rules import SEQUENCES
from .samples import Samples
from .schema import Notice
from .trainers import usual

if TYPE_CHECKING:  # loaded where a time is asked for
    from .cost import RunTime
    from .plan import Plan
    from .running import Running
    from .setup import Setup
    from .speed import Calibration, StepTime

UNPACKED = "padded"
LENGTHS = ("lengths_vary", "length_records")  # what a set-up has by the data
FEW = 10  # steps


def optimizer_steps(plan: Plan, batch: int) -> int | None:
    """Optimizer steps of the run with `batch` sequences a step: its tokens (or episodes) over those of a step, or its
    samples where they are padded."""
    info = plan.information
    if info is None:
        return None
    if info.kind == "rl":
        return max(1, math.ceil(info.units * plan.workload.epochs / batch))
    if plan.samples is not None and packing_of(plan.request) == "padded":
        return plan.samples.steps(plan.workload.epochs, batch)
    tokens, each = processed_tokens(plan), SEQUENCES.get(str(plan.request.get("objective")), 1)
    return None if tokens is None else max(1, math.ceil(tokens / (each * batch * plan.workload.seq_len)))


def packing_of(request: Mapping[str, Any]) -> str:
    """How sequences are filled, by what was given or as the objective or the trainer has it."""
    if request.get("packing") is not None:
        return str(request["packing"])
    if request.get("objective") not in (None, "sft"):
        return "padded"
    return str(usual(request, "packing") or "full")


def processed_tokens(plan: Plan) -> int | None:
    """Tokens that the run processes; an episode is a sequence."""
    info, work = plan.information, plan.workload
    if info is None:
        return None
    tokens = work.total_tokens if info.kind != "rl" else info.units * work.seq_len
    return (tokens or info.units) * work.epochs


def timed(
    run: Running, samples: Samples | None, tokens: int | None, epochs: int, calibration: Calibration
) -> RunTime | None:
    """A run's steps and time: of full sequences over `tokens` tokens, or of samples as they are padded. None where
    the model's operations or the machine are not known; InputError where a rate of the GPU is not."""
    from .cost import RunTime, run_time

    step, setup, own = run.time(calibration), run.setup, bool(calibration.measurements)
    if step is None:
        return None
    length = padded_length(setup, samples)
    if length is None or samples is None:
        return run_time(step, tokens, own)
    shorter = replace(run, setup=replace(setup, seq_len=length)).time(calibration)
    assert shorter is not None
    if samples.lengths is None and setup.sequences > 1:
        shorter = _with_padding(shorter, step)
    return RunTime(shorter, samples.steps(epochs, setup.global_batch), own, length)


def padded_length(setup: Setup, samples: Samples | None) -> int | None:
    """Tokens of a sequence, on average, where samples are padded; None where sequences are full."""
    if samples is None or setup.packing != UNPACKED or setup.objective == "grpo":
        return None
    length = samples.padded(setup.sequences, setup.seq_len)
    return math.ceil(length / setup.sequence_parallel) * setup.sequence_parallel


def by_data(setup: Setup, samples: Samples | None, said: Mapping[str, Any]) -> Setup:
    """A set-up whose lengths are the data's, where samples are padded or a trainer lets them vary: whether they do,
    unless the options `said` that they do not, and how often a longer one comes."""
    if samples is None or not samples.lengths or setup.packing == "packed" or setup.objective == "grpo":
        return setup
    if said.get("lengths_vary") is False or not (setup.packing == UNPACKED or setup.lengths_vary):
        return setup
    found = samples.records(setup.seq_len)
    return replace(setup, lengths_vary=found[0] > 0, length_records=found)


def _with_padding(mean: StepTime, full: StepTime) -> StepTime:
    """A step at the mean length whose interval reaches to where every sequence is padded to the full length."""
    told = Notice(
        "padding-not-counted",
        "Nobody counted this data's lengths: the time is of samples as long as the mean one, without padding; its "
        "upper end, of all padded to the full length. --data FILE counts them.",
    )
    return replace(mean, high=max(mean.high, full.seconds), notices=(*mean.notices, told))


def packed_notice(samples: Samples | None, setup: Setup, packing_given: bool, epochs: int) -> Notice | None:
    """That sequences are taken to be full, where samples are much shorter and nobody said how they are packed."""
    if samples is None or packing_given or setup.packing != "full" or samples.mean > setup.seq_len / 2:
        return None
    steps = units.counted(samples.steps(epochs, setup.global_batch), "step")
    return Notice(
        "taken-as-packed",
        f"Samples are {samples.mean:,.0f} tokens on average and taken to be packed into sequences of "
        f"{setup.seq_len:,}. Where the trainer does not pack them it is {steps}: --packing padded.",
    )


def few_steps(steps: int | None) -> tuple[Notice, ...]:
    """That a run is over before it has begun."""
    if steps is None or steps >= FEW:
        return ()
    said = units.counted(steps, "step")
    return (
        Notice(
            "few-steps", f"The whole run is {said}, too few to learn much: smaller batches or more epochs."
        ),
    )
