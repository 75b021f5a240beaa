"""Image and sound towers of Gemma 4. Their Linear layers stand one module deeper, inside one that clips."""

from __future__ import annotations

from ..fields import Fields
from .vision import Tower, gated, split

CONVOLUTION = (3, 3)


def gemma4_vision(tower: Tower, cfg: Fields) -> int:
    """Gemma 4's image tower: a table of two coordinates, gated MLPs, a norm on either side of each mixer.
    Returns its width."""
    d: int = cfg.int("hidden_size", 768)
    heads, kv, d_head = (
        cfg.int("num_attention_heads", 12), cfg.int("num_key_value_heads", 12), cfg.int("head_dim", 64),
    )  # fmt: skip
    if heads % kv:
        raise cfg.fail("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    tower.vector("patch_embedder.position_embedding_table", 2 * cfg.int("position_embedding_size", 10240) * d)
    tower.linear("patch_embedder.input_proj", 3 * cfg.int("patch_size", 16) ** 2, d)
    layer = tower.at("encoder.layers.{}.", range(cfg.int("num_hidden_layers", 16)))
    for name, width in (("q_proj", heads), ("k_proj", kv), ("v_proj", kv)):
        layer.linear(f"self_attn.{name}.linear", d, width * d_head)
    layer.linear("self_attn.o_proj.linear", heads * d_head, d)
    gated(layer.at("mlp."), d, cfg.int("intermediate_size", 3072), suffix=".linear")
    for name in ("self_attn.q_norm", "self_attn.k_norm"):
        layer.norm(name, d_head)
    for name in (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    ):  # fmt: skip
        layer.norm(name, d)
    return d


def _subsampling(tower: Tower, cfg: Fields, d: int) -> None:
    """Two strided convolutions over time and frequency, and a projection of what they leave."""
    first, second = cfg.list("subsampling_conv_channels", [128, 32], length=2)
    place = tower.at("subsample_conv_projection.")
    place.conv("layer0.conv", 1, first, CONVOLUTION)
    place.norm("layer0.norm", first)
    place.conv("layer1.conv", first, second, CONVOLUTION)
    place.norm("layer1.norm", second)
    place.linear("input_proj_linear", first // 4 * second, d)


def _feed_forward(layer: Tower, d: int) -> None:
    layer.linear("ffw_layer_1.linear", d, 4 * d)
    layer.linear("ffw_layer_2.linear", 4 * d, d)
    layer.norm("pre_layer_norm", d)
    layer.norm("post_layer_norm", d)


def _attention(layer: Tower, d: int, d_head: int) -> None:
    for name in ("q_proj", "k_proj", "v_proj", "post"):
        layer.linear(f"self_attn.{name}.linear", d, d)
    layer.linear("self_attn.relative_k_proj", d, d)
    layer.vector("self_attn.per_dim_scale", d_head)


def _convolution(layer: Tower, d: int, kernel: int) -> None:
    layer.linear("linear_start.linear", d, 2 * d)
    layer.linear("linear_end.linear", d, d)
    layer.conv("depthwise_conv1d", 1, d, (kernel,))
    layer.norm("pre_layer_norm", d)
    layer.norm("conv_norm", d)


def gemma4_audio(tower: Tower, cfg: Fields) -> int:
    """Gemma 4's conformer for sound: each layer two MLPs around an attention and a convolution. Returns the
    width of its output."""
    d = cfg.int("hidden_size", 1024)
    d_head = d // split(cfg, "num_attention_heads", d, 8)
    out: int = cfg.int("output_proj_dims", 1536)
    _subsampling(tower, cfg, d)
    layer = tower.at("layers.{}.", range(cfg.int("num_hidden_layers", 12)))
    _feed_forward(layer.at("feed_forward1."), d)
    _feed_forward(layer.at("feed_forward2."), d)
    _attention(layer, d, d_head)
    _convolution(layer.at("lconv1d."), d, cfg.int("conv_kernel_size", 5))
    for name in ("norm_pre_attn", "norm_post_attn", "norm_out"):
        layer.norm(name, d)
    tower.linear("output_proj", d, out, bias=True)
    return out
