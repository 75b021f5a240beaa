"""Adapters: hand-worked counts, and properties over random shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from planner import capacity
from planner.adapter import AdapterSpec, Variant, adapt, params, select, slope
from planner.architecture.build import build
from planner.flops import Step, flops, step_macs, visible_pairs

from .strategies import decoder_config

CONFIGS = st.one_of(
    decoder_config("llama", "LlamaForCausalLM"),
    decoder_config("phi3", "Phi3ForCausalLM", head_dim=False),
    decoder_config("qwen3", "Qwen3ForCausalLM"),
)
RANKS = st.integers(1, 6)


def test_one_matrix_by_hand() -> None:
    config = {
        "model_type": "llama", "hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 11,
    }  # fmt: skip
    arch = build(config)
    assert params(adapt(arch, AdapterSpec(rank=2, layers=None, targets=("k_proj",)))) == 3 * 2 * (6 + 3)
    dora = AdapterSpec(rank=2, layers=None, targets=("k_proj",), variant="dora")
    assert params(adapt(arch, dora)) == 3 * (2 * (6 + 3) + 3)
    assert params(adapt(arch, AdapterSpec(rank=2, layers=("embedding",)))) == 2 * (11 + 6)
    assert arch.params == 2 * 66 + 3 * (36 + 18 + 18 + 36 + 180 + 12) + 6


@given(CONFIGS, RANKS)
def test_sets_add_up_and_presets_are_their_union(config: dict[str, Any], rank: int) -> None:
    arch = build(config)

    def count(*layers: str) -> int:
        return params(select(arch, AdapterSpec(rank=rank, layers=layers)))

    assert count("attention") + count("mlp") + count("unembedding") == count("all")
    assert count("attention", "mlp") == count("all-linear")
    assert count("all", "attention") == count("all")


@given(CONFIGS, RANKS)
def test_parameters_are_linear_in_rank_and_the_slope_knows_it(config: dict[str, Any], rank: int) -> None:
    arch = build(config)
    variants: tuple[Variant, ...] = ("lora", "dora")
    for variant in variants:
        spec = AdapterSpec(rank=rank, variant=variant)
        line = slope(arch, spec)
        assert line.params(rank) == params(select(arch, spec))
        double = params(select(arch, replace(spec, rank=2 * rank)))
        assert double - line.params(rank) == rank * line.per_rank
        assert variant == "dora" or line.fixed == 0


@given(CONFIGS, st.integers(1, 4), st.integers(1, 40))
def test_flops_grow_and_scale_with_the_batch(config: dict[str, Any], batch: int, seq_len: int) -> None:
    arch = build(config)

    def cost(rank: int | None, step: Step) -> int:
        adapted = None if rank is None else select(arch, AdapterSpec(rank=rank))
        return flops(step_macs(arch, step, adapted))

    step = Step(batch, seq_len)
    assert cost(1, step) < cost(2, step) < cost(3, step)
    assert cost(1, Step(2 * batch, seq_len)) == 2 * cost(1, step)
    assert cost(None, Step(batch, 2 * seq_len)) >= 2 * cost(None, step)
    assert cost(1, Step(batch, seq_len, checkpointing=True)) > cost(1, step)
    slopes = cost(2, step) - cost(1, step), cost(3, step) - cost(2, step)
    assert slopes[0] == slopes[1]


@given(st.integers(1, 60), st.integers(1, 70))
def test_visible_pairs_against_counting(seq_len: int, window: int) -> None:
    counted = sum(1 for q in range(seq_len) for k in range(q + 1) if q - k < window)
    assert visible_pairs(seq_len, window, True) == counted
    assert visible_pairs(seq_len, None, True) == seq_len * (seq_len + 1) // 2
    assert visible_pairs(seq_len, None, False) == seq_len**2


@given(st.integers(0, 10**12), st.integers(1, 10**7), st.floats(0.5, 4))
def test_required_rank_is_the_ceiling(bits: int, per_rank: int, bits_per_param: float) -> None:
    rank = capacity.required_rank(bits, lambda r: r * per_rank, bits_per_param)
    assert rank is not None and rank >= 1
    assert capacity.capacity_bits(rank * per_rank, bits_per_param) >= bits
    assert rank == 1 or capacity.capacity_bits((rank - 1) * per_rank, bits_per_param) < bits


def test_no_rank_is_enough_where_none_is() -> None:
    assert capacity.required_rank(10, lambda rank: 1) is None
    assert [capacity.verdict(u) for u in (0.0, 0.5, 0.51, 1.0, 1.01)] == [
        "ample", "ample", "tight", "tight", "exceeded",
    ]  # fmt: skip
