"""The base model as it is stored: bytes, quantisation, and what its files say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..dataclass import dataclass
from ..errors import ConfigError
from ..schema import Architecture, Notice

WIDTHS = {"float64": 8, "float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
NESTED = ("text_config", "llm_config", "language_config")


@dataclass(frozen=True)
class Stored:
    """`bytes` of the weights; None where the dtype or the quantised layout is unknown and no files say it.
    `quantization` and `checkpoint` are the contract's entries."""

    bytes: int | None
    quantization: dict[str, Any] | None
    checkpoint: dict[str, Any] | None
    notices: tuple[Notice, ...] = ()


def dtype_of(config: Mapping[str, Any]) -> str | None:
    """The dtype that a config names for its weights, without "torch."; None where it names none that is known."""
    parts = [config, *(config[key] for key in NESTED if isinstance(config.get(key), Mapping))]
    for part in parts:
        for key in ("dtype", "torch_dtype"):
            name = part.get(key)
            if isinstance(name, str) and name.removeprefix("torch.") in WIDTHS:
                return name.removeprefix("torch.")
    return None


def _quantization_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, bool] | None:
    """The quantization_config, its place, and whether it is the whole model's and not the text part's alone."""
    for nest in ("", *NESTED):
        part: Any = config.get(nest) if nest else config
        found = part.get("quantization_config") if isinstance(part, Mapping) else None
        place = f"{nest}.quantization_config".removeprefix(".")
        if found is None or found == {}:
            continue
        if not isinstance(found, Mapping):
            raise ConfigError(
                f"config field {place}: found {type(found).__name__}, expected a nested config."
            )
        return found, place, not nest
    return None


def _quantised(
    given: Mapping[str, Any], place: str, whole: bool, config: Mapping[str, Any], arch: Architecture
) -> Stored:
    from . import quantization
    from .quant_layouts import UnknownQuantizationError

    dtype = dtype_of(config)
    try:
        scheme = quantization.scheme(given, config, place)
        found = quantization.measure(scheme, arch, towers=whole)
    except UnknownQuantizationError as error:
        method = given.get("quant_method")
        entry: dict[str, Any] = {"method": method if isinstance(method, str) else None, "bits": None}
        message = (
            f"The config's quantisation is not known here: {error}. The bytes of the weights are left open."
        )
        return Stored(None, entry, None, (Notice("quantization-unknown", message),))
    rest = dtype or scheme.dtype
    entry = {
        "method": scheme.method,
        "bits": scheme.bits,
        "label": scheme.label,
        "group_size": scheme.group_size,
        "params": found.params,
        "bytes": found.bytes,
        "rest_dtype": rest,
    }
    total = None if rest is None else found.bytes + (arch.params - found.params) * WIDTHS[rest]
    return Stored(total, entry, None)


def left_whole(config: Mapping[str, Any], arch: Architecture) -> Architecture:
    """The inventory as the model's own files leave some of it unquantised; itself where these are not quantised, or
    not known to be."""
    quantised = _quantization_of(config)
    if quantised is None:
        return arch
    from . import quantization
    from .quant_layouts import UnknownQuantizationError

    given, place, _ = quantised
    try:
        return quantization.left_whole(quantization.scheme(given, config, place), arch)
    except UnknownQuantizationError:
        return arch


def stored(config: Mapping[str, Any], arch: Architecture, folder: str | None = None) -> Stored:
    """How the base model is stored, from its config and, where `folder` has safetensors files, their headers."""
    quantised = _quantization_of(config)
    if quantised is not None:
        about = _quantised(*quantised, config, arch)
    else:
        dtype = dtype_of(config)
        about = Stored(None if dtype is None else arch.params * WIDTHS[dtype], None, None)
    if folder is None or not _has_files(folder):
        return about
    from .checkpoint import check

    checkpoint, notices = check(folder, arch)
    entry = dict(vars(checkpoint)) if checkpoint else None
    total = about.bytes
    if total is None and checkpoint and checkpoint.agrees:
        total = checkpoint.bytes
    return Stored(total, about.quantization, entry, (*about.notices, *notices))


def _has_files(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.endswith((".safetensors", ".safetensors.index.json")) for entry in entries)
    except OSError:
        return False
