"""What sets the decoders with grouped attention and routed experts apart, as a table."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any, Literal

from ...dataclass import dataclass
from ...schema import Kind
from . import dense
from .experts import ExpertFields

LOCAL = ("num_local_experts", "num_experts")
DEEPSEEK_FIELDS = ExpertFields(n=("n_routed_experts", "num_local_experts", "num_experts"))


@dataclass(frozen=True)
class Shared:
    """A dense MLP beside the routed experts: `count` names how many experts' width it has, or `width` its own;
    `default` is what the class takes where the field is absent. It runs before the routed experts or after them."""

    name: str
    count: str | None = None
    width: str | None = None
    first: bool = False
    gate: str | None = None
    default: int | None = None


@dataclass(frozen=True)
class Style:
    """What sets a family apart; `base` holds attention, norms and dense layers. `first_field` says how many first
    layers have no experts (None: `first_dense`, whatever the config says), `dense_width` how wide their MLPs are;
    `heads_by_layer` names a list of numbers of heads."""

    base: dense.Style
    experts: ExpertFields = field(default_factory=ExpertFields)
    prefix: str = "mlp."
    router: str = "gate"
    router_kind: Kind = "parameter"
    expert_bias: bool = False
    shared: Shared | None = None
    sparse: Literal["all", "qwen", "after-first", "types", "ernie"] = "all"
    first_dense: int = 1
    first_field: str | None = "first_k_dense_replace"
    dense_width: str = "intermediate_size"
    heads_by_layer: str | None = None
    window: Literal["none", "all", "switch", "qwen2", "alternate", "dots", "base", "afmoe", "cohere2"] = (
        "none"
    )
    sinks: bool = False
    head_bias: str | None = None
    correction: str | None = None
    notes: tuple[str, ...] = ()


def _base(**options: Any) -> dense.Style:
    return replace(dense.Style(), **options)


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
        ExpertFields(
            LOCAL, width=("intermediate_size",), active_always=2
        ),  # sparsemixer draws one, then another
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
        sparse="types",
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
    "mellum": Style(
        _base(qk_norm="head", n_kv_heads=4, head_dim=128, window=1024),
        ExpertFields(LOCAL, n_default=64, active_default=8, width_default=896),
        sparse="types",
        first_dense=0,
        first_field=None,
        window="base",
    ),
    "hy_v3": Style(
        _base(qk_norm="head", n_kv_heads=8, head_dim=128, mlp_bias="mlp_bias"),
        ExpertFields(n_default=192, active_default=8, width_default=1536),
        shared=Shared("shared_experts", count="num_shared_experts", default=1),
        sparse="types",
        first_field=None,
    ),
    "laguna": Style(
        _base(qk_norm="head", n_kv_heads=8, head_dim=128, window=512, gate="g_proj", per_head="gating"),
        ExpertFields(n_default=256, active_default=8, width_default=512),
        shared=Shared("shared_experts", width="shared_expert_intermediate_size", first=True, default=512),
        sparse="types",
        first_field=None,
        heads_by_layer="num_attention_heads_per_layer",
        window="base",
        correction="gate.e_score_correction_bias",
    ),
    "afmoe": Style(
        _base(
            qk_norm="head",
            head_dim=128,
            gate="gate_proj",
            norms=(*dense.LLAMA_NORMS, "pre_mlp_layernorm", "post_mlp_layernorm"),
        ),
        ExpertFields(n_default=64, active_default=6, width_default=1408),
        router="router.gate",
        router_kind="linear",
        shared=Shared("shared_experts", count="num_shared_experts", first=True, default=2),
        sparse="after-first",
        first_field="num_dense_layers",
        window="afmoe",
        correction="expert_bias",
    ),
    "cohere2_moe": Style(
        _base(norms=("input_layernorm",), parallel=True, tied=True, head_dim=128),
        ExpertFields(width=("intermediate_size",), n_default=8, active_default=2),
        shared=Shared("shared_experts", count="num_shared_experts", default=0),
        sparse="types",
        first_dense=0,
        dense_width="prefix_dense_intermediate_size",
        window="cohere2",
    ),
    "aria_text": Style(
        _base(mlp_bias="mlp_bias"),
        ExpertFields(("moe_num_experts",), ("moe_topk",), ("intermediate_size",), 8, 2),
        router="router",
        shared=Shared("shared_experts", count="moe_num_shared_experts", default=2),
    ),
}
