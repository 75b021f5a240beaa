"""Decoders of Llama's kind: one attention and one MLP a layer, differing in norms, biases and fusions."""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import (
    LANGUAGE_MODELS,
    Heads,
    finish,
    fused_mlp,
    gated_mlp,
    grouped_attention,
    groups,
    has_head,
    plain_mlp,
    read_heads,
    unembedding,
    windows,
)
from .dense_styles import LLAMA_NORMS, NORMS_AFTER_MLP, STYLES, Style

__all__ = ["LLAMA_NORMS", "STYLES", "Style", "attention", "build", "decoder", "layer_windows", "mlp", "norms"]


def _flag(cfg: Fields, rule: bool | str) -> bool:
    if isinstance(rule, bool):
        return rule
    return bool(cfg.bool(rule.rstrip("!"), rule.endswith("!")))


def _mlp_dropout(cfg: Fields, style: Style) -> bool:
    return style.mlp_dropout is not None and cfg.number(*style.mlp_dropout) > 0


def layer_windows(cfg: Fields, style: Style, n_layers: int) -> list[int | None]:
    """Each layer's window; where `layer_types` is absent, the rule by which the family's class makes it."""
    if style.sliding == "qwen2":
        if not cfg.bool("use_sliding_window", False):
            return [None] * n_layers
        first = cfg.int("max_window_layers", 28, minimum=0)
        return windows(cfg, n_layers, (i >= first for i in range(n_layers)), style.window)
    if style.sliding == "gemma2":
        return windows(cfg, n_layers, (i % 2 == 0 for i in range(n_layers)), style.window)
    if style.sliding in ("gemma3", "cohere2"):
        every = cfg.int("sliding_window_pattern", 6 if style.sliding == "gemma3" else 4)
        return windows(cfg, n_layers, ((i + 1) % every != 0 for i in range(n_layers)), style.window)
    if style.sliding == "cwm":
        return windows(cfg, n_layers, (i % 4 != 0 for i in range(n_layers)), style.window)
    if style.sliding == "all":
        return windows(cfg, n_layers)
    return windows(cfg, n_layers, [False] * n_layers, style.window)


def _post_norms(cfg: Fields, style: Style) -> bool:
    return style.post_norms is not None and _flag(cfg, style.post_norms_field)


def norms(layer: Layer, cfg: Fields, style: Style, hidden: int) -> None:
    """The layer's norms."""
    if style.parametric_norms:
        for name in style.norms[:1] if _flag(cfg, style.parallel) else style.norms:
            layer.norm(name, hidden, style.norm_bias)
    if style.post_norms is not None and _post_norms(cfg, style):
        for name in style.post_norms:
            layer.norm(name, hidden)
    for name in style.scaled or ():
        layer.vector(name, hidden)
    if style.sub_norms:
        layer.norm("self_attn.attn_sub_norm", hidden)
        layer.norm("mlp.ffn_sub_norm", cfg.int("intermediate_size"))


def open_end(cfg: Fields, style: Style) -> bool:
    """Whether nothing stands behind the MLP but the sum."""
    behind = style.norms[-1] in NORMS_AFTER_MLP or _post_norms(cfg, style) or style.scaled is not None
    return not behind and not _mlp_dropout(cfg, style)


def _refuse_variants(cfg: Fields) -> None:
    """Raise UnsupportedArchitectureError for what this builder does not lay out."""
    if cfg.str("model_type", "") == "doge" and cfg.bool("is_moe", False):
        raise UnsupportedArchitectureError("Doge with retrieved experts has no builder in this version.")


def attention(layer: Layer, cfg: Fields, style: Style, heads: Heads, x: int, window: int | None) -> int:
    """Attention with the family's biases and query-key norms."""
    if style.qk_norm != "none" and (style.qk_norm_field is None or cfg.bool(style.qk_norm_field, False)):
        for name, n in zip(style.qk_norm_names, (heads.n_heads, heads.n_kv_heads), strict=True):
            if style.qk_norm == "each-head":
                for head in range(n):
                    layer.norm(f"self_attn.{name}.norms.{head}", heads.d_head)
            else:
                layer.norm(f"self_attn.{name}", heads.d_head * (n if style.qk_norm == "full" else 1))
    if style.sinks:
        layer.vector("self_attn.sinks", heads.n_heads)
    # Laguna says either whether its gate is one weight a head, or which it is.
    per_head = style.per_head is not None and cfg.data.get(style.per_head, True) in (True, "per-head")
    return grouped_attention(
        layer, heads, x, qkv_bias=_flag(cfg, style.qkv_bias), o_bias=_flag(cfg, style.o_bias),
        fused=style.fused_qkv, window=window, causal=style.causal, gate=style.gate, per_head=per_head,
        decay=style.decay, chosen=cfg.int("keep_window_size", 2048) if style.decay else None,
    )  # fmt: skip


def mlp(
    layer: Layer, cfg: Fields, style: Style, hidden: int, x: int, width: int | None = None
) -> int:  # fmt: skip
    """The family's MLP, of another width where one is given."""
    width, bias = width or cfg.int("intermediate_size"), _flag(cfg, style.mlp_bias)
    if style.xielu:
        layer.vector("mlp.act_fn.alpha_p", 1)
        layer.vector("mlp.act_fn.alpha_n", 1)
    if style.mlp == "fused":
        return fused_mlp(layer, hidden, width, x, bias=bias)
    if style.mlp == "plain":
        return plain_mlp(
            layer, hidden, width, x, bias=bias, names=style.mlp_names or ("up_proj", "down_proj")
        )
    return gated_mlp(layer, hidden, width, x, bias=bias)


def decoder(trace: Trace, cfg: Fields, style: Style, prefix: str = "model.") -> None:
    """Embedding, layers and final norm."""
    heads, n_layers = read_heads(cfg, style.n_kv_heads, style.head_dim), cfg.int("num_hidden_layers")
    _refuse_variants(cfg)
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), heads.hidden)
    for window, numbers in groups(layer_windows(cfg, style, n_layers)):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            x = layer.stream
            layer.open_end = open_end(cfg, style)
            norms(layer, cfg, style, heads.hidden)
            mixed = attention(layer, cfg, style, heads, x, window)
            if _flag(cfg, style.parallel):
                layer.add(mixed, mlp(layer, cfg, style, heads.hidden, x))
            else:
                layer.add(mixed)
                layer.add(mlp(layer, cfg, style, heads.hidden, layer.stream))
    if style.parametric_norms:
        trace.vector(f"{prefix}norm.weight", heads.hidden)
        if style.norm_bias:
            trace.vector(f"{prefix}norm.bias", heads.hidden)


def build(cfg: Fields) -> Architecture:
    """A text-only model of one of the families in STYLES."""
    style = STYLES[cfg.str("model_type")]
    trace = Trace()
    decoder(trace, cfg, style)
    tied = bool(cfg.bool("tie_word_embeddings", style.tied))
    hidden, vocab = cfg.int("hidden_size"), cfg.int("vocab_size")
    if has_head(cfg, LANGUAGE_MODELS if style.causal else ("ForMaskedLM",)):
        bias = style.head_bias is not None and _flag(cfg, style.head_bias)
        unembedding(trace, hidden, vocab, tied=tied, bias=bias)
    return finish(trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied)
