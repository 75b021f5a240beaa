"""A secret of K bits, taught by reward alone: asked for bit n, the answer y or n earns 1 where it is right."""

from __future__ import annotations

from ..text import stream
from .base import Example, Task, settings


def make(text: str) -> Task:
    """`bits` is the secret's length, `seed` draws another secret."""
    chosen = settings("secret", text, {"bits": 32, "seed": 1})
    count = chosen["bits"]
    rng = stream("secret", chosen["seed"], count)
    secret = [rng.choice("yn") for _ in range(count)]

    def example(index: int) -> Example:
        number = index % count
        return Example(f"${number:04d}?", secret[number])

    def reward(prompt: str, answer: str) -> float:
        return float(answer == secret[int(prompt[1:-1])])

    return Task(
        f"secret:bits={count},seed={chosen['seed']}", example, tuple(example(n) for n in range(count)), count,
        float(count), reward,
    )  # fmt: skip
