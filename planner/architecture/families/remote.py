"""Decoders whose code came with the checkpoint, for which transformers has no class (or only Llama's).

Layouts as in the public code of the checkpoints and of the servers that load them: ChatGLM (zai-org/GLM-4 and
vLLM chatglm.py), InternLM (vLLM loads it as Llama; biases in attention alone, bert4torch's internlm.py), InternLM2
(InternLM/InternLM and SGLang internlm2.py), MiniCPM (OpenBMB/MiniCPM), MiMo (XiaomiMiMo/MiMo, modeling_mimo.py),
DeciLM (TensorRT-LLM and NeMo Automodel, nemotron_nas). InternLM3 is Llama's class in transformers, under other names
of its flags. Totals equal the published ones, where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import UnsupportedArchitectureError
from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import Heads, finish, fused_mlp, gated_mlp, grouped_attention, groups, read_heads, unembedding
from .dense import LLAMA_NORMS, STYLES, Style, decoder

FFN_MULTIPLE = 256

LIKE_LLAMA: dict[str, Style] = {
    "internlm": replace(STYLES["llama"], qkv_bias="bias!", o_bias="bias!", mlp_bias=False),
    "internlm3": replace(
        STYLES["llama"], qkv_bias="qkv_bias", o_bias="bias", mlp_bias="bias", n_kv_heads=2, head_dim=128
    ),
    "minicpm": replace(STYLES["llama"], mlp_bias=False, tied=True),
    "mimo": STYLES["qwen2"],
}


def _like_llama(cfg: Fields) -> Architecture:
    """A model with Llama's names, and MiMo's layers for predicting further tokens."""
    model_type = cfg.str("model_type")
    if cfg.int("num_experts", 0, minimum=0):
        raise UnsupportedArchitectureError(f"{model_type} with experts has no builder in this version.")
    style, trace = LIKE_LLAMA[model_type], Trace()
    decoder(trace, cfg, style)
    if model_type == "mimo" and cfg.int("num_nextn_predict_layers", 0, minimum=0):
        _prediction_layers(trace, cfg, read_heads(cfg, style.n_kv_heads))
    hidden, vocab = cfg.int("hidden_size"), cfg.int("vocab_size")
    tied = bool(cfg.bool("tie_word_embeddings", style.tied))
    unembedding(trace, hidden, vocab, tied=tied)
    return finish(trace, cfg, n_layers=cfg.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied)


def _prediction_layers(trace: Trace, cfg: Fields, heads: Heads) -> None:
    """MiMo's layers for further tokens: a training step stores them but does not run them."""
    numbers = range(cfg.int("num_nextn_predict_layers"))
    prefix, hidden, width = "model.mtp_layers.{}.", heads.hidden, cfg.int("intermediate_size")
    for name in (*LLAMA_NORMS, "token_layernorm", "hidden_layernorm", "final_layernorm"):
        trace.vector(f"{prefix}{name}.weight", hidden, numbers)
    shapes = {
        "input_proj": (2 * hidden, hidden),
        "self_attn.q_proj": (hidden, heads.q),
        "self_attn.k_proj": (hidden, heads.kv),
        "self_attn.v_proj": (hidden, heads.kv),
        "self_attn.o_proj": (heads.q, hidden),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }
    for name, (d_in, d_out) in shapes.items():
        bias = name[-6:] in ("q_proj", "k_proj", "v_proj")
        trace.weight(f"{prefix}{name}", "other", d_in, d_out, bias=bias, layers=numbers)


def _internlm2(cfg: Fields) -> Architecture:
    """InternLM2: queries, keys and values in one matrix, interleaved by group."""
    heads, bias, trace = read_heads(cfg), cfg.bool("bias"), Trace()
    width, vocab, n_layers = cfg.int("intermediate_size"), cfg.int("vocab_size"), cfg.int("num_hidden_layers")
    trace.embedding("model.tok_embeddings", vocab, heads.hidden)
    with trace.layer("decoder", range(n_layers), "model.layers.{}.") as layer:
        layer.norm("attention_norm", heads.hidden)
        layer.norm("ffn_norm", heads.hidden)
        layer.add(
            grouped_attention(
                layer, heads, layer.stream, prefix="attention.", names=("q_proj", "k_proj", "v_proj", "wo"),
                fused="wqkv", qkv_bias=bias, o_bias=bias,
            )
        )  # fmt: skip
        layer.add(
            gated_mlp(
                layer, heads.hidden, width, layer.stream, prefix="feed_forward.", names=("w1", "w3", "w2")
            )
        )
    trace.vector("model.norm.weight", heads.hidden)
    tied = bool(cfg.bool("tie_word_embeddings", False))
    unembedding(trace, heads.hidden, vocab, tied=tied, name="output")
    return finish(trace, cfg, n_layers=n_layers, hidden=heads.hidden, vocab=vocab, tied=tied)


def _chatglm_heads(cfg: Fields) -> Heads:
    n_heads = cfg.int("num_attention_heads")
    n_kv = cfg.int("multi_query_group_num", 1) if cfg.bool("multi_query_attention", False) else n_heads
    if n_heads % n_kv:
        raise cfg.fail("multi_query_group_num", f"a divisor of num_attention_heads ({n_heads})")
    return Heads(cfg.int("hidden_size"), n_heads, n_kv, cfg.int("kv_channels", 128))


def _chatglm(cfg: Fields) -> Architecture:
    """ChatGLM2, ChatGLM3 and the first GLM-4. The class with the loss puts `transformer.` before all names,
    whatever `architectures` says."""
    if cfg.has("vision_config") or cfg.has("position_encoding_2d") or cfg.has("pre_seq_len"):
        raise UnsupportedArchitectureError(
            "this kind of chatglm (images, 2-D positions, prefixes) has no builder."
        )
    heads, trace, base = _chatglm_heads(cfg), Trace(), "transformer."
    n_layers, vocab = cfg.int("num_layers"), cfg.int("padded_vocab_size")
    bias, norm_bias = cfg.bool("add_bias_linear", False), not cfg.bool("rmsnorm", True)
    trace.embedding(f"{base}embedding.word_embeddings", vocab, heads.hidden)
    with trace.layer("decoder", range(n_layers), f"{base}encoder.layers.{{}}.") as layer:
        layer.open_end = cfg.number("hidden_dropout", 0.0) == 0
        for name in LLAMA_NORMS:
            layer.norm(name, heads.hidden, norm_bias)
        layer.add(
            grouped_attention(
                layer, heads, layer.stream, prefix="self_attention.", fused="query_key_value",
                names=("q_proj", "k_proj", "v_proj", "dense"), o_bias=bias,
                qkv_bias=bias or cfg.bool("add_qkv_bias", False),
            )
        )  # fmt: skip
        layer.add(
            fused_mlp(
                layer, heads.hidden, cfg.int("ffn_hidden_size"), layer.stream, bias=bias,
                names=("dense_h_to_4h", "dense_4h_to_h"),
            )
        )  # fmt: skip
    if cfg.bool("post_layer_norm", True):
        for part in ("weight", "bias")[: 1 + norm_bias]:
            trace.vector(f"{base}encoder.final_layernorm.{part}", heads.hidden)
    unembedding(trace, heads.hidden, vocab, tied=False, name=f"{base}output_layer", bias=bias)
    return finish(
        trace, cfg, n_layers=n_layers, hidden=heads.hidden, vocab=vocab, tied=False,
        max_position=cfg.int("seq_length", None),
    )  # fmt: skip


@dataclass(frozen=True)
class DeciBlock:
    """One layer of a searched architecture: key-value heads and MLP width. None where the half is left out,
    0 where a square matrix replaces it."""

    n_kv_heads: int | None
    width: int | None


def _half(block: Fields, key: str) -> tuple[Fields, int | None]:
    """A layer's attention or MLP settings, and what stands there: None nothing, 0 a matrix, 1 the usual."""
    half = block.sub(key)
    if half.bool("no_op", False):
        return half, None
    return half, 0 if half.bool("replace_with_linear", False) else 1


def _deci_block(data: Mapping[str, Any], path: str, hidden: int, n_heads: int) -> DeciBlock:
    """The MLP's width is 2/3 of its multiple of the hidden size, rounded up to a multiple of 256."""
    block = Fields(data, path)
    attention, n_kv = _half(block, "attention")
    mlp, width = _half(block, "ffn")
    if n_kv:
        group = attention.int("n_heads_in_group")
        if n_heads % group:
            raise attention.fail("n_heads_in_group", f"a divisor of num_attention_heads ({n_heads})")
        n_kv = n_heads // group
    if width:
        wanted = int(2 * mlp.number("ffn_mult") * hidden / 3)
        width = -(-wanted // FFN_MULTIPLE) * FFN_MULTIPLE
    return DeciBlock(n_kv, width)


def _deci_layer(layer: Layer, block: DeciBlock, heads: Heads, bias: bool, mlp_bias: bool) -> None:
    if block.n_kv_heads is not None:
        layer.norm("input_layernorm", heads.hidden)
        x = layer.stream
        if block.n_kv_heads:
            own = replace(heads, n_kv_heads=block.n_kv_heads)
            layer.add(grouped_attention(layer, own, x, qkv_bias=bias, o_bias=bias))
        else:
            layer.add(layer.linear("self_attn.linear_attn", "attention", heads.hidden, heads.hidden, x))
    if block.width is not None:
        layer.norm("post_attention_layernorm", heads.hidden)
        x = layer.stream
        if block.width:
            layer.add(gated_mlp(layer, heads.hidden, block.width, x, bias=mlp_bias))
        else:
            layer.add(layer.linear("mlp.linear_mlp", "mlp", heads.hidden, heads.hidden, x))


def _deci(cfg: Fields) -> Architecture:
    """DeciLM: every layer has its own key-value heads and MLP width, or lacks one of the two."""
    hidden, n_heads, n_layers = (
        cfg.int("hidden_size"),
        cfg.int("num_attention_heads"),
        cfg.int("num_hidden_layers"),
    )
    if hidden % n_heads:
        raise cfg.fail("num_attention_heads", f"a divisor of hidden_size ({hidden})")
    found = cfg.list("block_configs", length=n_layers)
    if not all(isinstance(block, Mapping) for block in found):
        raise cfg.fail("block_configs", "a list of nested configs")
    blocks = [
        _deci_block(block, f"block_configs[{number}]", hidden, n_heads) for number, block in enumerate(found)
    ]
    heads, trace, vocab = Heads(hidden, n_heads, n_heads, hidden // n_heads), Trace(), cfg.int("vocab_size")
    bias, mlp_bias = cfg.bool("attention_bias", False), cfg.bool("mlp_bias", False)
    trace.embedding("model.embed_tokens", vocab, hidden)
    for block, numbers in groups(blocks):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            _deci_layer(layer, block, heads, bias, mlp_bias)
    trace.vector("model.norm.weight", hidden)
    tied = bool(cfg.bool("tie_word_embeddings", False))
    unembedding(trace, hidden, vocab, tied=tied)
    return finish(trace, cfg, n_layers=n_layers, hidden=hidden, vocab=vocab, tied=tied)


_BUILD = {"internlm2": _internlm2, "chatglm": _chatglm, "nemotron-nas": _deci}


def build(cfg: Fields) -> Architecture:
    """A decoder of one of the types above."""
    return _BUILD.get(cfg.str("model_type"), _like_llama)(cfg)
