"""Decoders that mix softmax attention with linear attention: Gated DeltaNet (Qwen3-Next, Qwen3.5, OLMo
Hybrid) and lightning attention (MiniMax-Text).

The gated delta rule is counted as the chunked scan of transformers without kernels: chunks of 64 positions, in
each a triangular system (solved without products; its gradient is one) and a state carried to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, gated_mlp, grouped_attention, groups, has_head, read_heads, unembedding
from .experts import ExpertFields, Experts, read_experts, read_routed, routed
from .scans import causal_convolution

CHUNK = 64
MIXERS = ("linear_attention", "full_attention")


@dataclass(frozen=True)
class Delta:
    """Shape of a Gated DeltaNet mixer."""

    hidden: int
    n_k: int
    n_v: int
    d_k: int
    d_v: int
    kernel: int

    @property
    def key(self) -> int:
        """Width of all queries, and of all keys."""
        return self.n_k * self.d_k

    @property
    def value(self) -> int:
        """Width of all values, and of the output gate."""
        return self.n_v * self.d_v


def read_delta(cfg: Fields) -> Delta:
    """The mixer's shape, with the defaults of the Qwen classes."""
    shape = Delta(
        cfg.int("hidden_size"), cfg.int("linear_num_key_heads", 16), cfg.int("linear_num_value_heads", 32),
        cfg.int("linear_key_head_dim", 128), cfg.int("linear_value_head_dim", 128),
        cfg.int("linear_conv_kernel_dim", 4),
    )  # fmt: skip
    if shape.n_v % shape.n_k:
        raise cfg.fail("linear_num_value_heads", f"a multiple of linear_num_key_heads ({shape.n_k})")
    return shape


def mixers(cfg: Fields, n_layers: int, default_interval: int = 4) -> list[str]:
    """Each layer's mixer: `layer_types`, or softmax attention in every full_attention_interval-th layer."""
    types = cfg.list("layer_types", None)
    if types is None:
        every = cfg.int("full_attention_interval", default_interval)
        return [MIXERS[(i + 1) % every == 0] for i in range(n_layers)]
    if len(types) != n_layers or any(kind not in MIXERS for kind in types):
        raise cfg.fail("layer_types", f"a list of {n_layers} items, each one of {', '.join(MIXERS)}")
    return [str(kind) for kind in types]


def delta_rule(layer: Layer, qkv: int, beta: int, decay: int, n_heads: int, d_k: int, d_v: int) -> int:
    """The chunked gated delta rule over queries, keys and values, with write strengths and decays."""

    def within_chunk(left: int, right: int, width: int) -> int:
        return layer.scan(left, right, n_heads * width, CHUNK, power=2)

    def solve(system: int, values: int, width: int) -> int:
        return layer.scan(system, values, n_heads * width, CHUNK, power=2, forward="none", right_grad="none")

    scaled, decayed = layer.join(qkv, beta), layer.join(qkv, decay)
    system = layer.join(within_chunk(scaled, qkv, d_k), decay)
    scores = layer.join(within_chunk(qkv, qkv, d_k), decay)
    new_values = solve(system, scaled, d_v)
    read_keys = solve(system, layer.join(scaled, decay), d_k)
    state, size = layer.join(new_values, read_keys), n_heads * d_k * d_v
    known = layer.scan(read_keys, state, size, CHUNK, right_grad="not-first")
    new_values = layer.join(new_values, known)
    across = layer.scan(decayed, state, size, CHUNK, right_grad="not-first")
    mixed = within_chunk(scores, new_values, d_v)
    layer.scan(decayed, new_values, size, CHUNK, left_grad="not-last", right_grad="not-last")
    return layer.join(across, mixed)


def delta_net(layer: Layer, shape: Delta, x: int, *, fused: bool, prefix: str = "linear_attn.") -> int:
    """The Gated DeltaNet mixer; `fused` as Qwen3-Next has it, with the output gate in the first projection."""
    h, key, value = shape.hidden, shape.key, shape.value
    parts: tuple[Part, ...] = tuple(
        Part(f"in_proj_{name}", h, width) for name, width in (("q", key), ("k", key), ("v", value))
    )
    if fused:
        parts = (*parts, Part("in_proj_z", h, value))
        name, width = "in_proj_qkvz", 2 * (key + value)
    else:
        name, width = "in_proj_qkv", 2 * key + value
    qkv = gate = layer.linear(prefix + name, "state_space", h, width, x, parts=parts)
    if fused:
        ba = (Part("in_proj_ba", h, 2 * shape.n_v, tinker=False),)
        beta = decay = layer.linear(prefix + "in_proj_ba", "state_space", h, 2 * shape.n_v, x, parts=ba)
    else:
        gate = layer.linear(prefix + "in_proj_z", "state_space", h, value, x)
        beta, decay = (
            layer.linear(
                prefix + name, "state_space", h, shape.n_v, x, parts=(Part(name, h, shape.n_v, tinker=False),)
            )
            for name in ("in_proj_b", "in_proj_a")
        )
    layer.vector(prefix + "dt_bias", shape.n_v)
    layer.vector(prefix + "A_log", shape.n_v)
    layer.norm(prefix + "norm", shape.d_v)
    qkv = causal_convolution(layer, prefix + "conv1d", 2 * key + value, shape.kernel, qkv)
    mixed = delta_rule(layer, qkv, beta, decay, shape.n_v, shape.d_k, shape.d_v)
    return layer.linear(prefix + "out_proj", "state_space", value, h, layer.join(mixed, gate))


def gated_attention(layer: Layer, heads: Heads, x: int, bias: bool) -> int:
    """Grouped attention whose query projection also makes a gate for the output."""
    h, prefix = heads.hidden, "self_attn."
    q = layer.linear(prefix + "q_proj", "attention", h, 2 * heads.q, x, bias=bias)
    k = layer.linear(prefix + "k_proj", "attention", h, heads.kv, x, bias=bias)
    v = layer.linear(prefix + "v_proj", "attention", h, heads.kv, x, bias=bias)
    layer.norm(prefix + "q_norm", heads.d_head)
    layer.norm(prefix + "k_norm", heads.d_head)
    mixed = layer.attend(
        q, k, v, n_heads=heads.n_heads, n_kv_heads=heads.n_kv_heads, d_qk=heads.d_head, d_v=heads.d_head
    )
    return layer.linear(prefix + "o_proj", "attention", heads.q, h, layer.join(mixed, q), bias=bias)


def expert_layer(layer: Layer, hidden: int, experts: Experts, width: int, x: int) -> int:
    """Routed experts, and a shared one of this width weighted by a gate of its own."""
    shared = gated_mlp(layer, hidden, width, x, prefix="mlp.shared_expert.", role="shared_expert")
    chosen = routed(layer, hidden, experts, x)
    return layer.join(chosen, shared, layer.linear("mlp.shared_expert_gate", "router", hidden, 1, x))


def _sparse(cfg: Fields, model_type: str, experts: Experts, n_layers: int) -> list[bool]:
    if model_type != "qwen3_next":
        return ["moe" in model_type] * n_layers
    dense, every = cfg.list("mlp_only_layers", []), cfg.int("decoder_sparse_step", 1)
    return [i not in dense and experts.n > 0 and (i + 1) % every == 0 for i in range(n_layers)]


def decoder(trace: Trace, cfg: Fields, prefix: str = "model.") -> None:
    """Embedding, layers and final norm of Qwen3-Next, or of the text model of Qwen3.5 (dense or with experts).

    `cfg` is the text config; its `model_type` says which.
    """
    model_type = cfg.str("model_type", "qwen3_5_moe_text" if cfg.has("num_experts") else "qwen3_5_text")
    n_layers, moe = cfg.int("num_hidden_layers"), model_type not in ("qwen3_5_text", "qwen3_5")
    heads, shape = read_heads(cfg, 2 if moe else 4, 256), read_delta(cfg)
    n, active = (512, 10) if model_type == "qwen3_next" else (256, 8)
    fields = ExpertFields(n_default=n, active_default=active, width_default=512)
    experts, shared = read_experts(cfg, fields, 0), cfg.int("shared_expert_intermediate_size", 512)
    bias = bool(cfg.bool("attention_bias", False))
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), heads.hidden)
    keys = list(zip(mixers(cfg, n_layers), _sparse(cfg, model_type, experts, n_layers), strict=True))
    for (mixer, sparse), numbers in groups(keys):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            layer.norm("input_layernorm", heads.hidden)
            layer.norm("post_attention_layernorm", heads.hidden)
            if mixer == "full_attention":
                layer.add(gated_attention(layer, heads, layer.stream, bias))
            else:
                layer.add(delta_net(layer, shape, layer.stream, fused=model_type == "qwen3_next"))
            if sparse:
                layer.add(expert_layer(layer, heads.hidden, experts, shared, layer.stream))
            else:
                layer.add(gated_mlp(layer, heads.hidden, cfg.int("intermediate_size"), layer.stream))
    trace.vector(f"{prefix}norm.weight", heads.hidden)


def _olmo_delta(cfg: Fields, heads: Heads) -> Delta:
    n_k = cfg.int("linear_num_key_heads", heads.n_heads)
    d_k = cfg.int("linear_key_head_dim", int(0.75 * heads.hidden / n_k))
    shape = Delta(
        heads.hidden, n_k, cfg.int("linear_num_value_heads", heads.n_heads), d_k,
        cfg.int("linear_value_head_dim", 2 * d_k), cfg.int("linear_conv_kernel_dim", 4),
    )  # fmt: skip
    if shape.n_v % n_k:
        raise cfg.fail("linear_num_value_heads", f"a multiple of linear_num_key_heads ({n_k})")
    return shape


def olmo_delta_net(layer: Layer, shape: Delta, x: int) -> int:
    """OLMo Hybrid's Gated DeltaNet: every projection is a matrix of its own."""
    h, prefix = shape.hidden, "linear_attn."

    def project(name: str, width: int, tinker: bool = True) -> int:
        parts = () if tinker else (Part(name, h, width, tinker=False),)
        return layer.linear(prefix + name, "state_space", h, width, x, parts=parts)

    q, k, v = project("q_proj", shape.key), project("k_proj", shape.key), project("v_proj", shape.value)
    layer.vector(prefix + "A_log", shape.n_v)
    layer.vector(prefix + "dt_bias", shape.n_v)
    layer.norm(prefix + "o_norm", shape.d_v)
    qkv = causal_convolution(
        layer, prefix + "conv1d", 2 * shape.key + shape.value, shape.kernel, layer.join(q, k, v)
    )
    beta, decay = project("b_proj", shape.n_v, False), project("a_proj", shape.n_v, False)
    mixed = delta_rule(layer, qkv, beta, decay, shape.n_v, shape.d_k, shape.d_v)
    gated = layer.join(mixed, project("g_proj", shape.value))
    return layer.linear(prefix + "o_proj", "state_space", shape.value, h, gated)


def _olmo_mixers(cfg: Fields, n_layers: int) -> list[str]:
    kinds = mixers(cfg, n_layers, 4)
    if not cfg.has("layer_types") and "full_attention" not in kinds:
        kinds[-1] = "full_attention"
    if len(set(kinds)) < 2:
        raise cfg.fail("layer_types", "at least one linear_attention and one full_attention layer")
    return kinds


def olmo_decoder(trace: Trace, cfg: Fields) -> None:
    """OLMo Hybrid: norms before the delta rule's layers, after the parts of the attention layers."""
    heads, n_layers = read_heads(cfg), cfg.int("num_hidden_layers")
    shape, bias = _olmo_delta(cfg, heads), bool(cfg.bool("attention_bias", False))
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), heads.hidden)
    for mixer, numbers in groups(_olmo_mixers(cfg, n_layers)):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            full = mixer == "full_attention"
            layer.open_end = not full
            layer.norm("post_attention_layernorm", heads.hidden)
            layer.norm("post_feedforward_layernorm" if full else "input_layernorm", heads.hidden)
            if full:
                layer.norm("self_attn.q_norm", heads.q)
                layer.norm("self_attn.k_norm", heads.kv)
                layer.add(grouped_attention(layer, heads, layer.stream, qkv_bias=bias, o_bias=bias))
            else:
                layer.add(olmo_delta_net(layer, shape, layer.stream))
            layer.add(gated_mlp(layer, heads.hidden, cfg.int("intermediate_size"), layer.stream))
    trace.vector("model.norm.weight", heads.hidden)


def lightning(layer: Layer, heads: Heads, block: int, x: int) -> int:
    """MiniMax's lightning attention: softmax-free, in blocks of which the last is not padded."""
    h, width, prefix = heads.hidden, heads.q, "self_attn."
    parts = tuple(Part(name, h, width) for name in ("q_proj", "k_proj", "v_proj"))
    qkv = layer.linear(prefix + "qkv_proj", "state_space", h, 3 * width, x, parts=parts)
    pair, state = width, width * heads.d_head
    scores = layer.scan(qkv, qkv, pair, block, power=2, ragged=True)
    within = layer.scan(scores, qkv, pair, block, power=2, ragged=True)
    across = layer.scan(qkv, qkv, state, block, ragged=True, right_grad="not-first")
    layer.scan(qkv, qkv, state, block, ragged=True, left_grad="not-last", right_grad="not-last")
    layer.norm(prefix + "norm", width)
    gate = layer.linear(prefix + "output_gate", "state_space", h, width, x)
    return layer.linear(prefix + "out_proj", "state_space", width, h, layer.join(within, across, gate))


def minimax_decoder(trace: Trace, cfg: Fields) -> None:
    """MiniMax-Text: lightning or softmax attention, then routed experts."""
    heads, n_layers = read_heads(cfg, 8), cfg.int("num_hidden_layers")
    width, block = cfg.int("intermediate_size"), cfg.int("block_size", 256)
    experts = read_routed(cfg, cfg.int("num_local_experts", 8), width, 2)
    kinds = mixers(cfg, n_layers) if cfg.has("layer_types") else [MIXERS[i % 2 == 0] for i in range(n_layers)]
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), heads.hidden)
    for mixer, numbers in groups(kinds):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("input_layernorm", heads.hidden)
            layer.norm("post_attention_layernorm", heads.hidden)
            if mixer == "full_attention":
                window = cfg.int("sliding_window", None)
                layer.add(grouped_attention(layer, heads, layer.stream, window=window))
            else:
                layer.add(lightning(layer, heads, block, layer.stream))
            layer.add(routed(layer, heads.hidden, experts, layer.stream))
    trace.vector("model.norm.weight", heads.hidden)


DECODERS: dict[str, Callable[[Trace, Fields], None]] = {
    "olmo_hybrid": olmo_decoder,
    "minimax": minimax_decoder,
}


def build(cfg: Fields) -> Architecture:
    """A text-only model of one of this module's families."""
    trace = Trace()
    DECODERS.get(cfg.str("model_type"), decoder)(trace, cfg)
    hidden, vocab = cfg.int("hidden_size"), cfg.int("vocab_size")
    tied = bool(cfg.bool("tie_word_embeddings", False))
    if has_head(cfg):
        unembedding(trace, hidden, vocab, tied=tied)
    return finish(trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied)
