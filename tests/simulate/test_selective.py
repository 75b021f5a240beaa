"""Selective checkpointing: torch runs it by torchtitan's policy in a simulated step, as the formulas have it."""

from __future__ import annotations

from typing import Any

import pytest

import planner
from planner import flops
from planner.errors import InputError
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective import step_of
from planner.running import Running, running

pytest.importorskip("torch")

SIZES: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 4,
    "intermediate_size": 2816, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**SIZES, "architectures": ["LlamaForCausalLM"]},
    "qwen2": {**SIZES, "architectures": ["Qwen2ForCausalLM"]},  # products with a bias
    "qwen3": {**SIZES, "head_dim": 64, "architectures": ["Qwen3ForCausalLM"]},  # norms on heads
    "gemma2": {**SIZES, "head_dim": 64, "architectures": ["Gemma2ForCausalLM"]},  # norms behind the products
    "phi3": {**SIZES, "pad_token_id": 0, "architectures": ["Phi3ForCausalLM"]},  # four products a layer
    "gpt2": {
        "n_embd": 1024, "n_layer": 5, "n_head": 16, "vocab_size": 1000, "n_positions": 4096,
        "architectures": ["GPT2LMHeadModel"],
    },  # products with a bias alone
}  # fmt: skip
RUN: dict[str, Any] = {
    "checkpointing": "selective", "batch": 4, "seq_len": 2048, "attention_kernel": "flash", "packing": "full",
}  # fmt: skip


def _run(name: str, **options: Any) -> Running:
    adapter = {} if options.get("method") == "full" else {"layers": "all-linear", "rank": 16}
    return running({"model_type": name, **CONFIGS[name]}, {**RUN, **adapter, **options})


def _both(name: str, **options: Any) -> tuple[Running, Running]:
    return _run(name, **options), _run(name, **options, checkpointing="layer")


def _simulated(run: Running) -> tuple[int, int]:
    from planner.simulate.core import simulate_step

    found = simulate_step(
        {"model_type": run.arch.model_type, **CONFIGS[run.arch.model_type]}, run.spec, run.setup
    )
    return found.peak.bytes, found.total_flops


def _recomputed(run: Running) -> int:
    pairs = run.pairs if run.spec else None
    step = step_of(run.setup, pairs, run.setup.sequences)
    return 2 * flops.step_macs(run.arch, step, pairs, run.whole).recompute


def _off(run: Running, peak: int) -> float:
    return abs((run.memory().allocated_bytes - WORKSPACES * WORKSPACE_BYTES) / peak - 1)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "bf16") for name in sorted(CONFIGS)), ("llama", "autocast")]
)
def test_as_torch_runs_it(name: str, method: str, precision: str) -> None:
    """FLOPs to the last one, and the peak."""
    run, layers = (
        _run(name, method=method, precision=precision, checkpointing=way) for way in ("selective", "layer")
    )
    (peak, total), (least, most) = _simulated(run), _simulated(layers)
    assert least < peak and total < most
    assert _recomputed(layers) - _recomputed(run) == most - total
    assert max(_off(run, peak), _off(layers, least)) <= 0.0015


def test_what_a_layer_of_llama_keeps() -> None:
    """By hand: its input, q and v, attention's result with a float32 a row and head, gate's and down's results."""
    run, layers = (
        _run("llama", method="full", precision="bf16", checkpointing=way) for way in ("selective", "layer")
    )
    width, heads, inner, tokens = 1024, 16, 2816, 4 * 2048
    one = tokens * (2 * (width + width // 4 + width + inner + width) + 4 * heads)
    kept = {
        moment.phase: next(item.bytes for item in moment.items if item.part == "activations")
        for moment in run.memory().moments if moment.phase == "loss"
    }  # fmt: skip
    plain = next(
        item.bytes for moment in layers.memory().moments if moment.phase == "loss" for item in moment.items
        if item.part == "activations"
    )  # fmt: skip
    assert kept["loss"] - plain == 6 * one


def test_between_all_and_nothing() -> None:
    """Memory and seconds of Llama 3.1 8B on eight GPUs, and FLOPs as an estimate says them."""
    base = {"gpu": "h100", "gpus": 8, "sharding": "fsdp", "method": "full", "batch": 8, "seq_len": 4096}
    ways = ("none", "selective", "layer")
    runs = [running("meta-llama/Llama-3.1-8B", {**base, "checkpointing": way}) for way in ways]
    needed = [run.memory().allocated_bytes for run in runs]
    seconds = [found.seconds for run in runs if (found := run.time()) is not None]
    assert needed[0] > needed[1] > needed[2] and seconds[0] < seconds[1] < seconds[2]
    told = [
        planner.estimate("meta-llama/Llama-3.1-8B", layers="all-linear", checkpointing=way).to_dict()["flops"]
        for way in ways
    ]
    assert told[0] != told[1] != told[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "qlora", "quantize": "nf4"}, "on a quantised base"),
        ({"method": "lora", "attention_kernel": "eager"}, "with attention-kernel eager"),
        ({"method": "full", "attention_kernel": "sdpa", "precision": "fp32"}, "share keys"),
        ({"method": "lora", "variant": "dora"}, "pairs of LoRA"),
        ({"method": "lora", "reentrant": True}, "reentrant"),
        ({"method": "full", "gpus": 2, "tensor_parallel": 2}, "split over GPUs"),
    ],
)
def test_what_it_is_not_for(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _run("llama", **options)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "perceptrons alone"), ("google/flan-t5-large", "one stack"),
        ("openai/gpt-oss-20b", "eager"),
    ],
)  # fmt: skip
def test_other_layers_and_their_own_attention(model: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        running(model, {"method": "full", "checkpointing": "selective", "attention_kernel": "sdpa"})


def test_a_mixture_of_experts() -> None:
    """Of Qwen3 30B-A3B q, v and attention's result are kept; no expert's, no router's."""
    size = {"method": "full", "attention_kernel": "flash", "batch": 1, "seq_len": 1024, "precision": "bf16"}
    kept = []
    for way in ("layer", "selective"):
        found = running("Qwen/Qwen3-30B-A3B", {**size, "checkpointing": way}).memory()
        loss = next(moment for moment in found.moments if moment.phase == "loss")
        kept.append(sum(item.bytes for item in loss.items if item.part == "activations"))
    assert kept[1] - kept[0] == 48 * 1024 * (2 * (32 * 128 + 4 * 128 + 32 * 128) + 4 * 32)


def test_trainers_that_have_no_such_policy() -> None:
    with pytest.raises(InputError, match="has no such policy"):
        planner.export("trl-sft", "meta-llama/Llama-3.1-8B", layers="all-linear", checkpointing="selective")
    with pytest.raises(InputError, match="layer-offload"):
        planner.plan("meta-llama/Llama-3.1-8B", tokens=10**6, gpu="h100", checkpointing="selective")
