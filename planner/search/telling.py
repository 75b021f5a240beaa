"""What to know of the plans of a search: beside the best one's figures, and of what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .. import grpo, units
from ..capacity import BITS_PER_PARAM, capacity_bits
from ..memory.calibration import peak_notices
from ..memory.overhead import said_narrower
from ..notices import beyond_context
from ..pacing import few_steps, packed_notice
from ..schema import Notice
from ..trainers import to_say
from .evaluate import Evaluated
from .space import COUNTS, Job, Limits


def _of_rewards(job: Job, best: Evaluated) -> Iterator[Notice]:
    """What to know where there is no law of regret."""
    text = (
        "No expected regret: its law is of supervised data. Ranks are told apart by time and cost alone: --ranks "
        "says which you want."
    )
    if job.setup.objective == "sft" and job.bits is not None:
        text += (
            " Rollouts are not in the time, which is that of training on one sequence an episode: --objective grpo "
            "counts them."
        )
    yield Notice("regret-unknown", text)
    if job.bits is not None:
        held = capacity_bits(best.params)
        verdict = "holds" if job.bits <= held else "does not hold"
        yield Notice(
            "episodes-hold",
            f"The data tell at most {units.count(round(job.bits))} bits, which the best plan's adapter {verdict}: "
            f"{units.count(round(held))} at {BITS_PER_PARAM:g} a parameter.",
        )


def notices(
    job: Job, found: Sequence[Evaluated], own: bool, group: int | None, within: Limits
) -> Iterator[Notice]:
    """What to know of these plans; `own`: whether the GPUs are named, and the usual numbers of them tried."""
    best = found[0]
    if said := replace(best.host, memory_bytes=within.host_bytes).notice:
        yield said
    if own and best.choice.layout.gpus > 1:
        yield Notice(
            "gpus-tried",
            f"{', '.join(map(str, COUNTS))} GPUs were tried: --gpus 1 keeps to one.",
        )
    yield from beyond_context(job.arch, job.setup.seq_len)
    yield from few_steps(best.run.steps)
    if job.loss_tokens is None:
        yield from _of_rewards(job, best)
    if job.setup.objective == "grpo":
        yield from grpo.notices(job.arch, best.memory.setup, {"group": group})
    if "attention" in (plan.choice.layers for plan in found):
        yield Notice(
            "regret-of-attention",
            "The law of regret was fitted on adapters of all layers; attention alone lags behind it.",
        )
    if best.over_bytes("sure") > 0:
        yield Notice(
            "memory-tight",
            f"The upper end of the memory's interval, {units.byte_size(best.memory.high)}, is more than the GPU has. "
            f"--fit sure keeps to plans whose upper end fits too.{said_narrower(best.memory)}",
        )
    if best.regret is not None and best.regret.extrapolated:
        yield Notice(
            "regret-extrapolated",
            "The best plan's parameters per loss token lie outside the range that the law of regret was fitted on.",
        )
    if packed := packed_notice(
        job.samples, best.memory.setup, job.given.get("packing") is not None, job.epochs
    ):
        yield packed
    yield from to_say(best.memory.setup)
    yield from peak_notices(job.calibration.peaks, job.arch, best.memory.setup)
    yield from best.run.step.notices
