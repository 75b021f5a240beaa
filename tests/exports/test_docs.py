"""docs/json-exports.md and docs/exports.md against the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from planner import export, import_config, review
from planner.exports.registry import TARGETS

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILE = DOCS / "examples" / "axolotl.yml"


def keys(data: Any, free: tuple[str, ...], path: str = "") -> set[str]:
    """Dotted key paths, without what lies under `free` ones."""
    if isinstance(data, dict):
        names = {f"{path}{key}" for key in data}
        return names.union(
            *(keys(value, free, f"{path}{key}.") for key, value in data.items() if f"{path}{key}" not in free)
        )
    return set().union(*(keys(item, free, path) for item in data)) if isinstance(data, list) else set()


@pytest.mark.parametrize("command", ["export", "import", "review"])
def test_every_key_is_documented(command: str) -> None:
    text = (DOCS / "json-exports.md").read_text(encoding="utf-8")
    section = text.split(f"## `lora-plan {command} --json`")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w.]+)` \|", section, flags=re.MULTILINE))
    found = {
        "export": lambda: {**export("trl-sft", "Qwen/Qwen3-8B", layers="mlp").to_dict(), "written": []},
        "import": lambda: import_config(FILE).to_dict(),
        "review": lambda: review(FILE, gpus=8).to_dict(),
    }[command]()
    assert keys(found, ("request", "run", "plan", "files")) == documented


def test_every_target_and_notice_of_an_import_is_named() -> None:
    text = (DOCS / "exports.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in TARGETS)
    said = {notice.code for notice in import_config(FILE).notices}
    assert said == {"gpus-assumed", "trainer-of-config"} and "gpus-assumed" in (
        DOCS / "json-exports.md"
    ).read_text(encoding="utf-8")
