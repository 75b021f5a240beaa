"""What is chosen on the page: one flat record, written into a link and read back from it.

A link comes from strangers. So only the fields below are read, each as text of limited length, and none of them is
ever a path (`data` is a key of what this server has read): the planner's options that read files (an adapter, a
calibration) have no field here.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from ..errors import InputError
from .uploads import report_of

LONGEST = 300
LONGEST_CONFIG = 200_000
# A pasted config longer than this, once packed, makes a link that programs cut short.
LONGEST_IN_LINK = 6_000
START = "meta-llama/Llama-3.1-8B"


@dataclass(frozen=True)
class Choices:
    """Every choice, with its usual value. Names are those of `planner.estimate`; `config` is the text of a pasted
    config.json, which stands in for `model`; `data` is the key of a file that was sent; `budget` and `deadline` are
    for the search of plans."""

    model: str = START
    config: str = ""
    rank: int = 32
    alpha: float = 32
    layers: str = "all"
    experts: str = "scaled"
    data: str = ""
    dataset: str = ""
    tokens: str = ""
    episodes: str = ""
    success_rate: float | None = None
    epochs: int = 1
    gpu: str = ""
    gpus: int = 1
    batch: int = 1
    seq_len: int | None = None
    quantize: str = "none"
    checkpointing: bool = False
    sharding: str = ""
    trainer: str = ""
    precision: str = "bf16"
    optimizer: str = "adamw"
    kernels: str = "transformers"
    price: float | None = None
    budget: float | None = None
    deadline: str = ""


NAMES = tuple(field.name for field in fields(Choices))
USUAL = Choices()
_WHOLE = ("rank", "epochs", "gpus", "batch", "seq_len")
_FLAGS = ("checkpointing",)
_DECIMAL = ("alpha", "success_rate", "price", "budget")
# Not options of an estimate, or not passed on as they stand.
_APART = ("model", "config", "budget", "deadline")


def _number(name: str, value: Any, whole: bool) -> int | float | None:
    """A number from a field or a link; None where it is empty. Raises InputError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    expected = "a whole number" if whole else "a number"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(name, value, expected) from None
    if isinstance(value, bool) or not math.isfinite(number) or (whole and number != int(number)):
        raise InputError(name, value, expected)
    return int(number) if whole else number


def _flag(name: str, value: Any) -> bool:
    """Yes or no, as a field has it or a link writes it. Raises InputError."""
    if isinstance(value, bool) or value is None:
        return bool(value)
    if (text := str(value).strip().lower()) not in ("", "0", "1", "false", "true"):
        raise InputError(name, value, "true or false")
    return text in ("1", "true")


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = str(value).strip()
    longest = LONGEST_CONFIG if name == "config" else LONGEST
    if len(text) > longest:
        raise InputError(name, text, f"at most {longest:,} characters")
    return text


def choices(values: Mapping[str, Any]) -> Choices:
    """Choices from fields by name; what is empty or missing has its usual value. Raises InputError."""
    found: dict[str, Any] = {}
    for name in NAMES:
        value = values.get(name)
        if name in _WHOLE or name in _DECIMAL:
            number = _number(name.replace("_", "-"), value, name in _WHOLE)
            found[name] = getattr(USUAL, name) if number is None else number
        elif name in _FLAGS:
            found[name] = _flag(name, value)
        else:
            text = _text(name, value)
            found[name] = text or ("" if name == "model" and "model" in values else getattr(USUAL, name))
    return Choices(**found)


def options(chosen: Choices) -> dict[str, Any]:
    """The options of `planner.estimate`: those that are not at their usual values, by its names."""
    found = {
        name: getattr(chosen, name)
        for name in NAMES
        if name not in _APART and getattr(chosen, name) != getattr(USUAL, name)
    }
    if "alpha" in found and found["alpha"] == int(found["alpha"]):
        found["alpha"] = int(found["alpha"])
    if "data" in found:
        found["data"] = report_of(found["data"])
    return found


# Links


def _packed(text: str) -> str:
    return base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode("ascii")


def _unpacked(text: str) -> str:
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(base64.urlsafe_b64decode(text.encode("ascii")), LONGEST_CONFIG + 1)
        found = data.decode("utf-8")
    except (ValueError, binascii.Error, zlib.error, UnicodeError):
        raise InputError("config", text, "the config of a link that this page made") from None
    return _text("config", found)


def query(chosen: Choices) -> str:
    """The choices as the query of a link: the model, and what is not at its usual value."""
    found: dict[str, Any] = {}
    for name in NAMES:
        value = getattr(chosen, name)
        if name == "config":
            if value and len(packed := _packed(value)) <= LONGEST_IN_LINK:
                found["config"] = packed
        elif (name == "model" and not chosen.config) or (value != getattr(USUAL, name) and name != "model"):
            whole = isinstance(value, (bool, float)) and value == int(value)
            found[name] = str(int(value)) if whole else value
    return urlencode(found, safe="/,")


def from_query(values: Mapping[str, str]) -> Choices:
    """The choices in a link's query; unknown names are passed over. Raises InputError."""
    found: dict[str, Any] = {name: values[name] for name in NAMES if name in values}
    if found.get("config"):
        found["config"] = _unpacked(_within("config", found["config"], 4 * LONGEST_IN_LINK))
    return choices(found)


def _within(name: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise InputError(name, text, f"at most {longest:,} characters")
    return text
