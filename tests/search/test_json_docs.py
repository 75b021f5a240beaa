"""docs/json-plan.md against the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import planner

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json-plan.md"
LLAMA = "meta-llama/Llama-3.1-8B"
# Described in one line, because their keys stand elsewhere.
SAME_AS_BEST = ("sure", "alternatives", "frontier", "binding.without", "rejected.plan")
ELSEWHERE = ("columns.memory", "columns.time", "columns.cost", "columns.regret", "warnings", "learning_rate")
# Options by their names in `estimate`, which differ from plan to plan.
BY_NAME = ("options",)


def keys(data: Any, skipped: tuple[str, ...], path: str = "") -> set[str]:
    """Dotted key paths of a document."""
    if path.rstrip(".") in skipped:
        return set()
    if isinstance(data, list):
        return keys(data[0], skipped, path) if data else set()
    if not isinstance(data, dict):
        return set()
    below = {k for key, value in data.items() for k in keys(value, skipped, f"{path}{key}.")}
    return {f"{path}{key}" for key in data} | below


def documented(command: str) -> set[str]:
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"## `lora-plan {command} --json`")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([\w.]+)` \|", section, flags=re.MULTILINE))


@pytest.mark.parametrize("command", ["plan", "compare", "calibrate"])
def test_every_key_is_documented(command: str) -> None:
    if command == "plan":
        data = planner.plan(LLAMA, tokens="50M", gpu="h100", gpus=(1, 2), deadline="1h").to_dict()
        peak = planner.calibrate(LLAMA, batch=8, peak="60GiB", peak_of="allocated").calibration
        asked: dict[str, Any] = {"tokens": "5M", "gpu": "h100", "gpus": 1, "quantize": "none"}
        measured = planner.plan(LLAMA, **asked, calibration=peak).to_dict()
        data["best"]["memory"]["corrected"] = measured["best"]["memory"]["corrected"]
    elif command == "compare":
        data = planner.compare(LLAMA, tokens="50M", gpu="h100").to_dict()
    else:
        data = planner.calibrate(
            LLAMA, gpu="h100", step_time=1.0, peak="60GiB", peak_of="allocated"
        ).to_dict()
    assert keys(data, (*SAME_AS_BEST, *ELSEWHERE, *BY_NAME)) == documented(command)
    for name in SAME_AS_BEST if command == "plan" else ():
        part: Any = data
        for step in name.split("."):
            part = part[step] if isinstance(part, dict) else part[0][step]
        one = part[0] if isinstance(part, list) else part
        if one is None and name == "sure":  # the best plan is it
            continue
        assert set(one) == set(data["best"]), name


def test_keys_that_stand_elsewhere_are_the_same() -> None:
    rate = planner.plan(LLAMA, tokens="50M", gpu="h100", gpus=1).to_dict()["learning_rate"]
    assert set(rate) == set(planner.estimate(LLAMA).to_dict()["learning_rate"])
