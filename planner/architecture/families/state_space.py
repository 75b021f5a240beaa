"""Models with Mamba-2 or short convolutions between attention and experts, and the table of all state-space
families."""

from __future__ import annotations

from collections.abc import Callable

from ...schema import Architecture
from ..fields import Fields
from ..trace import Layer, Trace
from .common import (
    finish,
    fused_mlp,
    gated_mlp,
    grouped_attention,
    groups,
    has_head,
    plain_mlp,
    read_heads,
    unembedding,
    windows,
)
from .experts import read_routed, routed
from .hybrids import bamba_decoder, mamba2_decoder, read_mixer, zamba2_decoder
from .scans import Mamba2, causal_convolution, check_groups, flag, layer_kinds, mamba2
from .selective import jamba_decoder, mamba_decoder, zamba_decoder

# Hub configs name the mixers in the older way, later ones as transformers does.
MIXER_NAMES = {
    "mamba": "linear_attention",
    "attention": "full_attention",
    "linear_attention": "linear_attention",
    "full_attention": "full_attention",
}


# Types of Granite with shared experts that have attention in every layer.
ATTENTION_ALONE = ("granitemoeshared", "granitemoe_swa")
NEMOTRON_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def _nemotron_kinds(cfg: Fields) -> list[str]:
    names = {**MIXER_NAMES, "moe": "moe", "mlp": "mlp"}
    for key in ("layers_block_type", "layer_types"):
        if cfg.has(key):
            return layer_kinds(cfg, key, names, None)
    pattern = cfg.str("hybrid_override_pattern")
    if not pattern or any(letter not in NEMOTRON_LETTERS for letter in pattern):
        raise cfg.fail("hybrid_override_pattern", f"letters out of {' '.join(NEMOTRON_LETTERS)}, one a layer")
    return [NEMOTRON_LETTERS[letter] for letter in pattern]


def _nemotron_moe(layer: Layer, cfg: Fields, hidden: int, x: int) -> int:
    """Experts of two matrices each, in a latent space where the config names one, and a shared expert."""
    bias, latent = flag(cfg, "mlp_bias", False), cfg.int("moe_latent_size", None)
    width, outer = cfg.int("moe_intermediate_size", 7688), latent or hidden
    experts = read_routed(cfg, cfg.int("n_routed_experts", 8), width, 2)
    route = layer.linear("mixer.gate", "router", hidden, experts.n, x, kind="parameter")
    inner = layer.linear("mixer.fc1_latent_proj", "mlp", hidden, latent, x, bias=bias) if latent else x
    up = layer.linear(
        "mixer.experts.up_proj", "expert", outer, width, inner, kind="experts", experts=experts.n,
        active=experts.active,
    )  # fmt: skip
    down = layer.linear(
        "mixer.experts.down_proj", "expert", width, outer, up, kind="experts", experts=experts.n,
        active=experts.active, outer="out",
    )  # fmt: skip
    chosen = layer.join(down, route)
    if latent:
        chosen = layer.linear("mixer.fc2_latent_proj", "mlp", latent, hidden, chosen, bias=bias)
    shared = plain_mlp(
        layer, hidden, cfg.int("moe_shared_expert_intermediate_size", 7688), x, prefix="mixer.shared_experts.",
        bias=bias, role="shared_expert",
    )  # fmt: skip
    return layer.join(chosen, shared)


def _nemotron_mixer(cfg: Fields, hidden: int) -> Mamba2:
    bias = flag(cfg, "use_bias", False)
    shape = Mamba2(
        hidden, cfg.int("mamba_num_heads", 128), cfg.int("mamba_head_dim", 64), cfg.int("n_groups", 8),
        cfg.int("ssm_state_size", 128), cfg.int("conv_kernel", 4), cfg.int("chunk_size", 128), bias, bias,
        flag(cfg, "use_conv_bias", True),
    )  # fmt: skip
    return check_groups(cfg, shape, "mamba_num_heads")


def nemotron_decoder(trace: Trace, cfg: Fields) -> int:
    """Nemotron-H: each layer is one thing, a mixer, attention, an MLP or experts."""
    heads, kinds = read_heads(cfg, 8, 128), _nemotron_kinds(cfg)
    hidden = heads.hidden
    trace.embedding("model.embeddings", cfg.int("vocab_size"), hidden)
    for kind, numbers in groups(kinds):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("norm", hidden)
            if kind == "linear_attention":
                layer.add(mamba2(layer, _nemotron_mixer(cfg, hidden), layer.stream, "mixer."))
            elif kind == "full_attention":
                layer.add(grouped_attention(layer, heads, layer.stream, prefix="mixer."))
            elif kind == "moe":
                layer.add(_nemotron_moe(layer, cfg, hidden, layer.stream))
            else:
                width, bias = cfg.int("intermediate_size"), flag(cfg, "mlp_bias", False)
                layer.add(plain_mlp(layer, hidden, width, layer.stream, prefix="mixer.", bias=bias))
    trace.vector("model.norm_f.weight", hidden)
    return len(kinds)


def granite_decoder(trace: Trace, cfg: Fields) -> int:
    """Granite 4: Mamba-2 or attention, then a shared MLP with experts beside it where there are any. The older
    type of Granite with shared experts has attention alone, and may have no shared MLP."""
    heads, n_layers = read_heads(cfg), cfg.int("num_hidden_layers")
    hidden, bias = heads.hidden, flag(cfg, "attention_bias", False)
    shares = cfg.str("model_type") in ATTENTION_ALONE
    n_experts, proj_bias = (
        cfg.int("num_local_experts", 8, minimum=int(shares)),
        flag(cfg, "mamba_proj_bias", False),
    )
    kinds = ["full_attention" if shares else "linear_attention"] * n_layers
    key = "layer_types" if cfg.has("layer_types") else "layers_block_type"
    if cfg.has(key) and not shares:
        kinds = layer_kinds(cfg, key, MIXER_NAMES, n_layers)
    sinks = cfg.str("model_type") == "granitemoe_swa"
    widths: list[int | None] = [None] * n_layers
    if sinks:
        widths = windows(cfg, n_layers, (i % 4 != 0 for i in range(n_layers)), 128)
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    for (kind, window), numbers in groups(list(zip(kinds, widths, strict=True))):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("input_layernorm", hidden)
            layer.norm("post_attention_layernorm", hidden)
            if kind == "full_attention":
                if sinks:
                    layer.vector("self_attn.sinks", heads.n_heads)
                mixed = grouped_attention(
                    layer, heads, layer.stream, qkv_bias=bias, o_bias=bias, window=window
                )
                layer.add(mixed)
            else:
                inner = cfg.int("mamba_expand", 2) * hidden
                mixer = read_mixer(cfg, hidden, inner, proj_bias, True)
                layer.add(mamba2(layer, mixer, layer.stream, "mamba."))
            layer.add(_granite_mlp(layer, cfg, hidden, n_experts, layer.stream))
    trace.vector("model.norm.weight", hidden)
    return int(n_layers)


def _granite_mlp(layer: Layer, cfg: Fields, hidden: int, n_experts: int, x: int) -> int:
    found = []
    if n_experts:
        experts = read_routed(cfg, n_experts, cfg.int("intermediate_size"), 2)
        found.append(routed(layer, hidden, experts, x, prefix="block_sparse_moe.", router="router"))
    older = cfg.str("model_type") in ATTENTION_ALONE
    width = cfg.int("shared_intermediate_size", 0 if older else 1024, minimum=0 if older else 1)
    if not width:
        return found[0]
    shared = fused_mlp(
        layer, hidden, width, x, prefix="shared_mlp.",
        role="shared_expert" if n_experts else "mlp", names=("input_linear", "output_linear"),
    )  # fmt: skip
    layer.open_end = True
    return layer.join(shared, *found) if found else shared


def falcon_decoder(trace: Trace, cfg: Fields) -> int:
    """Falcon-H1: attention and Mamba-2 side by side in every layer."""
    heads, n_layers = read_heads(cfg, 8), cfg.int("num_hidden_layers")
    hidden, bias = heads.hidden, flag(cfg, "attention_bias", False)
    # A null mamba_d_ssm means mamba_expand * hidden_size; an absent one is the class's 1024.
    inner = cfg.int("mamba_d_ssm", cfg.int("mamba_expand", 2) * hidden if "mamba_d_ssm" in cfg.data else 1024)
    mixer = read_mixer(
        cfg, hidden, inner, flag(cfg, "projectors_bias", False), flag(cfg, "mamba_rms_norm", False)
    )
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    with trace.layer("decoder", range(n_layers), "model.layers.{}.") as layer:
        layer.norm("input_layernorm", hidden)
        layer.norm("pre_ff_layernorm", hidden)
        x = layer.stream
        scanned = mamba2(layer, mixer, x, "mamba.")
        layer.add(scanned, grouped_attention(layer, heads, x, qkv_bias=bias, o_bias=bias))
        width, mlp_bias = cfg.int("intermediate_size"), flag(cfg, "mlp_bias", False)
        layer.add(gated_mlp(layer, hidden, width, layer.stream, prefix="feed_forward.", bias=mlp_bias))
    trace.vector("model.final_layernorm.weight", hidden)
    return int(n_layers)


def _lfm2_width(cfg: Fields) -> int:
    width = cfg.int("block_ff_dim", cfg.int("intermediate_size", 12288))
    if not flag(cfg, "block_auto_adjust_ff_dim", True):
        return int(width)
    width = int(2 * width / 3)
    if "block_ffn_dim_multiplier" not in cfg.data or cfg.has("block_ffn_dim_multiplier"):
        multiple = cfg.int("block_multiple_of", 256)
        width = int(-(-int(cfg.number("block_ffn_dim_multiplier", 1.0) * width) // multiple) * multiple)
        if width < 1:
            raise cfg.fail("block_ffn_dim_multiplier", "a number above 0")
    return width


def _lfm2_kinds(cfg: Fields, n_layers: int) -> list[str]:
    if cfg.has("layer_types"):
        return layer_kinds(cfg, "layer_types", {"conv": "conv", "full_attention": "full_attention"}, n_layers)
    if cfg.str("model_type") == "lfm2_moe":
        raise cfg.fail("layer_types", f"a list of {n_layers} items, each one of conv, full_attention")
    chosen = cfg.list("full_attn_idxs", list(range(n_layers)))
    return ["full_attention" if i in chosen else "conv" for i in range(n_layers)]


def lfm2_decoder(trace: Trace, cfg: Fields) -> int:
    """LFM2: gated short convolutions, with attention in some layers, and in its mixtures experts behind the first
    layers."""
    mixture = cfg.str("model_type") == "lfm2_moe"
    heads, n_layers = read_heads(cfg, 8), cfg.int("num_hidden_layers")
    hidden, bias, kernel = heads.hidden, flag(cfg, "conv_bias", False), cfg.int("conv_L_cache", 3)
    trace.embedding("model.embed_tokens", cfg.int("vocab_size"), hidden)
    n_dense = cfg.int("num_dense_layers", 2, minimum=0) if mixture else n_layers
    keys = [(kind, i >= n_dense) for i, kind in enumerate(_lfm2_kinds(cfg, n_layers))]
    for (kind, sparse), numbers in groups(keys):
        with trace.layer("decoder", numbers, "model.layers.{}.") as layer:
            layer.norm("operator_norm", hidden)
            layer.norm("ffn_norm", hidden)
            if kind == "full_attention":
                layer.norm("self_attn.q_layernorm", heads.d_head)
                layer.norm("self_attn.k_layernorm", heads.d_head)
                names = ("q_proj", "k_proj", "v_proj", "out_proj")
                layer.add(grouped_attention(layer, heads, layer.stream, names=names))
            else:
                x = layer.linear("conv.in_proj", "state_space", hidden, 3 * hidden, layer.stream, bias=bias)
                mixed = causal_convolution(layer, "conv.conv", hidden, kernel, x, bias=bias)
                mixed = layer.join(mixed, x)
                layer.add(layer.linear("conv.out_proj", "state_space", hidden, hidden, mixed, bias=bias))
            if sparse:
                experts = read_routed(
                    cfg, cfg.int("num_experts", 32), cfg.int("moe_intermediate_size", 1792), 4
                )
                layer.add(routed(layer, hidden, experts, layer.stream, prefix="feed_forward."))
                continue
            width = cfg.int("intermediate_size", 7168) if mixture else _lfm2_width(cfg)
            layer.add(
                gated_mlp(
                    layer, hidden, width, layer.stream, prefix="feed_forward.", names=("w1", "w3", "w2")
                )
            )
    trace.vector("model.embedding_norm.weight", hidden)
    return int(n_layers)


# Model type -> its decoder, and whether the class ties the embeddings by default; None where it never does.
FAMILIES: dict[str, tuple[Callable[[Trace, Fields], int], bool | None]] = {
    "mamba": (mamba_decoder, True),
    "falcon_mamba": (mamba_decoder, True),
    "jamba": (jamba_decoder, False),
    "zamba": (zamba_decoder, True),
    "nemotron_h": (nemotron_decoder, None),
    "granitemoehybrid": (granite_decoder, False),
    "falcon_h1": (falcon_decoder, False),
    "lfm2": (lfm2_decoder, True),
    "lfm2_moe": (lfm2_decoder, True),
    "granitemoeshared": (granite_decoder, False),
    "granitemoe_swa": (granite_decoder, False),
    "mamba2": (mamba2_decoder, False),
    "bamba": (bamba_decoder, False),
    "zamba2": (zamba2_decoder, True),
}


def build(cfg: Fields) -> Architecture:
    """A text-only model of one of the families in FAMILIES."""
    decoder, tied_default = FAMILIES[cfg.str("model_type")]
    trace = Trace()
    n_layers = decoder(trace, cfg)
    hidden, vocab = cfg.int("hidden_size"), cfg.int("vocab_size")
    tied = bool(cfg.bool("tie_embedding", cfg.bool("tie_word_embeddings", bool(tied_default))))
    tied = tied and tied_default is not None
    if has_head(cfg):
        unembedding(trace, hidden, vocab, tied=tied)
    return finish(trace, cfg, n_layers=n_layers, hidden=hidden, vocab=vocab, tied=tied)
