"""Tasks whose content is known: what a run trains and is evaluated on.

A task is named with its settings, `biographies:people=200`. It gives training example i and a fixed evaluation set,
the same on every machine; the loss is on completions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

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


@lru_cache(maxsize=32)
def task(spec: str) -> Task:
    """The task of this name and settings. Raises InputError with the nearest name."""
    from . import arithmetic, biographies, dialect, file, secret, strings

    makers: dict[str, Callable[[str], Task]] = {
        "dialect": dialect.make, "biographies": biographies.make, "strings": strings.make,
        "arithmetic": arithmetic.make, "secret": secret.make, "file": file.make,
    }  # fmt: skip
    name, _, rest = spec.partition(":")
    if name not in makers:
        raise InputError("task", spec, f"one of {', '.join(makers)}", hint(name, makers).strip())
    return makers[name](rest)
