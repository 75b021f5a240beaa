"""Tokens of images against transformers' own processors, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import compare, estimate
from planner.architecture.images.resizing import (
    canvas,
    most_patches,
    tiles,
    windows,
    within_pixels,
    within_sides,
)
from planner.errors import InputError, UnsupportedArchitectureError
from planner.estimator import load

from .small import CONFIGS, with_some

SIDES = st.integers(20, 4000)


@settings(max_examples=60)
@given(SIDES, SIDES)
def test_sizes_are_those_of_the_processors(height: int, width: int) -> None:
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    assert get_aspect_ratio_preserving_size(height, width, 16, 2520, 3) == most_patches(
        height, width, 16, 2520, 3
    )
    blank = np.broadcast_to(np.zeros((1, 1, 3)), (height, width, 3))
    assert get_resize_output_image_size(blank, 1540, 28, "channels_last") == within_sides(
        height, width, 1540, 28
    )
    qwen = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12_845_056})
    high, wide = within_pixels(height, width, 28, 3136, 12_845_056)
    assert qwen.get_number_of_image_patches(height, width, {}) == high // 14 * (wide // 14)
    idefics = Idefics3ImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    assert idefics.get_number_of_image_patches(height, width)[1:] == tiles(height, width, 512, 2048)
    got = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True)
    square = {"patch_size": {"height": 448, "width": 448}}
    columns, rows = canvas(height, width, 448, 1, 12)
    assert got.get_number_of_image_patches(height, width, square) == columns * rows + (columns * rows > 1)


def test_processors_make_so_many_pixel_values() -> None:
    """Of synthetic images, really processed."""
    from PIL import Image
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    made = {
        "qwen2_5_vl": Qwen2VLImageProcessorPil(),
        "gemma4": Gemma4ImageProcessorPil(max_soft_tokens=70, patch_size=4),
        "gemma3": Gemma3ImageProcessorPil(size={"height": 64, "width": 64}),
        "idefics3": Idefics3ImageProcessorPil(
            size={"longest_edge": 256}, max_image_size={"longest_edge": 64}
        ),
        "internvl": GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, crop_to_patches=True),
        "mistral3": PixtralImageProcessorPil(
            size={"longest_edge": 96}, patch_size={"height": 16, "width": 16}
        ),
        "pixtral": PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8}),
    }
    for kind, processor in made.items():
        images = with_some(kind, 1, None if kind == "gemma3" else "150x90").images
        assert images
        found = processor(Image.new("RGB", (150, 90)), return_tensors="np")
        shape = found["pixel_values"].shape
        assert (shape[1:] if kind == "idefics3" else shape) == images.pixel_shape, kind
        if images.grid:
            assert tuple(found["image_grid_thw"][0]) == images.grid


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_windows_cover_every_cell(height: int, width: int, side: int) -> None:
    cells = windows(height, width, side)
    assert sum(cells) == height * width
    assert max(cells) <= side * side


# Worked out by hand: 1280 x 720 is brought to 1288 x 728, of 92 x 52 patches; four make a token.
KNOWN = (
    ("Qwen/Qwen2.5-VL-7B-Instruct", "1280x720", 52 * 92 // 4 + 2),
    ("Qwen/Qwen2-VL-7B-Instruct", "28x28", 4 + 2),
    ("Qwen/Qwen3-VL-4B-Instruct", "1280x704", 40 * 22 + 2),
    ("google/gemma-3-4b-it", None, 256 + 4),
    ("llava-hf/llava-1.5-7b-hf", None, 24 * 24),
    # 1280 x 720 times sqrt(2520 256 / (1280 720)) is 1070 x 602: 22 x 12 squares of 48 pixels.
    ("google/gemma-4-31B-it", "1280x720", 22 * 12 + 2),
    # 2000 x 1000 is brought to 1540 x 770, 55 x 28 pieces of 28 pixels; a mark behind each of the 28 rows.
    ("mistralai/Ministral-3-3B-Base-2512", "2000x1000", 28 * (55 + 1)),
)


@pytest.mark.parametrize(("model", "size", "tokens"), KNOWN)
def test_tokens_of_published_models(model: str, size: str | None, tokens: int) -> None:
    plan = estimate(model, images=2, image_size=size, seq_len=4096)
    said = plan.to_dict()["images"]
    assert said["tokens"] == 2 * tokens
    assert said["text_tokens"] == 4096 - 2 * tokens
    assert [n.code for n in plan.warnings if "image" in n.code] == ["images-counted"]


def test_without_images_nothing_changes_but_a_note() -> None:
    plan = estimate("google/gemma-3-4b-it")
    assert plan.images is None
    assert [n.code for n in plan.warnings].count("no-images") == 1
    assert "no-images" not in {n.code for n in estimate("Qwen/Qwen3-8B").warnings}


def test_sequences_with_images_are_shared_by_gpus() -> None:
    """The tower is not split: sequence parallelism spreads what the text alone keeps."""
    given: dict[str, Any] = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "images": 1, "image_size": "640x480"}
    alone = estimate(**given, seq_len=4096)
    shared = estimate(**given, seq_len=4096, gpus=2, sequence_parallel=2)
    assert alone.memory and shared.memory
    assert shared.memory["lora"]["per_gpu_bytes"] < alone.memory["lora"]["per_gpu_bytes"]


def test_compare_says_whether_images_are_counted() -> None:
    given: dict[str, Any] = {"model": "google/gemma-3-4b-it", "methods": "lora"}
    text, seen = compare(**given), compare(**given, images=2)
    assert [n.code for n in text.warnings if "image" in n.code] == ["no-images"]
    assert [n.code for n in seen.warnings if "image" in n.code] == ["images-counted"]
    assert seen.columns[0].memory.per_gpu_bytes > text.columns[0].memory.per_gpu_bytes


def test_images_take_memory_flops_and_time() -> None:
    given: dict[str, Any] = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "seq_len": 4096, "gpu": "h100"}
    text, seen = estimate(**given), estimate(**given, images=2, image_size="1280x720")
    assert text.flops and seen.flops and text.time and seen.time and text.memory and seen.memory
    assert seen.flops.lora > text.flops.lora
    assert seen.time["step"]["seconds"] > text.time["step"]["seconds"]
    assert seen.memory["full"]["per_gpu_bytes"] > text.memory["full"]["per_gpu_bytes"]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"images": 1}, "image-size"),
    ({"images": 1, "image_size": "wide"}, "image-size"),
    ({"images": 1, "image_size": "0x10"}, "image-size"),
    ({"images": 1, "image_size": "10x9000"}, "image-size"),
    ({"image_size": "640x480"}, "image-size"),
    ({"images": 0, "image_size": "640x480"}, "images"),
    ({"images": 9, "image_size": "1280x720"}, "seq-len"),
)


@pytest.mark.parametrize(("options", "field"), WRONG)
def test_bad_images_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as error:
        estimate("Qwen/Qwen2.5-VL-7B-Instruct", **options)
    assert str(error.value).startswith(field)


def test_a_type_without_an_account_says_which_have_one() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="qwen2_5_vl"):
        estimate("Qwen/Qwen3-8B", images=1)


def test_towers_are_those_of_the_inventory() -> None:
    for kind in CONFIGS:
        arch = with_some(kind)
        assert arch.images
        for own, index in enumerate(arch.images.indices):
            mine, theirs = arch.images.tower.matrices[own], arch.matrices[index]
            assert (mine.name, mine.d_in, mine.d_out, mine.bias) == (
                theirs.name, theirs.d_in, theirs.d_out, theirs.bias,
            ), kind  # fmt: skip
            assert set(mine.layers) <= set(theirs.layers)


def test_the_same_request_is_the_same_object() -> None:
    from planner.architecture.images import with_images

    found, arch = load("google/gemma-3-4b-it")
    assert with_images(arch, found.config, 3) is with_images(arch, found.config, 3)
