"""How processors resize an image and cut it: equations of pixels, with no model in them. Sizes are (height, width)."""

from __future__ import annotations

import math

from ...errors import InputError

MOST_RATIO = 200


def within_pixels(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """The size nearest to height x width whose sides are multiples of `factor`, of `least` to `most` pixels:

        round(side / factor) factor;  above: floor(side / beta / factor) factor, beta = sqrt(h w / most), at least
        one factor;  below: ceil(side beta / factor) factor, beta = sqrt(least / (h w)).

    Exact. Raises InputError where a side is over 200 times the other. Source: transformers 5.23,
    models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize.
    """
    if max(height, width) > MOST_RATIO * min(height, width):
        raise InputError("image-size", f"{width}x{height}", f"sides within {MOST_RATIO} times each other")
    found = tuple(round(side / factor) * factor for side in (height, width))
    if found[0] * found[1] > most:
        beta = math.sqrt(height * width / most)
        found = tuple(max(factor, math.floor(side / beta / factor) * factor) for side in (height, width))
    elif found[0] * found[1] < least:
        beta = math.sqrt(least / (height * width))
        found = tuple(math.ceil(side * beta / factor) * factor for side in (height, width))
    return found[0], found[1]


def windows(height: int, width: int, side: int) -> tuple[int, ...]:
    """Cells of each window of `side` x `side` that a grid of height x width cells is cut into, from its upper left
    corner: those at the right and lower edge hold fewer. Exact. Source: transformers 5.23, vision_utils.py,
    get_vision_window_index (whose empty windows are dropped)."""
    rows = [min(side, height - at) for at in range(0, height, side)]
    columns = [min(side, width - at) for at in range(0, width, side)]
    return tuple(row * column for row in rows for column in columns)
