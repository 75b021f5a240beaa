"""What a search refuses, by the name of what is wrong, and how many plans it shows."""

from __future__ import annotations

from typing import Any

import pytest

import planner
from planner.errors import InputError
from planner.search import plan


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"generation": "colocate"}, "vllm-memory", "it would take"),
        ({"generation": "server"}, "vllm-tensor-parallel", "One completion needs"),
        ({"generation": "colocate", "batch": 8, "gpus": 16}, "batch", "The nearest is 16"),
    ],
    ids=str,
)
def test_what_no_vllm_holds_is_not_said_of_the_batch(asked: dict[str, Any], field: str, said: str) -> None:
    """70B on cards of 24 GB: not the batch keeps plans out but the engine, which says what it needs."""
    own: dict[str, Any] = {
        "objective": "grpo",
        "episodes": 20_000,
        "prompt_tokens": 200,
        "gpus": (4, 8),
        "ranks": 8,
    }
    with pytest.raises(InputError, match=said) as caught:
        plan("meta-llama/Llama-3.1-70B", gpu="rtx 4090", **{**own, **asked})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("accumulation", 2, "`estimate` takes it"),
        ("optimizer_in_backward", True, "`estimate` takes it"),
        ("method", "qlora", "--quantize says which"),
        ("gpu_bytes", 10**9, "the GPU's own"),
    ],
)
def test_what_a_search_does_not_hold_is_refused_with_where_it_goes(field: str, value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        plan("gpt2", tokens="1M", gpu="h100", **{field: value})
    assert caught.value.field == field.replace("_", "-")
    if "takes" in said:
        assert planner.estimate("gpt2", gpu="h100", **{field: value}).memory


@pytest.mark.parametrize(
    "of",
    [{"episodes": 5000}, {"episodes": 5000, "objective": "grpo"}, {"tokens": 10**6, "objective": "dpo"}],
    ids=str,
)
def test_regret_that_no_law_tells_is_not_limited(of: dict[str, Any]) -> None:
    """Every rank would keep such a limit: it is refused, and with tokens that carry loss it binds."""
    with pytest.raises(InputError, match="supervised data") as caught:
        plan("gpt2", gpu="l4", gpus=1, max_regret=0.01, **of)
    assert caught.value.field == "max-regret"
    found = plan("gpt2", gpu="l4", gpus=1, max_regret=0.01, tokens=10**6)
    assert found.best.regret and found.best.regret.value <= 0.01


def test_as_many_plans_are_shown_as_are_asked_for() -> None:
    own: dict[str, Any] = {"tokens": "1M", "gpu": "l4", "gpus": 1}
    whole = plan("gpt2", **own, frontier=1000).frontier
    assert len(whole) > 5
    for count in (0, 1, 2, 3, 4, 5):
        found = plan("gpt2", **own, frontier=count, alternatives=count)
        assert min(count, 2) <= len(found.frontier) <= count and len(found.alternatives) <= count
        assert {each.choice for each in found.frontier} <= {each.choice for each in whole}
    refused: list[tuple[str, Any]] = [("frontier", -1), ("alternatives", True), ("frontier", 1.5)]
    for name, value in refused:
        with pytest.raises(InputError, match="at least 0") as caught:
            plan("gpt2", **{**own, name: value})
        assert caught.value.field == name
    nothing: tuple[Any, ...] = ("", [], " , ")
    for none in nothing:
        with pytest.raises(InputError, match="one or more accelerators"):
            plan("gpt2", **{**own, "gpu": none})
