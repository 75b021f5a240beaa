"""Pixtral's tower, alone in LLaVA and with a merger in Mistral 3: images of any shape up to a longest side.

All images of a micro-batch pass it as one sequence, in which a mask keeps them apart unless a flash kernel takes
their lengths.
"""

from __future__ import annotations

from ..families.common import gated_mlp
from ..families.vision import split
from ..fields import Fields
from ..trace import Trace
from .draft import Draft, code, patch_stem, plain_attention, processor, two_layers
from .resizing import within_sides

TOWER, PROJECTOR = "model.vision_tower.", "model.multi_modal_projector."
NAMES = tuple(f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj"))
# What Mistral 3 builds where the config has no vision_config.
USUAL = {"image_size": 1540, "patch_size": 14, "hidden_act": "gelu"}


def _tower(cfg: Fields, size: tuple[int, int], merge: int) -> Draft:
    """The layers over an image; the connector is added by the caller."""
    d, depth, width = (
        cfg.int("hidden_size", 1024), cfg.int("num_hidden_layers", 24), cfg.int("intermediate_size", 4096),
    )  # fmt: skip
    heads, patch, channels = (
        split(cfg, "num_attention_heads", d, 16), cfg.int("patch_size", 16), cfg.int("num_channels", 3),
    )  # fmt: skip
    height, wide = within_sides(size[1], size[0], cfg.int("image_size", 1024), patch * merge)
    trace, patches = Trace(), height * wide // patch**2
    patch_stem(trace, f"{TOWER}patch_conv", channels, patch**2, d, bias=False)
    with trace.layer("encoder", range(depth), f"{TOWER}transformer.layers.{{}}.") as layer:
        plain_attention(layer, d, heads, NAMES, bias=False, o_bias=False)
        layer.add(gated_mlp(layer, d, width, layer.stream, prefix="feed_forward."))
    rows, columns = height // patch // merge, wide // patch // merge
    sources = (code("models/pixtral/image_processing_pixtral.py", "get_resize_output_image_size"),
               code("models/pixtral/processing_pixtral.py", "replace_image_token"))  # fmt: skip
    return Draft(
        trace, "pixtral_vision", cfg.str("hidden_act", "gelu"), d, depth, (columns + 1) * rows, rows * columns, 1,
        patches, (1, channels, height, wide), sources, merged=True,
    )  # fmt: skip


def _of_last_layer(config: Fields, depth: int) -> None:
    """Refuse features of another layer than the last."""
    if config.int("vision_feature_layer", -1, minimum=-depth) not in (-1, depth):
        raise config.fail("vision_feature_layer", "-1: the last layer's")


def mistral3(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Mistral 3: neighbouring patches are merged in the connector; a mark ends every row, another the image."""
    assert size
    given = config.sub("vision_config", {})
    cfg = given if config.has("vision_config") else Fields(USUAL, given.path)
    if cfg.str("model_type", "pixtral") != "pixtral":
        raise cfg.fail("model_type", "pixtral: images of Mistral 3 with another tower have no account")
    merge, bias = config.int("spatial_merge_size", 2), config.bool("multimodal_projector_bias", False)
    draft = _tower(cfg, size, merge)
    _of_last_layer(config, draft.layers)
    d = draft.width
    with draft.trace.layer("connector", (0,), PROJECTOR) as layer:
        layer.stream = layer.linear(
            "patch_merger.merging_layer", "projector", d * merge**2, d, layer.stream, per=merge**2
        )
        two_layers(layer, ("linear_1", "linear_2"), (d, hidden, hidden), per=merge**2, bias=bias)
    published = processor(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503", "size: longest_edge, the image_size"
    )
    return draft.with_sources(published)


def llava(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Pixtral 12B in LLaVA's classes: every patch is a token; a mark ends every row, another the image."""
    assert size
    cfg = config.sub("vision_config")
    draft = _tower(cfg, size, 1)
    _of_last_layer(config, draft.layers)
    if config.str("vision_feature_select_strategy", "default") != "full":
        raise config.fail("vision_feature_select_strategy", "full: Pixtral has no class token to leave out")
    with draft.trace.layer("connector", (0,), PROJECTOR) as layer:
        bias = config.bool("multimodal_projector_bias", True)
        two_layers(layer, ("linear_1", "linear_2"), (draft.width, hidden, hidden), bias=bias)
    return draft.with_sources(
        processor("mistral-community/pixtral-12b", "size: longest_edge, the image_size")
    )
