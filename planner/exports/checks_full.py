"""What a review looks for in a config of full fine-tuning: its memory and rate, and whether LoRA would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .. import units
from ..information import ARTICLE
from .checks import Case, Finding, beyond_context, derived, does_not_fit, rate_apart, schedule


def memory(case: Case) -> Iterator[Finding]:
    """Whether every parameter's weights, gradients and states fit on the GPU that was named."""
    return does_not_fit(case, "full", "Sharded states (--sharding fsdp), or LoRA.")


def learning_rate(case: Case) -> Iterator[Finding]:
    """The rate against the law's for full fine-tuning."""
    return rate_apart(case, f"full fine-tuning at {case.training.batch} sequences a step", "")


def rounded_updates(case: Case) -> Iterator[Finding]:
    """Weights in bfloat16 without masters: an update under 1/512 of a weight is rounded away."""
    if case.training.setup.precision != "bf16":
        return
    yield Finding(
        "bf16-weights", "note", "The weights that train are held in bfloat16, without masters in float32.",
        "bfloat16 keeps 8 bits of a weight: an update smaller than a 512th of it is rounded away. Adam moves a "
        "weight by about the rate in a step, 1e-5 say, of some 0.02.",
        "Load in float32 under autocast, or shard with float32 states, where memory has room.",
        derived("8 bits of mantissa"),
    )  # fmt: skip


def lora_would_do(case: Case) -> Iterator[Finding]:
    """Whether an adapter holds what the data bring, and what it would take."""
    rank, plan = case.plan.capacity.required_rank, case.plan
    if rank is None or plan.flops is None or case.other_stage is not None:
        return
    full, lora = (plan.memory or {}).get("full"), (plan.memory or {}).get("lora")
    less = ""
    if full and lora:
        sizes = units.byte_size(lora["per_gpu_bytes"]), units.byte_size(full["per_gpu_bytes"])
        less = f" and about {sizes[0]} of a GPU in place of {sizes[1]}"
    yield Finding(
        "lora-would-do", "note", f"The data hold no more than an adapter of rank {rank} can.",
        "Where the adapter has room for what the data hold, LoRA learns as well as full fine-tuning at two thirds of "
        f"the FLOPs (here {plan.flops.ratio:.0%}){less}, at about ten times the learning rate.",
        f"Rank {rank} or more on all layers: lora-plan compare --config.", ARTICLE,
    )  # fmt: skip


FULL_CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    memory, beyond_context, learning_rate, rounded_updates, lora_would_do, schedule,
)  # fmt: skip
