"""Gemma 4: window and global layers of different head widths, keys and values that later layers reuse, a small
embedding of its own for every layer, and in one model experts beside the MLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...schema import Architecture, Part, Role
from ..fields import Fields
from ..trace import Layer, Trace
from .common import gated_mlp, groups
from .multimodal import close, core, is_tied, text_fields
from .towers_gemma import gemma4_audio, gemma4_vision
from .vision import Tower

SLIDING, FULL = "sliding_attention", "full_attention"
PATTERN = 6  # By default every sixth layer is global.
PER_LAYER = "per_layer_input"
NORMS = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
)  # fmt: skip
EXPERT_NORMS = (
    "post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2",
)  # fmt: skip
TOWERS: tuple[tuple[str, Role, Callable[[Tower, Fields], int]], ...] = (
    ("vision", "vision", gemma4_vision), ("audio", "audio", gemma4_audio),
)  # fmt: skip
DEFAULTS = core(262144, 2304, 9216, 30, 8, max_position_embeddings=131072)


@dataclass(frozen=True)
class Kind:
    """What sets layers apart: the attention's type and shape, and how its keys and values are shared."""

    type: str
    d_head: int
    n_kv: int
    stores: bool
    reuses: bool


@dataclass(frozen=True)
class Shape:
    """What all layers have in common."""

    hidden: int
    n_heads: int
    width: int
    per_layer: int
    bias: bool
    keys_are_values: bool
    window: int
    causal: bool


def layer_types(text: Fields, n_layers: int) -> list[str]:
    """Each layer's attention; the last one is always global."""
    types = text.list("layer_types", None)
    if types is None:
        types = [FULL if (i + 1) % PATTERN == 0 else SLIDING for i in range(n_layers)]
    if len(types) != n_layers or any(kind not in (SLIDING, FULL) for kind in types):
        raise text.fail("layer_types", f"a list of {n_layers} items, each {SLIDING} or {FULL}")
    return [*types[:-1], FULL]


def _overrides(text: Fields, types: list[str]) -> list[Mapping[str, Any]]:
    """What each layer's head width and key-value heads are where they differ from the common ones."""
    given = text.data.get("per_layer_config")
    if isinstance(given, Mapping):
        by_layer = {
            int(i): over for i, over in given.items() if str(i).isdigit() and isinstance(over, Mapping)
        }
        return [by_layer.get(i, {}) for i in range(len(types))]
    full: dict[str, Any] = {"head_dim": text.int("global_head_dim", 512)}
    if text.bool("attention_k_eq_v", False) and text.has("num_global_key_value_heads"):
        full["num_key_value_heads"] = text.int("num_global_key_value_heads")
    return [full if kind == FULL else {} for kind in types]


def kinds(text: Fields, n_layers: int, n_heads: int) -> list[Kind]:
    """Each layer's kind. The last layers reuse the keys and values of the last layer of their type before them."""
    types = layer_types(text, n_layers)
    shared = text.int("num_kv_shared_layers", 0, minimum=0)
    first = n_layers - shared
    if shared and not (first > 0 and set(types[:first]) == set(types)):
        raise text.fail("num_kv_shared_layers", "fewer, so that a layer of each type comes before them")
    last = {kind: max((i for i in range(first) if types[i] == kind), default=0) for kind in set(types)}
    found = []
    for i, (kind, over) in enumerate(zip(types, _overrides(text, types), strict=True)):
        fields = Fields({**text.data, **over}, text.path)
        n_kv = fields.int("num_key_value_heads", 4)
        if n_heads % n_kv:
            raise fields.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})")
        stores = shared > 0 and last[kind] == i
        found.append(Kind(kind, fields.int("head_dim", 256), n_kv, stores, i >= first))
    return found


def attention(layer: Layer, shape: Shape, kind: Kind, x: int) -> int:
    """Attention over keys and values of this layer, or over those that an earlier one of its type kept."""
    h, kv, prefix = shape.hidden, kind.n_kv * kind.d_head, "self_attn."
    q = layer.linear(prefix + "q_proj", "attention", h, shape.n_heads * kind.d_head, x, bias=shape.bias)
    layer.norm(prefix + "q_norm", kind.d_head)
    if kind.reuses:
        k, v = layer.recall(f"{kind.type}.k"), layer.recall(f"{kind.type}.v")
    else:
        k = v = layer.linear(prefix + "k_proj", "attention", h, kv, x, bias=shape.bias)
        # A global layer may use its keys, before their norm, as values.
        if not (shape.keys_are_values and kind.type == FULL):
            v = layer.linear(prefix + "v_proj", "attention", h, kv, x, bias=shape.bias)
        layer.norm(prefix + "k_norm", kind.d_head)
    if kind.stores:
        layer.keep(f"{kind.type}.k", k)
        layer.keep(f"{kind.type}.v", v)
    mixed = layer.attend(
        q, k, v, n_heads=shape.n_heads, n_kv_heads=kind.n_kv, d_qk=kind.d_head, d_v=kind.d_head,
        window=shape.window if kind.type == SLIDING else None, causal=shape.causal,
    )  # fmt: skip
    return layer.linear(
        prefix + "o_proj", "attention", shape.n_heads * kind.d_head, h, mixed, bias=shape.bias
    )


def experts(layer: Layer, text: Fields, hidden: int, x: int) -> int:
    """Routed experts, weighted by a router that scales its input."""
    n, width = text.int("num_experts"), text.int("moe_intermediate_size")
    active = text.int("top_k_experts")
    if active > n:
        raise text.fail("top_k_experts", f"at most num_experts ({n})")
    for name in EXPERT_NORMS:
        layer.norm(name, hidden)
    layer.vector("router.scale", hidden)
    layer.vector("router.per_expert_scale", n)
    route = layer.linear("router.proj", "router", hidden, n, x)
    parts = (Part("gate_proj", hidden, width), Part("up_proj", hidden, width))
    inner = layer.linear(
        "experts.gate_up_proj", "expert", hidden, 2 * width, x, kind="experts", parts=parts, experts=n,
        active=active,
    )  # fmt: skip
    out = layer.linear(
        "experts.down_proj",
        "expert",
        width,
        hidden,
        inner,
        kind="experts",
        experts=n,
        active=active,
        outer="out",
    )
    return layer.join(out, route)


def _layer(layer: Layer, text: Fields, shape: Shape, kind: Kind) -> None:
    """Attention, MLP (with experts beside it), and the layer's own input."""
    h = shape.hidden
    for name in NORMS:
        layer.norm(name, h)
    layer.open_end = False
    layer.add(attention(layer, shape, kind, layer.stream))
    wide = kind.reuses and text.bool("use_double_wide_mlp", False)
    mixed = [gated_mlp(layer, h, shape.width * (2 if wide else 1), layer.stream)]
    if text.bool("enable_moe_block", False):
        mixed.append(experts(layer, text, h, layer.stream))
    layer.add(*mixed)
    if shape.per_layer:
        gate = layer.linear("per_layer_input_gate", "other", h, shape.per_layer, layer.stream)
        own = layer.join(gate, layer.recall(PER_LAYER))
        layer.add(layer.linear("per_layer_projection", "other", shape.per_layer, h, own))
        layer.norm("post_per_layer_input_norm", h)


def _per_layer_inputs(trace: Trace, text: Fields, shape: Shape, n_layers: int, prefix: str) -> None:
    """A second embedding, and a projection of the first, for all layers at once."""
    width = n_layers * shape.per_layer
    rows = text.int("vocab_size_per_layer_input", 262144)
    trace.embedding(f"{prefix}embed_tokens_per_layer", rows, width, role="other")
    with trace.layer("stem", (0,), prefix) as stem:
        made = stem.linear("per_layer_model_projection", "other", shape.hidden, width, stream := stem.stream)
        stem.norm("per_layer_projection_norm", shape.per_layer)
        stem.keep(PER_LAYER, made)
        stem.stream = stream


def _shape(text: Fields) -> Shape:
    window, attends = text.int("sliding_window", 512), text.str("use_bidirectional_attention", None)
    everywhere = attends == "all"
    return Shape(
        hidden=text.int("hidden_size"), n_heads=text.int("num_attention_heads"),
        width=text.int("intermediate_size"),
        per_layer=text.int("hidden_size_per_layer_input", 256, minimum=0),
        bias=bool(text.bool("attention_bias", False)),
        keys_are_values=bool(text.bool("attention_k_eq_v", False)),
        window=window // 2 + 1 if everywhere else window, causal=not everywhere,
    )  # fmt: skip


def decoder(trace: Trace, text: Fields, prefix: str) -> None:
    """Embeddings, layers and final norm."""
    shape, n_layers = _shape(text), text.int("num_hidden_layers")
    trace.embedding(f"{prefix}embed_tokens", text.int("vocab_size"), shape.hidden)
    if shape.per_layer:
        _per_layer_inputs(trace, text, shape, n_layers, prefix)
    for kind, numbers in groups(kinds(text, n_layers, shape.n_heads)):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            _layer(layer, text, shape, kind)
    trace.vector(f"{prefix}norm.weight", shape.hidden)


def _towers(trace: Trace, cfg: Fields, hidden: int) -> None:
    """The towers that the config has; without a config there is none."""
    for name, role, tower in TOWERS:
        if cfg.has(f"{name}_config"):
            width = tower(Tower(trace, f"model.{name}_tower.", role), cfg.sub(f"{name}_config"))
            Tower(trace, f"model.embed_{name}.", "projector").linear("embedding_projection", width, hidden)


def build(cfg: Fields) -> Architecture:
    """A `gemma4` config, or one of its text model alone (`gemma4_text`)."""
    trace = Trace()
    if cfg.str("model_type") == "gemma4_text":
        decoder(trace, cfg, "model.")
        return close(trace, cfg, cfg, is_tied(cfg, cfg, "top!"))
    text = text_fields(cfg, DEFAULTS)
    _towers(trace, cfg, text.int("hidden_size"))
    decoder(trace, text, "model.language_model.")
    return close(trace, cfg, text, is_tied(cfg, text, "top!"))
