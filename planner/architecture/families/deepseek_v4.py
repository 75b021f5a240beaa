"""DeepSeek V4: shared key-value latent attention over a window and over compressed positions, hyper-connections
that mix several residual streams, experts in every layer.

The indexer's scores choose positions, so no gradient reaches it. Compressed positions exist once a sequence
fills a window of the compressor; in shorter ones no gradient reaches the compressor either.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import finish, gated_mlp, groups, has_head
from .dense import LLAMA_NORMS
from .experts import ExpertFields, read_experts, routed

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
RATIOS = {0: SLIDING, 4: SPARSE, 128: HEAVY}
PEFT_NOTE = (
    "PEFT's all-linear does not run on this model: it wraps the grouped output projection (o_a_proj), whose "
    "result has another shape."
)
FIELDS = ExpertFields(
    n=("n_routed_experts", "num_local_experts"), width=("moe_intermediate_size", "intermediate_size")
)


@dataclass(frozen=True)
class Shape:
    """Widths of attention, indexer and output groups, and how many residual streams there are."""

    hidden: int
    n_heads: int
    d_head: int
    q_rank: int
    groups: int
    o_rank: int
    window: int
    index_heads: int
    d_index: int
    streams: int


def read_shape(cfg: Fields) -> Shape:
    """The shape, with the class's defaults where hub configs omit a field."""
    shape = Shape(
        cfg.int("hidden_size"), cfg.int("num_attention_heads"), cfg.int("head_dim", 512),
        cfg.int("q_lora_rank", 1024), cfg.int("o_groups", 8), cfg.int("o_lora_rank", 1024),
        cfg.int("sliding_window", 128), cfg.int("index_n_heads", 64), cfg.int("index_head_dim", 128),
        cfg.int("hc_mult", 4),
    )  # fmt: skip
    if shape.n_heads * shape.d_head % shape.groups:
        raise cfg.fail("o_groups", f"a divisor of all heads' width ({shape.n_heads * shape.d_head})")
    return shape


def layer_types(cfg: Fields, n_layers: int) -> list[str]:
    """Each layer's attention: named, or by its ratio of compression, or the class's schedule."""
    kinds = cfg.list("layer_types", None)
    if kinds is None:
        ratios = cfg.list("compress_ratios", None)
        if ratios is None:
            return [HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(n_layers)]
        kinds = [RATIOS.get(ratio) for ratio in ratios]
    key = "layer_types" if cfg.has("layer_types") else "compress_ratios"
    kinds = kinds[:n_layers]
    if len(kinds) != n_layers or any(kind not in RATIOS.values() for kind in kinds):
        raise cfg.fail(key, f"at least {n_layers} items, each one of {', '.join(RATIOS.values())}")
    return [str(kind) for kind in kinds]


def compress_rates(cfg: Fields) -> dict[str, int]:
    """How many positions become one, by kind of layer."""
    rates = cfg.sub("compress_rates", {})
    return {
        SPARSE: cfg.int("compress_rate_csa", rates.int(SPARSE, 4)),
        HEAVY: cfg.int("compress_rate_hca", rates.int(HEAVY, 128)),
    }


def _compressed(
    layer: Layer,
    prefix: str,
    hidden: int,
    d_head: int,
    rate: int,
    series: int,
    x: int,
    forward_only: bool = False,
) -> int:
    """Every `rate` positions become one, weighted by a gate; with two series windows overlap."""
    width = series * d_head

    def project(name: str) -> int:
        return layer.linear(
            prefix + name, "attention", hidden, width, x, forward_only=forward_only, gradient_from=rate
        )

    values, gate = project("kv_proj"), project("gate_proj")
    layer.vector(prefix + "position_bias", rate * width)
    layer.norm(prefix + "kv_norm", d_head)
    return layer.join(values, gate)


def _indexer(layer: Layer, shape: Shape, rate: int, x: int, latent: int) -> None:
    prefix = "self_attn.compressor.indexer."
    keys = _compressed(layer, prefix, shape.hidden, shape.d_index, rate, 2, x, forward_only=True)
    q = layer.linear(
        prefix + "q_b_proj",
        "attention",
        shape.q_rank,
        shape.index_heads * shape.d_index,
        latent,
        forward_only=True,
    )
    layer.attend(
        q, keys, keys, n_heads=shape.index_heads, n_kv_heads=1, d_qk=shape.d_index, d_v=0, compress=rate
    )
    layer.linear(
        prefix + "scorer.weights_proj", "attention", shape.hidden, shape.index_heads, x, forward_only=True
    )


def attention(layer: Layer, shape: Shape, kind: str, rates: dict[str, int], x: int) -> int:
    """One key-value head for all queries, over the window and the compressed positions before it."""
    prefix, d = "self_attn.", shape.d_head
    layer.vector(prefix + "sinks", shape.n_heads)
    latent = layer.join(layer.linear(prefix + "q_a_proj", "attention", shape.hidden, shape.q_rank, x))
    layer.norm(prefix + "q_a_norm", shape.q_rank)
    q = layer.linear(prefix + "q_b_proj", "attention", shape.q_rank, shape.n_heads * d, latent)
    kv = layer.linear(prefix + "kv_proj", "attention", shape.hidden, d, x)
    layer.norm(prefix + "kv_norm", d)

    def attend(keys: int, window: int | None, compress: int = 1) -> int:
        return layer.attend(
            q,
            keys,
            keys,
            n_heads=shape.n_heads,
            n_kv_heads=1,
            d_qk=d,
            d_v=d,
            window=window,
            compress=compress,
        )

    if kind == SLIDING:
        mixed = attend(kv, shape.window)
    else:
        rate = rates[kind]
        far = _compressed(layer, prefix + "compressor.", shape.hidden, d, rate, 2 if kind == SPARSE else 1, x)
        if kind == SPARSE:
            _indexer(layer, shape, rate, x, latent)
        # Near and far keys are one sequence of keys: a gradient of one side is computed for both.
        both = layer.join(kv, far)
        mixed = layer.join(attend(both, shape.window), attend(both, None, rate))
    group = shape.n_heads * d // shape.groups
    inner = layer.linear(prefix + "o_a_proj", "attention", group, shape.groups * shape.o_rank, mixed)
    return layer.linear(prefix + "o_b_proj", "attention", shape.groups * shape.o_rank, shape.hidden, inner)


def _connection(layer: Layer, shape: Shape, name: str) -> int:
    """Weights, from the streams, of what goes in, comes out and is mixed; they depend on the streams."""
    n = shape.streams
    weights = layer.linear(
        f"{name}.fn", "other", n * shape.hidden, (2 + n) * n, layer.stream, kind="parameter"
    )
    layer.vector(f"{name}.base", (2 + n) * n)
    layer.vector(f"{name}.scale", 3)
    return weights


def _rejoin(layer: Layer, shape: Shape, weights: int, result: int) -> None:
    """Spread a block's result over the streams and mix them."""
    mixed = layer.product(weights, layer.stream, shape.streams**2 * shape.hidden)
    layer.stream = layer.join(mixed, result, weights)


def decoder(trace: Trace, cfg: Fields) -> None:
    """Embedding, layers and final norm."""
    shape, n_layers = read_shape(cfg), cfg.int("num_hidden_layers")
    experts, rates, bias = read_experts(cfg, FIELDS), compress_rates(cfg), bool(cfg.bool("mlp_bias", False))
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), shape.hidden)
    for kind, numbers in groups(layer_types(cfg, n_layers)):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            for name in LLAMA_NORMS:
                layer.norm(name, shape.hidden)
            weights = _connection(layer, shape, "attn_hc")
            x = layer.join(layer.stream, weights)
            _rejoin(layer, shape, weights, attention(layer, shape, kind, rates, x))
            weights = _connection(layer, shape, "ffn_hc")
            x = layer.join(layer.stream, weights)
            result = routed(layer, shape.hidden, experts, x)
            beside = gated_mlp(
                layer,
                shape.hidden,
                experts.width,
                x,
                prefix="mlp.shared_experts.",
                role="shared_expert",
                bias=bias,
            )
            _rejoin(layer, shape, weights, layer.join(result, beside))
            layer.open_end = True
    trace.vector("model.norm.weight", shape.hidden)


def build(cfg: Fields) -> Architecture:
    """A DeepSeek V4."""
    trace, tied = Trace(), bool(cfg.bool("tie_word_embeddings", False))
    decoder(trace, cfg)
    hidden, vocab, streams = cfg.int("hidden_size"), cfg.int("vocab_size"), cfg.int("hc_mult", 4)
    with trace.layer("head", (0,)) as head:
        weights = head.linear(
            "model.hc_head.hc_fn", "other", streams * hidden, streams, head.stream, kind="parameter"
        )
        head.vector("model.hc_head.hc_base", streams)
        head.vector("model.hc_head.hc_scale", 1)
        head.stream = head.join(head.stream, weights)
        if has_head(cfg):
            head.add(head.linear("lm_head", "unembedding", hidden, vocab, head.stream, tied=tied))
    return finish(
        trace,
        cfg,
        n_layers=cfg.int("num_hidden_layers"),
        hidden=hidden,
        vocab=vocab,
        tied=tied,
        notes=(PEFT_NOTE,),
    )
