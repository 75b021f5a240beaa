"""Decoders from before Llama: learned or additive positions, biases, two-matrix MLPs, heads fused with them."""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Architecture, Kind, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, has_head, plain_mlp, unembedding

GPT2_FIELDS = ("n_embd", "n_layer", "n_head", "n_positions")
USUAL_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")


@dataclass(frozen=True)
class Style:
    """What sets a family apart. `fields` are its spellings of width, depth, heads and positions. `bias` and
    `parallel` are fixed choices or the name of the field that decides, with "!" after it where the class's
    default is true. `dropout` is the field of the dropout behind an MLP, with its default."""

    embedding: str
    layers: str
    qkv: tuple[str, ...]
    output: str
    mlp: tuple[str, str]
    norms: tuple[str, ...]
    final_norm: str
    dropout: tuple[str, float]
    base: str = "transformer."
    fields: tuple[str, str, str, str] = USUAL_FIELDS
    width: tuple[str, bool] | None = None
    qkv_bias: bool | str = True
    bias: bool | str = True
    norm_bias: bool = True
    parallel: bool | str = False
    embedding_norm: str | None = None
    positions: tuple[str, int] | None = None
    kind: Kind = "linear"
    tied: bool = True
    head_bias: bool = False


STYLES: dict[str, Style] = {
    "gpt2": Style(
        embedding="wte", positions=("wpe", 0), layers="h.{}.", qkv=("attn.c_attn",), output="attn.c_proj",
        mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"), final_norm="ln_f", dropout=("resid_pdrop", 0.1),
        fields=GPT2_FIELDS, width=("n_inner", False), kind="conv1d",
    ),
    "gptj": Style(
        embedding="wte", layers="h.{}.", qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        output="attn.out_proj", mlp=("mlp.fc_in", "mlp.fc_out"), norms=("ln_1",), final_norm="ln_f",
        dropout=("resid_pdrop", 0.0), fields=GPT2_FIELDS, width=("n_inner", False), qkv_bias=False, parallel=True,
        tied=False, head_bias=True,
    ),
    "gpt_neox": Style(
        base="gpt_neox.", embedding="embed_in", layers="layers.{}.", qkv=("attention.query_key_value",),
        output="attention.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="final_layer_norm",
        dropout=("hidden_dropout", 0.0), width=("intermediate_size", True), qkv_bias="attention_bias!",
        parallel="use_parallel_residual!", tied=False,
    ),
    "opt": Style(
        base="model.", embedding="decoder.embed_tokens", positions=("decoder.embed_positions", 2),
        layers="decoder.layers.{}.", qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        output="self_attn.out_proj", mlp=("fc1", "fc2"), norms=("self_attn_layer_norm", "final_layer_norm"),
        final_norm="decoder.final_layer_norm", dropout=("dropout", 0.1), width=("ffn_dim", True),
        qkv_bias="enable_bias!", bias="enable_bias!",
    ),
    "bloom": Style(
        embedding="word_embeddings", embedding_norm="word_embeddings_layernorm", layers="h.{}.",
        qkv=("self_attention.query_key_value",), output="self_attention.dense",
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), norms=("input_layernorm", "post_attention_layernorm"),
        final_norm="ln_f", dropout=("hidden_dropout", 0.0),
        fields=("hidden_size", "n_layer", "n_head", "seq_length"),
    ),
    "falcon": Style(
        embedding="word_embeddings", layers="h.{}.", qkv=("self_attention.query_key_value",),
        output="self_attention.dense", mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norms=("input_layernorm", "post_attention_layernorm"), final_norm="ln_f",
        dropout=("hidden_dropout", 0.0), width=("ffn_hidden_size", False), qkv_bias="bias", bias="bias",
        parallel="parallel_attn!",
    ),
    "mpt": Style(
        embedding="wte", layers="blocks.{}.", qkv=("attn.Wqkv",), output="attn.out_proj",
        mlp=("ffn.up_proj", "ffn.down_proj"), norms=("norm_1", "norm_2"), final_norm="norm_f",
        dropout=("attn_pdrop", 0.0), fields=("d_model", "n_layers", "n_heads", "max_seq_len"), qkv_bias=False,
        bias=False, norm_bias=False,
    ),
    "gpt_bigcode": Style(
        embedding="wte", positions=("wpe", 0), layers="h.{}.", qkv=("attn.c_attn",), output="attn.c_proj",
        mlp=("mlp.c_fc", "mlp.c_proj"), norms=("ln_1", "ln_2"), final_norm="ln_f", dropout=("resid_pdrop", 0.1),
        fields=GPT2_FIELDS, width=("n_inner", False),
    ),
    "phi": Style(
        base="model.", embedding="embed_tokens", layers="layers.{}.",
        qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), output="self_attn.dense",
        mlp=("mlp.fc1", "mlp.fc2"), norms=("input_layernorm",), final_norm="final_layernorm",
        dropout=("resid_pdrop", 0.0), width=("intermediate_size", True), parallel=True, tied=False,
        head_bias=True,
    ),
}  # fmt: skip


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


def attention(layer: Layer, style: Style, heads: Heads, x: int, qkv_bias: bool, o_bias: bool) -> int:
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
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_kv_heads, d_qk=heads.d_head, d_v=heads.d_head
    )
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


def layers(trace: Trace, cfg: Fields, style: Style, heads: Heads, base: str) -> None:
    """The decoder layers."""
    model_type = cfg.str("model_type")
    parallel = _parallel(cfg, style, model_type)
    width = 4 * heads.hidden
    if style.width is not None:
        name, required = style.width
        width = cfg.int(name) if required else cfg.int(name, width)
    qkv_bias, bias = _flag(cfg, style.qkv_bias), _flag(cfg, style.bias)
    o_bias = qkv_bias if model_type in ("gpt_neox", "gptj") else bias
    with trace.layer("decoder", range(_size(cfg, style, 1)), base + style.layers) as layer:
        layer.open_end = _dropout(cfg, style, model_type) == 0
        if cfg.bool("layer_norm_elementwise_affine", True) or model_type != "opt":
            for name in norm_names(cfg, style, model_type, parallel):
                layer.norm(name, heads.hidden, style.norm_bias)
        if model_type == "phi" and cfg.bool("qk_layernorm", False):
            for name in ("self_attn.q_layernorm", "self_attn.k_layernorm"):
                layer.norm(name, heads.hidden // heads.n_heads, True)
        if model_type == "opt" and not cfg.bool("do_layer_norm_before", True):
            layer.open_end = False
        x = layer.stream
        mixed = attention(layer, style, heads, x, qkv_bias, o_bias)
        if not parallel:
            layer.add(mixed)
            x = layer.stream
        mlp = plain_mlp(layer, heads.hidden, width, x, prefix="", names=style.mlp, bias=bias, kind=style.kind)
        layer.add(mlp, *([mixed] if parallel else []))


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
    if affine and kept:
        _norm(trace, base + style.final_norm, hidden, style.norm_bias)
    if width != hidden:
        with trace.layer("head", (0,), base) as head:
            head.add(head.linear("decoder.project_out", "other", hidden, width, head.stream))


def flops_gap(cfg: Fields) -> str | None:
    """Why a step's work is not settled by the config, where it is not."""
    if cfg.str("model_type") == "opt" and cfg.number("layerdrop", 0.0) > 0:
        return "layerdrop skips layers at random, so no step has a fixed number of FLOPs"
    if cfg.bool("slow_but_exact", False) and cfg.int("pretraining_tp", 1) > 1:
        return "slow_but_exact multiplies by slices of the weights and so passes adapters by"
    return None


def build(cfg: Fields) -> Architecture:
    """A text-only model of one of the families in STYLES."""
    model_type = cfg.str("model_type")
    style = STYLES[model_type]
    if style.fields is GPT2_FIELDS and cfg.bool("add_cross_attention", False):
        raise cfg.fail("add_cross_attention", "false: such a decoder belongs to an encoder that is not given")
    heads, trace, headed = read_heads(cfg, style, model_type), Trace(), has_head(cfg)
    base = style.base if headed else ""
    width = embeddings(trace, cfg, style, heads.hidden, base)
    layers(trace, cfg, style, heads, base)
    ending(trace, cfg, style, heads.hidden, width, base)
    tied = bool(cfg.bool("tie_word_embeddings", style.tied))
    if headed:
        unembedding(trace, width, cfg.int("vocab_size"), tied=tied, bias=style.head_bias)
    position = style.fields[3] if cfg.has(style.fields[3]) else USUAL_FIELDS[3]
    return trace.architecture(
        model_type=model_type, hidden_size=heads.hidden, n_layers=_size(cfg, style, 1),
        vocab_size=cfg.int("vocab_size"), tied_embeddings=tied, max_position=cfg.int(position, None),
        flops_gap=flops_gap(cfg),
    )  # fmt: skip
