"""Pieces that most decoders share: grouped attention, MLPs, embeddings and heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...dataclass import dataclass
from ...errors import UnsupportedArchitectureError
from ...schema import Architecture, Part, Role
from ..fields import Fields
from ..trace import Layer, Trace


@dataclass(frozen=True)
class Heads:
    """Shape of grouped attention."""

    hidden: int
    n_heads: int
    n_kv_heads: int
    d_head: int

    @property
    def q(self) -> int:
        """Width of all queries."""
        return self.n_heads * self.d_head

    @property
    def kv(self) -> int:
        """Width of all keys, and of all values."""
        return self.n_kv_heads * self.d_head


# Types whose classes refuse a hidden size that the heads do not divide; the others round the head's width down.
WHOLE_HEADS = frozenset(("llama", "arcee", "stablelm", "iquestcoder", "cwm", "jais2", "hyperclovax"))


def read_heads(cfg: Fields, n_kv_default: int | None = None, d_head_default: int | None = None) -> Heads:
    """Heads from the usual fields. An absent field takes the default of the family's class; a null one (and a
    class without default) means as many key-value heads as heads, and hidden / heads for head_dim."""
    hidden, n_heads = cfg.int("hidden_size"), cfg.int("num_attention_heads")
    n_kv = (
        cfg.int("num_key_value_heads", None if "num_key_value_heads" in cfg.data else n_kv_default) or n_heads
    )
    d_head = cfg.int("head_dim", None if "head_dim" in cfg.data else d_head_default)
    if d_head is None:
        d_head = hidden // n_heads
        if not d_head or (hidden % n_heads and cfg.str("model_type", "") in WHOLE_HEADS):
            raise cfg.fail("num_attention_heads", f"a divisor of hidden_size ({hidden}), or a head_dim field")
    if n_heads % n_kv:
        raise cfg.fail("num_key_value_heads", f"a divisor of num_attention_heads ({n_heads})")
    return Heads(hidden, n_heads, n_kv, d_head)


def grouped_attention(
    layer: Layer, heads: Heads, x: int, *, prefix: str = "self_attn.", qkv_bias: bool = False,
    o_bias: bool = False, fused: str | None = None, window: int | None = None, causal: bool = True,
    names: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"), role: Role = "attention",
    gate: str | None = None, per_head: bool = False, decay: str | None = None, chosen: int | None = None,
) -> int:  # fmt: skip
    """Attention with grouped keys and values over `x`; `fused` names one matrix that makes all three. `gate` names a
    projection of `x` that weights what comes out, `per_head` with one weight a head; `decay` one of the values to a
    number a head that is added to the scores, by which each position keeps `chosen` others."""
    if fused:
        parts = tuple(
            Part(name, heads.hidden, width)
            for name, width in zip(names, (heads.q, heads.kv, heads.kv), strict=False)
        )
        q = k = v = layer.linear(
            prefix + fused, role, heads.hidden, heads.q + 2 * heads.kv, x, bias=qkv_bias, parts=parts
        )
    else:
        q = layer.linear(prefix + names[0], role, heads.hidden, heads.q, x, bias=qkv_bias)
        k = layer.linear(prefix + names[1], role, heads.hidden, heads.kv, x, bias=qkv_bias)
        v = layer.linear(prefix + names[2], role, heads.hidden, heads.kv, x, bias=qkv_bias)
    bias = None
    if decay:
        layer.vector(prefix + "A", heads.n_kv_heads)
        bias = layer.linear(prefix + decay, role, heads.kv, heads.n_kv_heads, v, bias=qkv_bias)
    mixed = layer.attend(
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_kv_heads, d_qk=heads.d_head, d_v=heads.d_head,
        window=window, causal=causal, bias=bias, chosen=chosen,
    )  # fmt: skip
    if gate:
        width = heads.n_heads if per_head else heads.q
        mixed = layer.join(mixed, layer.linear(prefix + gate, role, heads.hidden, width, x))
    return layer.linear(prefix + names[3], role, heads.q, heads.hidden, mixed, bias=o_bias)


def gated_mlp(
    layer: Layer, hidden: int, width: int, x: int, *, prefix: str = "mlp.", bias: bool = False,
    role: Role = "mlp", names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
) -> int:  # fmt: skip
    """down(act(gate(x)) * up(x))."""
    gate = layer.linear(prefix + names[0], role, hidden, width, x, bias=bias)
    up = layer.linear(prefix + names[1], role, hidden, width, x, bias=bias)
    return layer.linear(prefix + names[2], role, width, hidden, layer.join(gate, up), bias=bias)


def fused_mlp(
    layer: Layer, hidden: int, width: int, x: int, *, prefix: str = "mlp.", bias: bool = False,
    role: Role = "mlp", names: Sequence[str] = ("gate_up_proj", "down_proj"),
) -> int:  # fmt: skip
    """The gated MLP with gate and up in one matrix."""
    parts = (Part("gate_proj", hidden, width), Part("up_proj", hidden, width))
    both = layer.linear(prefix + names[0], role, hidden, 2 * width, x, bias=bias, parts=parts)
    return layer.linear(prefix + names[1], role, width, hidden, both, bias=bias)


def plain_mlp(
    layer: Layer, hidden: int, width: int, x: int, *, prefix: str = "mlp.", bias: bool = False,
    role: Role = "mlp", names: Sequence[str] = ("up_proj", "down_proj"), kind: Any = "linear",
) -> int:  # fmt: skip
    """down(act(up(x)))."""
    up = layer.linear(prefix + names[0], role, hidden, width, x, bias=bias, kind=kind)
    return layer.linear(prefix + names[1], role, width, hidden, up, bias=bias, kind=kind)


def windows(
    cfg: Fields, n_layers: int, sliding: Iterable[bool] | None = None, default: int | None = None
) -> list[int | None]:
    """Each layer's attention window: `layer_types` where given, else `sliding`, else every layer or none. `default`
    is the window where the field is absent."""
    window = cfg.int("sliding_window", None if "sliding_window" in cfg.data else default)
    if window is None:
        return [None] * n_layers
    types = cfg.list("layer_types", None)
    if types is not None:
        if len(types) != n_layers:
            raise cfg.fail("layer_types", f"a list of {n_layers} items, one a layer")
        return [window if "sliding" in str(kind) else None for kind in types]
    chosen = list(sliding) if sliding is not None else [True] * n_layers
    return [window if is_sliding else None for is_sliding in chosen]


def groups(keys: Sequence[Any]) -> list[tuple[Any, tuple[int, ...]]]:
    """Layer numbers by key, in order of first appearance: layers of one key are built once."""
    found: dict[Any, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return [(key, tuple(numbers)) for key, numbers in found.items()]


LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def has_head(cfg: Fields, endings: tuple[str, ...] = LANGUAGE_MODELS) -> bool:
    """Whether the class named in `architectures` has an output head over the vocabulary: one of `endings` has, a
    bare `...Model` has not. Raises UnsupportedArchitectureError for any other class, whose head is another."""
    names = cfg.list("architectures", [])
    if not names or str(names[0]).endswith(endings):
        return True
    if str(names[0]).endswith("Model") and not str(names[0]).endswith("LMHeadModel"):
        return False
    raise UnsupportedArchitectureError(
        f"class {str(names[0])[:80]!r} has no builder in this version: known for this type are a bare model and "
        f"classes ending in {', '.join(endings)}."
    )


def unembedding(
    trace: Trace, hidden: int, vocab: int, *, tied: bool, name: str = "lm_head", bias: bool = False
) -> None:
    """The output projection over the vocabulary."""
    with trace.layer("head", (0,)) as head:
        head.add(head.linear(name, "unembedding", hidden, vocab, head.stream, bias=bias, tied=tied))


def finish(
    trace: Trace, cfg: Fields, *, n_layers: int, hidden: int, vocab: int, tied: bool, **extra: Any
) -> Architecture:
    """The architecture, with the fields that every family names alike."""
    extra.setdefault("max_position", cfg.int("max_position_embeddings", None))
    return trace.architecture(
        model_type=cfg.str("model_type"), hidden_size=hidden, n_layers=n_layers, vocab_size=vocab,
        tied_embeddings=tied, **extra,
    )  # fmt: skip
