"""Columns that have other names than the formats', or lie inside an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError, hint
from .formats import COLUMNS


def columns_of(given: str | Mapping[str, str] | None) -> dict[str, str]:
    """Columns to rename, "messages=body.messages,prompt=Question" or a mapping: our name, then theirs. InputError."""
    if given is None:
        return {}
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split(",")]
        found = {name.strip(): theirs.strip() for name, _, theirs in pairs}
    else:
        found = dict(given)
    for name, theirs in found.items():
        if name not in COLUMNS:
            listed = f"a column that a format has, one of {', '.join(sorted(COLUMNS))}"
            raise InputError("columns", name, listed, hint(name, sorted(COLUMNS)).strip())
        if not theirs:
            raise InputError("columns", name, f"{name}=COLUMN, where a dot goes into an object")
    return found


def renamed(row: Any, columns: Mapping[str, str]) -> Any:
    """A row with columns under our names beside its own; one that it lacks stays away."""
    if not columns or not isinstance(row, dict):
        return row
    more = {}
    for name, theirs in columns.items():
        value: Any = row
        for part in (theirs,) if theirs in row else theirs.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            more[name] = value
    left = {key: value for key, value in row.items() if key not in columns.values()}
    return {**left, **more}
