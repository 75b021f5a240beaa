"""The character vocabulary of the zoo, and text of our own: invented languages with a small grammar.

A language is a seed: syllables, a lexicon with Zipf frequencies, and sentence patterns. Everything is drawn with
random.Random, whose streams are the same on every platform and Python version.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

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

_KINDS = {"n": 60, "v": 30, "a": 20}


def _template(pattern: str) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """A pattern with %s for its words, how many of each kind it has, and which of the words, drawn kind by kind, each
    place takes."""
    kinds = re.findall(r"{(\w)}", pattern)
    order = sorted(range(len(kinds)), key=lambda place: list(_KINDS).index(kinds[place]))
    places = tuple(order.index(place) for place in range(len(kinds)))
    return re.sub(r"{\w}", "%s", pattern), tuple(kinds.count(kind) for kind in _KINDS), places


_TEMPLATES = {pattern: _template(pattern) for pattern in _PATTERNS}


class _Codes(dict[int, str]):
    """For str.translate: each character becomes the one whose code is its token; others become '?'."""

    def __missing__(self, _code: int) -> str:
        return self[ord("?")]


class Characters:
    """The zoo's tokenizer: one token a character of ALPHABET, 0 is padding; others become '?'."""

    pad = PAD
    vocab_size = VOCAB_SIZE
    _codes = _Codes({ord(char): chr(number + 1) for number, char in enumerate(ALPHABET)})

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text."""
        return list(text.translate(self._codes).encode("latin-1"))

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
    return {
        kind: (words(language, kind, size), tuple(accumulate(1 / (rank + 2) for rank in range(size))))
        for kind, size in _KINDS.items()
    }


def sentence(language: int, rng: random.Random) -> str:
    """One sentence of a language."""
    template, counts, places = _TEMPLATES[rng.choice(_PATTERNS)]
    drawn: list[str] = []
    for (known, weights), count in zip(_lexicon(language).values(), counts, strict=True):
        if count:
            drawn += rng.choices(known, cum_weights=weights, k=count)
    return template % tuple(drawn[place] for place in places)


def passage(language: int, length: int, rng: random.Random) -> str:
    """So many characters of running text, from a sentence's beginning."""
    text = sentence(language, rng)
    while len(text) < length:
        text += " " + sentence(language, rng)
    return text[:length]
