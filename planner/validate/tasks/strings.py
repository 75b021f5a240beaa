"""Random strings: the purest memorisation. `count` strings of `length` letters out of 16, 4 bits a letter."""

from __future__ import annotations

from ..text import stream
from .base import Example, Task, settings

LETTERS = "abcdefghijklmnop"
BITS_PER_LETTER = 4


def make(text: str) -> Task:
    """`count`, `length`, and a `seed` for other strings."""
    chosen = settings("strings", text, {"count": 64, "length": 32, "seed": 1})
    count, length = chosen["count"], chosen["length"]

    def example(index: int) -> Example:
        number = index % count
        rng = stream("string", chosen["seed"], number)
        return Example(f"@{number:04d}=", "".join(rng.choice(LETTERS) for _ in range(length)))

    return Task(
        f"strings:count={count},length={length},seed={chosen['seed']}", example,
        tuple(example(n) for n in range(count)), count, float(count * length * BITS_PER_LETTER),
    )  # fmt: skip
