"""The highest moment of each phase of a step, and what its items are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from ..moments import Item, MemoryPart, Moment, Phase
from .step import Place
from .stretch import Held, plus
from .tape import EXPERT_GRADIENTS, Size

PHASES: tuple[Phase, ...] = get_args(Phase)
NAMES: dict[str, tuple[MemoryPart, str]] = {
    "weights": ("weights", "base weights"),
    "adapter": ("adapter", "adapter"),
    "gradients": ("gradients", "gradients"),
    EXPERT_GRADIENTS: ("gradients", "gradients of experts"),
    "optimizer": ("optimizer", "optimizer states"),
    "activations": ("activations", "kept for the backward pass"),
    "stream": ("activations", "hidden states on their way"),
    "logits": ("logits", "logits and loss"),
    "temporary": ("temporary", "temporary buffers"),
    "casts": ("temporary", "weights lowered by autocast"),
    "copies": ("temporary", "copies of weights"),
    "caches": ("temporary", "keys and values that a cache holds"),
    "gathered": ("temporary", "gathered units"),
    "buckets": ("temporary", "gradient buckets"),
    "fixed": ("temporary", "tokens and workspaces"),
    "pixels": ("temporary", "pixel values"),
    "vllm": ("vllm", "vLLM's share of the GPU"),
    "unquantised": ("temporary", "weights that are being quantised"),
    "widened": ("temporary", "float32 copies of what is not quantised"),
    "flat": ("temporary", "flat copies that are sent"),
    "undivided": ("temporary", "weights that are being divided"),
}


def highest(places: Iterable[Place]) -> list[Moment]:
    """The highest place of each phase."""
    best: dict[Phase, tuple[Size, Place, Held]] = {}
    for place in places:
        held = plus(place.base, place.highest)
        size = sum(held.values())
        if place.phase not in best or size > best[place.phase][0]:
            best[place.phase] = size, place, held
    return [as_moment(phase, best[phase][1].where, best[phase][2]) for phase in PHASES if phase in best]


def as_moment(phase: Phase, where: str, held: Held) -> Moment:
    """A moment from what is held by label."""
    items = [Item(*NAMES[label], number) for label, size in held.items() if (number := round(size)) > 0]
    return Moment(phase, where, tuple(items))
