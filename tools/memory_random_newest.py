"""From seed NEWEST on: what no seed before drew, on top of a rarer point: a base in 16 bits of the other kind, losses
of preferences and completions as older trainers run them, losses of other trainers, attention by operations,
gradients that stay, lengths that are odd, short or long, towers left as they are, experts in FP8."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from planner.errors import PlannerError
from planner.objective_rules import CHOSEN, SELECTED

from .memory_grid import Point

NEWEST = 73  # the first seed that draws so
AS_DRAWN = "as drawn"
LOSSES: dict[str, tuple[str, ...]] = {
    "sft": (
        "recomputed", "recomputed-wide", "shifted-narrow", "shifted-late-fused", "scaled-fused",
        "scaled-in-place-fused", "widened-fused", "wide-in-place", "wide-fused", AS_DRAWN, AS_DRAWN, AS_DRAWN,
    ),
    "dpo": (
        "fused", "by-sequence", "by-sequence-unlogged", "by-sequence-copied", "full-freed", "full", CHOSEN[0],
    ),
    "kto": ("fused", "by-sequence", "full", *SELECTED),
    "orpo": CHOSEN,
    "grpo": (
        "fused", "by-sequence", "by-sequence-in-place", "scaled-fused", "scaled-in-place-fused", "widened-fused",
        "sliced-fused",
    ),
}  # fmt: skip
MORE: dict[str, tuple[Any, ...]] = {
    "base_dtype": (AS_DRAWN, AS_DRAWN, "other"),
    "attention_kernel": (AS_DRAWN, AS_DRAWN, AS_DRAWN, "math"),
    "gradients_kept": (False, False, False, True),
    "seq_len": (AS_DRAWN, AS_DRAWN, AS_DRAWN, 33, 777, 1337, 5000, 16384),
    "eval_batch": (0, 1, 16, 64),
    "frozen_towers": (False, True),
    "modules_to_save": (AS_DRAWN, AS_DRAWN, "embed_tokens"),
}  # fmt: skip


def newest(source: random.Random, point: Point, *, own_loss: bool) -> Point:
    """A rarer point with more drawn on top, as far as its parts go together; `own_loss`: its class computes a loss of
    its own."""
    drawn = {name: source.choice(values) for name, values in MORE.items()}
    loss = source.choice(LOSSES[point.options.get("objective", "sft")])
    found = point
    for options in (
        *_types(point, drawn),
        *_sizes(point, drawn),
        *_rest(point, drawn, "" if own_loss else loss),
    ):
        found = _if_possible(found, options)
    return found


def _types(point: Point, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """A base in the other 16 bits, under autocast; experts in FP8."""
    given, found = point.options, []
    if (
        drawn["base_dtype"] == "other"
        and given["method"] == "lora"
        and given["precision"] in ("bf16", "fp16")
    ):
        held = "float16" if given["precision"] == "bf16" else "bfloat16"
        found.append({"base_dtype": held, "autocast": True, "adapter_dtype": "float32"})
    if given.get("quantize") == "fp8" and point.loaded[1].has_experts:
        found.append({"quantize_experts": True})
    return found


def _sizes(point: Point, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """Another length, of text alone, of no more tokens than 64 Ki; an evaluation of other sequences."""
    found: list[dict[str, Any]] = []
    length = drawn["seq_len"]
    if length != AS_DRAWN and not point.options.get("images") and point.family != "whisper":
        few = max(1, min(point.options["micro_batch"], 2**16 // length))
        prompt = {"prompt_tokens": length // 4} if point.options.get("prompt_tokens") else {}
        found.append({"seq_len": length, "micro_batch": few, **prompt})
    if point.options.get("objective", "sft") == "sft":
        found.append({"eval_batch": drawn["eval_batch"]})
    return found


def _rest(point: Point, drawn: dict[str, Any], loss: str) -> list[dict[str, Any]]:
    """Losses, kernels, and what is trained beside pairs or left as it is."""
    given, found = point.options, []
    if loss not in ("", AS_DRAWN) and not (given.get("images") and given.get("objective", "sft") == "sft"):
        found.append({"loss": loss, "outputs_held": False, "outputs_widened": False})
    if drawn["attention_kernel"] != AS_DRAWN and given["precision"] != "fp32":
        found.append({"attention_kernel": drawn["attention_kernel"]})
    if drawn["gradients_kept"] and not given.get("optimizer_in_backward"):
        found.append({"gradients_kept": True})
    if drawn["frozen_towers"] and given["method"] == "full" and given.get("images"):
        found.append({"frozen_towers": True})
    if drawn["modules_to_save"] != AS_DRAWN and given["method"] != "full" and given.get("modules_to_save"):
        found.append({"modules_to_save": drawn["modules_to_save"]})
    return found


def _if_possible(point: Point, options: dict[str, Any]) -> Point:
    """The point with these options, or as it was where they do not go together."""
    found = replace(point, options={**point.options, **options})
    try:
        _ = found.setup, found.loaded
    except PlannerError:
        return point
    return found
