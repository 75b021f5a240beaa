"""What a task is: examples by number, an evaluation set, the bits in them, perhaps a reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...errors import InputError, hint


@dataclass(frozen=True)
class Example:
    """A prompt without loss and a completion with it."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Task:
    """`example(i)` is training example i. `size` distinct examples hold `bits` in all, exactly, where they are known;
    0 and None where examples never end. `reward` judges an answer to a prompt, for reinforcement learning."""

    name: str
    example: Callable[[int], Example]
    evaluation: tuple[Example, ...]
    size: int = 0
    bits: float | None = None
    reward: Callable[[str, str], float] | None = None


def settings(name: str, text: str, defaults: dict[str, int]) -> dict[str, int]:
    """The settings behind a task's colon, whole numbers by name. Raises InputError."""
    found = dict(defaults)
    for item in filter(None, text.split(",")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise InputError("task", item, f"settings of {name}: {', '.join(defaults)}", hint(key, defaults))
        if not value.isdigit() or int(value) < 1:
            raise InputError("task", item, f"{key} as a whole number of at least 1")
        found[key] = int(value)
    return found
