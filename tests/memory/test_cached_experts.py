"""Experts that bitsandbytes before 0.50 leaves dequantised: what torch does, a published run, and when it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.memory.cached_experts import cached_experts_bytes
from planner.running import running
from tools.published_memory_later import estimate_of, later

CODE = "experts-dequantised-for-good"
OLMOE = "allenai/OLMoE-1B-7B-0924"
ROUTED = 2 * 16 * 64 * 3 * 2048 * 1024  # bytes in 16 bits: 16 layers of 64 experts of three matrices


def _left(always: bool, reentrant: bool) -> int:
    """How many dequantised tensors torch keeps after a backward pass over two layers that run again."""
    import torch
    from torch.nn.utils import parametrize
    from torch.utils.checkpoint import checkpoint

    class Wide(torch.nn.Module):
        def forward(self, packed: torch.Tensor) -> torch.Tensor:
            return packed.detach().float()

    def more(*_: Any) -> None:
        parametrize._cache_enabled += 1

    def less(*_: Any) -> None:
        parametrize._cache_enabled -= 1
        if not parametrize._cache_enabled:
            parametrize._cache = {}

    layers = [torch.nn.Linear(4, 4, bias=False) for _ in range(2)]
    for layer in layers:
        layer.weight.requires_grad_(False)
        parametrize.register_parametrization(layer, "weight", Wide(), unsafe=True)
        layer.register_forward_pre_hook(more)
        layer.register_forward_hook(less, always_call=always)
    before = parametrize._cache_enabled, parametrize._cache
    try:
        hidden = torch.ones(1, 4, requires_grad=True)
        for layer in layers:
            hidden = checkpoint(layer, hidden, use_reentrant=reentrant)
        hidden.square().sum().backward()
        return len(parametrize._cache)
    finally:
        parametrize._cache_enabled, parametrize._cache = before


def test_torch_stops_a_layer_before_its_hook() -> None:
    """As the hooks of 0.49 are; those of 0.50 run always, and the older way runs layers to their end."""
    assert _left(always=False, reentrant=False) > 0
    assert _left(always=True, reentrant=False) == _left(always=False, reentrant=True) == 0


def test_a_published_run_holds_them() -> None:
    """OLMoE in 4 bits under axolotl, July 2026: what is counted and what is left dequantised are the figure."""
    cases = [c for c in later() if c.source.startswith("pjordanandrsn") and c.metric == "allocated"]
    assert len(cases) == 2
    for case in cases:
        found = estimate_of(case)
        assert (found.allocated_bytes + ROUTED) / case.measured == pytest.approx(1, abs=0.01)
        [notice] = [each for each in found.notices if each.code == CODE]
        assert f"{ROUTED / 2**30:.1f} GiB" in notice.message


def test_when_it_is_said() -> None:
    options: dict[str, Any] = {
        "method": "qlora", "quantize": "nf4", "quantize_experts": True, "checkpointing": "layer", "seq_len": 512,
        "trainer": "hf-trainer",
    }  # fmt: skip

    def said(**change: Any) -> bool:
        return CODE in {each.code for each in running(OLMOE, {**options, **change}).memory().notices}

    assert said()
    assert not said(checkpointing="none") and not said(quantize_experts=False) and not said(quantize="int8")
    assert not said(trainer="unsloth")


def test_of_no_quantised_experts_nothing() -> None:
    made = running(OLMOE, {"method": "qlora", "quantize_experts": True, "checkpointing": "layer"})
    assert cached_experts_bytes(made.arch, made.setup) == ROUTED
    assert cached_experts_bytes(made.arch, replace(made.setup, reentrant=True)) == 0
    assert cached_experts_bytes(made.arch, replace(made.setup, method="lora", quantize="none")) == 0


def test_in_how_many_bits_experts_are_that_nobody_quantises() -> None:
    def said(**options: Any) -> tuple[int, str]:
        made = running(OLMOE, {"method": "qlora", **options})
        told = {notice.code: notice.message for notice in made.memory().notices}
        return made.memory().parts()["weights"], told.get("experts-not-quantised", "")

    wide, told = said()
    narrow, other = said(upcast_small=False)
    assert "in 32 bits, as PEFT's" in told and "in 16 bits;" in other
    assert ROUTED < wide - narrow < 1.1 * ROUTED  # two bytes more for each of them, and for what is no expert
    halved, silent = said(quantize="fp8")  # transformers makes them FP8Experts
    assert not silent and 0.9 * ROUTED / 2 < narrow - halved < ROUTED / 2 + 2 * 2**28
