"""docs/json-learning-rate.md against the program: every key of lr, fit and convert, and none besides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from planner import convert, fit, lr
from tests.test_docs import keys
from tools.plant_sweep import Planted, plant

PAGE = Path(__file__).resolve().parent.parent / "docs" / "json-learning-rate.md"
TERM = r"terms\.(\w+)\..+"  # value, low, high, used; by family for some


def made(command: str) -> dict[str, Any]:
    if command == "lr":
        return lr("Qwen/Qwen3-8B", rank=1000, alpha=16).to_dict()
    if command == "fit":
        found = fit(plant(Planted(models=6), 0), draws=20).to_dict()
        alike = fit(plant(Planted(models=6, methods=("lora",)), 0), draws=20).to_dict()["similar"]
        return {**found, "similar": {**alike, "rates": {}}}
    return convert("peft", "trl", lr=1e-4, rank=16, alpha=32, to_alpha="own", weight_decay=0.1).to_dict()


@pytest.mark.parametrize("command", ["lr", "fit", "convert"])
def test_every_key_is_documented_and_none_is_made_up(command: str) -> None:
    section = PAGE.read_text(encoding="utf-8").split(f"## `lora-plan {command} --json`")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w.\-]+)` \|", section, flags=re.MULTILINE))
    free = (
        "regret_percent.",
        "regret.",
        "regret_by_interpolation.",
        "similar.regret_by_interpolation.",
        "similar.spread.",
        "law.co",
        "before.",
        "after.",
    )
    shown = {key for key in keys(made(command)) if not re.fullmatch(TERM, key)}
    open_ended = {
        key for key in shown if key.startswith(free) and key.count(".") > (key.startswith("law.co"))
    }
    assert shown - open_ended == documented
