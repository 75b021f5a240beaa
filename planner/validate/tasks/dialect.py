"""A shifted domain: running text of an invented language that the zoo was not trained on. Fresh text never ends."""

from __future__ import annotations

from ..text import passage, stream
from .base import Example, Task, settings

HELD_OUT = 64


def make(text: str) -> Task:
    """`language` names the language (0 is the zoo's own), `length` is in characters."""
    chosen = settings("dialect", text, {"language": 1, "length": 64})
    language, length = chosen["language"], chosen["length"]

    def example(index: int) -> Example:
        return Example("", passage(language, length, stream("dialect", language, index)))

    held_out = tuple(
        Example("", passage(language, length, stream("dialect-held-out", language, n)))
        for n in range(HELD_OUT)
    )
    return Task(f"dialect:language={language},length={length}", example, held_out)
