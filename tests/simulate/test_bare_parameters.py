"""QLoRA where PEFT reaches matrices as bare parameters alone, which it cannot adapt where they are quantised."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from planner import simulate
from planner.errors import ConfigError, InputError
from tools.tiny_models import CONFIGS

DEEPSEEK = CONFIGS["deepseek_v3 dense prefix and experts"]
LEAVES = "down_proj,gate_proj,up_proj"
USUAL: dict[str, Any] = {"seq_len": 32, "rank": 4}


def test_qlora_is_left_out_where_peft_would_fail_and_the_rest_is_run() -> None:
    found = simulate(DEEPSEEK, **USUAL)
    assert list(found.steps) == ["lora", "full"]
    said = next(notice.message for notice in found.warnings if notice.code == "method-not-simulated")
    assert said.startswith("qlora is left out") and f"--exclude-modules {LEAVES}" in said
    assert "qlora" in simulate(DEEPSEEK, exclude_modules=LEAVES, **USUAL).steps
    with pytest.raises(InputError, match=LEAVES):
        simulate(DEEPSEEK, methods="qlora", **USUAL)


def test_peft_itself_fails_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused for a reason: without the check PEFT's step stops."""
    monkeypatch.setattr(import_module("planner.simulate.setups"), "check_pairs", lambda *_: None)
    with pytest.raises(ConfigError, match="parametrization"):
        simulate(DEEPSEEK, methods="qlora", **USUAL)
