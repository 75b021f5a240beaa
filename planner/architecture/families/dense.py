"""Decoders of Llama's kind: one attention and one MLP a layer, differing in norms, biases and fusions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import (
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

NORMS_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
LLAMA_NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True)
class Style:
    """What sets a family apart. A bias is a fixed choice or the name of the field that decides, with "!" after
    it where the class's default is true."""

    qkv_bias: bool | str = "attention_bias"
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = False
    mlp: Literal["gated", "fused", "plain"] = "gated"
    mlp_names: tuple[str, ...] | None = None
    fused_qkv: str | None = None
    qk_norm: Literal["none", "head", "full", "each-head"] = "none"
    qk_norm_field: str | None = None
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    norms: tuple[str, ...] = LLAMA_NORMS
    norm_bias: bool = False
    parametric_norms: bool = True
    parallel: bool = False
    tied: bool = False
    xielu: bool = False
    head_dim: int | None = None
    n_kv_heads: int | None = None
    mlp_dropout: tuple[str, float] | None = None
    sliding: Literal["all", "types", "qwen2", "gemma2", "gemma3", "cohere2"] = "types"


STYLES: dict[str, Style] = {
    "llama": Style(mlp_bias="mlp_bias"),
    "mistral": Style(qkv_bias=False, o_bias=False, sliding="all", n_kv_heads=8),
    "ministral": Style(qkv_bias=False, o_bias=False, n_kv_heads=8),
    "ministral3": Style(qkv_bias=False, o_bias=False, sliding="all", n_kv_heads=8, head_dim=128),
    "qwen2": Style(qkv_bias=True, o_bias=False, sliding="qwen2", n_kv_heads=32),
    "qwen3": Style(qk_norm="head", sliding="qwen2", n_kv_heads=32, head_dim=128),
    "gemma": Style(tied=True, n_kv_heads=16, head_dim=256),
    "gemma2": Style(
        tied=True,
        n_kv_heads=4,
        head_dim=256,
        norms=(*LLAMA_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
        sliding="gemma2",
    ),
    "phi3": Style(
        qkv_bias=False,
        o_bias=False,
        fused_qkv="qkv_proj",
        mlp="fused",
        mlp_dropout=("resid_pdrop", 0.0),
        sliding="all",
    ),
    "granite": Style(mlp_bias="mlp_bias"),
    "olmo": Style(parametric_norms=False),
    "olmo2": Style(qk_norm="full", norms=("post_attention_layernorm", "post_feedforward_layernorm")),
    "smollm3": Style(mlp_bias="mlp_bias", tied=True, n_kv_heads=4),
    "seed_oss": Style(
        qkv_bias="attention_bias!",
        o_bias="attention_out_bias",
        mlp_bias="mlp_bias",
        n_kv_heads=8,
        head_dim=128,
        mlp_dropout=("residual_dropout", 0.1),
    ),
    "exaone4": Style(
        n_kv_heads=32,
        qkv_bias=False,
        o_bias=False,
        qk_norm="head",
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
    ),
    "hunyuan_v1_dense": Style(qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm")),
    "glm": Style(qkv_bias="attention_bias!", o_bias=False, mlp="fused", n_kv_heads=2, head_dim=128),
    "ernie4_5": Style(
        qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", tied=True, n_kv_heads=2, head_dim=128
    ),
    "arcee": Style(mlp="plain", mlp_bias="mlp_bias"),
    "apertus": Style(
        mlp="plain",
        qk_norm="head",
        norms=("attention_layernorm", "feedforward_layernorm"),
        xielu=True,
    ),
    "starcoder2": Style(
        qkv_bias="use_bias!",
        o_bias="use_bias!",
        mlp_bias="use_bias!",
        mlp="plain",
        mlp_names=("c_fc", "c_proj"),
        norm_bias=True,
        tied=True,
        n_kv_heads=2,
        mlp_dropout=("residual_dropout", 0.0),
        sliding="all",
    ),
    "cohere": Style(
        norms=("input_layernorm",), parallel=True, qk_norm="full", qk_norm_field="use_qk_norm", tied=True
    ),
    "stablelm": Style(
        n_kv_heads=32,
        mlp_dropout=("hidden_dropout", 0.0),
        qkv_bias="use_qkv_bias",
        o_bias=False,
        norm_bias=True,
        qk_norm="each-head",
        qk_norm_field="qk_layernorm",
        qk_norm_names=("q_layernorm", "k_layernorm"),
    ),
}
STYLES["glm4"] = replace(
    STYLES["glm"], norms=(*LLAMA_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm")
)
STYLES["olmo3"] = STYLES["olmo2"]
STYLES["gemma3_text"] = replace(STYLES["gemma2"], qk_norm="head", sliding="gemma3")
STYLES["cohere2"] = replace(STYLES["cohere"], qk_norm="none", sliding="cohere2")


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
        return windows(cfg, n_layers, (i >= first for i in range(n_layers)))
    if style.sliding == "gemma2":
        return windows(cfg, n_layers, (i % 2 == 0 for i in range(n_layers)))
    if style.sliding in ("gemma3", "cohere2"):
        every = cfg.int("sliding_window_pattern", 6 if style.sliding == "gemma3" else 4)
        return windows(cfg, n_layers, ((i + 1) % every != 0 for i in range(n_layers)))
    if style.sliding == "all":
        return windows(cfg, n_layers)
    return windows(cfg, n_layers, [False] * n_layers)


def norms(layer: Layer, cfg: Fields, style: Style, hidden: int) -> None:
    """The layer's norms."""
    if style.parametric_norms:
        parallel = style.parallel or (style.norm_bias and cfg.bool("use_parallel_residual", False))
        for name in style.norms[:1] if parallel else style.norms:
            layer.norm(name, hidden, style.norm_bias)


def attention(layer: Layer, cfg: Fields, style: Style, heads: Heads, x: int, window: int | None) -> int:
    """Attention with the family's biases and query-key norms."""
    if style.qk_norm != "none" and (style.qk_norm_field is None or cfg.bool(style.qk_norm_field, False)):
        for name, n in zip(style.qk_norm_names, (heads.n_heads, heads.n_kv_heads), strict=True):
            if style.qk_norm == "each-head":
                for head in range(n):
                    layer.norm(f"self_attn.{name}.norms.{head}", heads.d_head)
            else:
                layer.norm(f"self_attn.{name}", heads.d_head * (n if style.qk_norm == "full" else 1))
    return grouped_attention(
        layer, heads, x, qkv_bias=_flag(cfg, style.qkv_bias), o_bias=_flag(cfg, style.o_bias),
        fused=style.fused_qkv, window=window,
    )  # fmt: skip


def mlp(layer: Layer, cfg: Fields, style: Style, hidden: int, x: int) -> int:
    """The family's MLP."""
    width, bias = cfg.int("intermediate_size"), _flag(cfg, style.mlp_bias)
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
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), heads.hidden)
    for window, numbers in groups(layer_windows(cfg, style, n_layers)):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            x = layer.stream
            layer.open_end = style.norms[-1] not in NORMS_AFTER_MLP and not _mlp_dropout(cfg, style)
            norms(layer, cfg, style, heads.hidden)
            mixed = attention(layer, cfg, style, heads, x, window)
            if style.parallel or (style.norm_bias and cfg.bool("use_parallel_residual", False)):
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
    if has_head(cfg):
        unembedding(trace, hidden, vocab, tied=tied)
    return finish(trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied)
