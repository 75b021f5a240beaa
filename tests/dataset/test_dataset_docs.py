"""docs/datasets.md against the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from planner import dataset
from planner.dataset.formats import FORMATS
from planner.dataset.sources import SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
FREE: tuple[str, ...] = (
    "formats.",
    "lengths.",
    "lengths_bytes.",
    "information.groups.",
    "information.rule.",
    "warnings.",
)
FREE += tuple(f"information.{way}." for way in ("compression", "measured", "pairs"))


def keys(data: Any, path: str = "") -> set[str]:
    """Dotted key paths of a document."""
    if isinstance(data, list):
        return keys(data[0], path) if data else set()
    if not isinstance(data, dict):
        return set()
    below = {k for key, value in data.items() for k in keys(value, f"{path}{key}.")}
    return {f"{path}{key}" for key in data} | below


def test_every_key_is_documented() -> None:
    documented = set(re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.MULTILINE))
    found = keys(dataset(ROOT / "docs" / "examples" / "chat.jsonl").to_dict())
    assert {key for key in found if not key.startswith(FREE)} == documented


def test_every_format_is_named() -> None:
    for name in FORMATS[1:]:
        assert f"| {name} |" in PAGE
    for kind in set(SUFFIXES.values()) | {"saved"}:
        assert kind in PAGE
