"""A few layers, unrolled to all of them, against all layers run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from planner.adapter import AdapterSpec
from planner.architecture.meta import shapes
from planner.setup import Setup
from planner.simulate import core, tracker
from planner.simulate.core import Simulation, simulate_step
from planner.simulate.model import make

from .small import CONFIGS, LORA

BASE = Setup(micro_batch=2, seq_len=32)
FULL = replace(BASE, method="full")
SETUPS = {
    "lora": BASE,
    "lora checkpointed": replace(BASE, checkpointing="layer"),
    "full checkpointed": replace(FULL, checkpointing="layer", accumulation=2),
}

# The other two tell a stack's kinds of layers apart; this one shows its phases on one stack of each sort.
BETWEEN = {
    (name, "lora checkpointed") for name in CONFIGS if name not in ("llama", "qwen3_moe", "t5 two stacks")
}


def pair(config: dict[str, Any], setup: Setup, spec: AdapterSpec = LORA) -> tuple[Simulation, Simulation]:
    """The simulation from a few layers, and from all, of one model, in which a step leaves nothing."""
    made = make(config, spec, setup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "make", lambda *_: made)
        some, every = (
            simulate_step(config, spec, setup, whole=whole, reserve=True) for whole in (False, True)
        )
    assert every.layers_run == every.layers
    return some, every


def equal(some: Simulation, every: Simulation) -> None:
    """Every phase's peak to the byte, part by part, at the same layer; what the allocator reserves; FLOPs of every
    operator."""
    assert some.moments == every.moments
    assert some.reserved_bytes == every.reserved_bytes
    assert some.flops == every.flops


@pytest.mark.parametrize(
    ("config", "setup"),
    [(name, setup) for name in CONFIGS for setup in SETUPS if (name, setup) not in BETWEEN],
)
def test_a_few_layers_tell_the_whole(config: str, setup: str) -> None:
    some, every = pair(CONFIGS[config], SETUPS[setup])
    assert some.layers_run < some.layers
    equal(some, every)


@pytest.mark.parametrize(
    "setup",
    [
        replace(BASE, precision="autocast"),
        replace(BASE, method="qlora", quantize="nf4-double", upcast_small=True, autocast=True),
        replace(BASE, lora_dropout=0.1, loss="fused", packing="padded"),
        replace(FULL, optimizer_in_backward=True, precision="fp16"),
        replace(FULL, loss="chunked", loss_chunk=20, optimizer="adafactor"),
        replace(BASE, checkpointing="layer-offload", attention_kernel="flash"),
        replace(BASE, loss="shifted"),
    ],
    ids=["autocast", "qlora", "padded", "in backward", "chunked", "offloaded", "shifted"],
)
def test_so_it_does_for_every_choice(setup: Setup) -> None:
    equal(*pair(CONFIGS["llama"], setup))


def found_every_time(operation: Any, args: Any, kwargs: Any) -> Any:
    """What torch itself makes of an operation."""
    return operation(*args, **kwargs)


@pytest.mark.parametrize(
    ("config", "setup"),
    [
        ("qwen3_moe", SETUPS["full checkpointed"]),
        ("llama", replace(BASE, method="qlora", quantize="nf4-double", lora_dropout=0.1, packing="padded")),
        ("t5 two stacks", replace(FULL, precision="autocast")),
        ("jamba mamba and attention", SETUPS["lora checkpointed"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_results_whose_form_is_known_are_those_that_torch_finds(
    config: str, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = None if setup.method == "full" else LORA
    simulate_step(CONFIGS[config], spec, setup)
    assert shapes._known
    known = simulate_step(CONFIGS[config], spec, setup)
    monkeypatch.setattr(tracker, "result", found_every_time)
    equal(known, simulate_step(CONFIGS[config], spec, setup))


def test_a_result_that_shares_memory_or_holds_values_is_not_remembered() -> None:
    base, real = torch.empty(2, 3, 4, device="meta"), torch.ones(3)
    for _ in range(2):
        view = shapes.result(torch.ops.aten._unsafe_view.default, (base, [6, 4]), {})
        assert view.untyped_storage()._cdata == base.untyped_storage()._cdata
        assert shapes.result(torch.ops.aten.add.Tensor, (real, real), {}).tolist() == [2, 2, 2]
        tilted = shapes.result(torch.ops.aten.mul.Tensor, (base.mT, 2), {})
        assert tilted.stride() == base.mT.stride() and tilted.dtype == torch.float32
        whole = shapes.result(torch.ops.aten.eq.Scalar, (base, 1), {})
        assert whole.dtype == torch.bool
        assert shapes.result(torch.ops.aten.sum.default, (whole,), {}).dtype == torch.int64


def test_layers_with_adapters_of_their_own_are_kinds_of_their_own() -> None:
    spec = replace(LORA, layers_to_transform=(0, 1, 2, 6))
    some, every = pair(CONFIGS["llama"], BASE, spec)
    equal(some, every)
    ranks = replace(
        LORA, layers=None, targets=("q_proj", "v_proj"), rank_pattern=(("layers.3.self_attn.q_proj", 32),)
    )
    equal(*pair(CONFIGS["llama"], BASE, ranks))


@pytest.mark.parametrize("experts", ["scaled", "per-expert", "peft"])
def test_pairs_on_experts(experts: Any) -> None:
    spec = AdapterSpec(rank=8, layers=("all",), experts=experts)
    equal(*pair(CONFIGS["qwen3_moe"], BASE, spec))
