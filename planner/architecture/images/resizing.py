"""How processors resize an image and cut it: equations of pixels, with no model in them. Height stands first."""

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


def within_sides(height: int, width: int, longest: int, factor: int) -> tuple[int, int]:
    """The size of an image whose sides are brought to at most `longest` pixels, their ratio kept, and then up to the
    next multiple of `factor`:

        beta = max(h, w) / longest;  above 1: floor(side / beta);  then ceil(side / factor) factor.

    Exact. Source: transformers 5.23, models/pixtral/image_processing_pixtral.py, get_resize_output_image_size.
    """
    beta = max(height / longest, width / longest)
    sides = [math.floor(side / beta) if beta > 1 else side for side in (height, width)]
    high, wide = (((side - 1) // factor + 1) * factor for side in sides)
    if high < 1 or wide < 1:
        raise InputError("image-size", f"{width}x{height}", "a shorter side of a pixel or more once resized")
    return high, wide


def most_patches(height: int, width: int, patch: int, most: int, pool: int) -> tuple[int, int]:
    """The largest size near a shape of at most `most` patches, and of whole squares of `pool` by `pool`:

        floor(side sqrt(most patch^2 / (h w)) / (pool patch)) (pool patch), the other side by their ratio where one
        would be 0.

    Exact. Raises InputError where a side is that much longer. Source: transformers 5.23,
    models/gemma4/image_processing_gemma4.py, get_aspect_ratio_preserving_size.
    """
    step = pool * patch
    factor = math.sqrt(most * patch**2 / (height * width))
    high, wide = (math.floor(factor * side / step) * step for side in (height, width))
    longest = most // pool**2 * step
    if high == 0:
        high, wide = step, min(width // height * step, longest)
    elif wide == 0:
        high, wide = min(height // width * step, longest), step
    if high * wide > most * patch**2 or not high * wide:
        raise InputError("image-size", f"{width}x{height}", f"a shape that holds squares of {step} pixels")
    return high, wide


def windows(height: int, width: int, side: int) -> tuple[int, ...]:
    """Cells of each window of `side` x `side` that a grid of height x width cells is cut into, from its upper left
    corner: those at the right and lower edge hold fewer. Exact. Source: transformers 5.23, vision_utils.py,
    get_vision_window_index (whose empty windows are dropped)."""
    rows = [min(side, height - at) for at in range(0, height, side)]
    columns = [min(side, width - at) for at in range(0, width, side)]
    return tuple(row * column for row in rows for column in columns)


def tiles(height: int, width: int, side: int, longest: int, most: int = 4096) -> tuple[int, int]:
    """Rows and columns of square tiles of `side` pixels, where the longer side is first brought to `longest` pixels
    (up or down, the shorter one to an even number by it, and both to at most `most`): ceil(side / tile) each; (0, 0)
    where one tile holds all. Exact. Source: transformers 5.23, models/idefics3/image_processing_idefics3.py,
    get_number_of_image_patches."""
    found = [height, width]
    long, short = (1, 0) if width >= height else (0, 1)
    ratio = width / height
    for limit, even in ((longest, True), (most, False)):
        if not even and found[long] <= limit:
            continue
        found[long] = limit
        found[short] = int(limit / ratio) if long == 1 else int(limit * ratio)
        found[short] += found[short] % 2 if even else 0
        found[short] = max(found[short], 1)
        ratio = found[1] / found[0]
    rows, columns = (math.ceil(number / side) for number in found)
    return (rows, columns) if rows * columns > 1 else (0, 0)


def canvas(height: int, width: int, side: int, least: int, most: int) -> tuple[int, int]:
    """Columns and rows of the grid of `least` to `most` square tiles whose ratio of sides is nearest to the image's;
    of equals the larger, as long as the image has over half the grid's pixels. Exact. Source: transformers 5.23,
    models/got_ocr2/image_processing_got_ocr2.py, get_optimal_tiled_canvas."""
    grids = [(x, y) for x in range(1, most + 1) for y in range(1, most + 1) if least <= x * y <= most]
    best, difference = (1, 1), math.inf
    for grid in sorted(grids, key=lambda each: each[0] * each[1]):
        found = abs(width / height - grid[0] / grid[1])
        larger = found == difference and height * width > 0.5 * side * side * grid[0] * grid[1]
        if found < difference or larger:
            best, difference = grid, found
    return best
