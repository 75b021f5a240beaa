"""Which parts of a layer are dropped, by the bytes of masks that stay of it."""

from __future__ import annotations

from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.memory.kinds import Job, walk_layer
from planner.memory.tape import Size
from planner.setup import Setup

TOKENS, HIDDEN = 2 * 32, 96
SMALL: dict[str, Any] = {
    "hidden_size": HIDDEN, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
    "vocab_size": 100, "max_position_embeddings": 64, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0,
}  # fmt: skip


def _kept(config: dict[str, Any]) -> Size:
    arch = build({**SMALL, **config})
    setup = Setup(method="lora", micro_batch=2, seq_len=32)
    job = Job(arch, setup, adapt(arch, AdapterSpec(rank=4, layers=("all-linear",))))
    block = next(block for block in arch.blocks if block.stack in ("encoder", "decoder"))
    return sum(walk_layer(job, block, block.layers[0], True).forward.change.values())


@pytest.mark.parametrize(
    ("kind", "name", "field", "masks"),
    [
        ("bert", "BertForMaskedLM", "hidden_dropout_prob", 2),
        ("xlm-roberta-xl", "XLMRobertaXLForMaskedLM", "hidden_dropout_prob", 1),  # of attention alone
        ("rembert", "RemBertForMaskedLM", "hidden_dropout_prob", 2),
        ("modernbert", "ModernBertForMaskedLM", "attention_dropout", 1),
    ],
)
def test_masks_that_stay_of_a_layer(kind: str, name: str, field: str, masks: int) -> None:
    """A byte a value and dropped part; the probabilities' of fused kernels are none."""
    config: dict[str, Any] = {"model_type": kind, "architectures": [name]}
    if kind == "rembert":
        config |= {"input_embedding_size": 32, "output_embedding_size": 64}
    more = _kept({**config, field: 0.1}) - _kept({**config, field: 0.0})
    assert more == masks * TOKENS * HIDDEN
