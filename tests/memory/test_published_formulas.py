"""Formulas that others published, worked out beside what the planner counts: no constant in them is ours."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.architecture.build import build
from planner.estimator import load
from planner.memory import estimate_memory
from planner.setup import Setup

LLAMA = "meta-llama/Llama-3.1-8B"
PARAMS = 8_030_261_248


def gpt(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    """A GPT as Megatron has it: a GELU of one operation, dropout on attention, both residuals and the embedding."""
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": hidden, "n_head": heads,
        "n_layer": layers, "n_positions": 2048, "vocab_size": 50257, "activation_function": "gelu",
        "resid_pdrop": 0.1, "attn_pdrop": 0.1, "embd_pdrop": 0.1, "tie_word_embeddings": False,
    }  # fmt: skip


def a_layer(hidden: int, heads: int, setup: Setup) -> int:
    """Bytes of activations that one more layer keeps, where the loss is."""

    def kept(layers: int) -> int:
        found = estimate_memory(build(gpt(layers, hidden, heads)), setup)
        assert (found.peak.phase, found.peak.where) == ("backward", "unembedding")
        return found.peak.parts()["activations"]

    return kept(13) - kept(12)


@pytest.mark.parametrize(
    ("hidden", "heads", "length", "batch"), [(1024, 16, 512, 4), (2048, 16, 1024, 2), (1600, 25, 1024, 1)]
)
def test_activations_of_a_layer(hidden: int, heads: int, length: int, batch: int) -> None:
    """s b h (34 + 5 a s / h): Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models
    (arXiv 2205.05198), equation 1, of 16 bits with dropout and without fused attention."""
    setup = Setup(
        method="full", precision="fp16", attention_kernel="eager", loss="fused", optimizer="sgd",
        micro_batch=batch, seq_len=length,
    )  # fmt: skip
    assert a_layer(hidden, heads, setup) == length * batch * (34 * hidden + 5 * heads * length)


@pytest.mark.parametrize(("checkpointing", "passes"), [("none", 72), ("layer", 96)])
def test_flops_of_a_step(checkpointing: str, passes: int) -> None:
    """72 B s l h^2 (1 + s / 6h + V / 12 l h), 96 where layers run again (the logits once all the same): Narayanan et
    al., Efficient Large-Scale Language Model Training on GPU Clusters (arXiv 2104.04473), appendix."""
    layers, hidden, length, batch = 24, 2048, 2048, 2
    found = estimate(
        gpt(layers, hidden, 16), seq_len=length, batch=batch, checkpointing=checkpointing
    ).to_dict()["flops"]
    core = passes * batch * length * layers * hidden * (6 * hidden + length) // 6
    assert found["step"]["full"] == core + 6 * batch * length * 50257 * hidden


def states(sharding: str, gpus: int) -> dict[str, float]:
    """Bytes a parameter of what a GPU holds as the optimizer steps."""
    options: dict[str, Any] = {"sharding": sharding} if gpus > 1 else {}
    setup = Setup(method="full", precision="bf16-master", gpus=gpus, accumulation=2, seq_len=128, **options)
    found = estimate_memory(load(LLAMA)[1], setup)
    step = next(moment for moment in found.moments if moment.phase == "optimizer")
    return {name: step.parts()[name] / PARAMS for name in ("weights", "gradients", "optimizer")}


@pytest.mark.parametrize("gpus", [1, 8, 64])
def test_states_of_mixed_precision_adam(gpus: int) -> None:
    """2 + 2 + 12 bytes a parameter, the 12 divided by stage 1, a 2 by stage 2, the other by stage 3: Rajbhandari et
    al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (arXiv 1910.02054), figure 1."""
    by_stage = {
        "ddp": (2, 2, 12), "zero1": (2, 2, 12 / gpus), "zero2": (2, 2 / gpus, 12 / gpus),
        "zero3": (2 / gpus, 2 / gpus, 12 / gpus),
    }  # fmt: skip
    for sharding, wanted in by_stage.items():
        assert tuple(states(sharding, gpus).values()) == pytest.approx(wanted, rel=1e-6)


def test_constants_of_double_quantisation() -> None:
    """32/64 = 0.5 bits a parameter of constants, 8/64 + 32/(64 256) = 0.127 doubly quantised: Dettmers et al., QLoRA
    (arXiv 2305.14314), section 3."""
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    rest = PARAMS - linear
    for kind, bits in (("nf4", 4 + 32 / 64), ("nf4-double", 4 + 8 / 64 + 32 / (64 * 256))):
        found = estimate(LLAMA, quantize=kind, upcast_small=False).memory or {}
        held = found["qlora"]["parts"]["weights"] - 2 * rest
        assert held == pytest.approx(linear * bits / 8, rel=2e-4)


def test_what_gpus_send() -> None:
    """Tensor parallelism: four all-reduces of b s h a layer and step (Shoeybi et al., Megatron-LM, arXiv 1909.08053,
    section 3). Experts: each token's hidden states to k experts and back, both ways (Lepikhin et al., GShard, arXiv
    2006.16668, section 3.2). Shards: parameters gathered twice and gradients scattered once (ZeRO, section 7)."""
    hidden = 2 * 2048 * 4096
    found = (estimate(LLAMA, seq_len=2048, gpus=8, tensor_parallel=8).memory or {})["full"]["traffic"]
    assert [(each["calls"], each["bytes"]) for each in found] == [(4 * 32, 4 * 32 * hidden)]
    mixture = estimate(
        "Qwen/Qwen3-30B-A3B", seq_len=2048, gpus=8, batch=8, expert_parallel=8, sharding="fsdp"
    )
    sent = [each for each in (mixture.memory or {})["lora"]["traffic"] if each["collective"] == "all_to_all"]
    assert [(each["calls"], each["bytes"]) for each in sent] == [(4 * 48, 4 * 48 * 2 * 2048 * 8 * 2048)]
    sharded = (estimate(LLAMA, seq_len=2048, gpus=8, sharding="zero3").memory or {})["full"]["traffic"]
    by_kind = {each["collective"]: each["bytes"] for each in sharded}
    assert by_kind["reduce_scatter"] == 2 * PARAMS
    assert by_kind["all_gather"] == pytest.approx(2 * 2 * PARAMS, rel=0.04)  # what stays gathered comes once
