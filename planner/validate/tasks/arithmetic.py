"""Sums with a verifiable reward: 1 where the answer is right, else 0. For reinforcement learning and supervised runs.

The zoo saw sums with wrong answers in half of the cases, so that it starts with some success and much to gain.
"""

from __future__ import annotations

from ..text import stream
from .base import Example, Task, settings

HELD_OUT = 64


def make(text: str) -> Task:
    """`largest` is the largest term."""
    largest = settings("arithmetic", text, {"largest": 9})["largest"]

    def example(index: int) -> Example:
        rng = stream("sum", largest, index)
        left, right = rng.randint(0, largest), rng.randint(0, largest)
        return Example(f"{left}+{right}=", f"{left + right}\n")

    def reward(prompt: str, answer: str) -> float:
        left, right = prompt.rstrip("=").split("+")
        return float(answer == f"{int(left) + int(right)}\n")

    held_out = tuple(example(-1 - n) for n in range(HELD_OUT))
    return Task(f"arithmetic:largest={largest}", example, held_out, reward=reward)
