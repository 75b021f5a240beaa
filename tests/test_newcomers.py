"""What somebody new types: other spellings, quantised copies, chips that nobody knows; and what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from planner import compare, estimate, hardware, plan
from planner.errors import ConfigError, InputError
from planner.notices import stored_notice
from planner.trainers import names

QWEN = "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("name", "quantization", "code", "advice"),
    [
        ("unsloth/Qwen3-8B-bnb-4bit", None, "stored-quantised", "--quantize nf4"),
        ("a/b-BNB-8bit", None, "stored-quantised", "--quantize int8"),
        ("TheBloke/Mistral-7B-v0.1-GPTQ", None, "stored-quantised", "--quantize nf4"),
        ("./b", {"method": "awq", "bits": 4, "label": "AWQ 4 bits"}, "stored-quantised", "AWQ 4 bits"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", None, "stored-quantised", "--quantize int8"),
        ("a/b_AWQ_8bit", None, "stored-quantised", "--quantize int8"),
        ("a/b-w4a16-gptq", None, "stored-quantised", "--quantize nf4"),
        ("a/b-GPTQ", None, "stored-quantised", "GPTQ by its name, 4 bits assumed"),
        (
            "a/b-GPTQ-3bit",
            None,
            "stored-quantised",
            "(GPTQ by its name); time and what fits are of a base in 16 bits",
        ),
        (
            "./b",
            {"method": "gptq", "bits": 3, "label": "GPTQ 3 bits"},
            "stored-quantised",
            "(GPTQ 3 bits); time",
        ),
        ("a/hawquest-8b", None, None, ""),
        ("a/b-GGUF", None, "stored-for-inference", "inference"),
        ("openai/gpt-oss-20b", {"method": "mxfp4", "bits": 4, "label": "MXFP4 experts"}, None, ""),
        ("a/b-awq", {"method": "fp8", "bits": 8, "label": "FP8"}, None, ""),
        (QWEN, None, None, ""),
    ],
)
def test_a_base_that_is_stored_quantised_is_said_to_be(
    name: str, quantization: dict[str, Any] | None, code: str | None, advice: str
) -> None:
    found = stored_notice(name, quantization)
    assert (found.code if found else None) == code
    assert found is None or advice in found.message


def test_no_form_is_near_three_bits() -> None:
    found = stored_notice("a/b-GPTQ-3bit", None)
    assert found is not None and "--quantize" not in found.message


def test_that_note_goes_where_the_base_is_counted_so() -> None:
    copy = "unsloth/Qwen3-8B-bnb-4bit"
    codes = [{each.code for each in estimate(copy, quantize=how).warnings} for how in (None, "nf4")]
    assert "stored-quantised" in codes[0] and "stored-quantised" not in codes[1]


def test_pairs_that_a_fused_loss_passes_over_are_said_to_be() -> None:
    for trainer, told in (("trl", True), ("unsloth", True), ("axolotl", False)):
        for layers in ("all", "attention,mlp"):
            codes = {each.code for each in estimate(QWEN, trainer=trainer, layers=layers).warnings}
            assert ("pairs-passed-over" in codes) == (told and layers == "all")


def test_choices_are_taken_as_others_spell_them() -> None:
    ours = estimate(
        QWEN, optimizer="paged-adamw-8bit", precision="bf16-master", gpus=2, sharding="fsdp-hybrid"
    )
    theirs = estimate(
        QWEN, optimizer="Paged_AdamW_8bit", precision="BF16_master", gpus=2, sharding="FSDP_hybrid"
    )
    assert theirs.memory == ours.memory
    with pytest.raises(InputError, match="found 'adamw_9bit'.*Did you mean adamw-8bit"):
        estimate(QWEN, optimizer="adamw_9bit")


def test_a_suggested_trainer_is_one_of_those_that_are_listed() -> None:
    for word in ("unsloth-qlora", "llama_factry", "axolotl-20204", "trl-9", "unsloth-colab"):
        with pytest.raises(InputError) as caught:
            estimate(QWEN, trainer=word)
        suggested = re.findall(r"[\w.-]+", str(caught.value).partition("Did you mean ")[2].rstrip("?"))
        assert suggested and set(suggested) - {"or"} <= set(names())


def test_an_unknown_gpu_leaves_a_way() -> None:
    with pytest.raises(InputError, match=r"lora-plan gpus.*CONTRIBUTING\.md"):
        estimate(QWEN, gpu="jetson-orin")
    with pytest.raises(InputError, match=r"Did you mean RTX 4090 "):
        estimate(QWEN, gpu="rtx4909")
    for word, number, name in (
        ("8xH100", 8, "H100 SXM 80GB"), ("2 x RTX 3090", 2, "RTX 3090"), ("MI300X x 8", 8, "MI300X"),
        ("a100:4", 4, "A100 SXM 80GB"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"Give --gpu '{name}' --gpus {number}"):
            estimate(QWEN, gpu=word)
    for name in ("MI300X", "RX 7900 XTX", "RTX 3080 12GB", "4060 ti"):
        assert hardware.find(name).memory_bytes
    found = estimate(QWEN, gpu="m3")
    assert "gpu-memory-unknown" in {each.code for each in found.warnings}


def test_an_interpreter_shows_figures_not_fields() -> None:
    found = estimate(QWEN, gpu="rtx4090", tokens="5M")
    assert found.adapter.params == 92_286_976 and "92,286,976 parameters (exact)" in repr(found)
    assert "time: " in repr(found) and len(repr(found)) < 1000
    assert len(repr(compare(QWEN)).splitlines()) == 3
    best = plan(QWEN, tokens="5M", gpu="h100", gpus=1, ranks=8, layers="mlp")
    assert best.best.choice.text in repr(best) and len(repr(best)) < 300


def test_files_of_weights_and_folders_of_adapters_say_what_to_give(tmp_path: Path) -> None:
    for name, advice in (("a.gguf", "the model that it was made from"), ("a.safetensors", "its folder")):
        (tmp_path / name).write_bytes(b"GGUF\x03")
        with pytest.raises(ConfigError, match=f"holds weights.*{advice}"):
            estimate(tmp_path / name)
    config = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": QWEN, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=re.escape(f"--adapter {tmp_path}")):
        estimate(tmp_path)
    assert estimate(adapter=tmp_path).adapter.spec.rank == 16
