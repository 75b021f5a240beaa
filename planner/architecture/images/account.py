"""From a config and the images of a sample to the architecture with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import InputError, UnsupportedArchitectureError
from ...schema import Architecture, Images
from ..fields import Fields
from . import gemma4, pixtral, qwen, square
from .draft import Builder, Draft

# `True`: the images' size decides how many tokens they take; the config alone does for the others.
BUILDERS: dict[str, tuple[Builder, bool]] = {
    "qwen2_vl": (qwen.qwen2_vl, True),
    "qwen2_5_vl": (qwen.qwen2_5_vl, True),
    "qwen3_vl": (qwen.qwen3_vl, True),
    "qwen3_vl_moe": (qwen.qwen3_vl, True),
    "qwen3_5": (qwen.qwen3_vl, True),
    "qwen3_5_moe": (qwen.qwen3_vl, True),
    "gemma3": (square.gemma3, False),
    "gemma4": (gemma4.gemma4, True),
    "idefics3": (square.idefics3, True),
    "smolvlm": (square.idefics3, True),
    "llava": (square.llava, False),
    "internvl": (square.internvl, True),
    "mistral3": (pixtral.mistral3, True),
    "pixtral": (pixtral.llava, True),
}
MOST_IMAGES, MOST_SIDE = 10_000, 100_000
_known: dict[tuple[int, int, tuple[int, int] | None], tuple[Architecture, Architecture]] = {}
_MOST_KNOWN = 64


def known_types() -> tuple[str, ...]:
    """Model types whose images have an account."""
    return tuple(sorted(BUILDERS))


def _kind(model_type: str, config: Mapping[str, Any]) -> str:
    """The entry of a config: LLaVA's classes around Pixtral's tower have one of their own."""
    tower = config.get("vision_config")
    around = isinstance(tower, Mapping) and tower.get("model_type") == "pixtral"
    return "pixtral" if model_type == "llava" and around else model_type


def _size(given: object) -> tuple[int, int] | None:
    """Width and height of "1280x720". Raises InputError."""
    if given is None:
        return None
    parts = given if isinstance(given, (tuple, list)) else str(given).lower().replace("×", "x").split("x")
    try:
        width, height = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise InputError("image-size", given, "WIDTHxHEIGHT in pixels, as 1024x768") from None
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
        raise InputError("image-size", given, f"sides of 1 to {MOST_SIDE} pixels")
    return width, height


def with_images(
    arch: Architecture, config: Mapping[str, Any], count: int, size: object = None
) -> Architecture:
    """`arch` with `count` images of `size` (width, height, or "WxH") in every sequence, the same object for the same
    request. Raises InputError, and UnsupportedArchitectureError for a model type without an account."""
    if arch.model_type not in BUILDERS:
        raise UnsupportedArchitectureError(
            f"images of model_type {arch.model_type} are not counted: no account of its processor and tower is "
            f"written. Those of {', '.join(known_types())} are. Without --images the step is of text alone."
        )
    if count > MOST_IMAGES:
        raise InputError("images", count, f"at most {MOST_IMAGES:,} images a sequence")
    pixels = _size(size)
    key = id(arch), count, pixels
    if key in _known and _known[key][0] is arch:
        return _known[key][1]
    build, by_size = BUILDERS[_kind(arch.model_type, config)]
    if by_size and pixels is None:
        raise InputError(
            "image-size",
            None,
            f"WIDTHxHEIGHT beside --images: {arch.model_type} takes images as large as they are",
        )
    draft = build(Fields(config), arch.hidden_size, pixels)
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    made = replace(arch, images=_images(arch, draft, count, pixels))
    _known[key] = arch, made
    return made


def _images(arch: Architecture, draft: Draft, count: int, size: tuple[int, int] | None) -> Images:
    tower = draft.trace.architecture(
        model_type=draft.kind, hidden_size=draft.width, n_layers=draft.layers, vocab_size=0,
        activation=draft.act,
    )  # fmt: skip
    places = {(m.name, m.d_in, m.d_out): index for index, m in enumerate(arch.matrices)}
    try:
        indices = tuple(places[m.name, m.d_in, m.d_out] for m in tower.matrices)
    except KeyError as error:
        raise UnsupportedArchitectureError(
            f"images of model_type {arch.model_type} are not counted for this config: its tower has no {error}."
        ) from None
    width, height = size or (0, 0)
    first, *rest = draft.pixels
    return Images(
        count, width, height, draft.tokens * count, draft.rows * count, tower, indices,
        draft.units * count, draft.length, (first * count, *rest), draft.grid, draft.hooked, draft.masked,
        draft.sources, draft.merged, draft.masked_windows,
    )  # fmt: skip
