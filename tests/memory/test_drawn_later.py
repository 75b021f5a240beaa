"""What later random draws showed of an estimate or of its simulation, in small steps: both against each other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.near import is_near
from tools.compare_memory import analytic, simulated
from tools.memory_grid import Point
from tools.random_flops import analytic_flops, simulated_flops

pytest.importorskip("torch")

STEP: dict[str, Any] = {
    "method": "lora", "precision": "bf16", "autocast": False, "optimizer": "sgd", "checkpointing": "layer",
    "attention_kernel": "sdpa", "packing": "full", "loss": "fused", "accumulation": 1, "lora_dropout": 0.0,
    "adapter_dtype": "float32", "rank": 4, "layers": "attention", "experts": "none", "micro_batch": 2, "seq_len": 400,
}  # fmt: skip
SMALL, BIASED = "Qwen/Qwen2.5-0.5B", "FacebookAI/roberta-base"
GRPO = {
    "objective": "grpo",
    "reference": "none",
    "generation": "server",
    "loss": "sliced-fused",
    "prompt_tokens": 100,
}


def near(model: str, **options: Any) -> bool:
    return is_near(Point("drawn", model, {**STEP, **options}), 0.003)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("model", [SMALL, BIASED])
def test_logits_of_a_product_with_a_bias_are_divided_through_a_view(model: str, batch: int) -> None:
    """On the way back twice as much of them. Scoring before the step, with entropies, is simulated too, and is none
    of the step's FLOPs."""
    options = {**GRPO, "micro_batch": batch}
    assert near(model, **options)
    point = Point("drawn", model, {**STEP, **options})
    assert analytic_flops(point) == simulated_flops(point)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_reference_folds_a_sequence_beside_copies_of_both_models(precision: str) -> None:
    """DPO by TRL 0.29 to 1.5."""
    assert near(
        SMALL, objective="dpo", reference="base", loss="by-sequence-copied", precision=precision, seq_len=900
    )


@pytest.mark.parametrize("adapter", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_base_in_the_other_16_bits_is_copied_for_the_norm_unless_it_is_the_adapters(
    adapter: str, dropout: float
) -> None:
    options = {"base_dtype": "float16", "autocast": True, "variant": "dora", "adapter_dtype": adapter}
    for layers in ("unembedding", "mlp"):
        assert near(SMALL, **options, layers=layers, lora_dropout=dropout, micro_batch=1)


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_pairs_on_a_towers_positions_make_its_layers_need_gradients(variant: str, reentrant: bool) -> None:
    """Qwen3-VL's lie beside its patches, and are sums of four; nothing else in its tower needs one."""
    options = {"images": 1, "image_size": "800x800", "layers": "vision", "seq_len": 800, "variant": variant}
    point = Point("drawn", "Qwen/Qwen3.5-4B", {**STEP, **options, "reentrant": reentrant})
    assert analytic(point)[1] == pytest.approx(simulated(point).simulated_bytes, rel=0.003)


@pytest.mark.parametrize("model", ["HuggingFaceTB/SmolLM2-360M", "microsoft/phi-1", "tiiuae/falcon-7b"])
def test_products_of_attention_hold_float32_copies_of_what_they_are_given(model: str) -> None:
    """An evaluation, of grouped heads and of as many keys as queries."""
    options = {"attention_kernel": "math", "eval_batch": 32, "seq_len": 1000, "micro_batch": 1}
    point = Point("drawn", model, {**STEP, **options})
    found = max(each.bytes for each in analytic(point)[0].moments if each.phase == "evaluation")
    assert found - 16.25 * 2**20 == pytest.approx(simulated(point).moments["evaluation"], rel=0.003)


def test_a_bias_is_taken_off_logits_of_an_adapted_unembedding_in_an_evaluation_too() -> None:
    options = {"variant": "dora", "layers": "unembedding", "eval_batch": 16, "lora_dropout": 0.1}
    point = Point("drawn", "microsoft/phi-1", {**STEP, **options})
    found = max(each.bytes for each in analytic(point)[0].moments if each.phase == "evaluation")
    assert found - 16.25 * 2**20 == pytest.approx(simulated(point).moments["evaluation"], rel=0.003)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_one_kernel_logs_means_of_the_longer_half_of_the_logits(batch: int) -> None:
    """KTO by TRL 1.14, whose examples are no pairs: 9% of a single sequence."""
    assert near(SMALL, objective="kto", reference="base", loss="fused", micro_batch=batch, seq_len=900)
