"""Decoders with grouped attention and routed experts: Mixtral, Qwen MoE, OLMoE, gpt-oss, GLM-4.5 and their kin.

They differ in the fields that name the experts, in which layers have them, and in what stands beside them (a
shared expert before or after, with or without a gate).
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal

from ...dataclass import dataclass
from ...schema import Architecture, Kind
from ..fields import Fields
from ..trace import Layer, Trace
from . import dense
from .common import (
    finish,
    gated_mlp,
    grouped_attention,
    groups,
    has_head,
    read_heads,
    unembedding,
    windows,
)
from .experts import ExpertFields, Experts, check_active, read_experts, routed

LOCAL = ("num_local_experts", "num_experts")
DEEPSEEK_FIELDS = ExpertFields(n=("n_routed_experts", "num_local_experts", "num_experts"))


@dataclass(frozen=True)
class Shared:
    """A dense MLP beside the routed experts: `count` names how many experts' width it has, or `width` its own.
    It runs before the routed experts or after them."""

    name: str
    count: str | None = None
    width: str | None = None
    first: bool = False
    gate: str | None = None


@dataclass(frozen=True)
class Style:
    """What sets a family apart; `base` holds attention, norms and dense layers."""

    base: dense.Style
    experts: ExpertFields = field(default_factory=ExpertFields)
    prefix: str = "mlp."
    router: str = "gate"
    router_kind: Kind = "parameter"
    expert_bias: bool = False
    shared: Shared | None = None
    sparse: Literal["all", "qwen", "after-first", "ernie"] = "all"
    first_dense: int = 1
    window: Literal["none", "all", "switch", "qwen2", "alternate", "dots", "base"] = "none"
    sinks: bool = False
    head_bias: str | None = None
    correction: str | None = None
    notes: tuple[str, ...] = ()


def _base(**options: object) -> dense.Style:
    return replace(dense.Style(), **options)  # type: ignore[arg-type]


DEEPSEEK_SHARED = Shared("shared_experts", count="n_shared_experts")
STYLES: dict[str, Style] = {
    "mixtral": Style(
        _base(qkv_bias=False, o_bias=False, n_kv_heads=8),
        ExpertFields(LOCAL, width=("intermediate_size",)),
        window="all",
    ),
    "qwen2_moe": Style(
        _base(qkv_bias="qkv_bias!", o_bias=False, n_kv_heads=16),
        shared=Shared(
            "shared_expert", width="shared_expert_intermediate_size", first=True, gate="shared_expert_gate"
        ),
        sparse="qwen",
        window="qwen2",
    ),
    "qwen3_moe": Style(_base(qk_norm="head", n_kv_heads=4), sparse="qwen", window="switch"),
    "olmoe": Style(
        _base(qk_norm="full"),
        ExpertFields(width=("intermediate_size",), n_default=64, active_default=8),
    ),
    "phimoe": Style(
        _base(norm_bias=True, n_kv_heads=8),
        ExpertFields(LOCAL, width=("intermediate_size",)),
        router="router",
        router_kind="linear",
        window="all",
        head_bias="lm_head_bias",
        notes=("PEFT's all-linear does not run on this model: its router is a Linear that returns a tuple.",),
    ),
    "gpt_oss": Style(
        _base(qkv_bias="attention_bias!", o_bias="attention_bias!", n_kv_heads=8, head_dim=64),
        ExpertFields(LOCAL, ("num_experts_per_tok", "experts_per_token"), ("intermediate_size",)),
        router="router",
        expert_bias=True,
        window="alternate",
        sinks=True,
    ),
    "flex_olmo": Style(
        _base(qk_norm="full", norms=("post_attention_layernorm", "post_feedforward_layernorm")),
        ExpertFields(width=("intermediate_size",), n_default=7, active_default=5),
    ),
    "granitemoe": Style(
        _base(),
        ExpertFields(LOCAL, width=("intermediate_size",)),
        prefix="block_sparse_moe.",
        router="router",
    ),
    "glm4_moe": Style(
        _base(o_bias=False, qk_norm="head", qk_norm_field="use_qk_norm", n_kv_heads=8),
        DEEPSEEK_FIELDS,
        shared=DEEPSEEK_SHARED,
        sparse="after-first",
    ),
    "dots1": Style(
        _base(qk_norm="head", n_kv_heads=32),
        DEEPSEEK_FIELDS,
        shared=DEEPSEEK_SHARED,
        sparse="after-first",
        first_dense=0,
        window="dots",
    ),
    "exaone_moe": Style(
        _base(qkv_bias=False, o_bias=False, qk_norm="head", n_kv_heads=32, sliding="cohere2", window=4096),
        ExpertFields(n_default=64, active_default=8, width_default=1024),
        shared=Shared("shared_experts", count="num_shared_experts"),
        sparse="after-first",
        window="base",
    ),
    "solar_open": Style(
        _base(o_bias=False, n_kv_heads=8, head_dim=128), DEEPSEEK_FIELDS, shared=DEEPSEEK_SHARED
    ),
    "minimax_m2": Style(
        _base(qkv_bias=False, o_bias=False, qk_norm="full", n_kv_heads=8, head_dim=128),
        ExpertFields(LOCAL, width=("intermediate_size",)),
    ),
    "ernie4_5_moe": Style(
        _base(qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias", tied=True, n_kv_heads=4),
        ExpertFields(("moe_num_experts", "num_experts"), ("moe_k", "num_experts_per_tok")),
        shared=Shared("shared_experts", count="moe_num_shared_experts", first=True),
        sparse="ernie",
        head_bias="use_bias",
        correction="gate.moe_statics.e_score_correction_bias",
    ),
    "hunyuan_v1_moe": Style(
        _base(qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm")),
        ExpertFields(LOCAL, ("moe_topk", "num_experts_per_tok"), ("intermediate_size",)),
        router="gate.wg",
        router_kind="linear",
        shared=Shared("shared_mlp", width="intermediate_size", first=True),
    ),
}


def _layer_windows(cfg: Fields, style: Style, n_layers: int) -> list[int | None]:
    rule = style.window
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


def _sparse_layers(cfg: Fields, style: Style, n_experts: int, n_layers: int) -> list[bool]:
    numbers, rule = range(n_layers), style.sparse
    if rule == "qwen":
        plain, every = cfg.list("mlp_only_layers", []), cfg.int("decoder_sparse_step", 1)
        return [i not in plain and n_experts > 0 and (i + 1) % every == 0 for i in numbers]
    if rule == "after-first":
        first = cfg.int("first_k_dense_replace", style.first_dense, minimum=0)
        if cfg.str("model_type") == "exaone_moe":
            return mlp_layer_types(cfg, n_layers, first)
        return [i >= first for i in numbers]
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
        count = cfg.int(shared.count, minimum=0)
        if count == 0:
            return None
        width = width * count
    elif shared.width:
        width = cfg.int(shared.width)
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


def decoder(trace: Trace, cfg: Fields, style: Style, prefix: str = "model.") -> None:
    """Embedding, layers and final norm."""
    base, n_layers = style.base, cfg.int("num_hidden_layers")
    heads, experts = read_heads(cfg, base.n_kv_heads, base.head_dim), _experts_by_layer(cfg, style, n_layers)
    sparse = _sparse_layers(cfg, style, experts[0].n, n_layers)
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), heads.hidden)
    keys = list(zip(_layer_windows(cfg, style, n_layers), sparse, experts, strict=True))
    for (window, has_experts, own), numbers in groups(keys):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            dense.norms(layer, cfg, base, heads.hidden)
            if style.sinks:
                layer.vector("self_attn.sinks", heads.n_heads)
            layer.add(dense.attention(layer, cfg, base, heads, layer.stream, window))
            if has_experts:
                layer.add(expert_layer(layer, cfg, style, heads.hidden, own, layer.stream))
            else:
                layer.add(dense.mlp(layer, cfg, base, heads.hidden, layer.stream))
    trace.vector(f"{prefix}norm.weight", heads.hidden)
    if base.norm_bias:
        trace.vector(f"{prefix}norm.bias", heads.hidden)


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
    """Which layers have experts: `mlp_layer_types` where given, else all but the first `n_dense`."""
    kinds = cfg.list("mlp_layer_types", None)
    if kinds is None:
        return [i >= n_dense for i in range(n_layers)]
    if len(kinds) != n_layers:
        raise cfg.fail("mlp_layer_types", f"a list of {n_layers} items, one a layer")
    return [kind == "sparse" for kind in kinds]


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
