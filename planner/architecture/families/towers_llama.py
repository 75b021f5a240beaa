"""Image towers of Llama 3.2 Vision (Mllama) and Llama 4."""

from __future__ import annotations

from ..fields import Fields
from .vision import Tower, patches, split

DEFAULT_ASPECT_RATIOS = 8


def _layer(tower: Tower, d: int, width: int, attention_bias: bool) -> None:
    """An encoder layer: LayerNorms, four projections, a plain MLP with biases."""
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        tower.linear(f"self_attn.{name}", d, d, attention_bias)
    tower.linear("mlp.fc1", d, width, bias=True)
    tower.linear("mlp.fc2", width, d, bias=True)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tower.norm(name, d, bias=True)


def mllama(tower: Tower, cfg: Fields) -> None:
    """Mllama's: tiles with learned positions by aspect ratio, then plain layers and gated (global) ones."""
    d, width = cfg.int("hidden_size", 1280), cfg.int("intermediate_size", 5120)
    split(cfg, "attention_heads", d, 16)
    patch, tiles = cfg.int("patch_size", 14), cfg.int("max_num_tiles", 4)
    positions = patches(cfg, 448, 14) + 1
    ratios = cfg.list("supported_aspect_ratios", None)
    tables = 1 + (DEFAULT_ASPECT_RATIOS if ratios is None else len(ratios))
    tower.conv("patch_embedding", cfg.int("num_channels", 3), d, (patch, patch))
    tower.vector("class_embedding", d)
    tower.vector("gated_positional_embedding.gate", 1)
    tower.vector("gated_positional_embedding.embedding", positions * d)
    tower.table("gated_positional_embedding.tile_embedding", tables, tiles * positions * d)
    for name in ("pre_tile_positional_embedding", "post_tile_positional_embedding"):
        tower.vector(f"{name}.gate", 1)
        tower.table(f"{name}.embedding", tables, tiles * d)
    tower.norm("layernorm_pre", d, bias=True)
    tower.norm("layernorm_post", d, bias=True)
    _layer(tower.at("transformer.layers.{}.", range(cfg.int("num_hidden_layers", 32))), d, width, False)
    gated = tower.at("global_transformer.layers.{}.", range(cfg.int("num_global_layers", 8)))
    _layer(gated, d, width, False)
    gated.vector("gate_attn", 1)
    gated.vector("gate_ffn", 1)


def llama4(tower: Tower, cfg: Fields) -> None:
    """Llama 4's: patches unfolded into a Linear, and an adapter after the shuffle that merges patches."""
    d, width = cfg.int("hidden_size", 768), cfg.int("intermediate_size", 5632)
    split(cfg, "num_attention_heads", d, 16)
    patch = cfg.int("patch_size", 14)
    tower.vector("class_embedding", d)
    tower.vector("positional_embedding_vlm", (patches(cfg, 448, 14) + 1) * d)
    tower.linear("patch_embedding.linear", cfg.int("num_channels", 3) * patch * patch, d)
    tower.norm("layernorm_pre", d, bias=True)
    tower.norm("layernorm_post", d, bias=True)
    _layer(tower.at("model.layers.{}.", range(cfg.int("num_hidden_layers", 34))), d, width, True)
    out = cfg.int("projector_output_dim", 4096)
    tower.linear("vision_adapter.mlp.fc1", width, cfg.int("projector_input_dim", 4096))
    tower.linear("vision_adapter.mlp.fc2", out, out)
