"""Models of many experts that are modules of their own: continued from few, and equal to the model built whole."""

from __future__ import annotations

import json
import time
from random import Random
from typing import Any

import pytest

import planner
from planner.adapter import AdapterSpec, adapt, params
from planner.architecture.build import build
from planner.errors import ConfigError

pytest.importorskip("torch")

from planner.architecture.meta import many
from planner.architecture.meta.inventory import read
from planner.architecture.meta.model import build_model

from . import oracle

# Switch-C as the paper has it (arXiv 2101.03961, table 9, with 1571B parameters); it leaves out the vocabulary.
SWITCH_C = {
    "model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],
    "d_model": 2080, "d_ff": 6144, "d_kv": 64, "num_heads": 32, "num_layers": 15, "num_decoder_layers": 15,
    "num_sparse_encoder_layers": 15, "num_sparse_decoder_layers": 15, "num_experts": 2048, "vocab_size": 32128,
    "is_encoder_decoder": True,
}  # fmt: skip


def switch(pick: Random) -> dict[str, Any]:
    """A small Switch Transformer of many experts."""
    layers = pick.randint(1, 4)
    return {
        "model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"],
        "d_model": pick.randint(5, 40), "d_ff": pick.randint(5, 40), "d_kv": pick.randint(2, 9),
        "num_heads": pick.randint(1, 3), "num_layers": layers, "num_decoder_layers": pick.randint(1, 4),
        "num_sparse_encoder_layers": pick.randint(1, layers), "num_sparse_decoder_layers": 1,
        "num_experts": pick.randint(33, 70), "router_bias": pick.random() < 0.5, "vocab_size": 99,
        "tie_word_embeddings": pick.random() < 0.5, "is_encoder_decoder": True,
    }  # fmt: skip


def nllb(pick: Random) -> dict[str, Any]:
    """A small NLLB of many experts."""
    heads, encoder, decoder = pick.randint(1, 3), pick.randint(1, 4), pick.randint(1, 4)
    return {
        "model_type": "nllb-moe", "architectures": ["NllbMoeForConditionalGeneration"],
        "d_model": heads * pick.randint(4, 9), "encoder_ffn_dim": pick.randint(5, 40),
        "decoder_ffn_dim": pick.randint(5, 40), "encoder_layers": encoder, "decoder_layers": decoder,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_sparse_step": pick.randint(1, 2),
        "decoder_sparse_step": pick.randint(1, 2), "num_experts": pick.randint(33, 70), "vocab_size": 99,
        "router_bias": pick.random() < 0.5, "is_encoder_decoder": True,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", [switch, nllb])
def test_equals_the_model_built_whole(make: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(Random(seed))
    monkeypatch.setattr(many, "MOST_BUILT", 32)
    continued = many.read_any(config, "transformers")
    whole = read(build_model(config), config, "transformers")
    sparse = any(many.EXPERT.search(matrix.name) for matrix in whole.matrices)
    assert (continued.notes != whole.notes) == sparse
    for name in set(many.ALL_BUT_WORK) - {"notes"}:
        assert getattr(continued, name) == getattr(whole, name), name
    model = oracle.meta_model(config)
    assert continued.params == oracle.params(model)
    peft = oracle.with_lora(model, 3, "all-linear")
    spec = AdapterSpec(rank=3, layers=("all-linear",), experts="peft")
    assert params(adapt(continued, spec)) == sum(p.numel() for p in peft.parameters() if p.requires_grad)


def test_switch_c() -> None:
    arch = build(SWITCH_C)
    assert round(arch.params / 10**9) == 1571
    d, ff, inner, experts = 2080, 6144, 32 * 64, 2048
    sparse = experts * 2 * d * ff + d * experts  # the experts' two matrices and the router
    attention = 4 * d * inner
    by_hand = 32128 * d + 2 * 32 * 32  # the table, and the biases of 32 distances in each stack
    by_hand += 15 * (attention + sparse + 2 * d) + d  # the encoder, with its norms
    by_hand += 15 * (2 * attention + sparse + 3 * d) + d
    assert arch.params == by_hand
    experts_seen = {m.name for m in arch.matrices if m.role == "expert" and m.experts_active}
    assert arch.params - arch.params_active == 30 * (experts - 1) * 2 * d * ff and len(experts_seen) == 4
    plan = planner.estimate(SWITCH_C, rank=4, layers="all-linear", experts="peft").to_dict()
    per_rank = 30 * (2048 * 2 * (2080 + 6144) + 2080 + 2048) + 45 * 4 * (2080 + 2048)
    assert plan["adapter"]["params"] == 4 * per_rank
    said = " ".join(warning["message"] for warning in plan["warnings"])
    assert "2,048 experts" in said and "8, 16 and 24" in said and plan["memory"] is None
    own = planner.estimate(SWITCH_C, rank=4, targets="wi", experts="scaled").to_dict()
    assert own["adapter"]["params"] == 4 * 30 * 2048 * (2080 + 6144)
    assert "experts-as-modules" in json.dumps(own["warnings"])


@pytest.mark.parametrize("config", [
    {"model_type": "nllb-moe", "num_experts": 100_000},
    {"model_type": "switch_transformers", "num_experts": 3000, "num_layers": 64},
    {**SWITCH_C, "num_experts": 256, "num_layers": 512, "num_sparse_encoder_layers": 512},
    {**SWITCH_C, "num_experts": 10**5, "num_layers": 512, "num_decoder_layers": 512},
])  # fmt: skip
def test_more_experts_than_are_counted(config: dict[str, Any]) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError, match="more than"):
        build(config)
    assert time.process_time() - start < 3  # of which importing transformers may be most


def test_experts_that_differ_are_built_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = switch(Random(1))
    monkeypatch.setattr(many, "MOST_BUILT", 32)
    monkeypatch.setattr(many, "_alike", _never)
    assert many.read_any(config, "x").notes == read(build_model(config), config, "x").notes


def _never(parts: object) -> None:
    raise many._NotAlikeError
