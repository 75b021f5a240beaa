"""A plan in a notebook and as frames: the JSON's numbers, and no text that could act."""

from __future__ import annotations

import pytest

import planner
from planner import estimate
from planner.errors import InputError
from planner.tables import FRAMES, OF_COMPARISON, OF_SEARCH

PLAN = estimate("meta-llama/Llama-3.1-8B", tokens="10M", gpu="h100")


def test_a_notebook_shows_the_figures() -> None:
    text = PLAN._repr_html_()
    assert f"{PLAN.adapter.params:,}" in text and "learning rate" in text and "fits" in text
    assert text.count("<table>") == text.count("</table>") == 1


def test_names_are_escaped() -> None:
    config = {
        "model_type": "llama", "_name_or_path": "<script>alert(1)</script>", "hidden_size": 16, "vocab_size": 32,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    }  # fmt: skip
    assert "<script" not in estimate(config, rank=2)._repr_html_()


def test_frames_hold_the_jsons_numbers() -> None:
    data = PLAN.to_dict()
    params = PLAN.to_frame("params")
    assert int(params["params"].sum()) == data["adapter"]["params"]
    memory = PLAN.to_frame("memory")
    lora = memory[memory["method"] == "lora"].set_index("part")["bytes"].to_dict()
    assert lora == data["memory"]["lora"]["parts"]
    assert dict(PLAN.to_frame("layer_sets").values) == data["adapter"]["layer_sets"]
    assert list(PLAN.to_frame().columns) == ["what", "value", "basis"]
    assert len(PLAN.to_frame("warnings")) == len(data["warnings"])


def test_an_unknown_table_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="memory"):
        PLAN.to_frame("memry")
    assert all(len(PLAN.to_frame(name)) > 0 for name in FRAMES if name != "warnings")


def test_frames_of_a_comparison_hold_the_jsons_numbers() -> None:
    for options in ({"gpu": "h100", "tokens": "5M"}, {}):
        found = planner.compare("meta-llama/Llama-3.2-1B", ranks="8,64", **options)
        data, table = found.to_dict(), found.to_frame()
        assert list(table["label"]) == [column["label"] for column in data["columns"]]
        assert list(table["memory_per_gpu_bytes"]) == [c["memory"]["per_gpu_bytes"] for c in data["columns"]]
        seconds = [c["time"] and c["time"]["seconds"] for c in data["columns"]]
        assert list(table["time_seconds"].map(lambda value: value if value == value else None)) == seconds
        memory = found.to_frame("memory")
        first = memory[memory["label"] == data["columns"][0]["label"]].set_index("part")["bytes"].to_dict()
        assert first == data["columns"][0]["memory"]["parts"]
        assert len(found.to_frame("warnings")) == len(data["warnings"])
    with pytest.raises(InputError, match=", ".join(OF_COMPARISON)):
        found.to_frame("plans")


def test_frames_of_a_search_hold_the_jsons_numbers() -> None:
    found = planner.plan("meta-llama/Llama-3.2-1B", gpu="l4", gpus="1,2", tokens="5M", budget=20)
    data, plans = found.to_dict(), found.to_frame()
    assert list(plans["plan"][plans["plan"] != "sure"]) == ["best"] + ["alternative"] * len(
        data["alternatives"]
    )
    assert plans["cost_usd"][0] == data["best"]["cost"]["usd"]
    assert plans["memory_per_gpu_bytes"][0] == data["best"]["memory"]["per_gpu_bytes"]
    assert list(found.to_frame("frontier")["rank"]) == [plan["rank"] for plan in data["frontier"]]
    for name in ("binding", "rejected", "warnings"):
        assert len(found.to_frame(name)) == len(data[name])
    with pytest.raises(InputError, match="frontier"):
        found.to_frame("fronteir")
    assert set(OF_SEARCH) == {"plans", "frontier", "binding", "rejected", "warnings"}
