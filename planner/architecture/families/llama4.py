"""Llama 4: chunked attention in most layers, routed experts beside a shared one in every layer or every second.

transformers runs every expert on every token, with inputs scaled by the router (zero but for the chosen ones);
the FLOPs are those, the active parameters those of the chosen experts.
"""

from __future__ import annotations

from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, gated_mlp, groups, has_head, read_heads, unembedding
from .multimodal import core, text_fields
from .towers_llama import llama4 as tower
from .vision import Tower

NORMS = ("input_layernorm", "post_attention_layernorm")
DEFAULTS = core(
    202048, 5120, 8192, 48, 40, num_key_value_heads=8, head_dim=128, max_position_embeddings=131072
)


def chunks(text: Fields, n_layers: int) -> list[int | None]:
    """Each layer's chunk of positions, or none where it attends to all: the layers without rotation."""
    size = text.int("attention_chunk_size", 8192)
    types = text.list("layer_types", None)
    if types is None:
        every = text.int("no_rope_layer_interval", 4)
        rotated = text.list("no_rope_layers", None) or [(i + 1) % every for i in range(n_layers)]
        types = ["chunked_attention" if rotates else "full_attention" for rotates in rotated]
    if len(types) != n_layers:
        raise text.fail("layer_types", f"a list of {n_layers} items, one a layer")
    return [size if kind == "chunked_attention" else None for kind in types]


def sparse(text: Fields, n_layers: int) -> list[bool]:
    """Which layers have experts."""
    numbers = text.list("moe_layers", None)
    if numbers is None:
        every = text.int("interleave_moe_layer_step", 1)
        numbers = range(every - 1, n_layers, every)
    return [i in numbers for i in range(n_layers)]


def attention(layer: Layer, heads: Heads, x: int, chunk: int | None, bias: bool) -> int:
    """Grouped attention within chunks."""
    q = layer.linear("self_attn.q_proj", "attention", heads.hidden, heads.q, x, bias=bias)
    k = layer.linear("self_attn.k_proj", "attention", heads.hidden, heads.kv, x, bias=bias)
    v = layer.linear("self_attn.v_proj", "attention", heads.hidden, heads.kv, x, bias=bias)
    mixed = layer.attend(
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_kv_heads, d_qk=heads.d_head, d_v=heads.d_head,
        window=chunk, chunked=chunk is not None,
    )  # fmt: skip
    return layer.linear("self_attn.o_proj", "attention", heads.q, heads.hidden, mixed, bias=bias)


def experts(layer: Layer, text: Fields, hidden: int, x: int) -> int:
    """Routed experts, whose inputs the router scales, and a shared one."""
    n, active, width = (
        text.int("num_local_experts", 16), text.int("num_experts_per_tok", 1), text.int("intermediate_size"),
    )  # fmt: skip
    if active > n:
        raise text.fail("num_experts_per_tok", f"at most num_local_experts ({n})")
    route = layer.linear("feed_forward.router", "router", hidden, n, x)
    parts = (Part("gate_proj", hidden, width), Part("up_proj", hidden, width))
    inner = layer.linear(
        "feed_forward.experts.gate_up_proj", "expert", hidden, 2 * width, layer.join(x, route), kind="experts",
        parts=parts, experts=n, active=active, all_experts=True,
    )  # fmt: skip
    routed = layer.linear(
        "feed_forward.experts.down_proj", "expert", width, hidden, inner, kind="experts", experts=n,
        active=active, outer="out", all_experts=True,
    )  # fmt: skip
    shared = gated_mlp(layer, hidden, width, x, prefix="feed_forward.shared_expert.", role="shared_expert")
    return layer.join(routed, shared)


def decoder(trace: Trace, text: Fields, prefix: str) -> None:
    """Embedding, layers and final norm."""
    heads, n_layers = read_heads(text, 8, 128), text.int("num_hidden_layers")
    bias = bool(text.bool("attention_bias", False))
    trace.embedding(f"{prefix}embed_tokens", text.int("vocab_size"), heads.hidden)
    for (chunk, has_experts), numbers in groups(
        list(zip(chunks(text, n_layers), sparse(text, n_layers), strict=True))
    ):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            for name in NORMS:
                layer.norm(name, heads.hidden)
            layer.add(attention(layer, heads, layer.stream, chunk, bias))
            if has_experts:
                layer.add(experts(layer, text, heads.hidden, layer.stream))
            else:
                width = text.int("intermediate_size_mlp", 16384)
                layer.add(gated_mlp(layer, heads.hidden, width, layer.stream, prefix="feed_forward."))
    trace.vector(f"{prefix}norm.weight", heads.hidden)


def build(cfg: Fields) -> Architecture:
    """A `llama4` config, or one of its text model alone (`llama4_text`)."""
    trace, text, prefix = Trace(), cfg, ""
    if cfg.str("model_type") == "llama4":
        text, prefix = text_fields(cfg, DEFAULTS), "language_model."
        vision = cfg.sub("vision_config", {})
        tower(Tower(trace, "vision_model."), vision)
        projector = Tower(trace, "multi_modal_projector.", "projector")
        projector.linear("linear_1", vision.int("vision_output_dim", 7680), text.int("hidden_size"))
    decoder(trace, text, f"{prefix}model.")
    hidden, vocab = text.int("hidden_size"), text.int("vocab_size")
    tied = bool(text.bool("tie_word_embeddings", False))
    if has_head(cfg):
        unembedding(trace, hidden, vocab, tied=tied, name=f"{prefix}lm_head")
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied,
        max_position=text.int("max_position_embeddings", None),
    )  # fmt: skip
