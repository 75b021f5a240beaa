"""From the embedding to the first layer, by hand; and what a checkpoint inside of a checkpointed layer holds."""

from __future__ import annotations

from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.memory.kinds import Job, walk_layer
from planner.memory.opening import first_width, open_stem
from planner.memory.per_layer import per_layer
from planner.memory.step import stem_of
from planner.schema import Architecture
from planner.setup import Setup

BATCH, LENGTH, RANK = 2, 32, 4
TOKENS = BATCH * LENGTH
USUAL: dict[str, Any] = {
    "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.1, "pad_token_id": 0,
}  # fmt: skip
ROC_BERT = {**USUAL, "model_type": "roc_bert", "pronunciation_embed_dim": 96, "shape_embed_dim": 64}
ELECTRA = {**USUAL, "model_type": "electra", "embedding_size": 32}
REMBERT = {**USUAL, "model_type": "rembert", "input_embedding_size": 32, "output_embedding_size": 64}
OPT = {
    **USUAL, "model_type": "opt", "word_embed_proj_dim": 32, "ffn_dim": 192, "do_layer_norm_before": True,
    "dropout": 0.0,
}  # fmt: skip
ZAMBA = {
    **USUAL, "model_type": "zamba", "n_mamba_heads": 2, "num_hidden_layers": 4, "num_key_value_heads": 4,
    "attn_layer_period": 2, "attn_layer_offset": 1, "layers_block_type": ["mamba", "hybrid"] * 2,
    "tie_word_embeddings": True,
}  # fmt: skip
NAMES = {
    "roc_bert": "RoCBertForMaskedLM", "electra": "ElectraForMaskedLM", "rembert": "RemBertForMaskedLM",
    "opt": "OPTForCausalLM", "zamba": "ZambaForCausalLM",
}  # fmt: skip


def _job(config: dict[str, Any], **options: Any) -> Job:
    arch: Architecture = build({**config, "architectures": [NAMES[config["model_type"]]]})
    setup = Setup(
        **{"method": "lora", "micro_batch": BATCH, "seq_len": LENGTH, "checkpointing": "layer", **options}
    )
    return Job(arch, setup, adapt(arch, AdapterSpec(rank=RANK, layers=("all-linear",))))


# What stays of every token in bf16, by hand: the embedding's row as a leaf, what the pair's product reads and its
# inner values, what the norm reads, and a byte a value for dropout.
KEPT = {
    "roc_bert": 2 * 96 + 2 * (96 + 64 + 96) + 2 * RANK + 2 * 96 + 96,
    "electra": 2 * 32 + 2 * 32 + 32 + 2 * 32 + 2 * RANK,
    "rembert": 2 * 32 + 2 * 32 + 32 + 2 * 32 + 2 * RANK,
    "opt": 2 * 32 + 2 * RANK,
}


@pytest.mark.parametrize("config", [ROC_BERT, ELECTRA, REMBERT, OPT], ids=list(KEPT))
def test_what_a_matrix_before_the_layers_keeps(config: dict[str, Any]) -> None:
    job = _job(config)
    found = open_stem(job, stem_of(job))
    assert found.grad
    assert found.forward is not None
    kept = {label: size for label, size in found.forward.change.items() if size}
    assert kept == {"activations": TOKENS * KEPT[config["model_type"]]}
    assert found.backward is not None
    assert not any(found.named.values())  # the first layer keeps its input


def test_without_input_gradients_the_pair_alone_needs_one() -> None:
    job = _job(ELECTRA, checkpointing="none")
    found = open_stem(job, stem_of(job))
    assert found.grad
    assert found.forward is not None
    assert found.forward.change["activations"] == TOKENS * (2 * 32 + 2 * RANK)


def test_autocast_lowers_what_the_matrix_behind_the_norm_makes() -> None:
    found = {kind: first_width(_job(config, precision="autocast")) for kind, config in
             (("roc_bert", ROC_BERT), ("electra", ELECTRA), ("rembert", REMBERT), ("opt", OPT))}  # fmt: skip
    assert found == {"roc_bert": 4, "electra": 2, "rembert": 2, "opt": 0}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_inside_of_a_layer_holds_what_it_is_called_with(reentrant: bool) -> None:
    """Zamba's hybrid layers checkpoint their mixer once more, which is given what the shared transformer made."""
    job = _job(ZAMBA, reentrant=reentrant)
    walked = [walk_layer(job, b, b.layers[0], True) for b in job.arch.blocks if b.stack == "decoder"]
    kept = [each.forward.change["activations"] for each in walked]
    one = TOKENS * 96 * 2
    assert kept[:2] == [one, one if reentrant else 2 * one]


@pytest.mark.parametrize(("checkpointing", "label"), [("layer", "kept"), ("none", "held")])
def test_the_copy_that_hybrid_layers_read(checkpointing: str, label: str) -> None:
    found = per_layer(_job(ZAMBA, checkpointing=checkpointing), True)
    one = TOKENS * 96 * 2
    assert sum(getattr(found, label).values()) == one
    assert found.gradient == {"stream": 2 * one}
    assert not (found.held and found.kept)


def test_the_activation_of_an_mlp_by_its_own_field() -> None:
    config = {
        **USUAL, "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "mlp_hidden_act": "relu2",
        "hybrid_override_pattern": "M-*-", "num_hidden_layers": 4, "mamba_num_heads": 8, "mamba_head_dim": 24,
        "ssm_state_size": 16, "n_groups": 2, "num_key_value_heads": 2, "head_dim": 24,
    }  # fmt: skip
    assert build(config).activation == "relu2"
