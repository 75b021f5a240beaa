"""Single equations of memory, by numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.adapter.whole import trained_whole
from planner.architecture.build import build
from planner.memory import estimate_memory
from planner.moments import MemoryEstimate
from planner.setup import Setup

VOCAB, HIDDEN, TOKENS = 32000, 256, 2 * 64
LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCAB, "hidden_size": HIDDEN,
    "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
}  # fmt: skip
SETUP = Setup(micro_batch=2, seq_len=64)


def found(spec: AdapterSpec, setup: Setup = SETUP) -> MemoryEstimate:
    arch = build(LLAMA)
    pairs = adapt(arch, spec)
    return estimate_memory(arch, setup, pairs, trained_whole(arch, spec, pairs))


def top(estimate: MemoryEstimate, phase: str) -> int:
    """Bytes at the highest moment of a phase beyond what is held throughout."""
    moment = next(m for m in estimate.moments if m.phase == phase)
    held = ("weights", "adapter", "optimizer")
    return sum(item.bytes for item in moment.items if item.part not in held and "workspaces" not in item.name)


def test_doras_norm_of_a_table_holds_three_tables() -> None:
    """A B, that times its scale, and the sum with the table, each in 16 bits; beside the table's rows."""
    spec = AdapterSpec(rank=4, layers=("embedding",), variant="dora")
    estimate = found(spec, replace(SETUP, adapter_dtype="bfloat16"))
    assert top(estimate, "forward") == pytest.approx(2 * (3 * VOCAB * HIDDEN + TOKENS * HIDDEN), rel=0.01)


def test_a_pair_on_a_table_has_no_gradient_as_large_as_the_table() -> None:
    """That of A, twice (it is laid in A's order), is what stands at the end of the backward pass."""
    estimate = found(AdapterSpec(rank=4, layers=("embedding",)), replace(SETUP, loss="chunked", loss_chunk=1))
    gradients = next(m for m in estimate.moments if m.phase == "backward").parts()["gradients"]
    assert gradients <= 2 * 4 * VOCAB * 4 + 4 * HIDDEN * 4


def test_biases_trained_alone_keep_what_is_behind_them() -> None:
    """With biases of all layers trained, layers without a pair keep activations too; without, none of them."""
    config = {**LLAMA, "attention_bias": True}
    arch = build(config)
    spec = AdapterSpec(rank=4, layers=("mlp",), layers_to_transform=(3,))
    kept = []
    for bias in ("none", "all"):
        own = replace(spec, bias=bias)
        pairs = adapt(arch, own)
        estimate = estimate_memory(arch, SETUP, pairs, trained_whole(arch, own, pairs))
        kept.append(next(m for m in estimate.moments if m.phase == "loss").parts()["activations"])
    assert kept[1] > 3 * kept[0]
