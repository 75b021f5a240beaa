"""ModernBERT: rotary encoders and decoders that attend within windows in most layers, with gated MLPs and no pooler.

The first layer's attention has no norm before it. The encoder fuses queries, keys and values; the decoder does not.
"""

from __future__ import annotations

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture, Part
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, grouped_attention, groups
from .encoders import heads_of

HEADS = {"modernbert": ("ForMaskedLM", "head"), "modernbert-decoder": ("ForCausalLM", "lm_head")}


def _check_class(cfg: Fields) -> str:
    """The name of what stands before the vocabulary. Raises UnsupportedArchitectureError for a class without it."""
    ending, name = HEADS[cfg.str("model_type")]
    names = cfg.list("architectures", []) or [ending]
    if not str(names[0]).endswith(ending):
        raise UnsupportedArchitectureError(
            f"{str(names[0])[:80]} has no builder in this version: known for this type are classes ending in "
            f"{ending}."
        )
    return name


def _windows(cfg: Fields, n_layers: int) -> list[int | None]:
    """Half of `local_attention` to either side in all but every third layer; the encoder's includes both ends."""
    every = cfg.int("global_attn_every_n_layers", 3)
    kinds = cfg.list("layer_types", None, length=n_layers)
    if kinds is None:
        kinds = ["sliding_attention" if i % every else "full_attention" for i in range(n_layers)]
    half = cfg.int("local_attention", 128, minimum=2) // 2
    window = half if cfg.str("model_type") == "modernbert-decoder" else 2 * half + 1
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _attention(layer: Layer, cfg: Fields, heads: Heads, x: int, window: int | None) -> int:
    bias, decoder = bool(cfg.bool("attention_bias", False)), cfg.str("model_type") == "modernbert-decoder"
    return grouped_attention(
        layer, heads, x, prefix="attn.", qkv_bias=bias, o_bias=bias, fused=None if decoder else "Wqkv",
        names=("q_proj", "k_proj", "v_proj", "Wo"), window=window, causal=decoder,
    )  # fmt: skip


def _mlp(layer: Layer, cfg: Fields, hidden: int, x: int) -> int:
    """Wo(act(left) * right) of one matrix that makes both."""
    width, bias = cfg.int("intermediate_size"), bool(cfg.bool("mlp_bias", False))
    parts = (Part("gate_proj", hidden, width), Part("up_proj", hidden, width))
    both = layer.linear("mlp.Wi", "mlp", hidden, 2 * width, x, bias=bias, parts=parts)
    return layer.linear("mlp.Wo", "mlp", width, hidden, both, bias=bias)


def _layers(trace: Trace, cfg: Fields, heads: Heads) -> None:
    n_layers, bias = cfg.int("num_hidden_layers"), bool(cfg.bool("norm_bias", False))
    keys = [(i == 0, window) for i, window in enumerate(_windows(cfg, n_layers))]
    for (first, window), numbers in groups(keys):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            if not first:
                layer.norm("attn_norm", heads.hidden, bias)
            layer.norm("mlp_norm", heads.hidden, bias)
            layer.add(_attention(layer, cfg, heads, layer.stream, window))
            layer.add(_mlp(layer, cfg, heads.hidden, layer.stream))


def build(cfg: Fields) -> Architecture:
    """A masked or a causal language model of this kind."""
    head_name, trace, heads = _check_class(cfg), Trace(), heads_of(cfg)
    vocab, bias = cfg.int("vocab_size"), bool(cfg.bool("norm_bias", False))
    tied = bool(cfg.bool("tie_word_embeddings", True))
    trace.embedding("model.embeddings.tok_embeddings", vocab, heads.hidden)
    for name in ("model.embeddings.norm", "model.final_norm", f"{head_name}.norm"):
        trace.vector(f"{name}.weight", heads.hidden)
        if bias:
            trace.vector(f"{name}.bias", heads.hidden)
    _layers(trace, cfg, heads)
    with trace.layer("head", (0,)) as head:
        x = head.linear(
            f"{head_name}.dense", "other", heads.hidden, heads.hidden, head.stream,
            bias=bool(cfg.bool("classifier_bias", False)),
        )  # fmt: skip
        head.add(
            head.linear(
                "decoder", "unembedding", heads.hidden, vocab, x, tied=tied,
                bias=bool(cfg.bool("decoder_bias", True)),
            )
        )  # fmt: skip
    return finish(
        trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=heads.hidden, vocab=vocab, tied=tied
    )
