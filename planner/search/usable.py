"""What a named trainer can run of the values that a search tries where nobody says which.

Facts are those of planner/exports, which writes each trainer's file, with their sources there; tests export what a
search finds for each of a dense model. Experts are held as they are asked for, which a file may not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..schema import Notice
from .space import LAYERS, QUANTIZE, SHARDINGS

INSIDE = ("mlp", "all-linear")  # layer sets without the unembedding
USUAL: dict[str, tuple[str, ...]] = {"layers": LAYERS, "quantize": QUANTIZE, "sharding": SHARDINGS}
# By the beginning of a profile's name. TRL's and Unsloth's losses read the unembedding past an adapter on it.
RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    "trl": {"layers": INSIDE},
    "unsloth": {"layers": INSIDE, "quantize": ("none", "nf4-double"), "sharding": ("ddp",)},
    "torchtune": {"layers": ("all-linear",), "quantize": ("none", "nf4"), "sharding": ("fsdp",)},
    "megatron": {"layers": INSIDE, "quantize": ("none",), "sharding": ("ddp", "zero1")},
}


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
