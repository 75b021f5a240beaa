"""ALBERT: an encoder whose layers share their weights by groups, behind narrower embeddings."""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Trace
from .bert import Head, unembed
from .common import Heads, finish, plain_mlp
from .encoders import attention

BASE = "albert."
GROUPS = f"{BASE}encoder.albert_layer_groups.{{}}."
HEAD = Head("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias")


def _heads(cfg: Fields) -> Heads:
    """The heads. Raises UnsupportedArchitectureError for what is built but cannot run, or has another head."""
    names = cfg.list("architectures", []) or ["ForMaskedLM"]
    hidden, n = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    if not str(names[0]).endswith("ForMaskedLM"):
        raise UnsupportedArchitectureError(
            f"{str(names[0])[:80]} has no builder in this version: known for this type is ForMaskedLM."
        )
    if hidden % n or not cfg.int("type_vocab_size", 2, minimum=0):
        raise UnsupportedArchitectureError(
            "ALBERT of uneven heads or without token types has no builder in this version."
        )
    return Heads(hidden, n, n, hidden // n)


def _embeddings(trace: Trace, cfg: Fields, hidden: int) -> int:
    """The tables, their norm and the projection to the hidden width; returns their width."""
    width = int(cfg.int("embedding_size", 128))
    prefix = f"{BASE}embeddings."
    trace.embedding(f"{prefix}word_embeddings", cfg.int("vocab_size"), width)
    for name, rows in (
        ("position_embeddings", cfg.int("max_position_embeddings", 512)),
        ("token_type_embeddings", cfg.int("type_vocab_size", 2)),
    ):
        trace.embedding(prefix + name, rows, width, role="other")
    for part in ("weight", "bias"):
        trace.vector(f"{prefix}LayerNorm.{part}", width)
    with trace.layer("stem", (0,), f"{BASE}encoder.") as stem:
        stem.stream = stem.linear(
            "embedding_hidden_mapping_in", "other", width, hidden, stem.stream, bias=True
        )
    return width


def _groups(trace: Trace, cfg: Fields, heads: Heads) -> None:
    """The groups, each of which runs for its share of the layers."""
    depth, groups = cfg.int("num_hidden_layers"), cfg.int("num_hidden_groups", 1)
    runs = [int(i / (depth / groups)) for i in range(depth)]  # the library's own rounding
    width, hidden = cfg.int("intermediate_size"), heads.hidden
    for group in range(groups):
        layers = tuple(number for number in runs if number == group)
        with trace.layer("encoder", layers, GROUPS, held=(group,)) as layer:
            layer.open_end = False
            for inner in range(cfg.int("inner_group_num", 1)):
                prefix = f"albert_layers.{inner}."
                names = ("query", "key", "value", "dense")
                layer.add(attention(layer, heads, layer.stream, f"{prefix}attention.", names))
                layer.add(
                    plain_mlp(
                        layer, hidden, width, layer.stream, prefix=prefix, bias=True, names=("ffn", "ffn_output")
                    )
                )  # fmt: skip
                for name in ("attention.LayerNorm", "full_layer_layer_norm"):
                    layer.norm(prefix + name, hidden, True)


def build(cfg: Fields) -> Architecture:
    """A masked language model."""
    heads, trace = _heads(cfg), Trace()
    vocab, tied = cfg.int("vocab_size"), bool(cfg.bool("tie_word_embeddings", True))
    width = _embeddings(trace, cfg, heads.hidden)
    _groups(trace, cfg, heads)
    with trace.layer("head", (0,)) as head:
        unembed(head, HEAD, heads.hidden, width, vocab, tied)
    return finish(
        trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=heads.hidden, vocab=vocab, tied=tied
    )  # fmt: skip
