"""Fuyu: Persimmon's decoder, which reads patches of pixels through one Linear layer."""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Trace
from . import legacy
from .common import finish, unembedding
from .legacy_styles import STYLES

BASE = "model.language_model."
DEFAULTS = {
    "model_type": "persimmon", "vocab_size": 262144, "hidden_size": 4096, "intermediate_size": 16384,
    "num_hidden_layers": 36, "num_attention_heads": 64, "max_position_embeddings": 16384,
}  # fmt: skip


def _text(cfg: Fields) -> Fields:
    """The decoder's fields: nested, or at the top in the first configs. Raises UnsupportedArchitectureError for
    another decoder."""
    text = cfg.sub("text_config") if cfg.has("text_config") else cfg
    kind = text.str("model_type", "persimmon") if text is not cfg else "persimmon"
    if kind != "persimmon":
        raise UnsupportedArchitectureError(
            f"Fuyu with a decoder of type {kind[:40]!r} has no builder in this version."
        )
    return Fields({**DEFAULTS, **text.data, "model_type": "persimmon"}, text.path)


def build(cfg: Fields) -> Architecture:
    """The model with its head over the vocabulary."""
    names = cfg.list("architectures", []) or ["FuyuForCausalLM"]
    if names[0] != "FuyuForCausalLM":
        raise UnsupportedArchitectureError(f"{str(names[0])[:80]} has no builder in this version.")
    trace, text, style = Trace(), _text(cfg), STYLES["persimmon"]
    heads, vocab = legacy.read_heads(text, style, "persimmon"), text.int("vocab_size")
    patch = cfg.int("patch_size", 30)
    pixels = patch * patch * cfg.int("num_channels", 3)
    trace.weight("model.vision_embed_tokens", "projector", pixels, heads.hidden, bias=True)
    width = legacy.embeddings(trace, text, style, heads.hidden, BASE)
    legacy.layers(trace, text, style, heads, BASE)
    legacy.ending(trace, text, style, heads.hidden, width, BASE)
    tied = bool(cfg.bool("tie_word_embeddings", False))
    unembedding(trace, heads.hidden, vocab, tied=tied)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=heads.hidden, vocab=vocab, tied=tied,
        max_position=text.int("max_position_embeddings"),
    )  # fmt: skip
