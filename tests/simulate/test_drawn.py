"""What random draws showed of an estimate or of a count that other tests do not reach, each in a small step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tools.compare_memory import analytic, simulated
from tools.compare_random_memory import run
from tools.memory_grid import Point
from tools.memory_random import refusal
from tools.memory_types import Cut, config_of
from tools.random_flops import analytic_flops, simulated_flops

LORA: dict[str, Any] = {
    "method": "lora", "rank": 4, "layers": "all-linear", "precision": "bf16", "micro_batch": 2, "seq_len": 128,
    "packing": "full", "checkpointing": "layer", "attention_kernel": "sdpa",
}  # fmt: skip


def test_phi_sends_a_token_to_two_experts_whatever_its_config_says() -> None:
    """Its sparsemixer draws one, and then another: 28 % of FLOPs and 47 % of the peak with six in the config."""
    config = {**config_of("phimoe"), "num_experts_per_tok": 6}
    point = Cut("phimoe", "six", {**LORA, "layers": "attention"}, config)
    assert analytic_flops(point) == simulated_flops(point)
    assert analytic(point)[1] == pytest.approx(simulated(point).simulated_bytes, rel=0.005)


@pytest.mark.parametrize("layers", ["attention", "all-linear"])
def test_a_tiled_loss_passes_by_what_stands_before_an_encoders_unembedding(layers: str) -> None:
    """It meets the last hidden states with the unembedding itself, and the dense matrix's pairs do nothing."""
    options = {**LORA, "layers": layers, "objective": "kto", "loss": "tiled", "reference": "base"}
    point = Cut("data2vec-text", "kto", options, config_of("data2vec-text"))
    assert analytic_flops(point) == simulated_flops(point)


def test_what_simulate_refuses_is_no_point_of_a_draw() -> None:
    """PEFT reaches ERNIE's shared experts as bare weights alone, whose pairs get no gradient in FP8."""
    options = {
        **LORA,
        "method": "qlora",
        "quantize": "fp8",
        "layers": None,
        "targets": "gate_proj,k_proj,up_proj",
    }
    point = Point("ernie4_5_moe", "baidu/ERNIE-4.5-21B-A3B-Thinking", options)
    assert "bare parameters alone" in (refusal(point) or "")
    assert run(71, point).row.reason == refusal(point)
    assert refusal(replace(point, options={**options, "targets": "k_proj"})) is None
    mixed = {**LORA, "method": "qlora", "quantize": "fp8", "quantize_experts": True, "experts": "peft"}
    assert "down_proj,gate_up_proj" in (refusal(Point("glm4_moe_lite", "zai-org/GLM-4.7-Flash", mixed)) or "")


def test_an_evaluation_of_images_holds_positions_and_merged_features() -> None:
    """Qwen3-VL's positions are sums in float32 with a name, and results of inner layers wait for the last one."""
    options = {**LORA, "images": 1, "image_size": "640x480", "seq_len": 400, "eval_batch": 8, "loss": "tiled"}
    point = Point("qwen3_vl", "Qwen/Qwen3-VL-4B-Instruct", options)
    found = max(each.bytes for each in analytic(point)[0].moments if each.phase == "evaluation")
    assert found - 16.25 * 2**20 == pytest.approx(simulated(point).moments["evaluation"], rel=0.005)


def test_operations_of_a_towers_attention_go_image_by_image() -> None:
    """As eager ones do: all images' scores at once were 48 % too much."""
    options = {
        **LORA,
        "method": "full",
        "images": 2,
        "image_size": "640x480",
        "seq_len": 900,
        "loss": "tiled",
    }
    point = Point("qwen2_5_vl", "Qwen/Qwen2.5-VL-3B-Instruct", {**options, "attention_kernel": "math"})
    assert analytic(point)[1] == pytest.approx(simulated(point).simulated_bytes, rel=0.005)


def test_a_tower_that_is_left_as_it_is_runs_forward_alone() -> None:
    """FLOPs of full fine-tuning had its way back (15 % of Qwen3.5's)."""
    options = {
        **LORA,
        "method": "full",
        "frozen_towers": True,
        "images": 1,
        "image_size": "224x224",
        "seq_len": 130,
    }
    point = Point("qwen3_5", "Qwen/Qwen3.5-0.8B", {**options, "loss": "tiled"})
    assert analytic_flops(point) == simulated_flops(point)


@pytest.mark.parametrize("loss", ["by-sequence-selected-copied", "by-sequence-selected-logged"])
def test_of_one_sequence_kto_copies_no_logits(loss: str) -> None:
    """All but the last positions of one sequence lie together (25 %)."""
    options = {
        **LORA,
        "objective": "kto",
        "reference": "base",
        "loss": loss,
        "micro_batch": 1,
        "seq_len": 512,
    }
    point = Point("llama", "HuggingFaceTB/SmolLM2-135M-Instruct", options)
    assert analytic(point)[1] == pytest.approx(simulated(point).simulated_bytes, rel=0.005)


def test_the_mask_of_offloaded_layers_of_a_tower_is_not_on_the_device_meanwhile() -> None:
    """Of Pixtral's, which every layer brings back for its second run."""
    options = {
        **LORA,
        "method": "full",
        "images": 1,
        "image_size": "640x480",
        "seq_len": 500,
        "loss": "fused",
    }
    changes = {"num_hidden_layers": 4, "vocab_size": 10000}
    model = "mistralai/Devstral-Small-2-24B-Instruct-2512"
    point = Point("mistral3", model, {**options, "checkpointing": "layer-offload"}, changes)
    assert analytic(point)[1] == pytest.approx(simulated(point).simulated_bytes, rel=0.005)
