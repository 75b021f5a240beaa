"""What profiles hold by how states are spread: fields that are true of one sharding alone."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.errors import InputError
from planner.estimator import load
from planner.running import running
from planner.setup import Setup
from planner.trainers import filled, trainers

LLAMA = "meta-llama/Llama-3.1-8B"


def setup_of(trainer: str, method: str, sharding: str, **more: Any) -> Setup:
    gpus = 1 if sharding == "none" else 4
    quantize = {"quantize": "nf4"} if method == "qlora" else {}
    asked = {"trainer": trainer, "method": method, "sharding": sharding, "gpus": gpus, **quantize, **more}
    return Setup(**filled(asked, "llama"))


def test_deepspeeds_engine_makes_all_of_a_model_16_bits() -> None:
    """Whoever calls it: `module.bfloat16()` takes back what was prepared in float32, unless one says otherwise."""
    seen = set()
    for trainer in trainers():
        for sharding in ("zero2", "zero3"):
            found = setup_of(trainer.name, "qlora", sharding)
            if found.weight_dtype != "float32":  # those in float32 or under autocast have no such engine
                assert not found.upcast_small and not found.upcast_norms, trainer.name
        alone = setup_of(trainer.name, "qlora", "none")
        seen |= {(alone.upcast_small, alone.upcast_norms)}
    assert seen == {(False, False), (True, False), (False, True)}
    assert setup_of("hf-trainer", "qlora", "zero2", upcast_small=True).upcast_small
    assert setup_of("hf-trainer", "qlora", "fsdp").upcast_small


@pytest.mark.parametrize(
    "trainer", ["hf-trainer", "trl", "xtuner", "lightning", "hf-loop", "accelerate-loop", "llama-factory"]
)
def test_pairs_under_deepspeed(trainer: str) -> None:
    """16 bits without autocast, and float32 copies; full fine-tuning has them too."""
    for method in ("lora", "qlora", "full"):
        found = setup_of(trainer, method, "zero2")
        assert (found.trained_dtype, found.masters, found.under_autocast) == ("bfloat16", True, False), method
    states = running(
        LLAMA, {"trainer": trainer, "rank": 8, "gpus": 4, "batch": 4, "sharding": "zero2", "seq_len": 64}
    )
    parts = next(m for m in states.memory().moments if m.phase == "optimizer").parts()
    assert parts["optimizer"] == pytest.approx(12 / 2 * parts["adapter"] / 4, rel=1e-3)


@pytest.mark.parametrize("trainer", ["trl-0.7", "qlora-2023"])
def test_full_fine_tuning_by_trainers_of_2023_under_deepspeed(trainer: str) -> None:
    assert setup_of(trainer, "full", "zero3").precision == "bf16-master"
    assert setup_of(trainer, "full", "ddp").precision == "bf16"


@pytest.mark.parametrize(
    ("trainer", "method", "units", "trained"),
    [
        ("hf-trainer", "full", "layers", "float32"),  # FSDP 2 by transformers 5's TrainingArguments
        ("hf-trainer", "lora", "layers", "float32"),
        ("trl", "qlora", "layers", "bfloat16"),  # accelerate leaves 4-bit models' pairs under FSDP 2
        ("trl-1.14", "qlora", "pairs", "float32"),  # and casts what FSDP 1 trains
        ("trl-0.9", "lora", "pairs", "float32"),
        ("ms-swift", "lora", "layers", "float32"),
        ("llama-factory-0.9.5", "full", "pairs", "float32"),
        ("axolotl", "full", "layers", "bfloat16"),  # a function of its own prepares FSDP 2
        ("axolotl", "qlora", "pairs", "float32"),
        ("axolotl-0.9", "full", "pairs", "float32"),
        ("axolotl-0.3", "full", "pairs", "bfloat16"),
        ("oumi", "full", "pairs", "bfloat16"),  # mixes no precision
    ],
)  # fmt: skip
def test_what_fsdp_gathers_and_trains(trainer: str, method: str, units: str, trained: str) -> None:
    found = setup_of(trainer, method, "fsdp")
    assert (found.fsdp_units, found.trained_dtype) == (units, trained)


def test_full_fine_tuning_by_unsloth_has_no_autocast() -> None:
    """Which it has of pairs: bf16 is False where full_finetuning holds all weights in bfloat16."""
    for trainer in ("unsloth", "unsloth-2026-06", "unsloth-2025"):
        full, pairs = (setup_of(trainer, method, "none") for method in ("full", "lora"))
        assert (full.precision, full.under_autocast, full.trained_dtype) == ("bf16", False, "bfloat16")
        assert pairs.under_autocast and pairs.trained_dtype == "float32"
        assert setup_of(trainer, "full", "none", precision="autocast").under_autocast


def test_recipes_of_oumi_and_pefts_comparison() -> None:
    oumi = setup_of("oumi", "lora", "ddp")
    assert (oumi.optimizer_kernel, oumi.checkpointing, oumi.reentrant) == ("fused", "layer", False)
    assert setup_of("oumi", "lora", "zero2").reduce_buckets == "one"
    assert setup_of("peft-comparison", "qlora", "none").trained_dtype == "float32"


@pytest.mark.parametrize("trainer", ["hf-trainer", "trl", "trl-1.14", "trl-1.9", "ms-swift"])
def test_a_quantised_base_is_loaded_whole_by_transformers_5(trainer: str) -> None:
    for sharding in ("fsdp", "zero3"):
        assert setup_of(trainer, "qlora", sharding).placing == "whole"
        assert setup_of(trainer, "lora", sharding).placing == "shards"


def test_torchtitan_by_its_versions() -> None:
    """Its fused AdamW came in February 2025; pairs and frozen weights are float32 like all else, under FSDP and
    autocast."""
    now, then = (setup_of(trainer, "full", "fsdp") for trainer in ("torchtitan", "torchtitan-2024"))
    assert (now.optimizer_kernel, then.optimizer_kernel) == ("fused", "foreach")
    assert now.checkpointing == then.checkpointing == "selective" and not now.reentrant
    pairs = setup_of("torchtitan", "lora", "none")
    assert (pairs.weight_dtype, pairs.trained_dtype, pairs.under_autocast) == ("float32", "float32", True)
    assert setup_of("nemo-automodel", "full", "fsdp").optimizer_kernel == "foreach"


@pytest.mark.parametrize(
    "trainer",
    ["unsloth", "unsloth-2024", "ms-swift", "ms-swift-2024", "open-instruct", "lmflow", "nemo-automodel"],
)
def test_programs_that_quantise_doubly_unless_told_otherwise(trainer: str) -> None:
    """0.127 bits a weight of scales where 0.5 are of a base that is not: 70 MB for each billion less."""
    usual, told = (
        running(LLAMA, {"method": "qlora", "trainer": trainer, "seq_len": 64, **more})
        for more in ({}, {"quantize": "nf4"})
    )
    assert (usual.setup.quantize, told.setup.quantize) == ("nf4-double", "nf4")
    sizes = [each.memory().peak.parts()["weights"] for each in (usual, told)]
    matrices = sum(m.params for m in load(LLAMA)[1].matrices if m.role not in ("embedding", "unembedding"))
    assert sizes[1] - sizes[0] == pytest.approx((0.5 - 0.127) / 8 * matrices, rel=0.02)


def test_checkpoints_of_a_quantised_base_alone_are_reentrant_by_autotrain() -> None:
    found = {method: setup_of("autotrain", method, "none") for method in ("lora", "qlora", "full")}
    assert {method: each.reentrant for method, each in found.items()} == {
        "lora": False,
        "qlora": True,
        "full": False,
    }
    assert not setup_of("autotrain", "qlora", "none", checkpointing="none").reentrant


def test_mosaics_own_models_and_answer_ais_loop() -> None:
    mpt = setup_of("llm-foundry", "full", "fsdp")
    assert (mpt.weight_dtype, mpt.fsdp_units, mpt.loss, mpt.optimizer_kernel) == (
        "float32",
        "flat",
        "fused",
        "loop",
    )
    assert mpt.checkpointing == "layer" and not mpt.reentrant
    assert setup_of("fsdp-qlora", "qlora", "fsdp").outputs_held


def test_scripts_of_openrlhf_and_llama_recipes_of_2023() -> None:
    sft = setup_of("openrlhf", "full", "zero3")
    assert (sft.checkpointing, sft.packing, sft.reentrant) == ("layer", "packed", False)
    found = Setup(**filled({"trainer": "llama-recipes-2023", "method": "qlora"}, "llama"))
    assert (found.quantize, found.upcast_small, found.checkpointing, found.reentrant) == (
        "int8",
        True,
        "layer",
        True,
    )
    assert not setup_of("llama-recipes-2023", "lora", "fsdp").reentrant


@pytest.mark.parametrize("trainer", ["internevo", "llm-foundry", "lightning", "litgpt"])
def test_programs_on_fsdp_1_have_no_units_of_fsdp_2(trainer: str) -> None:
    assert setup_of(trainer, "full", "fsdp").fsdp_units == "flat"


def test_segments_that_programs_make_expandable_themselves() -> None:
    """axolotl's and prime-rl's commands, torchtitan's script; LLaMA-Factory's where it launches several processes."""
    for trainer in (
        "axolotl",
        "axolotl-0.15",
        "axolotl-0.9",
        "axolotl-0.6",
        "torchtitan-2024",
        "prime-rl-sft",
    ):
        assert setup_of(trainer, "full", "fsdp").expandable_segments, trainer
    assert not setup_of("axolotl-0.4", "qlora", "none").expandable_segments
    for trainer, since in (
        ("llama-factory-0.9.2", False),
        ("llama-factory-0.9.4", True),
        ("llama-factory-0.9.5", True),
    ):
        spread = {
            setup_of(trainer, "lora", way).expandable_segments for way in ("ddp", "fsdp", "zero2", "zero3")
        }
        assert spread == {since} and not setup_of(trainer, "lora", "none").expandable_segments


@pytest.mark.parametrize(
    ("trainer", "second"),
    [("hf-trainer", "two"), ("hf-trainer-4.57", "two"), ("chatglm3", "two"), ("llava", "fitted"),
     ("open-instruct", "fitted"), ("lmflow", "one"), ("llama-factory-0.9.5", "one")],
)  # fmt: skip
def test_buckets_by_the_configs_that_documentation_and_programs_ship(trainer: str, second: str) -> None:
    """transformers' own of ZeRO-2 overlaps with 5e8 values, twice; of ZeRO-3 they are as large as a matrix."""
    assert setup_of(trainer, "lora", "zero2").reduce_buckets == second
    if trainer != "lmflow":
        assert setup_of(trainer, "lora", "zero3").reduce_buckets == "fitted"


def test_selective_checkpointing_by_default_is_layers_where_it_is_not_known() -> None:
    """Where a trainer's own default cannot be told, layers run again; what somebody asked for is refused."""
    titan: dict[str, Any] = {"trainer": "torchtitan", "method": "full", "gpus": 8, "batch": 8}
    assert running(LLAMA, titan).setup.checkpointing == "selective"
    assert running(LLAMA, {**titan, "tensor_parallel": 2}).setup.checkpointing == "layer"
    assert running("Qwen/Qwen3-Next-80B-A3B-Instruct", titan).setup.checkpointing == "layer"
    experts = running("Qwen/Qwen3-30B-A3B", {**titan, "expert_parallel": 4})
    assert experts.setup.checkpointing == "selective"
    told = estimate(LLAMA, trainer="torchtitan", gpus=8, tensor_parallel=2).memory
    assert told is not None and told["full"]["setup"]["checkpointing"] == "layer"
    with pytest.raises(InputError, match="split over GPUs"):
        running(LLAMA, {**titan, "tensor_parallel": 2, "checkpointing": "selective"})
