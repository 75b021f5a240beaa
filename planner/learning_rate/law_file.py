"""A fitted law in a file: what `fit --out` writes and `--law FILE` reads. JSON, checked field by field."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ..errors import FactError, InputError
from ..facts import LawFact, parse_entry
from .law import POPULATION
from .text_file import EXPECTED, BadBytesError, decode

SCHEMA = 1
KIND = "lora-plan learning-rate law"
_POSITIVE = ("base", "lora_multiplier", "reference_width")
_NUMBERS = (
    *_POSITIVE, "model_pow", "lora_pow", "rank_pow", "rank_sat_pow", "batch_pow", "steps_pow", "alpha_pow",
)  # fmt: skip
_TABLES = ("multipliers", "exponents", "spread", "regret_percent")
_TEXTS = ("id", "title", "form", "fitted_on", "regret_text", "caution", "notes")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rank_and_rate(rank: object, rate: object) -> bool:
    return str(rank).isdecimal() and int(str(rank)) > 0 and _is_number(rate) and float(str(rate)) > 0


def _check(name: str, entry: Mapping[str, Any]) -> None:
    """Every figure is finite and has its sign; every table is a table of figures."""

    def fail(key: str, found: object, expected: str) -> None:
        raise InputError(
            f"{name}, {key}", found, expected, "Write the file again with `lora-plan fit --out`."
        )

    for key in _TEXTS:
        if not isinstance(entry.get(key, ""), str):
            fail(key, entry[key], "a text")
    for key in ("id", "base", "families", "methods", "ranges"):
        if not entry.get(key):
            fail(key, entry.get(key), "a law's constants")
    for key in ("families", "methods"):
        if not isinstance(entry[key], list) or not all(isinstance(name, str) for name in entry[key]):
            fail(key, entry[key], "a list of names")
    for key in ("ranges", "covariance", "rates"):
        if not isinstance(entry.get(key, {}), Mapping):
            fail(key, entry[key], "a table")
    for key in _NUMBERS:
        if not _is_number(entry.get(key, 1.0)) or (key in _POSITIVE and not entry.get(key, 1.0) > 0):
            fail(key, entry[key], "a positive number" if key in _POSITIVE else "a number")
    for key in _TABLES:
        table = entry.get(key, {})
        if not isinstance(table, Mapping) or not all(map(_is_number, table.values())):
            fail(key, table, "a table of numbers")
    for key in ("multipliers", "spread"):
        for part, value in entry.get(key, {}).items():
            if not (value > 0 or (key == "spread" and value == 0)):
                fail(f"{key}.{part}", value, "a positive number")
    for key, pair in entry["ranges"].items():
        good = isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))
        if not good or not 0 < pair[0] <= pair[1]:
            fail(f"ranges.{key}", pair, "[low, high]")
    if "hidden_size" not in entry["ranges"]:
        fail("ranges.hidden_size", None, "[low, high]")
    if not set(entry["methods"]) <= {"lora", "full"}:
        fail("methods", entry["methods"], "lora, full, or both")
    for family, line in entry.get("rates", {}).items():
        if (
            not isinstance(line, Mapping)
            or not line
            or not all(_rank_and_rate(*pair) for pair in line.items())
        ):
            fail(f"rates.{family}", line, "rates by rank")
    if entry.get("rates") and POPULATION not in entry["rates"]:
        fail(f"rates.{POPULATION}", None, "rates by rank")
    for row, line in entry.get("covariance", {}).items():
        if not isinstance(line, Mapping) or not all(map(_is_number, line.values())):
            fail(f"covariance.{row}", line, "a table of numbers")


def read_law(path: str | os.PathLike[str]) -> LawFact:
    """The law of a file that `fit` wrote. Raises InputError, which names what is wrong."""
    name = os.path.basename(os.fspath(path)) or os.fspath(path)
    expected = "a file that `lora-plan fit --out` wrote"
    try:
        with open(path, "rb") as file:
            data = json.loads(decode(file.read())[0])
    except BadBytesError as error:
        where = f"{name} line {error.line}, character {len(error.in_line) + 1}"
        raise InputError(where, error.found, EXPECTED, error.remedy) from error
    except OSError as error:
        remedy = f"{error.strerror}. A law of the planner is given by its name."
        raise InputError("law", os.fspath(path), expected, remedy) from error
    except (ValueError, RecursionError) as error:
        raise InputError("law", os.fspath(path), expected, f"It is no JSON: {error}.") from error
    entry = data.get("law") if isinstance(data, dict) else None
    if not isinstance(entry, dict) or data.get("kind") != KIND:
        raise InputError("law", os.fspath(path), expected, "It holds no law.")
    if data.get("schema") != SCHEMA:
        raise InputError(
            f"{name}, schema", data.get("schema"), str(SCHEMA), "Another version wrote the file."
        )
    try:
        _check(name, entry)
        law: LawFact = parse_entry(LawFact, {**entry, "status": "complete", "population": True}, name)
    except (FactError, TypeError, AttributeError) as error:
        raise InputError("law", os.fspath(path), expected, str(error)) from error
    return law


def law_text(entry: Mapping[str, Any]) -> str:
    """A law as the text of a file that `read_law` reads."""
    return json.dumps({"schema": SCHEMA, "kind": KIND, "law": entry}, indent=2, ensure_ascii=False) + "\n"
