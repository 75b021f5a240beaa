"""Biographies of invented people: every attribute is drawn uniformly, so that the bits to be learned are known.

A person of `people` has a number for a name and 5 attributes of `choices` values each: people x 5 x log2(choices)
bits, all of them in the completions. Recall of one fact needs its person's number, as in the knowledge-capacity
literature (Allen-Zhu and Li 2024), which uses names.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

from ..text import stream, words
from .base import Example, Task, settings

ATTRIBUTES = ("town", "study", "firm", "dish", "game")
PROMPT = 6


@lru_cache(maxsize=8)
def _values(choices: int) -> dict[str, tuple[str, ...]]:
    return {name: words(900 + n, name, choices) for n, name in enumerate(ATTRIBUTES)}


def line(number: int, choices: int, rng: random.Random) -> str:
    """A person's line, the attributes drawn from rng."""
    values = _values(choices)
    return f"#{number:04d} " + " ".join(f"{name[0]}:{rng.choice(values[name])}" for name in ATTRIBUTES) + "\n"


def make(text: str) -> Task:
    """`people` and `choices` decide the bits; `seed` draws another population."""
    chosen = settings("biographies", text, {"people": 100, "choices": 16, "seed": 1})
    people, choices = chosen["people"], chosen["choices"]

    def example(index: int) -> Example:
        number = index % people
        text = line(number, choices, stream("biography", chosen["seed"], choices, number))
        return Example(text[:PROMPT], text[PROMPT:])

    return Task(
        f"biographies:people={people},choices={choices},seed={chosen['seed']}", example,
        tuple(example(n) for n in range(people)), people, people * len(ATTRIBUTES) * math.log2(choices),
    )  # fmt: skip
