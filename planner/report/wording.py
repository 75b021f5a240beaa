"""Words from outside (names, paths, messages) made fit to be set: nothing invisible, nothing that turns text."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ISOLATE, POP = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
# Control characters, surrogates that no encoding takes, noncharacters, and marks that embed or override a direction.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\ufeff"
    "\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029]"
)
LONGEST_NAME = 300


def clean(text: str) -> str:
    """The text without what cannot be shown; a replacement character stands for each such mark."""
    text = text.replace("\r\n", "\n").replace("\t", " ")
    return _UNFIT.sub(REPLACEMENT, text)


def name(text: str) -> str:
    """A name on one line, kept apart from its surroundings where it is written from right to left."""
    found = clean(text).replace("\n", " ")
    if len(found) > LONGEST_NAME:
        found = f"{found[:LONGEST_NAME]}…"
    if any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in found):
        return f"{ISOLATE}{found}{POP}"
    return found


def clean_data(data: Any) -> Any:
    """The same with every string in it cleaned, keys too."""
    if isinstance(data, str):
        return clean(data)
    if isinstance(data, dict):
        return {clean(str(key)): clean_data(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [clean_data(value) for value in data]
    return data


def a_list(words: list[str]) -> str:
    """attention, mlp and unembedding."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
