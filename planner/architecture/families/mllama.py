"""Llama 3.2 Vision (Mllama): Llama's decoder with gated layers between that attend to the image.

A text-only step skips the cross-attention layers, so they stand in the inventory without operations.
"""

from __future__ import annotations

from ...schema import Architecture
from ..fields import Fields
from ..trace import Trace
from .common import Heads, finish, gated_mlp, grouped_attention, has_head, read_heads, unembedding
from .multimodal import core, text_fields
from .towers_llama import mllama as tower
from .vision import Tower, gated

PREFIX = "model.language_model."
EXTRA_TOKENS = 8  # Rows of the embedding for image tokens, which the head does not predict.
DEFAULTS = core(
    128256, 4096, 14336, 40, 32, num_key_value_heads=8, max_position_embeddings=131072,
    cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38],
)  # fmt: skip
NORMS = ("input_layernorm", "post_attention_layernorm")


def _cross_layers(text: Fields, n_layers: int) -> tuple[int, ...]:
    found = text.list("cross_attention_layers", DEFAULTS["cross_attention_layers"])
    if any(isinstance(i, bool) or not isinstance(i, int) for i in found):
        raise text.fail("cross_attention_layers", "a list of layer numbers")
    return tuple(sorted({i for i in found if 0 <= i < n_layers}))


def _cross_attention(
    trace: Trace, heads: Heads, width: int, numbers: tuple[int, ...], prefix: str
) -> None:  # fmt: skip
    """The layers that attend to the image's features, each with two gates."""
    h, layer = heads.hidden, Tower(trace, f"{prefix}layers.{{}}.", "attention", numbers)
    layer.linear("cross_attn.q_proj", h, heads.q)
    layer.linear("cross_attn.k_proj", h, heads.kv)
    layer.linear("cross_attn.v_proj", h, heads.kv)
    layer.linear("cross_attn.o_proj", heads.q, h)
    gated(layer.at("mlp.", role="mlp"), h, width)
    for name in ("cross_attn.q_norm", "cross_attn.k_norm"):
        layer.norm(name, heads.d_head)
    for name in NORMS:
        layer.norm(name, h)
    layer.vector("cross_attn_attn_gate", 1)
    layer.vector("cross_attn_mlp_gate", 1)


def decoder(trace: Trace, text: Fields, prefix: str = PREFIX) -> None:
    """Embedding, both kinds of layers and final norm."""
    n_layers, width = text.int("num_hidden_layers"), text.int("intermediate_size")
    heads = read_heads(Fields({**text.data, "head_dim": None}, text.path))
    cross = _cross_layers(text, n_layers)
    trace.embedding(f"{prefix}embed_tokens", text.int("vocab_size") + EXTRA_TOKENS, heads.hidden)
    plain = tuple(i for i in range(n_layers) if i not in cross)
    with trace.layer("decoder", plain, f"{prefix}layers.{{}}.") as layer:
        for name in NORMS:
            layer.norm(name, heads.hidden)
        layer.add(grouped_attention(layer, heads, layer.stream))
        layer.add(gated_mlp(layer, heads.hidden, width, layer.stream))
    if cross:
        _cross_attention(trace, heads, width, cross, prefix)
    trace.vector(f"{prefix}norm.weight", heads.hidden)


def build(cfg: Fields) -> Architecture:
    """A `mllama` config, or its text model's alone; the head is never tied."""
    if cfg.str("model_type") == "mllama_text_model":
        return _text_alone(cfg)
    trace, vision = Trace(), cfg.sub("vision_config", {})
    text = text_fields(cfg, DEFAULTS)
    hidden, vocab = text.int("hidden_size"), text.int("vocab_size")
    tower(Tower(trace, "model.vision_model."), vision)
    decoder(trace, text)
    projector = Tower(trace, "model.", "projector")
    projector.linear("multi_modal_projector", vision.int("vision_output_dim", 7680), hidden, bias=True)
    if has_head(cfg, ("ForConditionalGeneration",)):
        unembedding(trace, hidden, vocab, tied=False)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=False,
        max_position=text.int("max_position_embeddings", None),
    )  # fmt: skip


def _text_alone(cfg: Fields) -> Architecture:
    """The decoder without a tower."""
    trace, text = Trace(), Fields({**DEFAULTS, **cfg.data}, cfg.path)
    hidden, vocab = text.int("hidden_size"), text.int("vocab_size")
    decoder(trace, text, "model.")
    if has_head(cfg, ("ForCausalLM",)):
        unembedding(trace, hidden, vocab, tied=False)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=False
    )  # fmt: skip
