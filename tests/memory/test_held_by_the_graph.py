"""What a graph holds beside what autograd saves, and what layers hand on: the analytic peak against the simulated
one, torch's own ways, and counts by hand."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from planner import flops
from planner.adapter import AdapterSpec, adapt
from planner.adapter.whole import trained_whole
from planner.architecture.build import build
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective import step_tally
from planner.setup import Setup

torch: Any = pytest.importorskip("torch")

WIDTH, INNER, LAYERS, TOKENS = 512, 1408, 4, 2 * 512
USUAL: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 8,
    "num_key_value_heads": 8, "vocab_size": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {**USUAL, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MARIAN = {
    "model_type": "marian", "architectures": ["MarianMTModel"], "vocab_size": 16384, "d_model": WIDTH,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
    "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER, "max_position_embeddings": 512, "dropout": 0.1,
    "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip
GPTJ = {
    "model_type": "gptj",
    "n_embd": WIDTH,
    "n_layer": LAYERS,
    "n_head": 8,
    "n_positions": 2048,
    "rotary_dim": 16,
}
NEO = {"model_type": "gpt_neo", "num_layers": 4, "num_heads": 8, "attention_types": [[["global"], 4]]}
MPT = {"model_type": "mpt", "d_model": WIDTH, "n_heads": 8, "n_layers": LAYERS, "max_seq_len": 2048}
HANDING: dict[str, dict[str, Any]] = {
    "FalconForCausalLM": {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 8},
    "GPTJForCausalLM": GPTJ,
    "BloomForCausalLM": {"model_type": "bloom", "n_head": 8, "n_layer": LAYERS},
    "GPTNeoForCausalLM": NEO,
    "MptForCausalLM": MPT,
}


def both(
    config: dict[str, Any], layers: tuple[Any, ...] = ("all-linear",), **options: Any
) -> tuple[int, int]:
    """The analytic peak and the simulated one."""
    from planner.simulate.core import simulate_step

    arch = build(config)
    setup = Setup(**{"method": "lora", "micro_batch": 2, "seq_len": 512, "loss": "chunked", **options})
    spec = AdapterSpec(rank=8, layers=layers, experts="none")
    pairs = adapt(arch, spec)
    found = estimate_memory(arch, setup, pairs, trained_whole(arch, spec, pairs))
    ours = found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES
    return ours, simulate_step(config, spec, setup, arch=arch).peak.bytes


Function: Any = torch.autograd.Function


class _Product(Function):
    """A product that holds what it reads as bitsandbytes' do: `ctx.tensors` (0.43.1 in 4 bits, 0.50.2 in 8)."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.tensors = (None, None, x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_no_checkpoint_sees_what_a_node_holds_as_an_attribute(reentrant: bool) -> None:
    """With torch's own checkpoint it stays until the graph goes, after the backward pass has run; under a reentrant
    one there is no graph."""
    seen: list[Any] = []

    def layer(x: Any) -> Any:
        inner = x + 1
        seen.append(weakref.ref(inner.untyped_storage()))
        return _Product.apply(inner)

    x = torch.ones(8, requires_grad=True)
    out = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).sum()
    assert (seen[0]() is not None) is not reentrant
    out.backward()
    assert (seen[0]() is not None) is not reentrant
    del out
    assert seen[0]() is None


QUANTISED: dict[str, dict[str, Any]] = {
    "int8": {"quantize": "int8"},
    "nf4": {"quantize": "nf4", "quantised_inputs_kept": True},
}


@pytest.mark.parametrize("kind", sorted(QUANTISED))
@pytest.mark.parametrize(
    ("checkpointing", "reentrant"),
    [("none", False), ("layer", False), ("layer", True), ("layer-offload", False), ("layer-offload", True)],
)
def test_quantised_products_hold_what_they_read(kind: str, checkpointing: Any, reentrant: bool) -> None:
    ours, seen = both(
        LLAMA, method="qlora", checkpointing=checkpointing, reentrant=reentrant, **QUANTISED[kind]
    )
    assert ours == pytest.approx(seen, rel=0.02)  # of one stream of four layers


@pytest.mark.parametrize("kind", sorted(QUANTISED))
def test_a_checkpoint_stops_before_a_last_product_that_holds_what_it_reads(kind: str) -> None:
    """FLOPs equal those of the simulated step."""
    from planner.simulate.core import simulate_step

    setup = Setup(
        method="qlora", checkpointing="layer", attention_kernel="eager", seq_len=64, **QUANTISED[kind]
    )
    spec, arch = AdapterSpec(rank=8, layers=("attention",)), build(LLAMA)
    counted = flops.flops(step_tally(arch, setup, adapt(arch, spec), batch=1))
    assert counted == simulate_step(LLAMA, spec, setup, arch=arch).total_flops


def test_what_is_held_past_checkpoints_by_hand() -> None:
    """Of each layer its two normed streams, what attention puts out and the MLP's inner values, 2 bytes each."""
    held = {}
    for reentrant in (False, True):
        setup = Setup(
            method="qlora", quantize="int8", checkpointing="layer", reentrant=reentrant, micro_batch=2,
            seq_len=512, loss="chunked",
        )  # fmt: skip
        arch = build(LLAMA)
        pairs = adapt(arch, AdapterSpec(rank=8, layers=("all-linear",)))
        moments = {moment.phase: moment for moment in estimate_memory(arch, setup, pairs).moments}
        held[reentrant] = next(
            item.bytes for item in moments["loss"].items if item.name == "kept for the backward pass"
        )
    assert held[False] - held[True] == LAYERS * TOKENS * (3 * WIDTH + INNER) * 2


@pytest.mark.parametrize("name", sorted(HANDING))
@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_hand_on_attention_s_probabilities(name: str, reentrant: bool) -> None:
    """Zeros as their gradient stand beside a reentrant checkpoint's backward pass, one tensor of all scores."""
    config = {**USUAL, **HANDING[name], "architectures": [name]}
    options = {"checkpointing": "layer", "reentrant": reentrant, "attention_kernel": "eager", "seq_len": 1024}
    ours, seen = both(config, ("attention",), **options)
    assert ours == pytest.approx(seen, rel=0.025)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_bias_of_logits_is_as_wide_as_the_weights_were_loaded(autocast: bool) -> None:
    """Marian's is a buffer: what makes parameters float32 leaves it in 16 bits, and autocast's logits with it."""
    options: dict[str, Any] = {
        "quantize": "int8",
        "upcast_small": True,
        "autocast": autocast,
        "outputs_held": True,
    }
    ours, seen = both(MARIAN, ("attention", "unembedding"), method="qlora", loss="full", **options)
    assert ours == pytest.approx(seen, rel=0.01)
