"""What a report shows beside a plan's own JSON: the card, and the price of each rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import PlannerError

_NOT_FOR_RUNS = ("adapter", "adapter_dtype", "trust_remote_code", "rank", "gpu", "price", "calibration")


def card(gpu: Any) -> dict[str, Any] | None:
    """The accelerator's name, memory and source."""
    if gpu is None:
        return None
    from .. import hardware

    found = hardware.find(gpu)
    return {"name": found.name, "memory_bytes": found.memory_bytes, "source": dict(vars(found.source))}


def regret(
    plan: Mapping[str, Any], model: Any, options: Mapping[str, Any], ranks: Sequence[int]
) -> dict[str, Any]:
    """The expected excess loss of each rank, as `compare` gives it; {} where it gives none: without loss tokens, or
    for an adapter that a file describes."""
    info = plan.get("information")
    if info is None or info["kind"] != "sft" or options.get("adapter") is not None:
        return {}
    from ..comparing import compare

    given = {
        name: value for name, value in options.items() if name not in _NOT_FOR_RUNS and value is not None
    }
    try:
        found = compare(model, ranks=list(ranks), methods="lora", **given).to_dict()
    except PlannerError:
        return {}
    return {str(column["rank"]): column["regret"] for column in found["columns"] if column["regret"]}
