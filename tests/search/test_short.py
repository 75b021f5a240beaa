"""Short screens, which look no further into plans that hold more than any GPU has: against whole ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.errors import InputError
from planner.search import plan, widening
from planner.search.screen import screen

from .small import search_of

SOME: dict[str, Any] = {"tokens": "5M", "ranks": (1, 16, 256), "micro_batch": (1, 4)}
SPREAD: dict[str, Any] = {"sharding": "ddp,zero2,zero3,fsdp", "gpus": (1, 4, 8)}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("moonshotai/Kimi-K2-Instruct", {"gpu": "h100,b200", "expert_parallel": (1, 8)}),
    ("meta-llama/Llama-3.3-70B-Instruct", {"gpu": "rtx 4090,t4", **SPREAD, "offload": "none,parameters"}),
    (
        "meta-llama/Llama-3.3-70B-Instruct",
        {"gpu": "l4", "pipeline_parallel": (1, 2), "tensor_parallel": (1, 2)},
    ),
    ("Qwen/Qwen3-30B-A3B", {"gpu": "rtx 4090", **SPREAD, "sequence_parallel": (1, 2)}),
    ("google-t5/t5-11b", {"gpu": "t4", "layers": "all", "quantize": "none,int8"}),
]


@pytest.mark.parametrize(("model", "said"), CASES, ids=str)
def test_what_is_not_looked_into_needs_more_than_is_said(model: str, said: dict[str, Any]) -> None:
    """Memory is a lower bound that no GPU has, or that of the whole screen to the last bit; all else is the same."""
    job, space = search_of(model, {**SOME, **said})
    whole, short = screen(job, space), screen(job, space, short=True)
    for name in ("table", "micro", "layout", "batch", "gpu", "seconds", "usd", "regret"):
        assert np.array_equal(getattr(short, name), getattr(whole, name), equal_nan=True), name
    bounded = short.over != whole.over
    assert bounded.any() and np.array_equal(np.isfinite(short.over), np.isfinite(whole.over))
    for name in ("over", "over_high"):
        told, all_of_it = getattr(short, name)[bounded], getattr(whole, name)[bounded]
        assert (told > 0).all() and (told <= all_of_it).all(), name
        assert np.array_equal(getattr(short, name)[~bounded], getattr(whole, name)[~bounded]), name


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("moonshotai/Kimi-K2-Instruct", {"gpu": "h100", "gpus": 8}),
        ("moonshotai/Kimi-K2-Instruct", {"gpu": "h100,a100 80gb", "gpus": (1, 2), "fit": "sure"}),
        ("meta-llama/Llama-3.3-70B-Instruct", {"gpu": "t4,l4", "gpus": (1, 2), "budget": 100}),
        ("Qwen/Qwen3-30B-A3B", {"gpu": "rtx 3060 12gb", "gpus": 1, "trainer": "trl"}),
    ],
    ids=str,
)
def test_the_nearest_plan_is_that_of_whole_screens(
    model: str, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def whole(*given: Any) -> Any:
        asked.append(given[3])
        return screen(*given[:3])

    with pytest.raises(InputError, match="Nothing fits") as short:
        plan(model, **SOME, **said)
    monkeypatch.setattr(widening, "screen", whole)
    with pytest.raises(InputError) as all_of_it:
        plan(model, **SOME, **said)
    assert str(short.value) == str(all_of_it.value)
    assert set(asked) == {True, False}  # short screens, and whole ones of the nearest
