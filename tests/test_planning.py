"""What an estimate says of memory, time and cost, against the parts that it is made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner import compare, estimate, export, review
from planner.errors import InputError, UnsupportedArchitectureError
from planner.trainers import filled, unnamed

LLAMA = "meta-llama/Llama-3.1-8B"
GIB = 2**30


def test_parts_add_up_and_weights_are_what_they_weigh() -> None:
    memory = estimate(LLAMA, rank=16, layers="all-linear", batch=2, trainer="plain").to_dict()["memory"]
    for found in memory.values():
        assert sum(found["parts"].values()) == found["per_gpu_bytes"]
        assert found["low"] < found["per_gpu_bytes"] < found["high"]
    # 8,030,261,248 parameters of two bytes; NF4 leaves the embedding and the head in bfloat16.
    assert memory["lora"]["parts"]["weights"] == pytest.approx(16_060_522_496, rel=1e-3)
    assert memory["qlora"]["parts"]["weights"] < 0.4 * memory["lora"]["parts"]["weights"]
    assert memory["full"]["parts"]["optimizer"] == pytest.approx(2 * 16_060_522_496, rel=1e-3)


def test_qlora_without_a_trainer_is_as_it_is_usually_run() -> None:
    """The embedding and the head, 2 x 128256 x 4096, and norms of 266,240 parameters in float32 under autocast, as
    transformers' Trainer has them; DeepSpeed's engine makes them 16 bits; who says plain gets neither."""
    usual, plain = (estimate(LLAMA, quantize="nf4", trainer=trainer) for trainer in (None, "plain"))
    assert usual.memory and plain.memory
    weights = [found.memory["qlora"]["parts"]["weights"] for found in (usual, plain) if found.memory]
    assert weights[0] - weights[1] == 2 * (2 * 128256 * 4096 + 266_240)
    codes = [{notice.code for notice in found.warnings} for found in (usual, plain)]
    assert "usual-qlora" in codes[0] - codes[1]
    for sharding, gpus in (("none", 1), ("ddp", 2), ("fsdp", 2)):
        given = {"method": "qlora", "sharding": sharding, "gpus": gpus}
        named = filled({**given, "trainer": "hf-trainer"})
        assert unnamed(given) == {name: named[name] for name in ("upcast_small", "autocast")}
    assert unnamed({"method": "qlora", "sharding": "zero3"}) == unnamed({"method": "lora"}) == {}
    assert unnamed({"method": "qlora", "quantize": "fp8"}) == {}
    assert unnamed({"method": "qlora", "precision": "fp32"}) == {"upcast_small": True, "autocast": False}


def test_a_gpu_says_what_fits_how_long_and_how_much() -> None:
    data = estimate(LLAMA, gpu="h100", batch=8, checkpointing=True, tokens="50M", price=2.0).to_dict()
    assert data["memory"]["lora"]["fits"] is (data["memory"]["lora"]["per_gpu_bytes"] <= 80e9)
    time, cost = data["time"], data["cost"]
    assert time["steps"] == -(-50_000_000 // (8 * 2048))
    assert time["seconds"] == pytest.approx(time["steps"] * time["step"]["seconds"])
    assert time["low"] < time["seconds"] < time["high"]
    assert cost["usd"] == pytest.approx(2.0 * time["seconds"] / 3600)


def test_more_gpus_of_a_sharded_run_hold_less_each() -> None:
    one = estimate(LLAMA, batch=8, checkpointing=True).to_dict()["memory"]["full"]
    eight = estimate(LLAMA, batch=8, checkpointing=True, gpus=8, sharding="fsdp").to_dict()["memory"]["full"]
    assert eight["per_gpu_bytes"] < one["per_gpu_bytes"] / 4


def test_it_is_what_compare_says() -> None:
    options: dict[str, Any] = {"batch": 4, "checkpointing": "layer", "gpu": "a100", "tokens": "10M"}
    columns = {c["method"]: c for c in compare(LLAMA, ranks=32, **options).to_dict()["columns"]}
    data = estimate(LLAMA, **options).to_dict()
    for method, found in data["memory"].items():
        assert found["per_gpu_bytes"] == columns[method]["memory"]["per_gpu_bytes"]
    assert data["time"]["seconds"] == pytest.approx(columns["lora"]["time"]["seconds"])


@pytest.mark.parametrize(("options", "field"), [
    ({"gpu": "h1000"}, "gpu"), ({"gpus": 3, "batch": 8}, "batch"), ({"gpus": 0}, "gpus"),
    ({"precision": "bf61"}, "precision"),
    ({"optimizer": "adam"}, "optimizer"), ({"gpu": "h100", "price": -1}, "price"), ({"quantise": "nf4"}, "quantise"),
])  # fmt: skip
def test_bad_input_names_the_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        estimate(LLAMA, **options)


def test_what_is_not_covered_says_so() -> None:
    plan = estimate("openai/clip-vit-large-patch14")
    assert plan.memory is None and "no-memory" in {notice.code for notice in plan.warnings}


@pytest.mark.parametrize("model", ["google/flan-t5-large", "openai/whisper-base"])
def test_encoders_with_decoders_have_memory_and_time(model: str) -> None:
    plan = estimate(
        model, gpu="a100-80gb", tokens=10**6, seq_len=256, batch=2, precision="bf16", experts="none"
    )
    assert plan.memory is not None and plan.time is not None
    full = plan.memory["full"]["parts"]
    assert full["weights"] == pytest.approx(2 * plan.model.params, rel=1e-3)
    assert full["optimizer"] == pytest.approx(4 * plan.model.params, rel=1e-2)
    assert all(plan.memory[method]["parts"]["activations"] > 0 for method in ("lora", "qlora", "full"))


def test_t5_keeps_its_last_products_out_of_quantisation() -> None:
    """flan-t5-large has 24 + 24 matrices wo of 2816 x 1024, which transformers leaves in 16 bits."""
    plan = estimate("google/flan-t5-large", quantize="nf4", seq_len=256, trainer="plain")
    assert plan.memory is not None
    wo, table = 48 * 2816 * 1024, 32128 * 1024
    rest = plan.model.params - wo - table
    weights = plan.memory["qlora"]["parts"]["weights"]
    assert weights == pytest.approx(2 * (wo + table) + rest * (0.5 + 4 / 64), rel=0.005)


def test_every_model_of_the_catalogue_has_an_answer_or_a_reason() -> None:
    from planner import facts

    seen = {facts.model(name).model_type: name for name in facts.model_ids()}
    for name in seen.values():
        try:
            plan = estimate(name, experts="none", gpu="h200")
        except UnsupportedArchitectureError:
            continue
        if plan.memory is None:
            assert "no-memory" in {notice.code for notice in plan.warnings}
        else:
            for found in plan.memory.values():
                assert found is None or found["per_gpu_bytes"] > 0


def test_a_batch_that_is_not_given_is_a_sequence_for_each_gpu_and_micro_step() -> None:
    told = estimate(LLAMA, gpu="h100", gpus=8, accumulation=2, batch=16, tokens="1M").to_dict()
    left = estimate(LLAMA, gpu="h100", gpus=8, accumulation=2, tokens="1M").to_dict()
    assert left["workload"]["batch"] == 16
    assert (left["memory"], left["time"], left["flops"]) == (told["memory"], told["time"], told["flops"])
    assert estimate(LLAMA, gpu="h100", gpus=8, tensor_parallel=4).workload.batch == 2
    assert estimate(LLAMA).workload.batch == 1


def test_a_loss_of_preferences_goes_without_a_batch_too() -> None:
    found = estimate("Qwen/Qwen3-0.6B", gpus=4, accumulation=2, objective="dpo", loss="by-sequence")
    assert (
        found.workload.batch == 8 and found.memory and found.memory["lora"]["setup"]["loss"] == "by-sequence"
    )


def test_an_adapter_that_is_reviewed_runs_on_the_gpus_that_are_said(tmp_path: Path) -> None:
    export("peft", LLAMA, output=tmp_path / "a")
    one, four = (review(tmp_path / "a", gpu="h100", gpus=gpus, tokens="10M").plan for gpus in (1, 4))
    assert (one.workload.batch, four.workload.batch) == (1, 4)
    assert one.time and four.time and four.time["steps"] == -(-one.time["steps"] // 4)


def test_a_loss_that_an_encoder_with_a_decoder_does_not_use_is_said() -> None:
    plain, other = (estimate("google/flan-t5-large", loss=loss) for loss in ("full", "fused"))
    assert plain.memory and other.memory
    assert plain.memory["lora"]["per_gpu_bytes"] == other.memory["lora"]["per_gpu_bytes"]
    assert "own-loss" not in {notice.code for notice in plain.warnings}
    assert "own-loss" in {notice.code for notice in other.warnings}
