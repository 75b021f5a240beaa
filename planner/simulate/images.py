"""Images in a simulated step: pixel values without values, and what a model is told of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..schema import Images
from ..setup import Setup
from .layers import Stack, everyone

NESTED = ("idefics3", "smolvlm")  # whose pixel values are given sample by sample
SWITCH = "TRANSFORMERS_DISABLE_TORCH_CHECK"


def image_inputs(model: Any, images: Images, setup: Setup, ids: Any) -> dict[str, Any]:
    """What a processor hands on beside tokens: pixel values in float32, and the grid of patches where the model asks
    for it (on the host, whose numbers decide shapes). Tokens `ids` with values get the images' places marked."""
    config, n, device = model.config, setup.sequences, ids.device
    first, *rest = images.pixel_shape
    shape = (n, first, *rest) if config.model_type in NESTED else (first * n, *rest)
    found = {"pixel_values": torch.ones(shape, device=device)}
    named = (
        "token_type_ids" if images.masked else "mm_token_type_ids" if config.model_type == "gemma4" else None
    )
    if named:
        found[named] = torch.zeros_like(ids)
    if device.type != "meta":
        ids[:, : images.rows] = config.image_token_id
        if named:
            found[named][:, : images.rows] = 1
    if config.model_type == "gemma4":
        found["image_position_ids"] = _positions(images, config.vision_config, n, device)
    if images.merged:
        # On the host, whose numbers decide shapes.
        found["image_sizes"] = torch.tensor([list(images.pixel_shape[2:])] * (images.count * n))
    if images.grid is not None:
        at = "cpu" if device.type == "meta" else device
        found["image_grid_thw"] = torch.tensor([images.grid] * (images.count * n), device=at)
        # In training the model finds them from tokens; of these there are none, or not in the order of a text.
        found["position_ids"] = torch.zeros((3, n, setup.seq_len), dtype=torch.long, device=device)
    return found


def _positions(images: Images, vision: Any, sequences: int, device: Any) -> Any:
    """Column and row of every patch of Gemma 4's images, of one row of squares that are pooled; -1 of padded ones."""
    length, rows = images.length, images.rows // images.count
    found = torch.full((images.count * sequences, length, 2), -1)
    side = vision.pooling_kernel_size
    at = torch.arange(rows * side**2)
    found[:, : len(at), 0], found[:, : len(at), 1] = at // side, at % side
    return found.to(device)


def towers_whole(found: list[Stack], images: Images | None) -> list[Stack]:
    """The stacks, a tower's whole where an inner layer's result is taken by its number, which one that is left out
    would shift."""
    if images is None or not (images.merged or any(block.stack == "unused" for block in images.tower.blocks)):
        return found
    paths = {m.name.partition(".{}")[0] for m in images.tower.matrices if ".{}" in m.name}
    return [
        everyone(each.path, each.length) if any(each.path.endswith(path) for path in paths) else each
        for each in found
    ]


def tell_layers_apart(model: Any) -> None:
    """Mark a tower's layers that differ by their number alone: Qwen2.5-VL's that see a whole image."""
    for module in model.modules():
        for index in getattr(module, "fullatt_block_indexes", ()):
            if index < len(module.blocks):
                module.blocks[index].sees_whole_image = True


def _moved(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) and value.device.type == "cpu" else value


def _to_meta(module: Any, args: Any, kwargs: Any) -> Any:
    return tuple(map(_moved, args)), {name: _moved(value) for name, value in kwargs.items()}


@contextmanager
def positions_moved(model: Any) -> Iterator[None]:
    """What a tower works out of its grid on the host goes to the meta device where it meets weights."""
    handles = [
        module.register_forward_pre_hook(_to_meta, with_kwargs=True)
        for name, module in model.named_modules()
        if name.endswith(("rotary_pos_emb", "pos_embed"))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Places(TorchFunctionMode):  # type: ignore[misc]
    """Answers where image tokens stand, and how many images a sample has, where there are no values: masks of tokens
    (of two dimensions) and of images (of one) become as many places as there are."""

    def __init__(self, images: Images, setup: Setup) -> None:
        super().__init__()
        self.units, self.rows, self.sequences = images.units, images.rows, setup.sequences
        kind = images.tower.model_type
        self.padded = images.length if kind.endswith("_padded") else None
        # What code asks for as a list: features of each image, or images of each sample.
        each = images.merged or kind.startswith("gemma4")
        self.listed = images.rows // images.count if each else images.units

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], self._places(args[1]), *args[2:])
        elif func is torch.Tensor.tolist and args[0].device.type == "meta":
            return [self.listed] * len(args[0])
        elif func is torch.Tensor.all and args[0].shape[1:] == (self.padded,) and not kwargs:
            return torch.tensor(False)  # some of an image's patches are padded
        elif func in (torch.Tensor.__mul__, torch.Tensor.mul) and args[0].device.type == "meta":
            args = (args[0], _moved(args[1]))  # weights of positions
        return func(*args, **(kwargs or {}))

    def _places(self, index: Any) -> Any:
        if isinstance(index, tuple):
            found = [self._places(each) for each in index]
            return tuple(x for each in found for x in (each if isinstance(each, tuple) else (each,)))
        if not isinstance(index, torch.Tensor) or index.dtype != torch.bool or index.device.type != "meta":
            return index
        each = self.units if index.dim() == 1 else self.rows
        number = each * self.sequences
        return tuple(torch.empty(number, dtype=torch.long, device="meta") for _ in range(index.dim()))


@contextmanager
def given(model: Any, images: Images | None, setup: Setup, device: str) -> Iterator[None]:
    """A model that takes images without values."""
    if images is None:
        yield
        return
    if device != "meta":
        with unchecked():
            yield
        return
    with unchecked(), positions_moved(model), Places(images, setup):
        yield


@contextmanager
def unchecked() -> Iterator[None]:
    """Without transformers' comparison of image tokens with features, which asks for values."""
    was = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if was is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = was
