"""Decoders with grouped attention and routed experts: Mixtral, Qwen MoE, OLMoE, gpt-oss, GLM-4.5 and their kin.

They differ in the fields that name the experts, in which layers have them, and in what stands beside them (a
shared expert before or after, with or without a gate).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from . import dense
from .common import (
    Heads,
    finish,
    gated_mlp,
    grouped_attention,
    groups,
    has_head,
    read_heads,
    unembedding,
    windows,
)
from .experts import Experts, check_active, pick, read_experts, routed
from .moe_styles import DEEPSEEK_FIELDS, STYLES, Shared, Style

__all__ = ["DEEPSEEK_FIELDS", "STYLES", "Shared", "Style", "build", "decoder", "mlp_layer_types"]

AFMOE_WINDOW = 1024


def _layer_windows(cfg: Fields, style: Style, n_layers: int) -> list[int | None]:
    rule = style.window
    if rule == "afmoe":
        every = cfg.int("global_attn_every_n_layers", 4)
        return windows(cfg, n_layers, ((i + 1) % every != 0 for i in range(n_layers)), AFMOE_WINDOW)
    if rule == "cohere2":
        return _cohere2_windows(cfg, n_layers)
    if rule == "base":
        return dense.layer_windows(cfg, style.base, n_layers)
    if rule == "dots":
        first = cfg.int("max_window_layers", 62, minimum=0)
        return windows(cfg, n_layers, (i >= first for i in range(n_layers)), 4096)
    if rule in ("switch", "qwen2") and not cfg.bool("use_sliding_window", False):
        return [None] * n_layers
    if rule in ("all", "switch"):
        window = cfg.int("sliding_window", None)
        return [window] * n_layers
    if rule == "alternate":
        return windows(cfg, n_layers, (i % 2 == 0 for i in range(n_layers)))
    if rule == "qwen2":
        first = cfg.int("max_window_layers", 28, minimum=0)
        return windows(cfg, n_layers, (i % 2 == 0 and i < first for i in range(n_layers)))
    return [None] * n_layers


def _cohere2_windows(cfg: Fields, n_layers: int) -> list[int | None]:
    """Cohere's pattern of windows, which starts anew behind the first layers without experts."""
    first = min(cfg.int("first_k_dense_replace", 0, minimum=0), n_layers)
    before, behind = cfg.int("prefix_dense_sliding_window_pattern", 1), cfg.int("sliding_window_pattern", 4)
    sliding = [(i + 1) % before != 0 for i in range(first)]
    return windows(cfg, n_layers, (*sliding, *((i + 1) % behind != 0 for i in range(n_layers - first))), 4096)


def _heads_by_layer(cfg: Fields, style: Style, n_layers: int) -> list[Heads]:
    """The heads of every layer, of which Laguna's may have different numbers."""
    heads = read_heads(cfg, style.base.n_kv_heads, style.base.head_dim)
    name = style.heads_by_layer
    if name is None or not cfg.has(name):
        return [heads] * n_layers
    found = []
    for n in cfg.list(name, length=n_layers):
        one = Fields({**cfg.data, name: n}, cfg.path)
        if one.int(name) % heads.n_kv_heads:
            raise one.fail(name, f"multiples of num_key_value_heads ({heads.n_kv_heads})")
        found.append(replace(heads, n_heads=n))
    return found


def _sparse_layers(cfg: Fields, style: Style, n_experts: int, n_layers: int) -> list[bool]:
    numbers, rule = range(n_layers), style.sparse
    if rule == "qwen":
        plain, every = cfg.list("mlp_only_layers", []), cfg.int("decoder_sparse_step", 1)
        return [i not in plain and n_experts > 0 and (i + 1) % every == 0 for i in numbers]
    if rule in ("after-first", "types"):
        first = style.first_dense
        if style.first_field:
            first = cfg.int(style.first_field, first, minimum=0)
        return mlp_layer_types(cfg, n_layers, first) if rule == "types" else [i >= first for i in numbers]
    if rule == "ernie":
        start, every = cfg.int("moe_layer_start_index", 1, minimum=0), cfg.int("moe_layer_interval", 1)
        end = cfg.int("moe_layer_end_index", -1, minimum=-1)
        end = n_layers - 1 if end == -1 else end
        return [(i + 1) % every == 0 and start <= i <= end for i in numbers]
    return [True] * n_layers


def _experts_by_layer(cfg: Fields, style: Style, n_layers: int) -> list[Experts]:
    """The experts of every layer: Hunyuan's list of how many are active may differ from layer to layer."""
    name = style.experts.active[0]
    if not isinstance(cfg.data.get(name), list):
        return [read_experts(cfg, style.experts, 0 if style.sparse == "qwen" else 1)] * n_layers
    found = []
    for active in cfg.list(name, length=n_layers):
        one = Fields({**cfg.data, name: active}, cfg.path)
        found.append(read_experts(one, style.experts))
    return found


def _flag(cfg: Fields, rule: bool | str) -> bool:
    return rule if isinstance(rule, bool) else bool(cfg.bool(rule.rstrip("!"), rule.endswith("!")))


def _shared(
    layer: Layer, cfg: Fields, style: Style, shared: Shared, hidden: int, width: int, x: int
) -> int | None:
    if shared.count:
        count = pick(cfg, (shared.count,), shared.default, 0)
        if count == 0:
            return None
        width = width * count
    elif shared.width:
        width = pick(cfg, (shared.width,), shared.default)
    out = gated_mlp(
        layer, hidden, width, x, prefix=f"{style.prefix}{shared.name}.", role="shared_expert",
        bias=_flag(cfg, style.base.mlp_bias),
    )  # fmt: skip
    # A shared expert that runs last is only added: nothing keeps its result.
    layer.open_end = not shared.first
    return out


def expert_layer(layer: Layer, cfg: Fields, style: Style, hidden: int, experts: Experts, x: int) -> int:
    """Routed experts and what stands beside them."""
    shared, beside = style.shared, None
    if shared and shared.first:
        beside = _shared(layer, cfg, style, shared, hidden, experts.width, x)
    result = routed(
        layer, hidden, experts, x, prefix=style.prefix, router=style.router, router_kind=style.router_kind,
        bias=style.expert_bias,
    )  # fmt: skip
    if style.correction:
        layer.vector(style.prefix + style.correction, experts.n)
    if shared and not shared.first:
        beside = _shared(layer, cfg, style, shared, hidden, experts.width, x)
    if beside is None:
        return result
    if shared and shared.gate:
        beside = layer.join(beside, layer.linear(style.prefix + shared.gate, "router", hidden, 1, x))
    return layer.join(result, beside)


def _mlp(layer: Layer, cfg: Fields, style: Style, hidden: int, experts: Experts | None, x: int) -> int:
    """Experts, or the MLP of a layer without."""
    if experts is None:
        width = cfg.int(style.dense_width, cfg.int("intermediate_size"))
        return dense.mlp(layer, cfg, style.base, hidden, x, width)
    return expert_layer(layer, cfg, style, hidden, experts, x)


def decoder(trace: Trace, cfg: Fields, style: Style, prefix: str = "model.") -> None:
    """Embedding, layers and final norm."""
    base, n_layers = style.base, cfg.int("num_hidden_layers")
    experts, every = _experts_by_layer(cfg, style, n_layers), _heads_by_layer(cfg, style, n_layers)
    hidden, sparse = cfg.int("hidden_size"), _sparse_layers(cfg, style, experts[0].n, n_layers)
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), hidden)
    chosen = [own if has_experts else None for own, has_experts in zip(experts, sparse, strict=True)]
    keys = list(zip(_layer_windows(cfg, style, n_layers), chosen, every, strict=True))
    for (window, own, heads), numbers in groups(keys):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            dense.norms(layer, cfg, base, hidden)
            if style.sinks:
                layer.vector("self_attn.sinks", heads.n_heads)
            x = layer.stream
            mixed = dense.attention(layer, cfg, base, heads, x, window)
            if base.parallel:
                layer.add(mixed, _mlp(layer, cfg, style, hidden, own, x))
            else:
                layer.add(mixed)
                layer.add(_mlp(layer, cfg, style, hidden, own, layer.stream))
            layer.open_end = layer.open_end and dense.open_end(cfg, base)
    trace.vector(f"{prefix}norm.weight", hidden)
    if base.norm_bias:
        trace.vector(f"{prefix}norm.bias", hidden)


# ---------------------------------------------------------------------------------------------------- DBRX


def _dbrx_experts(layer: Layer, experts: Experts, hidden: int, x: int) -> int:
    """Experts as three tall matrices, each expert a slice of their rows."""
    route = layer.linear("ffn.router.layer", "router", hidden, experts.n, x)

    def project(name: str, d_in: int, d_out: int, source: int, side: Literal["in", "out"]) -> int:
        return layer.linear(
            f"ffn.experts.mlp.{name}", "expert", d_in, d_out, source, kind="experts", experts=experts.n,
            active=experts.active, outer=side,
        )  # fmt: skip

    gate = project("w1", hidden, experts.width, x, "in")
    up = project("v1", hidden, experts.width, x, "in")
    layer.open_end = False
    return layer.join(project("w2", experts.width, hidden, layer.join(gate, up), "out"), route)


def dbrx(cfg: Fields) -> Architecture:
    """DBRX, whose fields have names of their own."""
    hidden, n_layers, vocab = cfg.int("d_model"), cfg.int("n_layers"), cfg.int("vocab_size")
    ffn, attention = cfg.sub("ffn_config"), cfg.sub("attn_config")
    heads = read_heads(
        Fields(
            {
                "hidden_size": hidden,
                "num_attention_heads": cfg.int("n_heads"),
                "num_key_value_heads": attention.int("kv_n_heads", 1),
            }
        )
    )
    n, active = ffn.int("moe_num_experts", 4), ffn.int("moe_top_k", 1)
    check_active(ffn, ("moe_top_k",), n, active)
    experts = Experts(n, active, ffn.int("ffn_hidden_size", 3584))
    trace = Trace()
    trace.embedding("transformer.wte", vocab, hidden)
    with trace.layer("decoder", range(n_layers), "transformer.blocks.{}.") as layer:
        layer.norm("norm_attn_norm.norm_1", hidden)
        layer.norm("norm_attn_norm.norm_2", hidden)
        mixed = grouped_attention(
            layer, heads, layer.stream, prefix="norm_attn_norm.attn.", fused="Wqkv",
            names=("q_proj", "k_proj", "v_proj", "out_proj"),
        )  # fmt: skip
        layer.add(mixed)
        layer.add(_dbrx_experts(layer, experts, hidden, layer.stream))
    trace.vector("transformer.norm_f.weight", hidden)
    if has_head(cfg):
        unembedding(trace, hidden, vocab, tied=False)
    return finish(
        trace, cfg, n_layers=n_layers, hidden=hidden, vocab=vocab, tied=False,
        max_position=cfg.int("max_seq_len", 2048),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- MiMo-V2-Flash


def _mimo_attention(layer: Layer, cfg: Fields, hidden: int, window: int | None, x: int) -> int:
    """Keys wider than values; a windowed layer has twice the key-value heads, and sinks."""
    n_heads, d_qk, d_v = cfg.int("num_attention_heads"), cfg.int("head_dim", 192), cfg.int("v_head_dim", 128)
    n_kv = cfg.int("num_key_value_heads", 4) * (1 if window is None else 2)
    if n_heads % n_kv:
        raise cfg.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads}), twice over")
    bias = bool(cfg.bool("attention_bias", False))
    if window is not None:
        layer.vector("self_attn.sinks", n_heads)
    q = layer.linear("self_attn.q_proj", "attention", hidden, n_heads * d_qk, x, bias=bias)
    k = layer.linear("self_attn.k_proj", "attention", hidden, n_kv * d_qk, x, bias=bias)
    v = layer.linear("self_attn.v_proj", "attention", hidden, n_kv * d_v, x, bias=bias)
    mixed = layer.attend(q, k, v, n_heads=n_heads, n_kv_heads=n_kv, d_qk=d_qk, d_v=d_v, window=window)
    return layer.linear("self_attn.o_proj", "attention", n_heads * d_v, hidden, mixed)


def mlp_layer_types(cfg: Fields, n_layers: int, n_dense: int) -> list[bool]:
    """Which layers have experts: `mlp_layer_types` where given, else all but the first `n_dense`. Items beyond the
    layers are not read; the classes that refuse them are known to words.py."""
    kinds = cfg.list("mlp_layer_types", None)
    if kinds is None:
        return [i >= n_dense for i in range(n_layers)]
    if len(kinds) < n_layers:
        raise cfg.fail("mlp_layer_types", f"a list of {n_layers} items, one a layer")
    return [kind == "sparse" for kind in kinds[:n_layers]]


def mimo_v2_flash(trace: Trace, cfg: Fields) -> None:
    """MiMo-V2-Flash: windowed attention in five layers of six, experts from the second layer on."""
    hidden, n_layers = cfg.int("hidden_size"), cfg.int("num_hidden_layers")
    size = cfg.int("sliding_window_size", None)
    size = cfg.int("sliding_window", 129) if size is None else size + 1
    kinds = cfg.list("layer_types", None, length=n_layers)
    sliding = [i > 0 and (i + 1) % 6 != 0 for i in range(n_layers)]
    sliding = sliding if kinds is None else [kind == "sliding_attention" for kind in kinds]
    experts = read_experts(cfg, DEEPSEEK_FIELDS)
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    keys = list(zip(sliding, mlp_layer_types(cfg, n_layers, 1), strict=True))
    for (slides, sparse), numbers in groups(keys):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            for name in dense.LLAMA_NORMS:
                layer.norm(name, hidden)
            layer.add(_mimo_attention(layer, cfg, hidden, size if slides else None, layer.stream))
            if sparse:
                layer.add(routed(layer, hidden, experts, layer.stream))
            else:
                layer.add(gated_mlp(layer, hidden, cfg.int("intermediate_size"), layer.stream))
    trace.vector("model.norm.weight", hidden)


def build(cfg: Fields) -> Architecture:
    """A model of one of the families above."""
    model_type = cfg.str("model_type")
    if model_type == "dbrx":
        return dbrx(cfg)
    trace, style = Trace(), STYLES.get(model_type)
    if style is None:
        mimo_v2_flash(trace, cfg)
    else:
        decoder(trace, cfg, style)
    tied = bool(cfg.bool("tie_word_embeddings", style is not None and style.base.tied))
    hidden, vocab = cfg.int("hidden_size"), cfg.int("vocab_size")
    if has_head(cfg):
        bias = style is not None and style.head_bias is not None and bool(cfg.bool(style.head_bias, False))
        unembedding(trace, hidden, vocab, tied=tied, bias=bias)
    return finish(
        trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied,
        notes=style.notes if style else (),
    )  # fmt: skip
