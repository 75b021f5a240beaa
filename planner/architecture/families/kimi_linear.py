"""Kimi Linear: Kimi Delta Attention, whose decays are one a channel, with latent attention in some layers, and routed
experts behind the first ones.

The delta rule is counted as the chunked scan of transformers without kernels. Scores and the triangular system are
sums of elementwise products there, which count no multiply-adds; what the system and the states multiply does.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import finish, gated_mlp, groups, has_head, unembedding
from .dense import LLAMA_NORMS
from .experts import ExpertFields, read_experts
from .linear_attention import CHUNK, MIXERS
from .mla import STYLES, latent_attention, read_latent, shared_and_routed
from .moe import mlp_layer_types
from .scans import causal_convolution

EXPERTS = ExpertFields(
    ("num_experts", "num_local_experts"), ("num_experts_per_token", "num_experts_per_tok"), n_default=256,
    active_default=8, width_default=1024,
)  # fmt: skip


@dataclass(frozen=True)
class Delta:
    """Shape of Kimi Delta Attention: heads of one width for queries, keys and values."""

    hidden: int
    n_heads: int
    d_head: int
    kernel: int

    @property
    def width(self) -> int:
        """Width of all queries."""
        return self.n_heads * self.d_head


def read_delta(cfg: Fields) -> Delta:
    """The shape: checkpoints nest it in `linear_attn_config`, transformers names it at the top."""
    nested = cfg.sub("linear_attn_config", {})
    return Delta(
        cfg.int("hidden_size"), nested.int("num_heads", cfg.int("linear_num_heads", 32)),
        nested.int("head_dim", cfg.int("linear_head_dim", 128)),
        nested.int("short_conv_kernel_size", cfg.int("linear_conv_kernel_dim", 4)),
    )  # fmt: skip


def mixers(cfg: Fields, n_layers: int) -> list[str]:
    """Each layer's mixer: `layer_types`, or the checkpoint's lists (which count from 1), or softmax attention in
    every fourth layer but the first."""
    kinds = cfg.list("layer_types", None, length=n_layers)
    if kinds is not None:
        if any(kind not in MIXERS for kind in kinds):
            raise cfg.fail("layer_types", f"a list of {n_layers} items, each one of {', '.join(MIXERS)}")
        return [str(kind) for kind in kinds]
    nested = cfg.sub("linear_attn_config", {})
    if not nested.has("full_attn_layers") or not nested.has("kda_layers"):
        return [MIXERS[i > 0 and i % 4 == 0] for i in range(n_layers)]
    full, linear = nested.list("full_attn_layers"), nested.list("kda_layers")
    if sorted(map(str, (*full, *linear))) != sorted(str(i + 1) for i in range(n_layers)):
        raise nested.fail("kda_layers", f"with full_attn_layers, every number from 1 to {n_layers} once")
    return [MIXERS[i + 1 in full] for i in range(n_layers)]


def delta_rule(layer: Layer, qkv: int, beta: int, decay: int, shape: Delta) -> int:
    """The chunked delta rule over queries, keys and values, with write strengths and decays of every channel."""
    width, state_size = shape.width, shape.width * shape.d_head
    decayed, scaled = layer.join(qkv, decay), layer.join(qkv, beta)
    system = layer.join(decayed, scaled)
    new_values = layer.scan(system, scaled, width, CHUNK, power=2)
    read_keys = layer.scan(system, layer.join(scaled, decay), width, CHUNK, power=2)
    state = layer.join(new_values, read_keys)
    across = layer.scan(decayed, state, state_size, CHUNK, right_grad="not-first")
    known = layer.scan(read_keys, state, state_size, CHUNK, right_grad="not-first")
    new_values = layer.join(new_values, known)
    mixed = layer.scan(decayed, new_values, width, CHUNK, power=2)
    layer.scan(decayed, new_values, state_size, CHUNK, left_grad="not-last", right_grad="not-last")
    return layer.join(across, mixed)


def delta_attention(layer: Layer, shape: Delta, x: int, prefix: str = "self_attn.") -> int:
    """Kimi Delta Attention; decays and the output's gate go through a bottleneck of a head's width."""
    h, width = shape.hidden, shape.width

    def project(name: str, d_in: int, d_out: int, source: int, tinker: bool = True) -> int:
        leaf = name.rsplit(".", 1)[-1]
        parts = () if tinker else (Part(leaf, d_in, d_out, tinker=False),)
        return layer.linear(prefix + name, "state_space", d_in, d_out, source, parts=parts)

    qkv = layer.join(*(project(name, h, width, x) for name in ("q_proj", "k_proj", "v_proj")))
    qkv = causal_convolution(layer, prefix + "conv1d", 3 * width, shape.kernel, qkv)
    low = project("forget_gate.f_a_proj", h, shape.d_head, x)
    decay = project("forget_gate.f_b_proj", shape.d_head, width, low)
    layer.vector(prefix + "forget_gate.dt_bias", width)
    layer.vector(prefix + "forget_gate.A_log", shape.n_heads)
    beta = project("b_proj", h, shape.n_heads, x)
    mixed = delta_rule(layer, qkv, beta, layer.join(decay), shape)
    gate = project("g_b_proj", shape.d_head, width, project("g_a_proj", h, shape.d_head, x))
    layer.norm(prefix + "o_norm", shape.d_head)
    return project("o_proj", width, h, layer.join(mixed, gate))


def decoder(trace: Trace, cfg: Fields, prefix: str = "model.") -> None:
    """Embedding, layers and final norm."""
    n_layers, delta, latent = (
        cfg.int("num_hidden_layers"),
        read_delta(cfg),
        read_latent(cfg, STYLES["kimi_linear"]),
    )
    experts = read_experts(cfg, EXPERTS)
    n_shared = cfg.int("num_shared_experts", cfg.int("n_shared_experts", 1))
    sparse = mlp_layer_types(cfg, n_layers, cfg.int("first_k_dense_replace", 1, minimum=0))
    trace.embedding(f"{prefix}embed_tokens", cfg.int("vocab_size"), delta.hidden)
    for (kind, has_experts), numbers in groups(list(zip(mixers(cfg, n_layers), sparse, strict=True))):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            for name in LLAMA_NORMS:
                layer.norm(name, delta.hidden)
            if kind == "full_attention":
                layer.add(latent_attention(layer, latent, layer.stream))
            else:
                layer.add(delta_attention(layer, delta, layer.stream))
            if has_experts:
                layer.add(shared_and_routed(layer, delta.hidden, experts, n_shared, layer.stream))
            else:
                layer.add(gated_mlp(layer, delta.hidden, cfg.int("intermediate_size"), layer.stream))
    trace.vector(f"{prefix}norm.weight", delta.hidden)


def build(cfg: Fields) -> Architecture:
    """A text-only model."""
    trace, hidden, vocab = Trace(), cfg.int("hidden_size"), cfg.int("vocab_size")
    decoder(trace, cfg)
    if has_head(cfg):
        # The class ties nothing, whatever the config says.
        unembedding(trace, hidden, vocab, tied=False)
    return finish(
        trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=False,
        max_position=cfg.int("max_position_embeddings", cfg.int("model_max_length", None)),
    )  # fmt: skip
