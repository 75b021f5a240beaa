"""What leads from an image tower to any text decoder: LLaVA, LLaVA-NeXT and OneVision, VipLLaVA, PaliGemma, InternVL,
Idefics 3 and SmolVLM, Aya Vision and Command A Vision. A text-only step runs neither tower nor projector."""

from __future__ import annotations

from typing import Any

from ..fields import Fields
from ..trace import Trace
from .vision import Tower, clip_layers, named, patches, split

TOWER, PROJECTOR = "model.vision_tower.", "model.multi_modal_projector."
# What these classes build where the config has no vision_config.
CLIP_TOWER = {
    "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14, "image_size": 336,
    "num_hidden_layers": 24, "num_attention_heads": 16,
}  # fmt: skip
SIGLIP_TOWER: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 14, "image_size": 384,
    "num_hidden_layers": 26, "num_attention_heads": 16, "vision_use_head": False,
}  # fmt: skip
PALIGEMMA_TOWER = {**SIGLIP_TOWER, "intermediate_size": 4096, "image_size": 224, "num_hidden_layers": 27}
AYA_TOWER = {**SIGLIP_TOWER, "num_attention_heads": 14}
COHERE_TOWER: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 3072, "image_size": 512, "num_hidden_layers": 27,
    "num_attention_heads": 12,
}  # fmt: skip


def feature_layers(cfg: Fields, default: Any) -> int:
    """How many of the tower's layers are concatenated for the projector."""
    layers = cfg.data.get("vision_feature_layer", default)
    return len(layers) if isinstance(layers, (list, tuple)) else 1


def _two_linear(trace: Trace, width: int, hidden: int, bias: bool) -> None:
    projector = Tower(trace, PROJECTOR, "projector")
    projector.linear("linear_1", width, hidden, bias)
    projector.linear("linear_2", hidden, hidden, bias)


def llava(trace: Trace, cfg: Fields, hidden: int) -> None:
    """A tower (CLIP by default) and a projector of two Linear layers."""
    width = named(trace, cfg, "clip_vision_model", CLIP_TOWER, TOWER)
    bias = cfg.bool("multimodal_projector_bias", True)
    _two_linear(trace, width * feature_layers(cfg, -2), hidden, bias)


def llava_next(trace: Trace, cfg: Fields, hidden: int) -> None:
    """LLaVA's, with a row of the stream's width that ends each line of patches."""
    llava(trace, cfg, hidden)
    trace.vector("model.image_newline", hidden)


def llava_onevision(trace: Trace, cfg: Fields, hidden: int) -> None:
    """LLaVA-NeXT's around SigLIP."""
    width = named(trace, cfg, "siglip_vision_model", SIGLIP_TOWER, TOWER)
    bias = cfg.bool("multimodal_projector_bias", True)
    _two_linear(trace, width * feature_layers(cfg, -1), hidden, bias)
    trace.vector("model.image_newline", hidden)


def vipllava(trace: Trace, cfg: Fields, hidden: int) -> None:
    """LLaVA's over several layers of the tower, normed together."""
    width = named(trace, cfg, "clip_vision_model", CLIP_TOWER, TOWER)
    width *= feature_layers(cfg, [-2, -5, -8, -11, 6])
    Tower(trace, PROJECTOR, "projector").norm("projector_layernorm", width, bias=True)
    _two_linear(trace, width, hidden, True)


def paligemma(trace: Trace, cfg: Fields, hidden: int) -> None:
    """SigLIP and one Linear layer, whose width the config names beside the decoder's."""
    width = named(trace, cfg, "siglip_vision_model", PALIGEMMA_TOWER, TOWER)
    vision = cfg.sub("vision_config", {})
    out = vision.int("projection_dim", cfg.int("projection_dim", 2048))
    Tower(trace, PROJECTOR, "projector").linear("linear", width, out, bias=True)


def _internvl_tower(tower: Tower, cfg: Fields) -> int:
    """InternViT as InternVL 3 has it: positions in one table, each part of a layer weighted by a vector."""
    d: int = cfg.int("hidden_size", 1024)
    split(cfg, "num_attention_heads", d, 16)
    image, patch = (_pair(cfg, key, usual) for key, usual in (("image_size", 448), ("patch_size", 14)))
    positions = (image[0] // patch[0]) * (image[1] // patch[1]) + 1
    tower.vector("embeddings.cls_token", d)
    if cfg.bool("use_mask_token", False):
        tower.vector("embeddings.mask_token", d)
    tower.conv("embeddings.patch_embeddings.projection", cfg.int("num_channels", 3), d, patch, bias=True)
    if cfg.bool("use_absolute_position_embeddings", True):
        tower.vector("embeddings.position_embeddings", positions * d)
    layer = tower.at("encoder.layer.{}.", range(cfg.int("num_hidden_layers", 24)))
    for name in ("q_proj", "k_proj", "v_proj"):
        layer.linear(f"attention.{name}", d, d, cfg.bool("attention_bias", False))
    layer.linear("attention.projection_layer", d, d, bias=True)
    if cfg.bool("use_qk_norm", False):
        layer.norm("attention.q_norm", d)
        layer.norm("attention.k_norm", d)
    width = cfg.int("intermediate_size", 4096)
    layer.linear("mlp.fc1", d, width, bias=True)
    layer.linear("mlp.fc2", width, d, bias=True)
    for name in ("layernorm_before", "layernorm_after"):
        layer.norm(name, d, bias=cfg.str("norm_type", "layer_norm") == "layer_norm")
    layer.vector("lambda_1", d)
    layer.vector("lambda_2", d)
    if not cfg.bool("use_mean_pooling", True):
        tower.norm("layernorm", d, bias=True)
    return d


def _pair(cfg: Fields, key: str, usual: int) -> tuple[int, int]:
    """Height and width: two numbers, or one for both."""
    value = cfg.data.get(key)
    if not isinstance(value, (list, tuple)):
        return (cfg.int(key, usual),) * 2
    sides = [Fields({key: side}, cfg.path).int(key) for side in cfg.list(key, length=2)]
    return sides[0], sides[1]


def internvl(trace: Trace, cfg: Fields, hidden: int) -> None:
    """InternVL 3: InternViT, and a projector over shuffled patches."""
    width = _internvl_tower(Tower(trace, TOWER), cfg.sub("vision_config", {}))
    ratio = cfg.number("downsample_ratio", 0.5)
    if not 0 < ratio <= 1:
        raise cfg.fail("downsample_ratio", "a number above 0, at most 1")
    width *= int(1 / ratio) ** 2
    Tower(trace, PROJECTOR, "projector").norm("layer_norm", width, bias=True)
    _two_linear(trace, width, hidden, True)


def idefics3(trace: Trace, cfg: Fields, hidden: int) -> None:
    """Idefics 3 and SmolVLM: SigLIP's layers for images of any shape, and one matrix over shuffled patches."""
    vision, tower = cfg.sub("vision_config", {}), Tower(trace, "model.vision_model.")
    d, patch = vision.int("hidden_size", 1152), vision.int("patch_size", 32)
    split(vision, "num_attention_heads", d, 16)
    channels = vision.int("num_channels", 3)
    tower.conv("embeddings.patch_embedding", channels, d, (patch, patch), bias=True)
    tower.table("embeddings.position_embedding", patches(vision, 224, 32), d)
    layers = tower.at("encoder.layers.{}.", range(vision.int("num_hidden_layers", 12)))
    clip_layers(layers, d, vision.int("intermediate_size", 3072))
    tower.norm("post_layernorm", d, bias=True)
    merged = d * cfg.int("scale_factor", 2) ** 2
    Tower(trace, "model.connector.modality_projection.", "projector").linear("proj", merged, hidden)


def aya_vision(trace: Trace, cfg: Fields, hidden: int) -> None:
    """Aya Vision: SigLIP, and a gated projector of two layers behind a norm."""
    width = named(trace, cfg, "siglip_vision_model", AYA_TOWER, TOWER) * cfg.int("downsample_factor", 2) ** 2
    inner = cfg.int("alignment_intermediate_size", hidden)
    projector = Tower(trace, PROJECTOR, "projector")
    projector.norm("layernorm", width, bias=True)
    projector.linear("linear_1", width, inner, bias=True)
    projector.linear("linear_2", inner // 2, hidden, bias=True)


def cohere2_vision(trace: Trace, cfg: Fields, hidden: int) -> None:
    """Command A Vision: the same without the norm."""
    width = (
        named(trace, cfg, "siglip_vision_model", COHERE_TOWER, TOWER) * cfg.int("downsample_factor", 2) ** 2
    )
    inner = cfg.int("alignment_intermediate_size", 36864)
    projector = Tower(trace, PROJECTOR, "projector")
    projector.linear("linear_1", width, inner, bias=True)
    projector.linear("linear_2", inner // 2, hidden, bias=True)
