"""Full fine-tuning: in which precision trainers hold the weights that they train, what only an adapter has, and what
a config without an adapter says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adapter.options import DEFAULTS as ADAPTER
from ..errors import InputError


def usual_precision(alone: str, request: Mapping[str, Any]) -> str:
    """What trained weights are held in where nothing was said: DeepSpeed keeps float32 masters beside bfloat16, and
    accelerate's FSDP2 shards float32 weights; else as the trainer does (`alone`)."""
    sharding = request.get("sharding") or ("fsdp" if (request.get("gpus") or 1) > 1 else "none")
    return {"zero": "bf16-master", "fsdp": "autocast"}.get(str(sharding)[:4], alone)


def no_adapter(said: Mapping[str, Any]) -> None:
    """Raise InputError for what only an adapter has."""
    for name in ("adapter", "quantize", *ADAPTER):
        value = said.get(name)
        if value is not None and value not in (ADAPTER.get(name), "none"):
            raise InputError(
                name.replace("_", "-"), value, "nothing: full fine-tuning has no adapter", "Leave it out."
            )


def of_full(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a config of full fine-tuning asks for: nothing of an adapter, and weights as they are trained. A base
    loaded in bfloat16 has masters under DeepSpeed, and is made float32 by accelerate's FSDP."""
    left = {*ADAPTER, "quantize", "lora_dropout", "adapter_dtype"}
    kept = {name: value for name, value in request.items() if name not in left}
    if request.get("precision") == "bf16":
        kept["precision"] = usual_precision("bf16", {"sharding": "none", **request})
        if kept["precision"] != "bf16":
            kept["autocast"] = False
    return kept
