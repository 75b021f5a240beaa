"""Checks that every family's builder must pass, against transformers and torch's FLOP counter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from planner.adapter import AdapterSpec, adapt, params
from planner.architecture.build import build
from planner.flops import Step, flops, step_macs

from . import oracle

TARGETS: tuple[Any, ...] = ("all-linear",)


def check_inventory(config: Mapping[str, Any]) -> None:
    """Our inventory is the library's, parameter by parameter."""
    arch, model = build(config), oracle.meta_model(config)
    ours, theirs = oracle.our_inventory(arch), oracle.their_inventory(model)
    assert dict(ours - theirs) == {}, f"only ours ({config})"
    assert dict(theirs - ours) == {}, f"only theirs ({config})"
    assert arch.params == oracle.params(model)


def _spec(targets: Any, rank: int, experts: Any, variant: Any) -> AdapterSpec:
    if targets == "all-linear":
        return AdapterSpec(rank=rank, layers=("all-linear",), experts=experts, variant=variant)
    return AdapterSpec(rank=rank, layers=None, targets=tuple(targets), experts=experts, variant=variant)


def check_flops(
    config: Mapping[str, Any], batch: int, seq_len: int, *, rank: int = 2, targets: Sequence[Any] = TARGETS,
    checkpointing: bool = False, variant: str = "lora", full: bool = True,
) -> None:  # fmt: skip
    """A step's FLOPs equal torch's counter to the last one: full fine-tuning, and PEFT's LoRA on each of
    `targets` (with its parameters)."""
    arch, step = build(config), Step(batch, seq_len, checkpointing)
    inputs = oracle.token_inputs(config, batch, seq_len)
    base = oracle.cpu_model(config)
    if checkpointing:
        base.gradient_checkpointing_enable()
    if full:
        assert flops(step_macs(arch, step, None)) == oracle.count_flops(base, inputs), f"full ({config})"
    for wanted in targets:
        base.zero_grad(set_to_none=True)
        own = base if len(targets) == 1 else copy.deepcopy(base)
        model = oracle.with_lora(own, rank, wanted, use_dora=variant == "dora")
        adapted = adapt(arch, _spec(wanted, rank, "peft" if variant == "lora" else "none", variant))
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert params(adapted) == trainable, f"{wanted} parameters ({config})"
        counted = oracle.count_flops(model, inputs)
        assert flops(step_macs(arch, step, adapted)) == counted, f"{wanted} ({config})"
