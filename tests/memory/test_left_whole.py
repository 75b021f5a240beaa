"""Checkpoints of bitsandbytes that leave some modules in 16 bits, as Unsloth's dynamic ones do: which, by
transformers' own rule of names, and the bytes that this adds to a quantised base."""

from __future__ import annotations

from typing import Any

import pytest

from planner.errors import UnsupportedArchitectureError
from planner.estimator import load
from planner.running import running

MODEL = "Qwen/Qwen3-0.6B"
SKIPPED = [
    "lm_head", "model.layers.1.mlp", "model.layers.2.self_attn.q_proj", "model.layers.27.self_attn",
    "layers.5.mlp.up_proj",
]  # fmt: skip
STORED = 0.5 + 1 / 64 + 4 / 64 / 256  # bytes a value in doubly quantised NF4


def _config(model: str, skipped: list[str] | None) -> dict[str, Any]:
    quantised = {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": skipped,
    }  # fmt: skip
    return {**load(model)[0].config, "quantization_config": quantised}


def _linear_names(model: str) -> dict[str, int]:
    """Values of each Linear module of the layers, by name, of the library's own model."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = dict(load(model)[0].config)
    with torch.device("meta"):
        made = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(config.pop("model_type"), **config)
        )
    return {
        name: module.weight.numel()
        for name, module in made.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    }


def test_what_is_left_is_what_transformers_leaves() -> None:
    utils = pytest.importorskip("transformers.quantizers.quantizers_utils")
    left = sum(
        size for name, size in _linear_names(MODEL).items() if not utils.should_convert_module(name, SKIPPED)
    )
    arch = load(_config(MODEL, SKIPPED))[1]
    assert sum(len(m.whole_in) * m.d_in * m.d_out for m in arch.matrices) == left > 0
    for trainer, width in (("unsloth", 2), ("hf-trainer", 4)):  # PEFT widens what is not quantised
        own, usual = (
            running(model, {"method": "qlora", "quantize": "nf4-double", "trainer": trainer}).memory()
            for model in (_config(MODEL, SKIPPED), MODEL)
        )
        more = own.peak.parts()["weights"] - usual.peak.parts()["weights"]
        assert more == pytest.approx((width - STORED) * left, rel=1e-3)
        assert [n.code for n in own.notices if n.code == "left-whole"]


def test_a_checkpoint_that_leaves_none_of_the_layers_is_as_any() -> None:
    for skipped in (None, [], ["lm_head"]):
        assert all(not m.whole_in for m in load(_config(MODEL, skipped))[1].matrices)


def test_what_is_not_quantised_is_as_any() -> None:
    own, usual = (running(m, {"method": "lora"}).memory() for m in (_config(MODEL, SKIPPED), MODEL))
    assert own.allocated_bytes == usual.allocated_bytes


def test_other_formats_leave_the_inventory_as_it_is() -> None:
    config = {**load(MODEL)[0].config, "quantization_config": {"quant_method": "unheard-of"}}
    assert all(not m.whole_in for m in load(config)[1].matrices)
    with pytest.raises(UnsupportedArchitectureError):
        load({"model_type": "unheard-of", "quantization_config": config["quantization_config"]})
