"""Image and video towers of Qwen-VL's kind: 3-D patches, fused q, k and v, and a merger of neighbouring patches
(Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5, GLM-4V). The merger is what other families call the projector."""

from __future__ import annotations

from ..fields import Fields
from .vision import Tower, gated, patches, qkv_parts, split


def _patches(tower: Tower, cfg: Fields, d: int, patch: int, bias: bool) -> None:
    side = cfg.int("patch_size", patch)
    kernel = (cfg.int("temporal_patch_size", 2), side, side)
    tower.conv("patch_embed.proj", cfg.int("in_channels", 3), d, kernel, bias)


def _attention(block: Tower, d: int, qkv_bias: bool, o_bias: bool) -> None:
    block.linear("attn.qkv", d, 3 * d, qkv_bias, qkv_parts(d))
    block.linear("attn.proj", d, d, o_bias)


def _norms(block: Tower, d: int, bias: bool) -> None:
    block.norm("norm1", d, bias)
    block.norm("norm2", d, bias)


def _sequential_merger(tower: Tower, cfg: Fields, d: int, out: int, bias: bool) -> None:
    merger = tower.at("merger.", role="projector")
    merged = d * cfg.int("spatial_merge_size", 2) ** 2
    merger.norm("ln_q", d, bias)
    merger.linear("mlp.0", merged, merged, bias=True)
    merger.linear("mlp.2", merged, out, bias=True)


def qwen2_vl(tower: Tower, cfg: Fields) -> None:
    """Qwen2-VL: LayerNorms and a plain MLP; `hidden_size` is the width that the merger puts out."""
    d = cfg.int("embed_dim", 1280)
    split(cfg, "num_heads", d, 16)
    width = int(d * cfg.number("mlp_ratio", 4))
    _patches(tower, cfg, d, 14, bias=False)
    block = tower.at("blocks.{}.", range(cfg.int("depth", 32)))
    _norms(block, d, bias=True)
    _attention(block, d, qkv_bias=True, o_bias=True)
    block.linear("mlp.fc1", d, width, bias=True)
    block.linear("mlp.fc2", width, d, bias=True)
    _sequential_merger(tower, cfg, d, cfg.int("hidden_size", 3584), bias=True)


def qwen2_5_vl(tower: Tower, cfg: Fields) -> None:
    """Qwen2.5-VL: RMS norms and a gated MLP with biases."""
    d = cfg.int("hidden_size", 3584)
    split(cfg, "num_heads", d, 16)
    _patches(tower, cfg, d, 14, bias=False)
    block = tower.at("blocks.{}.", range(cfg.int("depth", 32)))
    _norms(block, d, bias=False)
    _attention(block, d, qkv_bias=True, o_bias=True)
    gated(block.at("mlp."), d, cfg.int("intermediate_size", 3420), bias=True)
    _sequential_merger(tower, cfg, d, cfg.int("out_hidden_size", 3584), bias=False)


def _qwen3_merger(merger: Tower, d: int, merged: int, out: int, norm: int) -> None:
    merger.norm("norm", norm, bias=True)
    merger.linear("linear_fc1", merged, merged, bias=True)
    merger.linear("linear_fc2", merged, out, bias=True)


def qwen3_vl(tower: Tower, cfg: Fields, deepstack: bool = True) -> None:
    """Qwen3-VL: a table of positions, and mergers that feed features of inner layers to the decoder's first
    layers. Qwen3.5 has the same tower without the latter."""
    d = cfg.int("hidden_size", 1152)
    split(cfg, "num_heads", d, 16)
    width, out = cfg.int("intermediate_size", 4304), cfg.int("out_hidden_size", 3584)
    merged = d * cfg.int("spatial_merge_size", 2) ** 2
    _patches(tower, cfg, d, 16, bias=True)
    tower.table("pos_embed", cfg.int("num_position_embeddings", 2304), d)
    block = tower.at("blocks.{}.", range(cfg.int("depth", 27)))
    _norms(block, d, bias=True)
    _attention(block, d, qkv_bias=True, o_bias=True)
    block.linear("mlp.linear_fc1", d, width, bias=True)
    block.linear("mlp.linear_fc2", width, d, bias=True)
    _qwen3_merger(tower.at("merger.", role="projector"), d, merged, out, d)
    if deepstack:
        taken = range(len(cfg.list("deepstack_visual_indexes", [8, 16, 24])))
        _qwen3_merger(tower.at("deepstack_merger_list.{}.", taken, "projector"), d, merged, out, merged)


def qwen3_5(tower: Tower, cfg: Fields) -> None:
    """Qwen3.5: Qwen3-VL's tower without features of inner layers."""
    qwen3_vl(tower, cfg, deepstack=False)


def glm4v(tower: Tower, cfg: Fields) -> None:
    """GLM-4V: RMS norms, gated MLPs as wide as the decoder, a convolution that merges patches, a gated merger."""
    d, out = cfg.int("hidden_size", 1536), cfg.int("out_hidden_size", 4096)
    split(cfg, "num_heads", d, 12)
    merge = cfg.int("spatial_merge_size", 2)
    tower.table("embeddings.position_embedding", patches(cfg, 336, 14), d)
    _patches(tower, cfg, d, 14, bias=True)
    tower.norm("post_conv_layernorm", d)
    block = tower.at("blocks.{}.", range(cfg.int("depth", 24)))
    _norms(block, d, bias=False)
    _attention(block, d, qkv_bias=cfg.bool("attention_bias", False), o_bias=False)
    gated(block.at("mlp."), d, out)
    tower.norm("post_layernorm", d)
    tower.conv("downsample", d, out, (merge, merge), bias=True)
    merger = tower.at("merger.", role="projector")
    merger.linear("proj", out, out)
    merger.norm("post_projection_norm", out, bias=True)
    gated(merger, out, cfg.int("intermediate_size", 13696))
