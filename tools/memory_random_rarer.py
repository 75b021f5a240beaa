"""From seed RARER on: what earlier seeds drew rarely or never, drawn on top of a wide point: bases in 8 bits and FP8,
adapters in 16 bits of the other kind, losses by pieces, optimizers, evaluations, selective and offloaded checkpoints,
packed batches, and encoders as classifiers of sequences."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from planner.adapter import adapt
from planner.errors import PlannerError
from planner.selective import SELECTIVE, check_selective

from .memory_grid import Point

RARER = 41  # the first seed that draws so
CLASSIFIED_SHARE = 0.1  # of points whose model is drawn from those that classify
LABELS = 3
MORE: dict[str, tuple[Any, ...]] = {
    "quantize": ("nf4", "int8", "int8", "fp8", "fp8", "nf4-double"),
    "adapter_dtype": ("as drawn", "as drawn", "float16", "bfloat16", "float32"),
    "loss": ("as drawn", "split", "split-wide", "split-fused", "wide", "shifted-late", "chunked-vocabulary"),
    "loss_chunk": (128, 384, 600, 1000),
    "optimizer": ("as drawn", "adafactor", "lion", "sgd", "sgd-momentum", "muon", "muon", "paged-adamw-8bit"),
    "checkpointing": ("as drawn", "as drawn", "layer-offload", SELECTIVE, SELECTIVE),
    "eval_batch": (0, 0, 2, 8, 32),
    "packing": ("as drawn", "as drawn", "packed"),
    "classifies": (False, True),
}
CLASSES = {
    "bert": "BertForSequenceClassification", "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification", "camembert": "CamembertForSequenceClassification",
    "electra": "ElectraForSequenceClassification", "distilbert": "DistilBertForSequenceClassification",
}  # fmt: skip


def rarer(source: random.Random, point: Point, *, own_loss: bool) -> Point:
    """A wide point with more drawn on top. `own_loss`: its class computes a loss of its own."""
    drawn = {name: source.choice(values) for name, values in MORE.items()}
    found, changes = dict(point.options), dict(point.changes)
    supervised = found.get("objective", "sft") == "sft"
    if found["method"] == "qlora":
        found["quantize"] = drawn["quantize"]
        if not drawn["quantize"].startswith("nf4"):
            found.pop("quantised_inputs_kept", None)
    if found["method"] != "full" and drawn["adapter_dtype"] != "as drawn":
        found["adapter_dtype"] = drawn["adapter_dtype"]
    if supervised and not own_loss and not found.get("images"):
        _by_pieces(found, drawn)
    if drawn["optimizer"] != "as drawn" and not found.get("optimizer_in_backward"):
        found.update(optimizer=drawn["optimizer"], optimizer_kernel="fused")
    if supervised:
        found["eval_batch"] = drawn["eval_batch"]
        if drawn["packing"] == "packed" and not found.get("images") and point.family != "whisper":
            found["packing"] = "packed"
    if own_loss and drawn["classifies"] and point.family in CLASSES:
        changes.update(architectures=[CLASSES[point.family]], num_labels=LABELS)
        found.update(loss="full", modules_to_save=None)
    kept = {name: value for name, value in found.items() if value is not None or name == "adapter_dtype"}
    return _checkpointed(replace(point, options=kept, changes=changes), drawn["checkpointing"])


def _by_pieces(found: dict[str, Any], drawn: dict[str, Any]) -> None:
    """A loss of a trainer's own, where pairs on the unembedding leave room for it."""
    loss, layers = drawn["loss"], str(found.get("layers") or "").split(",")
    if loss == "as drawn" or (loss == "chunked-vocabulary" and {"all", "unembedding"} & {*layers}):
        return
    found.update(loss=loss, loss_chunk=drawn["loss_chunk"] * (16 if loss == "chunked-vocabulary" else 1))


def _checkpointed(point: Point, how: str) -> Point:
    """The point with these checkpoints; as it was where selective ones are not modelled for it."""
    if how == "as drawn":
        return point
    options = {**point.options, "checkpointing": how}
    if how == SELECTIVE:
        options["reentrant"] = False
    found = replace(point, options=options)
    try:
        arch = found.loaded[1]
        check_selective(arch, found.setup, adapt(arch, found.spec) if found.spec else ())
    except PlannerError:
        return point
    return found
