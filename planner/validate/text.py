"""The character vocabulary of the zoo, and text of our own: invented languages with a small grammar.

A language is a seed: syllables, a lexicon with Zipf frequencies, and sentence patterns. Everything is drawn with
random.Random, whose streams are the same on every platform and Python version.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

PAD = 0
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz0123456789.,:;=+-*?!'()<>|#@_/%&$^"
VOCAB_SIZE = 64

_PATTERNS = (
    "the {a} {n} {v} the {n}.",
    "{n} and {n} {v} near the {n}.",
    "why does a {n} {v} every {a} {n}?",
    "if the {n} is {a}, the {n} {v}.",
    "{v} the {n}, or {v} the {a} one!",
    "a {n} of {n} was never {a}.",
)


class Characters:
    """The zoo's tokenizer: one token a character of ALPHABET, 0 is padding; others become '?'."""

    pad = PAD
    vocab_size = VOCAB_SIZE
    _ids = {char: number + 1 for number, char in enumerate(ALPHABET)}  # noqa: RUF012

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text."""
        unknown = self._ids["?"]
        return [self._ids.get(char, unknown) for char in text]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers, padding left out."""
        return "".join(ALPHABET[token - 1] for token in tokens if 0 < token <= len(ALPHABET))


def stream(*key: object) -> random.Random:
    """A random stream named by a key; the same key gives the same numbers everywhere."""
    return random.Random("/".join(str(part) for part in key))


def words(language: int, kind: str, count: int) -> tuple[str, ...]:
    """`count` different invented words of a language."""
    rng = stream("words", language, kind)
    onsets = rng.sample(["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "br"], 8)
    vowels = rng.sample(["a", "e", "i", "o", "u", "ai", "ou"], 4)
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = rng.choice((1, 2, 2, 3))
        word = "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(syllables)) + rng.choice("nrsk")
        found[word] = None
    return tuple(found)


@lru_cache(maxsize=16)
def _lexicon(language: int) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]]:
    sizes = {"n": 60, "v": 30, "a": 20}
    return {
        kind: (words(language, kind, size), tuple(1 / (rank + 2) for rank in range(size)))
        for kind, size in sizes.items()
    }


def sentence(language: int, rng: random.Random) -> str:
    """One sentence of a language."""
    lexicon = _lexicon(language)
    text = rng.choice(_PATTERNS)
    for kind, (known, weights) in lexicon.items():
        mark = f"{{{kind}}}"
        while mark in text:
            text = text.replace(mark, rng.choices(known, weights)[0], 1)
    return text


def passage(language: int, length: int, rng: random.Random) -> str:
    """So many characters of running text, from a sentence's beginning."""
    text = sentence(language, rng)
    while len(text) < length:
        text += " " + sentence(language, rng)
    return text[:length]
