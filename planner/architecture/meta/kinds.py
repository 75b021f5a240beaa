"""Declared types of a config's fields, as the table of configs writes them, and whether a JSON value fits.

A kind is a word ("int", "float", "bool", "str", "dict", "list", "none", "any", "never") or a list that begins with
"or", "list", "dict", "seq" or "one". They mean what `huggingface_hub.dataclasses.type_validator` makes of Python's
types: a whole number is no float, true is no whole number, and JSON has no tuples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Kind = Any

SIMPLE: Mapping[str, tuple[type, ...]] = {
    "float": (float,), "bool": (bool,), "str": (str,), "dict": (dict,), "list": (list,), "none": (type(None),),
}  # fmt: skip
WORDS = {
    "int": "a whole number", "float": "a number with a decimal point, such as 1.0", "bool": "true or false",
    "str": "text", "dict": "an object", "list": "a list", "none": "null", "any": "anything",
}  # fmt: skip


def fits(value: Any, kind: Kind) -> bool:
    """Whether a JSON value is of this kind."""
    if kind == "any":
        return True
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(kind, str):
        return isinstance(value, SIMPLE.get(kind, ()))
    what, *inner = kind
    if what == "or":
        return any(fits(value, each) for each in inner)
    if what == "one":
        return any(type(value) is type(each) and value == each for each in inner)
    if what == "dict":
        return isinstance(value, dict) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items()
        )
    if what == "seq" and isinstance(value, str):
        return all(fits(each, inner[0]) for each in value)
    return isinstance(value, list) and all(fits(each, inner[0]) for each in value)


def words(kind: Kind) -> str:
    """What is expected, in words."""
    if isinstance(kind, str):
        return WORDS.get(kind, "")
    what, *inner = kind
    if what == "or":
        found = list(dict.fromkeys(filter(None, map(words, inner))))
        return " or ".join(found)
    if what == "one":
        return "one of " + ", ".join(repr(each) for each in inner)
    if what == "dict":
        return f"an object of {_plural(inner[1])}" if inner[1] != "any" else "an object"
    return f"a list of {_plural(inner[0])}" if inner[0] != "any" else "a list"


def _plural(kind: Kind) -> str:
    simple = {"int": "whole numbers", "float": "numbers with a decimal point", "bool": "true or false",
              "str": "texts", "dict": "objects", "list": "lists"}  # fmt: skip
    return simple.get(kind, "") if isinstance(kind, str) else f"({words(kind)})"


def shown(value: object) -> str:
    """A value in at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."
