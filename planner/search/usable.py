"""What a named trainer can run of the values that a search tries where nobody says which.

Facts are those of planner/exports, which writes each trainer's file, with their sources there; tests export what a
search finds for each of a dense model. Experts are held as they are asked for, which a file may not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..dataclass import dataclass
from ..schema import Notice
from .layout import SHARDINGS, Layout
from .space import LAYERS, QUANTIZE

INSIDE = ("mlp", "all-linear")  # layer sets without the unembedding
USUAL: dict[str, tuple[str, ...]] = {"layers": LAYERS, "quantize": QUANTIZE, "sharding": SHARDINGS}
# By the beginning of a profile's name. TRL's and Unsloth's losses read the unembedding past an adapter on it.
RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "trl": {"layers": INSIDE},
    "unsloth": {"layers": INSIDE, "quantize": ("none", "nf4-double"), "sharding": ("ddp",)},
    "torchtune": {"layers": ("all-linear",), "quantize": ("none", "nf4"), "sharding": ("fsdp",)},
    "megatron": {"layers": INSIDE, "quantize": ("none",), "sharding": ("ddp", "zero1")},
}

# Trainers whose recipes for adapters share no sequence, and those whose exported file has nothing to offload.
WHOLE_SEQUENCES = ("unsloth", "torchtune")
ON_GPU = ("unsloth", "megatron")


@dataclass(frozen=True)
class Open:
    """What nobody said and the trainer can do, so that it is tried where nothing fits: GPUs that share experts, and
    that share every sequence; `offload` is only said to be of help. `sharding` are the ways that are tried on several
    GPUs, `sharding_typed` says that they are not those alone that the trainer can run."""

    experts: bool = True
    sequences: bool = True
    offload: bool = True
    sharding: tuple[str, ...] = SHARDINGS
    sharding_typed: bool = True


def open_to(options: Mapping[str, Any], trainer: str | None, fitting: Mapping[str, tuple[str, ...]]) -> Open:
    """What is open to a search beside what is asked for; `fitting` are the axes of which it tries what the trainer
    can."""
    name = (trainer or "").lower()
    return Open(
        experts=options["expert_parallel"] is None,
        sequences=options["sequence_parallel"] is None and not name.startswith(WHOLE_SEQUENCES),
        offload=options["offload"] is None and not name.startswith(ON_GPU),
        sharding=fitting.get("sharding") or _typed(options["sharding"]),
        sharding_typed="sharding" not in fitting,
    )


def widened(best: Layout, free: Open) -> Iterator[Notice]:
    """That the best plan is of those that are tried only where nothing else fits."""
    if free.experts and best.expert_parallel > 1:
        yield Notice(
            "experts-divided",
            "No plan fits in which every GPU gathers all experts of a layer. The plans shown divide the experts over "
            "GPUs (expert parallelism), which Megatron-Bridge, NeMo and few others do.",
        )
    if free.sequences and best.sequence_parallel > 1:
        yield Notice(
            "sequences-shared",
            "No plan fits in which a GPU holds whole sequences. The plans shown share every sequence among GPUs "
            "(Ulysses or context parallelism), which accelerate, Axolotl, ms-swift, Megatron-Bridge and few others "
            "do.",
        )


def _typed(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return tuple(value)


def narrowed(options: Mapping[str, Any], trainer: str | None) -> dict[str, tuple[str, ...]]:
    """Values of the axes that are at their usual ones, as far as the trainer can run them; empty where it can all."""
    own = next((runs for name, runs in RUNS.items() if (trainer or "").lower().startswith(name)), {})
    return {axis: values for axis, values in own.items() if _typed(options[axis]) == USUAL[axis]}


def told(found: Mapping[str, tuple[str, ...]], trainer: str | None) -> Iterator[Notice]:
    """That only these were tried."""
    if found:
        tried = "; ".join(f"--{axis} {','.join(values)}" for axis, values in found.items())
        yield Notice(
            "as-trainer-can", f"Only what {trainer} can run was tried: {tried}. What is typed is kept."
        )
