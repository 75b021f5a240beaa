"""What of an adapter lies in the tower that a sequence's images pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from ..schema import Images
from .pairs import Adapted
from .whole import NOTHING_WHOLE, Whole

Value = TypeVar("Value")


def _there(images: Images, found: dict[int, Value]) -> dict[int, Value]:
    return {own: found[index] for own, index in enumerate(images.indices) if index in found}


def in_tower(images: Images, adapted: Iterable[Adapted]) -> tuple[Adapted, ...]:
    """The pairs on matrices of the tower, by its own numbers. They keep the matrix of the whole model."""
    numbers = {index: own for own, index in enumerate(images.indices)}
    return tuple(replace(item, index=numbers[item.index]) for item in adapted if item.index in numbers)


def whole_in_tower(images: Images, whole: Whole) -> Whole:
    """What is trained in full of the tower, by its own numbers. Norms' biases (`bias` all) are left out: they keep
    their input, which the layer keeps for the next matrix too, or for nothing (under 2% of a layer)."""
    if whole is NOTHING_WHOLE:
        return whole
    matrices, biases = _there(images, dict(whole.matrices)), _there(images, dict(whole.biases))
    if not matrices and not biases:
        return NOTHING_WHOLE
    return Whole(matrices=matrices, biases=biases)
