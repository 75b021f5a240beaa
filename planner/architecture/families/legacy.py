"""Decoders from before Llama: learned or additive positions, biases, two-matrix MLPs, heads fused with them."""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, groups, has_head, plain_mlp, unembedding
from .legacy_styles import STYLES, USUAL_FIELDS, Style

__all__ = ["STYLES", "Style", "build"]

READ_CROSS_ATTENTION = frozenset(("gpt2", "gpt-sw3", "gpt_bigcode"))


def _flag(cfg: Fields, rule: bool | str) -> bool:
    if isinstance(rule, bool):
        return rule
    return bool(cfg.bool(rule.rstrip("!"), rule.endswith("!")))


def _size(cfg: Fields, style: Style, which: int) -> int:
    """Width, depth or number of heads, under the family's own name or the usual one."""
    name = style.fields[which]
    if not cfg.has(name) and cfg.has(USUAL_FIELDS[which]):
        name = USUAL_FIELDS[which]
    return int(cfg.int(name))


def _n_kv(cfg: Fields, model_type: str, n_heads: int) -> int:
    """Key-value heads: one where several queries share it, a field, or as many as heads."""
    if model_type == "falcon" and cfg.bool("new_decoder_architecture", False):
        return int(cfg.int("num_kv_heads", n_heads))
    if model_type in ("falcon", "gpt_bigcode"):
        return 1 if cfg.bool("multi_query", True) else n_heads
    return int(cfg.int("num_key_value_heads", n_heads)) if model_type == "phi" else n_heads


def read_heads(cfg: Fields, style: Style, model_type: str) -> Heads:
    """The shape of attention."""
    hidden, n_heads = _size(cfg, style, 0), _size(cfg, style, 2)
    d_head = cfg.int("head_dim", None) if model_type == "phi" else None
    if d_head is None and hidden % n_heads:
        raise cfg.fail(style.fields[2], f"a divisor of {style.fields[0]} ({hidden})")
    n_kv = _n_kv(cfg, model_type, n_heads)
    if n_heads % n_kv:
        raise cfg.fail(
            "num_kv_heads" if model_type == "falcon" else "num_key_value_heads",
            f"a divisor of {style.fields[2]} ({n_heads})",
        )
    return Heads(hidden, n_heads, n_kv, d_head or hidden // n_heads)


def attention(
    layer: Layer, style: Style, heads: Heads, x: int, qkv_bias: bool, o_bias: bool, window: int | None = None
) -> int:
    """Attention with one fused matrix in front, or three."""
    widths = (heads.q, heads.kv, heads.kv)
    if len(style.qkv) == 1:
        names = ("q_proj", "k_proj", "v_proj")
        parts = tuple(Part(name, heads.hidden, n) for name, n in zip(names, widths, strict=True))
        q = k = v = layer.linear(
            style.qkv[0],
            "attention",
            heads.hidden,
            sum(widths),
            x,
            bias=qkv_bias,
            kind=style.kind,
            parts=parts,
        )
    else:
        q, k, v = (
            layer.linear(name, "attention", heads.hidden, n, x, bias=qkv_bias)
            for name, n in zip(style.qkv, widths, strict=True)
        )
    mixed = layer.attend(
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_kv_heads, d_qk=heads.d_head, d_v=heads.d_head,
        window=window,
    )  # fmt: skip
    return layer.linear(style.output, "attention", heads.q, heads.hidden, mixed, bias=o_bias, kind=style.kind)


def _parallel(cfg: Fields, style: Style, model_type: str) -> bool:
    """Whether the MLP reads what attention reads; always so in Falcon's second architecture."""
    parallel = _flag(cfg, style.parallel)
    if model_type == "falcon" and not parallel and cfg.bool("new_decoder_architecture", False):
        raise cfg.fail("parallel_attn", "true with new_decoder_architecture")
    return parallel


def norm_names(cfg: Fields, style: Style, model_type: str, parallel: bool) -> tuple[str, ...]:
    """A layer's norms. Falcon has one or two before a parallel pair, under other names where two."""
    if model_type != "falcon" or not parallel:
        return style.norms
    new = cfg.bool("new_decoder_architecture", False)
    count = cfg.int("num_ln_in_parallel_attn", 2 if new else 1)
    if count > 2 or (count == 2 and not new):
        raise cfg.fail("num_ln_in_parallel_attn", "1, or 2 with new_decoder_architecture")
    return ("ln_attn", "ln_mlp") if count == 2 else style.norms[:1]


def _dropout(cfg: Fields, style: Style, model_type: str) -> float:
    source = cfg.sub("attn_config", {}) if model_type == "mpt" else cfg
    return source.number(*style.dropout)


def _width(cfg: Fields, style: Style, hidden: int) -> int:
    """The MLP's inner width: a field, a multiple that the config gives, or four times the hidden width."""
    if style.width is not None:
        name, required = style.width
        return int(cfg.int(name) if required else cfg.int(name, 4 * hidden))
    multiple = "intermediate_multiple_size" if cfg.str("model_type") == "gpt_neox_japanese" else ""
    return hidden * int(cfg.int(multiple, 4))


def layer_windows(cfg: Fields, n_layers: int) -> list[int | None]:
    """Each layer's attention window: GPT-Neo's local layers have one, written as patterns with their repeats."""
    if cfg.str("model_type") != "gpt_neo":
        return [None] * n_layers
    window, kinds = cfg.int("window_size", 256), []
    for item in cfg.list("attention_types", [[["global", "local"], 12]]):
        if not isinstance(item, (list, tuple)) or len(item) != 2 or not isinstance(item[0], (list, tuple)):
            raise cfg.fail("attention_types", "a list of [kinds, repeats]")
        times = Fields({"repeats": item[1]}, "attention_types").int("repeats")
        kinds += list(item[0]) * min(times, n_layers + 1)
    if len(kinds) != n_layers or not {"global", "local"}.issuperset(map(str, kinds)):
        raise cfg.fail("attention_types", f"'global' or 'local' for each of {n_layers} layers")
    return [window if kind == "local" else None for kind in kinds]


def _norms(layer: Layer, cfg: Fields, style: Style, heads: Heads, parallel: bool) -> None:
    """The layer's norms, and those of queries and keys where the config wants them."""
    model_type = cfg.str("model_type")
    if cfg.bool("layer_norm_elementwise_affine", True) or model_type != "opt":
        for name in norm_names(cfg, style, model_type, parallel):
            layer.norm(name, heads.hidden, style.norm_bias)
    if style.qk_layernorm is not None and cfg.bool("qk_layernorm", style.qk_layernorm):
        for name in ("self_attn.q_layernorm", "self_attn.k_layernorm"):
            layer.norm(name, heads.hidden // heads.n_heads, True)


def layers(trace: Trace, cfg: Fields, style: Style, heads: Heads, base: str) -> None:
    """The decoder layers."""
    model_type, n_layers = cfg.str("model_type"), _size(cfg, style, 1)
    parallel, width = _parallel(cfg, style, model_type), _width(cfg, style, heads.hidden)
    qkv_bias, bias = _flag(cfg, style.qkv_bias), _flag(cfg, style.bias)
    o_bias = qkv_bias if model_type in ("gpt_neox", "gptj", "codegen") else bias
    behind = style.norms_behind or (model_type == "opt" and not cfg.bool("do_layer_norm_before", True))
    for window, numbers in groups(layer_windows(cfg, n_layers)):
        with trace.layer("decoder", numbers, base + style.layers) as layer:
            layer.open_end = _dropout(cfg, style, model_type) == 0 and not behind
            _norms(layer, cfg, style, heads, parallel)
            x = layer.stream
            mixed = attention(layer, style, heads, x, qkv_bias, o_bias, window)
            if not parallel:
                layer.add(mixed)
                x = layer.stream
            mlp = plain_mlp(
                layer, heads.hidden, width, x, prefix="", names=style.mlp, bias=bias, kind=style.kind
            )
            layer.add(mlp, *([mixed] if parallel else []))
    if model_type == "gpt_neox_japanese":
        trace.vector(f"{base}layers.{{}}.attention.dense_bias", heads.hidden, (n_layers - 1,))


def _norm(trace: Trace, name: str, hidden: int, bias: bool = True) -> None:
    trace.vector(f"{name}.weight", hidden)
    if bias:
        trace.vector(f"{name}.bias", hidden)


def embeddings(trace: Trace, cfg: Fields, style: Style, hidden: int, base: str) -> int:
    """Token and position tables; returns the token table's width, which OPT's 350m projects up to `hidden`."""
    width = hidden
    if cfg.str("model_type") == "opt":
        width = cfg.int("word_embed_proj_dim", hidden)
    trace.embedding(base + style.embedding, cfg.int("vocab_size"), width)
    if style.positions is not None:
        name, offset = style.positions
        trace.embedding(base + name, _size(cfg, style, 3) + offset, hidden, role="other")
    if style.embedding_norm:
        _norm(trace, base + style.embedding_norm, hidden)
    if width != hidden:
        with trace.layer("stem", (0,), base) as stem:
            stem.add(stem.linear("decoder.project_in", "other", width, hidden, stem.stream))
    return width


def ending(trace: Trace, cfg: Fields, style: Style, hidden: int, width: int, base: str) -> None:
    """The final norm, and OPT's projection down to the width of its token table."""
    opt = cfg.str("model_type") == "opt"
    affine = not opt or cfg.bool("layer_norm_elementwise_affine", True)
    kept = not opt or (
        cfg.bool("do_layer_norm_before", True) and not cfg.bool("_remove_final_layer_norm", False)
    )
    if affine and kept and style.final_norm:
        _norm(trace, base + style.final_norm, hidden, style.norm_bias)
    if width != hidden:
        with trace.layer("head", (0,), base) as head:
            head.add(head.linear("decoder.project_out", "other", hidden, width, head.stream))


def flops_gap(cfg: Fields) -> str | None:
    """Why a step's work is not settled by the config, where it is not."""
    if cfg.str("model_type") in ("opt", "xglm", "biogpt") and cfg.number("layerdrop", 0.0) > 0:
        return "layerdrop skips layers at random, so no step has a fixed number of FLOPs"
    if cfg.bool("slow_but_exact", False) and cfg.int("pretraining_tp", 1) > 1:
        return "slow_but_exact multiplies by slices of the weights and so passes adapters by"
    return None


def build(cfg: Fields) -> Architecture:
    """A text-only model of one of the families in STYLES."""
    model_type = cfg.str("model_type")
    style = STYLES[model_type]
    if model_type in READ_CROSS_ATTENTION and cfg.bool("add_cross_attention", False):
        raise cfg.fail("add_cross_attention", "false: such a decoder belongs to an encoder that is not given")
    if model_type == "xglm" and cfg.bool("add_cross_attention", False):
        raise UnsupportedArchitectureError("XGLM with cross-attention has no builder in this version.")
    heads, trace, headed = read_heads(cfg, style, model_type), Trace(), has_head(cfg)
    base = style.base if headed else ""
    width = embeddings(trace, cfg, style, heads.hidden, base)
    layers(trace, cfg, style, heads, base)
    ending(trace, cfg, style, heads.hidden, width, base)
    tied = bool(cfg.bool("tie_word_embeddings", style.tied))
    if headed:
        unembedding(trace, width, cfg.int("vocab_size"), tied=tied, name=style.head, bias=style.head_bias)
    position = style.fields[3] if cfg.has(style.fields[3]) else USUAL_FIELDS[3]
    return trace.architecture(
        model_type=model_type, hidden_size=heads.hidden, n_layers=_size(cfg, style, 1),
        vocab_size=cfg.int("vocab_size"), tied_embeddings=tied, max_position=cfg.int(position, None),
        flops_gap=flops_gap(cfg),
    )  # fmt: skip
