"""Masks that a model makes before its layers, and tables that its code holds beside its weights, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.memory.buffers import table_bytes
from planner.memory.kinds import Job
from planner.memory.step import course, masks, whole_model
from planner.memory.two_stacks import _masks
from planner.setup import Setup

BATCH, LENGTH = 3, 64
PAIRS = BATCH * LENGTH * LENGTH
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100,
    "max_position_embeddings": 128,
}  # fmt: skip
LLAMA = {**SMALL, "model_type": "llama"}
GEMMA2 = {**SMALL, "model_type": "gemma2", "sliding_window": 32, "head_dim": 16}
MPT = {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 100, "max_seq_len": 128}
GPT_NEO = {
    "model_type": "gpt_neo", "hidden_size": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100, "window_size": 32,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128,
}  # fmt: skip
T5 = {
    "model_type": "t5", "d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4, "vocab_size": 100,
    "architectures": ["T5ForConditionalGeneration"],
}  # fmt: skip


def _job(config: dict[str, Any], **options: Any) -> Job:
    given = {
        "method": "lora",
        "micro_batch": BATCH,
        "seq_len": LENGTH,
        "attention_kernel": "eager",
        **options,
    }
    return Job(build(config), Setup(**given), ())


@pytest.mark.parametrize(
    ("config", "options", "bytes_a_pair"),
    [
        (LLAMA, {}, 2),  # added to scores in the hidden states' type
        (LLAMA, {"precision": "autocast"}, 4),  # which autocast leaves float32
        (GEMMA2, {"precision": "autocast"}, 2 * 4),  # one for windows as well
        (MPT, {"precision": "autocast"}, 1),  # made truth values of
        (GPT_NEO, {"precision": "autocast"}, 4),  # whose layers cut windows themselves
        (LLAMA, {"attention_kernel": "sdpa"}, 0),
    ],
)
def test_bytes_of_masks(config: dict[str, Any], options: dict[str, Any], bytes_a_pair: int) -> None:
    assert masks(_job(config, **options)) == PAIRS * bytes_a_pair


@pytest.mark.parametrize(
    ("stack", "options", "bytes_a_pair"),
    [
        ("encoder", {}, 0),
        ("decoder", {}, 2),  # to see no later positions
        ("encoder", {"packing": "padded"}, 2),
        ("decoder", {"packing": "padded"}, 2 + 2),  # and one of the encoder's padding
        ("encoder", {"packing": "padded", "attention_kernel": "sdpa"}, 1),
        ("decoder", {"packing": "padded", "attention_kernel": "sdpa"}, 1),
        ("decoder", {"attention_kernel": "sdpa"}, 0),
    ],
)
def test_bytes_of_masks_of_two_stacks(stack: str, options: dict[str, Any], bytes_a_pair: int) -> None:
    assert sum(_masks(_job(T5, **options), stack).values()) == PAIRS * bytes_a_pair


def test_tables_beside_the_weights() -> None:
    setup = Setup(method="lora")
    starcoder = {
        "model_type": "gpt_bigcode", "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 128, "vocab_size": 100,
    }  # fmt: skip
    xglm = {
        "model_type": "xglm", "d_model": 64, "ffn_dim": 128, "num_layers": 2, "attention_heads": 4, "vocab_size": 100,
        "max_position_embeddings": 128,
    }  # fmt: skip
    assert table_bytes(build(starcoder), setup) == 128 * 128  # which positions see which, a byte each
    assert table_bytes(build(xglm), setup) == (128 + 2) * 64 * 2
    assert table_bytes(build(LLAMA), setup) == 0


@pytest.mark.parametrize(("reentrant", "held"), [(True, 0), (False, 1)])
def test_checkpoints_without_a_graph_keep_no_mask(reentrant: bool, held: int) -> None:
    """Reentrant checkpoints whose input needs no gradient run nothing again, and keep nothing for it."""
    job = _job(LLAMA, checkpointing="layer", reentrant=reentrant, input_grads=False, precision="autocast")
    pairs = adapt(job.arch, AdapterSpec(rank=4, layers=("unembedding",)))
    if not reentrant:
        pairs = adapt(job.arch, AdapterSpec(rank=4, layers=("attention",)))
    going = course(Job(job.arch, job.setup, pairs), {}, whole_model(job.arch))
    loss = next(place for place in going.places if place.phase == "loss")
    assert (loss.base.get("temporary", 0) >= PAIRS * 4) == bool(held)
