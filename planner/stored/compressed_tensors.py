"""The compressed-tensors formats: groups of modules, each with its bits, strategy and layout.

Layouts as its package 0.20 writes them (github.com/vllm-project/compressed-tensors, compressors/), and equal to what
it writes. `pack-quantized` packs integers along the inputs into int32, row by row, without gaps (older versions left
some at 3, 5, 6 and 7 bits); `int-quantized`, `float-quantized` and `naive-quantized` keep a byte a weight; the FP4
formats keep two weights a byte. Scales count 2 bytes, as in a 16-bit model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..architecture.fields import Fields
from ..schema import Matrix
from .quant_layouts import Names, Scheme, UnknownQuantizationError, ceil_div, is_linear, texts

BYTE_FORMATS = ("int-quantized", "float-quantized", "naive-quantized")
STRATEGIES = ("tensor", "channel", "group", "block", "tensor_group")
MOST_GROUPS = 64
ALL = "Linear"


def _scales(cfg: Fields, strategy: str, group: int | None) -> Callable[[int, int], int]:
    """How many scales a weight has."""
    if strategy == "tensor":
        return lambda d_in, d_out: 1
    if strategy == "channel" or (strategy == "group" and group is None):
        return lambda d_in, d_out: d_out
    if strategy in ("group", "tensor_group"):
        size = group or 1
        return lambda d_in, d_out: d_out * ceil_div(d_in, size)
    sides = cfg.list("block_structure", length=2)
    if not all(type(side) is int and 0 < side < 2**31 for side in sides):
        raise cfg.fail("block_structure", "two whole numbers above 0")
    return lambda d_in, d_out: ceil_div(d_out, sides[0]) * ceil_div(d_in, sides[1])


def _layout(weights: Fields, form: str, bits: int, fixed_inputs: bool) -> Callable[[int, int], int]:
    """Bytes of a linear layer. Scales have the model's 16 bits; static activations add one."""
    group = weights.int("group_size", None, minimum=-1)
    group = group if group and group > 0 else None
    strategy = weights.str("strategy", None) or ("group" if group else "tensor")
    if strategy not in STRATEGIES:
        raise weights.fail("strategy", f"one of {', '.join(STRATEGIES)}")
    scales = _scales(weights, strategy, group)
    symmetric, ordered = weights.bool("symmetric", True), weights.data.get("actorder") in ("group", True)
    if form == "nvfp4-pack-quantized":
        extra = 8 if fixed_inputs else 4
        return lambda i, o: o * ceil_div(i, 2) + scales(i, o) + extra
    if form == "mxfp4-pack-quantized":
        return lambda i, o: o * ceil_div(i, 2) + scales(i, o)
    static = 2 if fixed_inputs else 0
    if form in BYTE_FORMATS:
        return lambda i, o: i * o + (2 if symmetric else 3) * scales(i, o) + static

    def packed(d_in: int, d_out: int) -> int:
        found = scales(d_in, d_out)
        zeros = 0 if symmetric else 4 * ceil_div(d_out * bits, 32) * (found // d_out)
        if strategy == "tensor":
            zeros = 0 if symmetric else 1
        order = 4 * d_in if ordered else 0
        shape = 16  # two int64
        return 4 * d_out * ceil_div(d_in * bits, 32) + 2 * found + zeros + order + shape + static

    return packed


def _group(
    cfg: Fields, top_format: str | None
) -> tuple[int, int | None, str, Callable[[int, int], int], list[str]]:
    """Bits, group size, format, layout and targets of one of the config_groups."""
    weights = cfg.sub("weights")
    bits: int = weights.int("num_bits")
    form = cfg.str("format", None) or top_format or ""
    float_type = weights.str("type", "int") == "float"
    fixed = {"nvfp4-pack-quantized": 4, "mxfp4-pack-quantized": 4}.get(form)
    if form in BYTE_FORMATS:
        fixed = 8
    if form != "pack-quantized" and fixed is None:
        raise UnknownQuantizationError(f"compressed-tensors in the format {form!r:.40}")
    if (fixed and bits != fixed) or bits > 8 or (form == "pack-quantized" and float_type):
        raise UnknownQuantizationError(f"compressed-tensors {form} with {bits} bits")
    inputs = cfg.sub("input_activations", None) if cfg.has("input_activations") else None
    static = inputs is not None and inputs.data.get("dynamic") in (False, "local")
    targets = texts(cfg, "targets") or ["Linear"]
    return (
        bits,
        weights.int("group_size", None, minimum=-1),
        form,
        _layout(weights, form, bits, static),
        targets,
    )


def read(cfg: Fields, config: Fields) -> Scheme:
    """The scheme of a compressed-tensors config. A module that several groups mean takes the one that names it before
    one of all Linear modules, as the package does."""
    if cfg.sub("sparsity_config", {}).str("format", "dense") != "dense":
        raise UnknownQuantizationError("compressed-tensors with sparse weights")
    groups = cfg.sub("config_groups")
    if not 1 <= len(groups.data) <= MOST_GROUPS:
        raise cfg.fail("config_groups", f"1 to {MOST_GROUPS} groups")
    top = cfg.str("format", None)
    parsed: list[Any] = [_group(groups.sub(str(name)), top) for name in groups.data]
    bits, group, form, layout, _ = next((found for found in parsed if ALL in found[4]), parsed[0])
    same = {(other[0], other[1], other[2], str(groups.sub(str(n)).data.get("weights")))
            for n, other in zip(groups.data, parsed, strict=True)}  # fmt: skip
    targets = Names([name for other in parsed for name in other[4]], compressed=True)
    named: list[tuple[Names, Callable[[int, int], int]]] = [
        (Names(found[4], compressed=True), found[3]) for found in parsed if ALL not in found[4]
    ]
    ignored = Names(texts(cfg, "ignore") or (), compressed=True)

    def covers(matrix: Matrix, path: str) -> bool:
        return is_linear(matrix) and targets.match(matrix, path) and not ignored.match(matrix, path)

    usual: Callable[[int, int], int] = layout

    def choose(matrix: Matrix, path: str) -> Callable[[int, int], int]:
        return next((own for names, own in named if names.match(matrix, path)), usual)

    kind = "FP" if form.startswith(("float", "nvfp", "mxfp")) else "int"
    all_bits = sorted({found[0] for found in parsed})
    label = f"compressed-tensors {kind}{'/'.join(map(str, all_bits))}"
    return Scheme(
        "compressed-tensors",
        label,
        bits,
        group,
        layout,
        covers,
        "bfloat16",
        choose=choose if len(same) > 1 else None,
    )
