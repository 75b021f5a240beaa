"""Tasks whose content is known: what a run trains and is evaluated on.

A task is named with its settings, `biographies:people=200`. It gives training example i and a fixed evaluation set,
the same on every machine; the loss is on completions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from ...errors import InputError, hint
from . import arithmetic, biographies, dialect, file, secret, strings
from .base import Example, Task

__all__ = ["Example", "Task", "task"]


@lru_cache(maxsize=32)
def task(spec: str) -> Task:
    """The task of this name and settings. Raises InputError with the nearest name."""
    makers: dict[str, Callable[[str], Task]] = {
        "dialect": dialect.make, "biographies": biographies.make, "strings": strings.make,
        "arithmetic": arithmetic.make, "secret": secret.make, "file": file.make,
    }  # fmt: skip
    name, _, rest = spec.partition(":")
    if name not in makers:
        raise InputError("task", spec, f"one of {', '.join(makers)}", hint(name, makers).strip())
    made = makers[name](rest)
    # A sweep goes through the same examples at every rate.
    return replace(made, example=lru_cache(maxsize=8192)(made.example))
