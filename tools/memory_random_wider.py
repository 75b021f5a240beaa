"""From seed WIDER on: what an example teaches, images, the modules that are adapted by name, and the rest of what a
simulation can run, drawn on top of what earlier seeds draw."""

from __future__ import annotations

import random
from typing import Any

from planner.architecture.images import known_types, with_images
from planner.errors import PlannerError
from planner.estimator import load

from .memory_grid import Point

WIDER = 7  # the first seed that draws so
PICTURED_SHARE = 0.25  # of points whose model is drawn from those that see images
SIZES = ("224x224", "640x480", "1280x720", "1000x1400")
TEXT_BESIDE = (64, 200, 512, 1024)  # tokens of text beside those of images
MORE: dict[str, tuple[Any, ...]] = {
    "objective": ("sft", "sft", "sft", "sft", "sft", "dpo", "dpo", "orpo", "kto", "grpo"),
    "reference": ("base", "base", "precomputed"),
    "tiled": (False, True),
    "prompt": (0, 0.25, 0.5),
    "outputs_widened": (False, False, True),
    "input_grads": (None, None, None, None, True, False),
    "naming": ("sets", "sets", "sets", "targets", "targets", "excluded", "router", "parameters"),
    "loop": (False, False, True),
    "images": (0, 1, 1, 2, 3),
    "image_size": SIZES,
    "beside": TEXT_BESIDE,
    "tower": (False, True, True),
}


def widened(source: random.Random, point: Point, *, own_loss: bool, settled: bool = False) -> Point:
    """A point of the wide draw with more drawn on top. `own_loss`: its class computes a loss of its own. `settled`:
    tiles of logits meet no pair on the unembedding, which is refused."""
    drawn = {name: source.choice(values) for name, values in MORE.items()}
    found = dict(point.options)
    if drawn["loop"] and found["optimizer"] in ("adamw", "paged-adamw"):
        found.update(optimizer_kernel="loop", optimizer_in_backward=False)
    under = found["precision"] == "autocast" or found["autocast"]
    if drawn["outputs_widened"] and under:
        found["outputs_widened"] = True
    if drawn["input_grads"] is not None and found["method"] != "full":
        found["input_grads"] = drawn["input_grads"]
    if found["method"] != "full":
        _named(source, point, found, drawn["naming"])
    if not own_loss:
        _objective(found, drawn)
    if found.get("objective", "sft") != "grpo":
        _pictured(point, found, drawn)
    if settled and found["loss"] == "tiled":
        _without_unembedding(found)
    kept = {name: value for name, value in found.items() if value is not None or name == "adapter_dtype"}
    return Point(point.family, point.model, kept, point.changes)


def _without_unembedding(found: dict[str, Any]) -> None:
    names = str(found.get("layers") or "")
    if found["method"] == "full" or not names:
        return
    kept = [name for name in names.split(",") if name not in ("all", "unembedding")]
    found["layers"] = ",".join(kept) or "attention,mlp"


def _objective(found: dict[str, Any], drawn: dict[str, Any]) -> None:
    """What an objective asks for, and what it excludes."""
    objective = drawn["objective"]
    if objective == "sft":
        if drawn["tiled"] and found["loss"] == "full" and "unembedding" not in str(found.get("layers")):
            found["loss"] = "tiled"
        return
    tiled = objective == "grpo" or (drawn["tiled"] and objective != "orpo")
    found.update(
        objective=objective, loss="tiled" if tiled else "full", outputs_held=False, outputs_widened=False
    )
    if found["packing"] == "packed":
        found["packing"] = "padded"
    if objective in ("dpo", "kto"):
        found["reference"] = drawn["reference"]
    if objective == "grpo":
        prompt = int(drawn["prompt"] * found["seq_len"])
        found.update(reference="none", generation="server", prompt_tokens=prompt)


def _named(source: random.Random, point: Point, found: dict[str, Any], naming: str) -> None:
    """Modules by name, all but some, with the router, or tensors of experts: PEFT's other ways to choose."""
    if found.get("targets") or found.get("rank_pattern") or naming == "sets":
        return
    try:
        arch = load(point.source)[1]
    except PlannerError:
        return
    linear = sorted(
        {
            m.leaf
            for m in arch.matrices
            if m.kind == "linear" and m.role not in ("unembedding", "vision", "projector")
        }
    )
    experts = sorted({".".join(m.name.split(".")[-2:]) for m in arch.matrices if m.kind == "experts"})
    if naming == "parameters" and experts:
        found.update(
            layers=None, target_parameters=",".join(experts[: source.choice((1, 2))]), lora_dropout=0.0
        )
        found.update(experts="none", modules_to_save=None, layers_to_transform=None)
    elif naming == "router" and any(m.role == "router" and m.kind == "linear" for m in arch.matrices):
        found["layers"] = "attention,router"
    elif naming == "excluded" and len(linear) > 1:
        there = found.get("exclude_modules")
        found["exclude_modules"] = ",".join(filter(None, (there, source.choice(linear))))
    elif naming == "targets" and linear:
        some = source.sample(linear, min(len(linear), source.choice((1, 2, 3))))
        found.update(layers=None, targets=",".join(sorted(some)), exclude_modules=None)


def _pictured(point: Point, found: dict[str, Any], drawn: dict[str, Any]) -> None:
    """Images in every sequence, which is as long as they need and some text beside them."""
    try:
        config, arch = load(point.source)[0].config, load(point.source)[1]
        if not drawn["images"] or arch.model_type not in known_types():
            return
        size = drawn["image_size"]
        try:
            seen = with_images(arch, config, drawn["images"], size)
        except PlannerError:  # a tower of one size
            size = None
            seen = with_images(arch, config, drawn["images"], None)
    except PlannerError:
        return
    assert seen.images is not None
    found.update(images=drawn["images"], image_size=size, seq_len=seen.images.tokens + drawn["beside"])
    found["micro_batch"] = min(found["micro_batch"], 4)
    if found["packing"] == "packed":
        found["packing"] = "full"
    if drawn["tower"] and found.get("layers") in ("all", "attention", "mlp"):
        found["layers"] += ",vision"
