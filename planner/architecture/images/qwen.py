"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any size, patches of 14 or 16 pixels, four of which make a token."""

from __future__ import annotations

from ..families.common import gated_mlp, groups, plain_mlp
from ..families.vision import split
from ..fields import Fields
from ..trace import Trace
from .draft import Draft, code, patch_stem, plain_attention, processor, two_layers
from .resizing import windows, within_pixels

LEAST_PIXELS, MOST_PIXELS = 56 * 56, 12_845_056  # of the published preprocessor configs
LEAST_3, MOST_3 = 65_536, 16_777_216
MARKS = 2  # <|vision_start|> and <|vision_end|>
PATCHES = "models/qwen2_vl/image_processing_qwen2_vl.py"


def _grid(cfg: Fields, size: tuple[int, int], patch: int, least: int, most: int) -> tuple[int, int]:
    """Patches of an image, height x width."""
    merge, side = cfg.int("spatial_merge_size", 2), cfg.int("patch_size", patch)
    height, width = within_pixels(size[1], size[0], side * merge, least, most)
    return height // side, width // side


def _start(cfg: Fields, d: int, patch: int, bias: bool) -> tuple[Trace, int]:
    """A trace with its patches, and the values of one."""
    trace = Trace()
    kernel = cfg.int("temporal_patch_size", 2) * cfg.int("patch_size", patch) ** 2
    channels = cfg.int("in_channels", 3)
    patch_stem(trace, "model.visual.patch_embed.proj", channels, kernel, d, bias)
    return trace, channels * kernel


def qwen2_vl(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Qwen2-VL: every patch of an image meets every other."""
    assert size
    cfg = config.sub("vision_config", {})
    d = cfg.int("embed_dim", 1280)
    heads, depth = split(cfg, "num_heads", d, 16), cfg.int("depth", 32)
    rows, columns = _grid(cfg, size, 14, LEAST_PIXELS, MOST_PIXELS)
    trace, values = _start(cfg, d, 14, bias=False)
    with trace.layer("encoder", range(depth), "model.visual.blocks.{}.") as layer:
        plain_attention(layer, d, heads, ("attn.qkv", "attn.proj"))
        width = int(d * cfg.number("mlp_ratio", 4))
        layer.add(plain_mlp(layer, d, width, layer.stream, bias=True, prefix="mlp.", names=("fc1", "fc2")))
    return _finished(cfg, trace, d, depth, cfg.int("hidden_size", 3584), (rows, columns), values, "qwen2_vl_vision",
                     cfg.str("hidden_act", "quick_gelu"), "Qwen/Qwen2-VL-7B-Instruct")  # fmt: skip


def qwen2_5_vl(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Qwen2.5-VL: most layers attend within windows of `window_size` pixels, those of `fullatt_block_indexes` to the
    whole image."""
    assert size
    cfg = config.sub("vision_config", {})
    d, merge = cfg.int("hidden_size", 3584), cfg.int("spatial_merge_size", 2)
    heads, depth = split(cfg, "num_heads", d, 16), cfg.int("depth", 32)
    rows, columns = _grid(cfg, size, 14, LEAST_PIXELS, MOST_PIXELS)
    side = cfg.int("window_size", 112) // merge // cfg.int("patch_size", 14)
    if side < 1:
        raise cfg.fail("window_size", "at least patch_size x spatial_merge_size")
    cells = windows(rows // merge, columns // merge, side)
    pairs = sum((cell * merge**2) ** 2 for cell in cells)
    whole = set(cfg.list("fullatt_block_indexes", [7, 15, 23, 31]))
    trace, values = _start(cfg, d, 14, bias=False)
    width = cfg.int("intermediate_size", 3420)
    for full, numbers in groups([number in whole for number in range(depth)]):
        with trace.layer("encoder", numbers, "model.visual.blocks.{}.") as layer:
            plain_attention(
                layer, d, heads, ("attn.qkv", "attn.proj"), pairs=(rows * columns) ** 2 if full else pairs
            )
            layer.add(gated_mlp(layer, d, width, layer.stream, bias=True))
    return _finished(cfg, trace, d, depth, cfg.int("out_hidden_size", 3584), (rows, columns), values,
                     "qwen2_5_vl_vision", cfg.str("hidden_act", "silu"), "Qwen/Qwen2.5-VL-7B-Instruct")  # fmt: skip


def _finished(
    cfg: Fields, trace: Trace, d: int, depth: int, out: int, grid: tuple[int, int], values: int, kind: str,
    act: str, model: str,
) -> Draft:  # fmt: skip
    """The merger behind the layers, and what the image takes."""
    merge, patches = cfg.int("spatial_merge_size", 2), grid[0] * grid[1]
    with trace.layer("connector", (0,), "model.visual.merger.") as layer:
        two_layers(layer, ("mlp.0", "mlp.2"), (d * merge**2, d * merge**2, out), per=merge**2)
    rows = patches // merge**2
    return Draft(
        trace, kind, act, d, depth, rows + MARKS, rows, 1, patches, (patches, values),
        (code(PATCHES, "smart_resize"), processor(model, "min_pixels, max_pixels")), grid=(1, *grid),
    )  # fmt: skip


def qwen3_vl(config: Fields, hidden: int, size: tuple[int, int] | None) -> Draft:
    """Qwen3-VL: every patch of an image meets every other; features of inner layers pass mergers of their own and are
    added in the decoder's first layers. Qwen3.5 has the same tower without them. transformers does not make the
    tower's patches need a gradient."""
    assert size
    cfg = config.sub("vision_config", {})
    d, out = cfg.int("hidden_size", 1152), cfg.int("out_hidden_size", 3584)
    heads, depth, merge = (
        split(cfg, "num_heads", d, 16),
        cfg.int("depth", 27),
        cfg.int("spatial_merge_size", 2),
    )
    grid = _grid(cfg, size, 16, LEAST_3, MOST_3)
    trace, values = _start(cfg, d, 16, bias=True)
    names = ("linear_fc1", "linear_fc2")
    with trace.layer("encoder", range(depth), "model.visual.blocks.{}.") as layer:
        plain_attention(layer, d, heads, ("attn.qkv", "attn.proj"))
        width = cfg.int("intermediate_size", 4304)
        layer.add(plain_mlp(layer, d, width, layer.stream, bias=True, prefix="mlp.", names=names))
    widths = (d * merge**2, d * merge**2, out)
    deep = config.str("model_type").startswith("qwen3_vl")  # Qwen3.5 has the tower without them
    taken = cfg.list("deepstack_visual_indexes", [8, 16, 24]) if deep else []
    if taken:
        with trace.layer("deepstack", range(len(taken)), "model.visual.deepstack_merger_list.{}.") as layer:
            stream = layer.stream
            two_layers(layer, names, widths, per=merge**2)
            layer.stream = stream
    with trace.layer("connector", (0,), "model.visual.merger.") as layer:
        two_layers(layer, names, widths, per=merge**2)
    rows = grid[0] * grid[1] // merge**2
    sources = (
        code(PATCHES, "smart_resize"),
        processor("Qwen/Qwen3-VL-8B-Instruct", "size: shortest_edge, longest_edge"),
    )
    return Draft(
        trace, "qwen3_vl_vision", cfg.str("hidden_act", "gelu_pytorch_tanh"), d, depth, rows + MARKS, rows, 1,
        grid[0] * grid[1], (grid[0] * grid[1], values), sources, grid=(1, *grid), hooked=False,
    )  # fmt: skip
