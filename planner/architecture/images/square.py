"""Towers that see square images or tiles of one size: SigLIP, CLIP and InternVL's, and the models around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..families.common import plain_mlp
from ..families.vision import split
from ..fields import Fields
from ..trace import Layer, Trace
from .draft import Draft, code, patch_stem, plain_attention, processor, two_layers
from .resizing import canvas, tiles

TOWER = "model.vision_tower."
CLIP_NAMES = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
INTERN_NAMES = tuple(f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "projection_layer"))
SMOL = 4  # the longer side of an image in tiles, in all published processors


def _side(cfg: Fields, image: int, patch: int) -> tuple[int, int]:
    """Pixels and patches of a side. A list of two equal sizes counts as one."""
    found = []
    for key, default in (("image_size", image), ("patch_size", patch)):
        value = cfg.data.get(key)
        if isinstance(value, Sequence) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        found.append(Fields({**cfg.data, key: value}, cfg.path).int(key, default))
    if found[0] < found[1]:
        raise cfg.fail("image_size", "at least patch_size")
    return found[0], found[0] // found[1]


def _layer(layer: Layer, d: int, heads: int, width: int, names: tuple[str, ...], qkv_bias: bool) -> None:
    plain_attention(layer, d, heads, names, bias=qkv_bias)
    layer.add(plain_mlp(layer, d, width, layer.stream, bias=True, prefix="mlp.", names=("fc1", "fc2")))


def _unused(trace: Trace, prefix: str, numbers: range, d: int, heads: int, width: int) -> None:
    """Layers behind the one whose result is taken: they run, and nothing comes of it."""
    with trace.layer("unused", numbers, prefix) as layer:
        x = layer.stream
        q, k, v = (
            layer.linear(n, "attention", d, d, x, bias=True, forward_only=True) for n in CLIP_NAMES[:3]
        )
        mixed = layer.attend(
            q, k, v, n_heads=heads, n_kv_heads=heads, d_qk=d // heads, d_v=d // heads, causal=False
        )
        out = layer.linear(CLIP_NAMES[3], "attention", d, d, mixed, bias=True, forward_only=True)
        up = layer.linear("mlp.fc1", "mlp", d, width, layer.join(out), bias=True, forward_only=True)
        layer.linear("mlp.fc2", "mlp", width, d, up, bias=True, forward_only=True)


def _siglip(
    cfg: Fields, prefix: str, image: int, patch: int, fc: int, layers: int, heads: int, d: int
) -> Draft:
    """SigLIP's layers over an image; what follows them is added by the caller."""
    trace = Trace()
    d = cfg.int("hidden_size", d)
    heads, depth = split(cfg, "num_attention_heads", d, heads), cfg.int("num_hidden_layers", layers)
    pixels, side = _side(cfg, image, patch)
    channels = cfg.int("num_channels", 3)
    patch_stem(trace, f"{prefix}embeddings.patch_embedding", channels, (pixels // side) ** 2, d, bias=True)
    with trace.layer("encoder", range(depth), f"{prefix}encoder.layers.{{}}.") as layer:
        _layer(layer, d, heads, cfg.int("intermediate_size", fc), CLIP_NAMES, True)
    act = cfg.str("hidden_act", "gelu_pytorch_tanh")
    return Draft(
        trace, "siglip_vision", act, d, depth, 0, 0, 1, side * side, (1, channels, pixels, pixels), ()
    )


def gemma3(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Gemma 3: an image is one square of 896 pixels, pooled to 256 tokens; two marks and a blank line on both sides
    stand around them. Pan and scan is off, as the processor has it."""
    cfg = config.sub("vision_config", {})
    draft = _siglip(cfg, TOWER, 224, 16, 3072, 12, 12, 768)
    rows = config.int("mm_tokens_per_image", 256)
    side, kept = int(draft.length**0.5), int(rows**0.5)
    if kept * kept != rows or side % kept:
        raise config.fail("mm_tokens_per_image", f"a square whose side divides the {side} patches of a side")
    with draft.trace.layer("connector", (0,), "model.multi_modal_projector.") as layer:
        layer.stream = layer.linear(
            "mm_input_projection_weight", "mlp", draft.width, hidden, layer.stream, kind="parameter",
            per=draft.length // rows,
        )  # fmt: skip
    sources = (code("models/gemma3/processing_gemma3.py", "full_image_sequence"),)
    return replace(draft, kind="gemma3_vision", tokens=rows + 4, rows=rows, sources=sources, masked=True)


def idefics3(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Idefics 3 and SmolVLM: an image is cut into square tiles beside one of the whole, each of image_size pixels and
    (patches / scale_factor)^2 tokens; before each a fake token and its place, after each row a new line (where a
    tokenizer spells places out, they take more). Its longer side is first brought to 4 tiles."""
    assert size
    cfg = config.sub("vision_config", {})
    draft = _siglip(cfg, "model.vision_model.", 224, 32, 3072, 12, 16, 1152)
    scale, side = config.int("scale_factor", 2), int(draft.length**0.5)
    if side % scale:
        raise config.fail("scale_factor", f"a divisor of the {side} patches of a side")
    with draft.trace.layer("connector", (0,), "model.connector.modality_projection.") as layer:
        layer.stream = layer.linear("proj", "mlp", draft.width * scale**2, hidden, layer.stream, per=scale**2)
    pixels, rows = draft.pixels[-1], draft.length // scale**2
    high, wide = tiles(size[1], size[0], pixels, SMOL * pixels)
    units = high * wide + 1
    marks = 2 * high * wide + high + 4 if units > 1 else 3
    sources = (
        code("models/idefics3/image_processing_idefics3.py", "get_number_of_image_patches"),
        processor(
            "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "size, max_image_size: 4 x image_size and image_size"
        ),
    )
    return replace(
        draft, kind="idefics3_vision", tokens=units * rows + marks, rows=units * rows, units=units,
        pixels=(units, *draft.pixels[1:]), sources=sources,
    )  # fmt: skip


def llava(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """LLaVA with CLIP: the features of the layer that `vision_feature_layer` says, without the class token; the
    layers behind it run for nothing."""
    cfg = config.sub("vision_config", {"model_type": "clip_vision_model"})
    if cfg.str("model_type", "clip_vision_model") != "clip_vision_model":
        raise cfg.fail("model_type", "clip_vision_model: images of LLaVA with another tower have no account")
    if config.str("vision_feature_select_strategy", "default") != "default":
        raise config.fail("vision_feature_select_strategy", "default")
    usual = {"image_size": 336, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096,
             "num_attention_heads": 16, "num_hidden_layers": 24}  # fmt: skip
    cfg = Fields({**(usual if not config.has("vision_config") else {}), **cfg.data}, cfg.path)
    d = cfg.int("hidden_size", 768)
    heads, depth = split(cfg, "num_attention_heads", d, 12), cfg.int("num_hidden_layers", 12)
    taken = config.int("vision_feature_layer", -2, minimum=-depth)
    used = taken if taken >= 0 else depth + 1 + taken
    if not 1 <= used <= depth:
        raise config.fail("vision_feature_layer", f"1 to {depth}, or -{depth} to -1: the result of a layer")
    pixels, side = _side(cfg, 224, 32)
    channels, width = cfg.int("num_channels", 3), cfg.int("intermediate_size", 3072)
    trace, place = Trace(), f"{TOWER}encoder.layers.{{}}."
    patch_stem(
        trace, f"{TOWER}embeddings.patch_embedding", channels, (pixels // side) ** 2, d, False, side * side
    )
    with trace.layer("encoder", range(used), place) as layer:
        _layer(layer, d, heads, width, CLIP_NAMES, True)
    _unused(trace, place, range(used, depth), d, heads, width)
    rows = side * side
    with trace.layer("connector", (0,), "model.multi_modal_projector.", side * side) as layer:
        bias = config.bool("multimodal_projector_bias", True)
        two_layers(layer, ("linear_1", "linear_2"), (d, hidden, hidden), bias=bias)
    return Draft(
        trace, "clip_vision", cfg.str("hidden_act", "quick_gelu"), d, depth, rows, rows, 1, rows + 1,
        (1, channels, pixels, pixels), (code("models/llava/processing_llava.py", "replace_image_token"),)
    )  # fmt: skip


def internvl(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """InternVL: an image is cut into up to 12 square tiles, beside one of the whole where there is more than one;
    a mark stands before and after."""
    assert size
    cfg = config.sub("vision_config", {})
    d = cfg.int("hidden_size", 1024)
    heads, depth = split(cfg, "num_attention_heads", d, 16), cfg.int("num_hidden_layers", 24)
    if config.int("vision_feature_layer", -1, minimum=-depth) != -1:
        raise config.fail("vision_feature_layer", "-1")
    if cfg.bool("use_qk_norm", False) or cfg.str("norm_type", "layer_norm") != "layer_norm":
        raise cfg.fail("norm_type", "layer_norm without use_qk_norm: other towers' images have no account")
    pixels, side = _side(cfg, 448, 14)
    channels, width = cfg.int("num_channels", 3), cfg.int("intermediate_size", 4096)
    merge = int(1 / config.number("downsample_ratio", 0.5))
    if side % merge:
        raise config.fail("downsample_ratio", f"1 over a divisor of the {side} patches of a side")
    trace = Trace()
    patch_stem(
        trace, f"{TOWER}embeddings.patch_embeddings.projection", channels, (pixels // side) ** 2, d, True,
        side * side,
    )  # fmt: skip
    with trace.layer("encoder", range(depth), f"{TOWER}encoder.layer.{{}}.") as layer:
        _layer(layer, d, heads, width, INTERN_NAMES, cfg.bool("attention_bias", False))
        layer.open_end = False  # a vector weighs what it puts out
    with trace.layer("connector", (0,), "model.multi_modal_projector.", side * side) as layer:
        widths = (d * merge**2, hidden, hidden)
        two_layers(layer, ("linear_1", "linear_2"), widths, per=merge**2)
    columns, high = canvas(size[1], size[0], pixels, 1, 12)
    units = columns * high + 1 if columns * high > 1 else 1
    rows = side * side // merge**2 * units
    sources = (
        code("models/got_ocr2/image_processing_got_ocr2.py", "get_number_of_image_patches"),
        code("models/internvl/processing_internvl.py", "replace_image_token"),
        processor("OpenGVLab/InternVL3-8B-hf", "min_patches, max_patches"),
    )
    return Draft(
        trace, "internvl_vision", cfg.str("hidden_act", "gelu"), d, depth, rows + 2, rows, units, side * side + 1,
        (units, channels, pixels, pixels), sources
    )  # fmt: skip
