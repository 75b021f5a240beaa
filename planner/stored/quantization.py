"""quantization_config -> bytes of the base model as its files store it, and how many of its weights are quantised.

What counts is the layout of a linear layer in each format: weights at their bits, and the scales, zeros and indices
beside them. The inventory, and so every parameter count, is that of the unquantised model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..architecture.fields import Fields
from ..dataclass import dataclass, replace
from ..errors import ConfigError
from ..schema import Architecture, Matrix
from . import compressed_tensors
from .quant_layouts import (
    FP4_GROUP,
    Names,
    Scheme,
    UnknownQuantizationError,
    awq,
    bnb4,
    bnb8,
    fp8_blocks,
    gptq,
    is_linear,
    modules,
    mxfp4,
    skipping,
    texts,
)

# Types whose experts transformers 4 stacked too, so that a file made with it holds them as no Linear modules.
STACKED_BEFORE_5 = frozenset(
    "dbrx gpt_oss granitemoe granitemoehybrid llama4 llama4_text qwen3_vl_moe qwen3_vl_moe_text".split()
)
TOWERS = ("vision", "audio", "projector")


@dataclass(frozen=True)
class Quantised:
    """`params` weights are stored in `bytes` bytes, scales and zeros included."""

    scheme: Scheme
    params: int
    bytes: int


def _bits(cfg: Fields, key: str, allowed: tuple[int, ...], default: Any = None) -> int:
    bits: int = cfg.int(key) if default is None else cfg.int(key, default)
    if bits not in allowed:
        raise cfg.fail(key, f"one of {', '.join(map(str, allowed))}")
    return bits


def _group(cfg: Fields) -> int:
    """group_size, -1 for one group over all inputs."""
    found: int = cfg.int("group_size", 128, minimum=-1)
    if found == 0:
        raise cfg.fail("group_size", "a whole number above 0, or -1")
    return found


def _bitsandbytes(cfg: Fields, config: Fields) -> Scheme:
    """4-bit or 8-bit Linear modules. Stacked experts are none: with transformers 5 they stay as they are, in a file
    made with transformers 4 they were Linear modules for most types, and so were routers."""
    covers = skipping(texts(cfg, "llm_int8_skip_modules"), defaults=False)
    old = str(config.str("transformers_version", "")).startswith("4.")
    separate = old and config.data.get("model_type") not in STACKED_BEFORE_5

    def covered(matrix: Matrix, path: str) -> bool:
        if matrix.kind == "experts" and not separate:
            return False
        return covers(matrix, path)

    if cfg.bool("load_in_4bit", cfg.bool("_load_in_4bit", False)):
        kind = cfg.str("bnb_4bit_quant_type", "fp4")
        if kind not in ("nf4", "fp4"):
            raise cfg.fail("bnb_4bit_quant_type", "nf4 or fp4")
        double = cfg.bool("bnb_4bit_use_double_quant", False)
        label = f"bitsandbytes {kind}{', double quantisation' if double else ''}"
        return Scheme("bitsandbytes", label, 4, 64, lambda i, o: bnb4(i, o, double), covered)
    return Scheme("bitsandbytes", "bitsandbytes int8", 8, None, bnb8, covered)


def _gptq(cfg: Fields, config: Fields) -> Scheme:
    """The Linear modules of the decoder's layers; routers and towers stay."""
    bits, group = _bits(cfg, "bits", (2, 3, 4, 8)), _group(cfg)
    form = str(cfg.str("checkpoint_format", cfg.str("format", None)) or "gptq").lower()
    if form not in ("gptq", "gptq_v2"):
        raise UnknownQuantizationError(f"GPTQ in the format {form!r:.40}")
    rules = cfg.sub("dynamic", {}).data
    if not all(isinstance(rule, str) and rule.startswith("-:") for rule in rules):
        raise UnknownQuantizationError("GPTQ with other bits for some modules")
    left = Names([f"re:{rule[2:]}" for rule in rules], compressed=True)
    inside = cfg.list("modules_in_block_to_quantize", None)
    flat = [name for item in inside or () for name in (item if isinstance(item, list) else [item])]
    if not all(isinstance(name, str) for name in flat):
        raise cfg.fail("modules_in_block_to_quantize", "lists of names")
    head = cfg.bool("lm_head", False)

    def covers(matrix: Matrix, path: str) -> bool:
        if matrix.role == "unembedding":
            return bool(head)
        if not is_linear(matrix) or "{}" not in matrix.name or matrix.role in ("router", "other", *TOWERS):
            return False
        if flat and not any(module.endswith(name) for name in flat for module in modules(matrix, path)):
            return False
        return not left.match(matrix, path)

    return Scheme(
        "gptq", f"GPTQ {bits} bits", bits, group, lambda i, o: gptq(i, o, bits, group), covers, "float16"
    )


def _awq(cfg: Fields, config: Fields) -> Scheme:
    bits, group = _bits(cfg, "bits", (4,), 4), _group(cfg)
    form = str(cfg.str("version", cfg.str("format", None)) or "gemm").lower()
    if form != "gemm":
        raise UnknownQuantizationError(f"AWQ in the format {form!r:.40}")
    covers = skipping(texts(cfg, "modules_to_not_convert"), defaults=True)
    return Scheme(
        "awq", f"AWQ {bits} bits", bits, group, lambda i, o: awq(i, o, bits, group), covers, "float16"
    )


def _fp8(cfg: Fields, config: Fields) -> Scheme:
    """transformers' FineGrainedFP8Config. Scales are fp32; with scale_fmt ue8m0 a byte, but for DeepSeek-V3.1 and
    V3.2, whose files keep them in fp32. Without blocks a weight has one scale, and a second for static inputs."""
    if cfg.has("modules_to_convert"):
        raise UnknownQuantizationError("FP8 embeddings")
    skip = texts(cfg, "modules_to_not_convert")
    covers = skipping(skip if skip is not None else texts(cfg, "ignored_layers"), defaults=False)
    small = cfg.str("scale_fmt", "float") == "ue8m0"
    scale = 1 if small and config.data.get("model_type") not in ("deepseek_v3", "deepseek_v32") else 4
    experts = None
    if cfg.str("expert_dtype", config.str("expert_dtype", "fp8")) == "fp4":
        experts = mxfp4
    if "weight_block_size" in cfg.data and not cfg.has("weight_block_size"):
        scales = 8 if cfg.str("activation_scheme", "dynamic") == "static" else 4
        return Scheme("fp8", "FP8", 8, None, lambda i, o: i * o + scales, covers, "bfloat16", experts)
    sides = cfg.list("weight_block_size", [128, 128], length=2)
    if not all(type(side) is int and 0 < side < 2**31 for side in sides):
        raise cfg.fail("weight_block_size", "two whole numbers above 0")
    block = (sides[0], sides[1])
    label = f"FP8 in blocks of {block[0]} x {block[1]}" + (", experts FP4" if experts else "")
    return Scheme(
        "fp8", label, 8, block[1], lambda i, o: fp8_blocks(i, o, block, scale), covers, "bfloat16", experts
    )


def _fbgemm(cfg: Fields, config: Fields) -> Scheme:
    """A byte a weight and an fp32 scale for each row. Biases, which it keeps in fp32, count at the config's dtype."""
    covers = skipping(texts(cfg, "modules_to_not_convert"), defaults=False)
    return Scheme("fbgemm_fp8", "FP8 by rows", 8, None, lambda i, o: i * o + 4 * o, covers, "bfloat16")


def _mxfp4(cfg: Fields, config: Fields) -> Scheme:
    """gpt-oss: the experts' weights (`_blocks` and `_scales`); all else stays."""
    covers = skipping(texts(cfg, "modules_to_not_convert"), defaults=False)
    return Scheme(
        "mxfp4", "MXFP4 experts", 4, FP4_GROUP, mxfp4,
        lambda matrix, path: matrix.kind == "experts" and covers(matrix, path), "bfloat16",
    )  # fmt: skip


METHODS: dict[str, Callable[[Fields, Fields], Scheme]] = {
    "bitsandbytes": _bitsandbytes,
    "gptq": _gptq,
    "awq": _awq,
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "mxfp4": _mxfp4,
    "compressed-tensors": compressed_tensors.read,
}


def scheme(given: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Scheme:
    """The scheme of a quantization_config. Raises UnknownQuantizationError for a method or layout not known here and
    ConfigError for fields that cannot be used."""
    cfg = Fields(given, where)
    method = cfg.str("quant_method", None)
    if method is None and ("load_in_4bit" in given or "load_in_8bit" in given):
        method = "bitsandbytes"
    if method not in METHODS:
        raise UnknownQuantizationError(f"the method {method!r:.60}")
    try:
        return METHODS[method](cfg, Fields(config))
    except RecursionError as error:
        raise ConfigError(f"config field {where} is nested too deeply") from error


def measure(found: Scheme, arch: Architecture, towers: bool = True) -> Quantised:
    """The quantised weights of an inventory; `towers` says whether the vision and audio towers may be among them.
    Experts count one by one, each of their logical matrices with its own scales."""
    params = total = 0
    for matrix in arch.matrices:
        if matrix.tied or not is_linear(matrix) or (not towers and matrix.role in TOWERS):
            continue
        paths = (matrix.name.replace("{}", str(layer)) for layer in matrix.layers)
        covered = [path for path in paths if found.covers(matrix, path)]
        params += len(covered) * matrix.experts * matrix.d_in * matrix.d_out
        if found.choose is not None:
            total += sum(_bytes_of(matrix, found.choose(matrix, path)) for path in covered)
        elif covered:
            layout = found.experts if found.experts and matrix.kind == "experts" else found.linear
            total += len(covered) * _bytes_of(matrix, layout)
    return Quantised(found, params, total)


def left_whole(found: Scheme, arch: Architecture) -> Architecture:
    """The inventory with the layers (`Matrix.whole_in`) in which a checkpoint of bitsandbytes leaves a Linear module
    in 16 bits, as its config lists them; whether experts are quantised is a set-up's to say."""
    if found.method != "bitsandbytes":
        return arch
    matrices = tuple(_marked(found, matrix) for matrix in arch.matrices)
    return arch if matrices == arch.matrices else replace(arch, matrices=matrices)


def _marked(found: Scheme, matrix: Matrix) -> Matrix:
    if matrix.tied or "{}" not in matrix.name or matrix.kind not in ("linear", "conv1d"):
        return matrix
    layers = (
        layer for layer in matrix.layers if not found.covers(matrix, matrix.name.replace("{}", str(layer)))
    )
    whole = tuple(layers)
    return replace(matrix, whole_in=whole) if whole else matrix


def _bytes_of(matrix: Matrix, layout: Callable[[int, int], int]) -> int:
    """A matrix of one layer in a layout, experts one by one."""
    if matrix.kind != "experts":
        return layout(matrix.d_in, matrix.d_out)
    return matrix.experts * sum(layout(part.d_in, part.d_out) for part in matrix.logical)
