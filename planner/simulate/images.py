"""Images in a simulated step: pixel values without values, and what a model is told of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..schema import Images
from ..setup import Setup

SWITCH = "TRANSFORMERS_DISABLE_TORCH_CHECK"


def image_inputs(model: Any, images: Images, setup: Setup, ids: Any) -> dict[str, Any]:
    """What a processor hands on beside tokens: pixel values in float32, and the grid of patches where the model asks
    for it (on the host, whose numbers decide shapes). Tokens `ids` with values get the images' places marked."""
    config, n, device = model.config, setup.sequences, ids.device
    first, *rest = images.pixel_shape
    found = {"pixel_values": torch.zeros((first * n, *rest), device=device)}
    if device.type != "meta":
        ids[:, : images.rows] = config.image_token_id
    if images.grid is not None:
        at = "cpu" if device.type == "meta" else device
        found["image_grid_thw"] = torch.tensor([images.grid] * (images.count * n), device=at)
        # In training the model finds them from tokens; of these there are none, or not in the order of a text.
        found["position_ids"] = torch.zeros((3, n, setup.seq_len), dtype=torch.long, device=device)
    return found


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
        if name.endswith("rotary_pos_emb")
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def given(model: Any, images: Images | None, device: str) -> Iterator[None]:
    """A model that takes images without values."""
    if images is None:
        yield
        return
    with unchecked(), positions_moved(model) if device == "meta" else nullcontext():
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
