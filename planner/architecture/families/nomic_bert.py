"""Nomic's BERT: a rotary encoder with gated MLPs, normed behind each part, under BERT's masked-LM head."""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Trace
from .bert import Head, unembed
from .common import finish, gated_mlp, grouped_attention, read_heads

BASE = "nomic_bert."
HEAD = Head(
    "cls.predictions.transform.dense", "cls.predictions.transform.layer_norm", "cls.predictions.decoder",
    "cls.predictions.bias",
)  # fmt: skip


def _check(cfg: Fields) -> None:
    """Raise UnsupportedArchitectureError for a class without a masked-LM head, or a table of no token types."""
    names = cfg.list("architectures", []) or ["ForMaskedLM"]
    if not str(names[0]).endswith("ForMaskedLM"):
        raise UnsupportedArchitectureError(
            f"{str(names[0])[:80]} has no builder in this version: known for this type is ForMaskedLM."
        )
    if not cfg.int("type_vocab_size", 2, minimum=0):
        raise UnsupportedArchitectureError("A table of no token types has no builder in this version.")


def build(cfg: Fields) -> Architecture:
    """A masked language model."""
    _check(cfg)
    trace, n_heads = Trace(), cfg.int("num_attention_heads")
    heads = read_heads(Fields({**cfg.data, "num_key_value_heads": n_heads}, cfg.path))
    hidden, vocab, width = heads.hidden, cfg.int("vocab_size"), cfg.int("intermediate_size")
    tied = bool(cfg.bool("tie_word_embeddings", True))
    trace.embedding(f"{BASE}embeddings.word_embeddings", vocab, hidden)
    trace.embedding(
        f"{BASE}embeddings.token_type_embeddings", cfg.int("type_vocab_size", 2), hidden, role="other"
    )
    for part in ("weight", "bias"):
        trace.vector(f"{BASE}embeddings.LayerNorm.{part}", hidden)
    with trace.layer("encoder", range(cfg.int("num_hidden_layers")), f"{BASE}layers.{{}}.") as layer:
        layer.open_end = False
        layer.add(grouped_attention(layer, heads, layer.stream, causal=False))
        layer.add(gated_mlp(layer, hidden, width, layer.stream))
        for name in ("post_attention_layernorm", "post_mlp_layernorm"):
            layer.norm(name, hidden, True)
    with trace.layer("head", (0,)) as head:
        unembed(head, HEAD, hidden, hidden, vocab, tied)
    return finish(
        trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied
    )  # fmt: skip
