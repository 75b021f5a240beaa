"""The work of a step against the FLOP count, which has its own walk, and against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import facts
from planner.adapter import AdapterSpec, adapt
from planner.errors import PlannerError
from planner.estimator import load
from planner.flops import FLOPS_PER_MAC, Step, step_macs
from planner.setup import Setup
from planner.speed.step import work_of
from planner.speed.work import Linear

SPECS = (
    None,
    AdapterSpec(16),
    AdapterSpec(8, layers=("attention",), experts="none"),
    AdapterSpec(8, layers=("all-linear",), experts="peft"),
    AdapterSpec(8, variant="dora", layers=("mlp",), experts="none"),
    AdapterSpec(4, layers_to_transform=(1, 3), experts="none"),
)
MODELS = facts.model_ids()[::9]
TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
}


@pytest.mark.parametrize("checkpointing", ["none", "layer"])
def test_products_sum_to_the_flop_count(checkpointing: str) -> None:
    compared = 0
    for model in MODELS:
        arch = load(model)[1]
        if arch.flops_gap or not arch.blocks:
            continue
        for spec in SPECS:
            try:
                pairs = None if spec is None else adapt(arch, spec)
            except PlannerError:
                continue
            tally = step_macs(arch, Step(2, 192, checkpointing == "layer"), pairs)
            setup = Setup(
                method="full" if spec is None else "lora",
                checkpointing=checkpointing,  # type: ignore[arg-type]
                micro_batch=2,
                seq_len=192,
                attention_kernel="eager",
            )
            found = work_of(arch, setup, pairs or ()).flops(2)
            assert found == pytest.approx(FLOPS_PER_MAC * (tally.total - tally.overcount), rel=1e-9), model
            compared += 1
    assert compared > 150


def test_a_small_step_by_hand() -> None:
    """One matrix adapted in a model of two layers, T = 3 x 10 tokens, rank 2."""
    arch = load(TINY)[1]
    pairs = adapt(arch, AdapterSpec(2, layers=None, targets=("o_proj",)))
    work = work_of(arch, Setup(micro_batch=3, seq_len=10), pairs)
    adapter = [gemm for gemm in work.gemms if gemm.kind == "adapter"]
    tokens = 30
    # Forward A and B; backward both weights and B's input; A's input in the second layer only.
    expected = 2 * tokens * 2 * 64 * (2 + 2 + 3 + 4)
    assert sum(gemm.calls * gemm.flops.at(3) for gemm in adapter) == expected
    # The unembedding writes 512 logits a token; the loss reads and writes them 22 bytes forward, 26 backward.
    loss = {sweep.phase: sweep.bytes.at(3) for sweep in work.sweeps if sweep.what == "loss"}
    assert loss == {"forward": tokens * 512 * 22, "backward": tokens * 512 * 26}


def test_dequantising_reads_four_bits_and_writes_sixteen() -> None:
    arch = load(TINY)[1]
    pairs = adapt(arch, AdapterSpec(2, layers=("all-linear",)))
    setup = Setup(method="qlora", quantize="nf4", seq_len=8)
    work = work_of(arch, setup, pairs)
    linear = sum(m.params for m in arch.matrices if m.role in ("attention", "mlp"))
    moved = {s.phase: s.bytes.at(1) for s in work.sweeps if s.what == "dequantise"}
    assert moved["forward"] == linear * (0.5625 + 2)
    # In the first layer q, k and v take no input gradient, so that their weights are not needed again.
    first = sum(m.d_in * m.d_out for m in arch.matrices if m.leaf in ("q_proj", "k_proj", "v_proj"))
    assert moved["backward"] == (linear - first) * (0.5625 + 2)
    again = work_of(arch, replace(setup, checkpointing="layer"), pairs)
    twice = {s.phase: s.bytes.at(1) for s in again.sweeps if s.what == "dequantise"}
    assert twice == {"forward": moved["forward"], "backward": 2 * linear * (0.5625 + 2)}


@given(st.integers(1, 64), st.integers(1, 64))
def test_work_is_linear_in_the_micro_batch(one: int, other: int) -> None:
    arch = load(TINY)[1]
    work = work_of(arch, Setup(seq_len=16), adapt(arch, AdapterSpec(2)))
    fixed = work.flops(0)
    assert work.flops(one) + work.flops(other) == pytest.approx(work.flops(one + other) + fixed)


def test_linear_forms_add_and_scale() -> None:
    form = Linear(3.0, 2.0).plus(Linear(1.0, 1.0)).times(2.0)
    assert form == Linear(8.0, 6.0) and form.at(5) == 38.0


def test_tensor_parallelism_splits_the_products() -> None:
    arch = load("meta-llama/Llama-3.1-8B")[1]
    pairs = adapt(arch, AdapterSpec(16))
    whole = work_of(arch, Setup(), pairs)
    half = work_of(arch, Setup(gpus=2, tensor_parallel=2), pairs)
    base = [sum(g.calls * g.flops.at(1) for g in work.gemms if g.kind == "base") for work in (whole, half)]
    assert base[0] == pytest.approx(2 * base[1])
