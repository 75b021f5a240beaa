"""The character vocabulary of the zoo, and text of our own: invented languages with a small grammar.

A language is a seed: syllables, a lexicon with Zipf frequencies, and sentence patterns. Everything is drawn with
random.Random, whose streams are the same on every platform and Python version. Run records rest on these texts: they
may get faster but never change, which a test holds by their hashes.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
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


def _template(pattern: str) -> tuple[str, str, tuple[int, ...]]:
    """A pattern with %s for its words, their kinds in the order in which they are drawn (kind by kind), and which of
    the words drawn each place takes."""
    kinds = re.findall(r"{(\w)}", pattern)
    order = sorted(range(len(kinds)), key=lambda place: list(_KINDS).index(kinds[place]))
    places = tuple(order.index(place) for place in range(len(kinds)))
    return re.sub(r"{\w}", "%s", pattern), "".join(kinds[place] for place in order), places


_TEMPLATES = tuple(_template(pattern) for pattern in _PATTERNS)
_TEMPLATE_BITS = len(_TEMPLATES).bit_length()
# Words, cumulative weights, their total, and the last word's number.
_Draw = tuple[tuple[str, ...], tuple[float, ...], float, int]


class Characters:
    """The zoo's tokenizer: one token a character of ALPHABET, 0 is padding; others become '?'."""

    pad = PAD
    vocab_size = VOCAB_SIZE
    _codes = bytes(1 + ALPHABET.find(chr(code) if chr(code) in ALPHABET else "?") for code in range(256))

    def encode(self, text: str) -> bytes:
        """Token numbers of a text."""
        return text.encode("ascii", "replace").translate(self._codes)

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
def _lexicon(language: int) -> tuple[tuple[str, tuple[int, ...], tuple[_Draw, ...]], ...]:
    """Every template with its places and, word by word in the order drawn, what random.choices draws from."""
    kinds = {}
    for kind, size in _KINDS.items():
        weights = tuple(accumulate(1 / (rank + 2) for rank in range(size)))
        kinds[kind] = (words(language, kind, size), weights, weights[-1], size - 1)
    return tuple((text, places, tuple(kinds[kind] for kind in drawn)) for text, drawn, places in _TEMPLATES)


def passage(language: int, length: int, rng: random.Random) -> str:
    """So many characters of running text, from a sentence's beginning.

    The draws are those of `rng.choice` for a template and of `rng.choices` with cumulative weights for its words,
    written out, which takes a third of the time.
    """
    lexicon, bits, uniform = _lexicon(language), rng.getrandbits, rng.random
    sentences: list[str] = []
    left = length
    while left >= 0:
        pick = bits(_TEMPLATE_BITS)
        while pick >= len(lexicon):
            pick = bits(_TEMPLATE_BITS)
        template, places, draws = lexicon[pick]
        drawn = [known[bisect(weights, uniform() * total, 0, last)] for known, weights, total, last in draws]
        sentences.append(template % tuple([drawn[place] for place in places]))
        left -= len(sentences[-1]) + 1
    return " ".join(sentences)[:length]
