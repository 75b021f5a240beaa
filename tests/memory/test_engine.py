"""vLLM on the GPUs that train: its share by hand, beside the trainer, and vLLM's own logs of its cache."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import adapter, compare, estimate, export, import_config
from planner.architecture.build import build
from planner.cli.main import cli
from planner.errors import InputError
from planner.memory import estimate_memory
from planner.memory.engine import GRAPHS, cache_parts, engine, engine_weights, profiled_bytes, sequence_bytes
from planner.moments import VLLM
from planner.setup import Setup
from tools.compare_grpo import memory_rows
from tools.tiny_models import CONFIGS

LLAMA = build(CONFIGS["llama"])
CARD = 8_000_000_000
BESIDE = Setup(
    objective="grpo", loss="tiled", reference="none", packing="padded", generation="colocate", gpu_bytes=CARD,
    seq_len=96, prompt_tokens=32, micro_batch=4, accumulation=2,
)  # fmt: skip
PAIRS = adapter.adapt(LLAMA, adapter.AdapterSpec(layers=("attention", "mlp")))


def peak(**changes: Any) -> Any:
    return estimate_memory(LLAMA, replace(BESIDE, **changes), PAIRS)


def test_what_it_takes_by_hand() -> None:
    found = engine(LLAMA, BESIDE)
    assert found is not None
    config = CONFIGS["llama"]
    h, f, layers, vocab = (
        config[n] for n in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    )
    head = config.get("head_dim") or h // config["num_attention_heads"]
    kv, q = config["num_key_value_heads"] * head, config["num_attention_heads"] * head
    params = layers * (2 * h * q + 2 * h * kv + 3 * h * f + 2 * h) + h + 2 * vocab * h
    assert found.taken_bytes == round(0.3 * CARD)  # TRL's default share
    assert found.weights_bytes == engine_weights(LLAMA, BESIDE) == 2 * params
    assert (
        sequence_bytes(LLAMA, 96) == 2 * layers * 2 * kv * 96 == sequence_bytes(LLAMA, 81)
    )  # whole blocks of 16
    assert profiled_bytes(LLAMA, 8) == 2 * 4096 * (4 * h + h + f) + 16 * 8 * vocab
    assert found.cache_bytes == found.taken_bytes - 2 * params - profiled_bytes(LLAMA, 8) - GRAPHS
    assert found.sequences == found.wanted == 8


def test_colocated_it_stands_beside_the_trainer_all_along() -> None:
    alone, beside = peak(generation="server", gpu_bytes=0), peak()
    assert beside.per_gpu_bytes - alone.per_gpu_bytes == round(0.3 * CARD) == beside.parts()[VLLM]
    assert VLLM not in alone.parts()
    assert beside.low - alone.low == beside.high - alone.high == round(0.3 * CARD)  # no error is the share's


def test_asleep_the_step_has_the_gpu_to_itself() -> None:
    asleep = peak(vllm_sleep=True)
    awake = next(moment for moment in asleep.moments if moment.phase == "generation")
    assert awake.parts()[VLLM] == round(0.3 * CARD)
    assert all(m.parts()[VLLM] == GRAPHS for m in asleep.moments if m.phase != "generation")
    assert awake.parts()["gradients"] == awake.parts()["activations"] == 0


def test_a_shared_base_is_counted_once() -> None:
    weights = engine_weights(LLAMA, BESIDE)
    own, shared = peak(vllm_memory=0.5), peak(generation="shared")  # Unsloth's default share is 0.5
    assert own.per_gpu_bytes - shared.per_gpu_bytes == weights
    asleep = peak(generation="shared", vllm_sleep=True)
    step = max((m for m in asleep.moments if m.phase != "generation"), key=lambda m: m.bytes)
    assert step.parts()[VLLM] == GRAPHS and step.parts()["weights"] == weights


def test_zero3_gathers_the_model_to_hand_it_over() -> None:
    def awake(sharding: str) -> Any:
        found = peak(gpus=8, sharding=sharding)
        return next(moment for moment in found.moments if moment.phase == "generation").parts()

    weights = engine_weights(LLAMA, BESIDE)
    sharded = awake("zero3")
    assert sharded["weights"] < weights <= sharded["weights"] + sharded["temporary"]
    assert awake("ddp")["temporary"] < sharded["temporary"]


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 1.0), st.integers(1, 64), st.integers(33, 4096))
def test_more_room_never_holds_fewer(share: float, sequences: int, length: int) -> None:
    setup = replace(BESIDE, vllm_memory=share, micro_batch=sequences, accumulation=1, seq_len=length)
    found, wider = engine(LLAMA, setup), engine(LLAMA, replace(setup, vllm_memory=1.0))
    assert found and wider
    assert 1 <= found.sequences <= wider.sequences <= sequences
    assert (
        found.weights_bytes + found.profiled_bytes + found.graphs_bytes + found.cache_bytes
        == found.taken_bytes
    )
    enough = found.share_for(sequences)
    assert enough is not None
    if enough <= 1:
        again = engine(LLAMA, replace(setup, vllm_memory=min(1.0, math.nextafter(enough, 1) + 1e-9)))
        assert again and again.sequences == sequences


def test_without_a_gpu_it_holds_all_completions() -> None:
    found = engine(LLAMA, replace(BESIDE, gpu_bytes=0))
    assert found and found.share is None and found.sequences == found.wanted
    assert found.taken_bytes == found.bytes_for(8)
    plan = estimate(CONFIGS["llama"], objective="grpo", generation="colocate", layers="attention,mlp")
    assert any("No GPU is named" in notice.message for notice in plan.warnings)


def test_a_share_that_is_too_small_names_one_that_will_do() -> None:
    options: dict[str, Any] = {
        "objective": "grpo",
        "generation": "colocate",
        "gpu": "h100",
        "layers": "attention,mlp",
    }
    with pytest.raises(InputError, match=r"vllm-memory: found 0\.1, expected at least 0\.20 of the GPU"):
        estimate("Qwen/Qwen2.5-7B", vllm_memory=0.1, **options)
    assert estimate("Qwen/Qwen2.5-7B", vllm_memory=0.2, **options).grpo is not None
    with pytest.raises(InputError, match="--vllm-tensor-parallel.: it would take 1"):
        estimate("Qwen/Qwen2.5-72B", vllm_memory=0.9, **options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"vllm_memory": 0.5}, "vllm-memory"),
        ({"vllm_sleep": True, "generation": "server"}, "vllm-sleep"),
        ({"generation": "colocate", "vllm_memory": 1.5}, "vllm-memory"),
        ({"generation": "colocate", "vllm_memory": 0}, "vllm-memory"),
        ({"generation": "colocate", "quantize": "int8"}, "quantize"),
        ({"generation": "shared", "gpus": 2, "batch": 16}, "gpus"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}"):
        estimate("Qwen/Qwen2.5-1.5B", objective="grpo", gpu="h100", layers="attention,mlp", **options)


def test_the_commands_say_what_it_takes() -> None:
    options = ["-m", "Qwen/Qwen2.5-1.5B", "--objective", "grpo", "--prompt-tokens", "256", "--gpu", "rtx 4090",
               "--layers", "attention,mlp", "--generation", "colocate", "--vllm-memory",
               "0.4", "--checkpointing"]  # fmt: skip
    run = CliRunner().invoke(cli, ["estimate", *options, "--batch", "256", "--accumulation", "64", "--json"])
    assert run.exit_code == 0, run.output
    said = json.loads(run.stdout)
    vllm, notes = said["grpo"]["vllm"], {note["code"]: note["message"] for note in said["warnings"]}
    assert vllm["sequences"] < vllm["wanted"] == 256
    assert "vllm-cache" in notes and f"{vllm['sequences']} of the 256" in notes["vllm-cache"]
    assert said["memory"]["lora"]["parts"]["vllm"] == vllm["taken_bytes"]
    page = CliRunner().invoke(cli, ["estimate", *options])
    assert "vLLM takes" in page.stdout and "8 of 8" in page.stdout
    assert compare(
        "Qwen/Qwen2.5-1.5B", objective="grpo", gpu="rtx 4090", generation="colocate", batch=8
    ).columns


def test_sleep_is_a_remedy() -> None:
    plan = estimate(
        "Qwen/Qwen2.5-1.5B", objective="grpo", gpu="rtx 4090", layers="attention,mlp", generation="colocate",
        vllm_memory=0.75, seq_len=8192, prompt_tokens=256, checkpointing=True, batch=8, accumulation=8,
    )  # fmt: skip
    assert plan.memory and plan.memory["lora"]["fits"] is False
    assert {"vllm_sleep": True} in [each["options"] for each in plan.memory["lora"]["would_fit"]]
    shares = [each["options"].get("vllm_memory") for each in plan.memory["lora"]["would_fit"]]
    assert shares[0] and shares[0] < 0.75  # what holds all completions of the step
    assert any(f"--vllm-memory {shares[0]:.2f} would" in notice.message for notice in plan.warnings)


def test_gpus_that_run_one_vllm_together_divide_it() -> None:
    two = replace(BESIDE, gpus=2, sharding="ddp", vllm_tensor_parallel=2)
    one, both = engine(LLAMA, replace(two, vllm_tensor_parallel=1)), engine(LLAMA, two)
    assert one and both and both.wanted == 2 * one.wanted == 16  # the completions of both GPUs
    assert 2 * both.weights_bytes == one.weights_bytes and 2 * both.sequence_bytes == one.sequence_bytes
    heads = CONFIGS["llama"]["num_key_value_heads"]
    assert [cache_parts(LLAMA, n) for n in (1, heads, 2 * heads)] == [1, heads, heads]  # a head is not cut
    assert (
        cache_parts(build(CONFIGS["deepseek_v3 dense prefix and experts"]), 8) == 1
    )  # the latent stands whole on each
    with pytest.raises(
        InputError, match="vllm-tensor-parallel: found 3, expected a divisor of the 2 of --gpus"
    ):
        replace(two, vllm_tensor_parallel=3)
    with pytest.raises(InputError, match="generation server or colocate"):
        replace(BESIDE, generation="shared", vllm_tensor_parallel=2)
    text = export(
        "trl-grpo", "Qwen/Qwen2.5-1.5B", episodes=64, batch=16, objective="grpo", generation="colocate", gpu="h100",
        gpus=2, sharding="ddp", vllm_tensor_parallel=2, layers="attention,mlp",
    ).text  # fmt: skip
    assert "vllm_tensor_parallel_size: 2" in text


def test_an_encoder_makes_no_completions() -> None:
    with pytest.raises(InputError, match="expected a model that makes text"):
        estimate("google-bert/bert-base-cased", objective="grpo")


def test_trl_gets_it_and_gives_it_back() -> None:
    made = export(
        "trl-grpo", "Qwen/Qwen2.5-1.5B", episodes=6400, batch=64, accumulation=8, seq_len=768, prompt_tokens=256,
        objective="grpo", generation="colocate", vllm_memory=0.4, vllm_sleep=True, gpu="h100", layers="attention,mlp",
    )  # fmt: skip
    for line in ("use_vllm: true", "vllm_mode: colocate", "vllm_gpu_memory_utilization: 0.4",
                 "vllm_enable_sleep_mode: true", "vllm_max_model_length: 768"):  # fmt: skip
        assert line in made.text
    base: dict[str, Any] = {"model_name_or_path": "Qwen/Qwen2.5-1.5B", "use_peft": True,
        "lora_target_modules": "all-linear",
            "reward_funcs": ["accuracy_reward"], "use_vllm": True}  # fmt: skip
    found = import_config({**base, "vllm_max_model_length": 768, "vllm_enable_sleep_mode": True}).request
    assert (found["generation"], found["vllm_memory"], found["vllm_sleep"]) == ("colocate", 0.3, True)
    assert (found["seq_len"], found["prompt_tokens"]) == (768, 256)
    assert (
        import_config({**base, "vllm_tensor_parallel_size": 2}, gpus=2).request["vllm_tensor_parallel"] == 2
    )
    assert import_config({**base, "vllm_mode": "server"}).request["generation"] == "server"


def test_vllms_own_logs_of_its_cache() -> None:
    found = list(memory_rows())
    assert len(found) == 8
    for cells, ratio in found:
        ours, theirs = (int(part.replace(",", "")) for part in cells[-1].split(" / "))
        assert ours == pytest.approx(theirs, rel=3e-3), cells[0]  # bytes of a token
        assert 0.4 < ratio < 1.2, cells[0]
    assert sum(0.9 < ratio < 1.15 for _, ratio in found) == 7
