"""The page that leads from a number to its code: every file, name, key and table on it is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tools import code_map

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "where.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|`]+ \|(?: `[\w.]+`,?)+ \|.*$", PAGE, flags=re.MULTILINE)


def names_of(file: Path) -> set[str]:
    """The functions and classes of a module."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_what_makes_a_number_is_where_the_page_says() -> None:
    found = re.findall(r"`(planner/[\w/]+\.py)`:((?:\s`\w+`,?)+)", PAGE)
    assert len(found) > 40
    for path, names in found:
        assert set(re.findall(r"`(\w+)`", names)) <= names_of(ROOT / path), path


def test_files_and_folders_are_there() -> None:
    for path in re.findall(r"`((?:planner|data|tests)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists(), path


def test_keys_are_keys_of_the_json() -> None:
    documented = set(re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "json.md").read_text("utf-8"), re.M))
    keys = {key for row in ROWS for key in re.findall(r"`([\w.]+)`", row.split("|")[2])}
    assert len(ROWS) > 25
    assert keys <= documented


def test_every_number_of_an_estimate_has_a_row() -> None:
    """By the parts of the JSON that hold numbers."""
    parts = {key.split(".")[0] for row in ROWS for key in re.findall(r"`([\w.]+)`", row.split("|")[2])}
    wanted = "adapter capacity cost data flops grpo images information learning_rate memory model regret serving time"
    assert parts == set(wanted.split())


@pytest.mark.parametrize("name", " ".join(code_map.layers()).split())
def test_every_module_says_what_it_is(name: str) -> None:
    assert len(code_map.sentence_of(code_map.place_of(name)[1])) > 20 or name == "version"
