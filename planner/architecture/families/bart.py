"""BART's kind: encoder-decoders with learned or fixed positions, whole or as the decoder alone (`...ForCausalLM`).

The decoder alone keeps the matrices of its attention to an encoder and never runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, plain_mlp, unembedding
from .encoders import LAYERDROP, QKV, attention, class_name, heads_of


@dataclass(frozen=True)
class Style:
    """What sets a family apart. `positions` are the rows that the table has beyond the longest sequence, None where
    there is no table; `longest` and `layerdrop` are the class's defaults. `norm_first` says that norms
    stand before attention and MLP, not behind them. `embedding_norm` and `final_norm` are a stack's own. `whole`: the
    encoder is of the same kind."""

    positions: int | None = 2
    longest: int = 1024
    layerdrop: float = 0.0
    norm_first: bool = False
    embedding_norm: bool = True
    final_norm: bool = False
    bias: bool | str = True
    head: str = "lm_head"
    never_tied: bool = False
    whole: bool = True


STYLES: dict[str, Style] = {
    "bart": Style(),
    "mvp": Style(),
    "plbart": Style(),
    "mbart": Style(norm_first=True, final_norm=True),
    "marian": Style(positions=0, embedding_norm=False),
    "pegasus": Style(positions=0, norm_first=True, embedding_norm=False, final_norm=True),
    "blenderbot": Style(positions=0, longest=128, norm_first=True, embedding_norm=False, final_norm=True),
    "blenderbot-small": Style(positions=0, longest=512),
    "m2m_100": Style(positions=None, norm_first=True, embedding_norm=False, final_norm=True, layerdrop=0.05),
    "bigbird_pegasus": Style(
        positions=0, longest=4096, norm_first=True, bias="use_bias", never_tied=True, whole=False
    ),
    "trocr": Style(longest=512, head="output_projection", whole=False),
}  # fmt: skip


def _norm(trace: Trace, name: str, hidden: int) -> None:
    trace.vector(f"{name}.weight", hidden)
    trace.vector(f"{name}.bias", hidden)


def _bias(cfg: Fields, style: Style) -> bool:
    return style.bias if isinstance(style.bias, bool) else bool(cfg.bool(style.bias, False))


def _idle_attention(layer: Layer, cfg: Fields, style: Style, heads: Heads, prefix: str) -> None:
    """Attention to an encoder that is not there; TrOCR's keys and values may come from another width."""
    source = heads.hidden
    if cfg.str("model_type") == "trocr":
        source = cfg.int("cross_attention_hidden_size", source)
    bias = _bias(cfg, style)
    for name, d_in in zip(QKV, (heads.hidden, source, source, heads.hidden), strict=True):
        layer.trace.weight(
            f"{prefix}encoder_attn.{name}", "attention", d_in, heads.hidden, layers=layer.layers, bias=bias
        )


def _layers(trace: Trace, cfg: Fields, style: Style, heads: Heads, stack: str, alone: bool) -> None:
    """The layers of one stack."""
    prefix, decoder, bias = f"model.{stack}.layers.{{}}.", stack == "decoder", _bias(cfg, style)
    with trace.layer(stack, range(cfg.int(f"{stack}_layers")), prefix) as layer:
        layer.open_end = style.norm_first and cfg.number("dropout", 0.1) == 0
        if stack == "encoder" and (style.norm_first or cfg.str("model_type") == "m2m_100"):
            layer.clamps = "end"
        for name in ("self_attn", "encoder_attn")[: 1 + decoder]:
            layer.norm(f"{name}_layer_norm", heads.hidden, True)
            cross = name == "encoder_attn"
            if cross and alone:
                _idle_attention(layer, cfg, style, heads, prefix)
                continue
            layer.add(
                attention(
                    layer, heads, layer.stream, f"{name}.", memory=cross, causal=decoder and not cross, bias=bias,
                )
            )  # fmt: skip
        layer.norm("final_layer_norm", heads.hidden, True)
        width = cfg.int(f"{stack}_ffn_dim")
        layer.add(
            plain_mlp(layer, heads.hidden, width, layer.stream, prefix="", names=("fc1", "fc2"), bias=True)
        )


def _stack(trace: Trace, cfg: Fields, style: Style, stack: str, alone: bool = False) -> None:
    """Positions, layers and the norms around them."""
    heads = heads_of(cfg, "d_model", f"{stack}_attention_heads")
    base, trocr = f"model.{stack}.", cfg.str("model_type") == "trocr"
    if style.positions is not None and (not trocr or cfg.bool("use_learned_position_embeddings", True)):
        rows = cfg.int("max_position_embeddings", style.longest) + style.positions
        trace.embedding(f"{base}embed_positions", rows, heads.hidden, role="other")
    if style.embedding_norm and (not trocr or cfg.bool("layernorm_embedding", True)):
        _norm(trace, f"{base}layernorm_embedding", heads.hidden)
    _layers(trace, cfg, style, heads, stack, alone)
    if style.final_norm:
        _norm(trace, f"{base}layer_norm", heads.hidden)


def _tables(trace: Trace, cfg: Fields, vocab: int, hidden: int, alone: bool, tied: bool) -> None:
    """Token tables: one for both stacks where they are tied, else one each beside the shared one."""
    if alone:
        trace.embedding("model.decoder.embed_tokens", vocab, hidden)
        return
    # The class of Marian calls its encoder's table the input embedding where the three are one.
    marian = tied and cfg.str("model_type") == "marian"
    trace.embedding("model.encoder.embed_tokens" if marian else "model.shared", vocab, hidden)
    if not tied:
        for stack in ("encoder", "decoder"):
            trace.embedding(f"model.{stack}.embed_tokens", vocab, hidden)


def refuse_variants(cfg: Fields, vocab: int, alone: bool) -> None:
    """Raise UnsupportedArchitectureError for options that this builder does not lay out."""
    model_type, other = cfg.str("model_type"), cfg.int("decoder_vocab_size", vocab)
    if model_type == "marian" and (other != vocab or not cfg.bool("share_encoder_decoder_embeddings", True)):
        raise UnsupportedArchitectureError("Marian with two vocabularies has no builder in this version.")
    if model_type == "mvp" and not alone and cfg.bool("use_prompt", False):
        raise UnsupportedArchitectureError("MVP with prompts has no builder in this version.")


def build(cfg: Fields) -> Architecture:
    """An encoder-decoder, or its decoder alone."""
    style = STYLES[cfg.str("model_type")]
    known = ("ForConditionalGeneration", "MTModel") if style.whole else ()
    alone = class_name(cfg, *known, "ForCausalLM") == "ForCausalLM"
    hidden, vocab = cfg.int("d_model"), cfg.int("vocab_size")
    refuse_variants(cfg, vocab, alone)
    tied = bool(cfg.bool("tie_word_embeddings", True)) and not style.never_tied
    trace = Trace()
    _tables(trace, cfg, vocab, hidden, alone, tied)
    stacks = ("decoder",) if alone else ("encoder", "decoder")
    for stack in stacks:
        _stack(trace, cfg, style, stack, alone)
    unembedding(trace, hidden, vocab, tied=tied, name=style.head)
    drops = any(cfg.number(f"{stack}_layerdrop", style.layerdrop) > 0 for stack in stacks)
    return finish(
        trace, cfg, n_layers=sum(cfg.int(f"{stack}_layers") for stack in stacks), hidden=hidden, vocab=vocab,
        tied=tied, max_position=cfg.int("max_position_embeddings", None), flops_gap=LAYERDROP if drops else None,
    )  # fmt: skip
