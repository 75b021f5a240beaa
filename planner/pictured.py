"""The images of a sample as options say them: the model with them, what they take, and what to note."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import InputError
from .given import whole_number
from .schema import Architecture, Notice

OPTIONS = ("images", "image_size")


def pictured(arch: Architecture, config: Mapping[str, Any], options: Mapping[str, Any]) -> Architecture:
    """The model with the images of every sequence, or as it is where none are asked for. Raises InputError, and
    UnsupportedArchitectureError for a model type whose images have no account."""
    count, size = options.get("images"), options.get("image_size")
    if count is None:
        if size is not None:
            raise InputError("image-size", size, "--images N beside it: how many images a sequence has")
        return arch
    from .architecture.images import with_images

    return with_images(arch, config, whole_number("images", count), size)


def check_length(arch: Architecture, seq_len: int, given: bool) -> None:
    """Refuse a sequence that its images fill. Raises InputError."""
    images = arch.images
    if images is not None and images.tokens >= seq_len:
        raise InputError(
            "seq-len", seq_len if given else f"{seq_len}, the default",
            f"over {images.tokens:,} tokens: those that {_images(images.count)} put into a sequence, of which it is "
            "the whole length",
        )  # fmt: skip


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def section(arch: Architecture, seq_len: int) -> dict[str, Any] | None:
    """The contract's `images`; None where none are asked for."""
    images = arch.images
    if images is None:
        return None
    return {
        "count": images.count,
        "width": images.width or None,
        "height": images.height or None,
        "tokens": images.tokens,
        "features": images.rows,
        "text_tokens": seq_len - images.tokens,
        "tower_units": images.units,
        "tower_positions": images.length,
        "pixel_values": list(images.pixel_shape),
        "basis": "exact",
    }


def sources(arch: Architecture) -> list[tuple[str, Any]]:
    """Where the images' tokens come from."""
    return [("images", source) for source in arch.images.sources] if arch.images else []


def image_notices(arch: Architecture, seq_len: int, total_tokens: int | None) -> Iterator[Notice]:
    """What to know of images: that none is counted, or what is."""
    images = arch.images
    if images is None:
        if any(matrix.role == "vision" for matrix in arch.matrices):
            yield Notice("no-images", f"No image is counted: the step is of text alone. {_how(arch)}")
        return
    verb = "takes" if images.count == 1 else "take"
    yield Notice(
        "images-counted",
        f"{_images(images.count)} {verb} {images.tokens:,} of a sequence's {seq_len:,} tokens, at the pixel limits "
        "of the published processor (a trainer's own lower limit makes fewer: give the size that it resizes to).",
    )
    if total_tokens is not None:
        yield Notice("image-tokens", "Tokens of the data are taken to count those of images too.")


def _how(arch: Architecture) -> str:
    from .architecture.images import known_types

    if arch.model_type in known_types():
        return "--images N counts those of a sample."
    return f"No account of the images of {arch.model_type} is written."
