"""Memory, time, cost and the price of a rank for a report, where the plan itself does not carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, PlannerError, hint
from ..setup import Setup

# Options that say how and on what a fine-tune runs, beside those of `estimate`.
MACHINE = ("gpu", "gpus", "gpus_per_node", "price", "calibration")
SETUP = tuple(name for name in Setup.__dataclass_fields__ if name not in ("method", "micro_batch", "seq_len"))
RUN = (*MACHINE, *SETUP)
_NOT_FOR_RUNS = ("adapter", "adapter_dtype", "trust_remote_code")
_NOT_SHOWN = ("moments", "traffic", "overhead", "setup")


def split(options: Mapping[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of an estimate, and those that only a run has. Raises InputError for any other."""
    for option in options:
        if option not in known and option not in RUN:
            names = (*known, *RUN)
            raise InputError(
                option, options[option], f"one of {', '.join(names)}", hint(option, names).strip()
            )
    ours = {name: value for name, value in options.items() if name in known}
    return ours, {name: value for name, value in options.items() if name not in known}


def _column(column: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in column["memory"].items() if key not in _NOT_SHOWN}


def fill(
    plan: dict[str, Any], model: Any, options: Mapping[str, Any], run: Mapping[str, Any], ranks: Sequence[int]
) -> dict[str, Any]:
    """Put memory, time and cost into a plan that has none; what they rest on beside it: the card, and the regret of
    each rank. A model that cannot be run through the formulas keeps null, and the reason."""
    from ..comparing import compare  # most of the package: only where a report asks

    extra: dict[str, Any] = {"card": _card(run.get("gpu")), "regret": {}, "reason": None, "filled": False}
    if plan.get("memory") is not None:
        return extra
    if options.get("adapter") is not None:
        return {**extra, "reason": "an adapter that a file describes is not run through the memory formulas"}
    given = {k: v for k, v in options.items() if k not in (*_NOT_FOR_RUNS, "rank")}
    given.update({name: value for name, value in run.items() if value is not None})
    try:
        found = compare(model, ranks=plan["adapter"]["rank"], **given).to_dict()
        if plan.get("information") is not None and plan["information"]["kind"] == "sft":
            others = compare(model, ranks=list(ranks), methods="lora", **given).to_dict()
            extra["regret"] = {str(c["rank"]): c["regret"] for c in others["columns"] if c["regret"]}
    except PlannerError as error:
        if run:
            raise
        return {**extra, "reason": str(error)}
    columns = {column["method"]: column for column in found["columns"]}
    plan["memory"] = {method: _column(column) for method, column in columns.items()}
    plan["time"], plan["cost"] = columns["lora"]["time"], columns["lora"]["cost"]
    said = {note["message"] for note in plan["warnings"]}
    plan["warnings"] += [note for note in found["warnings"] if note["message"] not in said]
    if extra["card"]:
        plan["sources"].append({"used_for": "GPU", **extra["card"]["source"]})
    return {**extra, "filled": True}


def _card(gpu: Any) -> dict[str, Any] | None:
    if gpu is None:
        return None
    from .. import hardware

    found = hardware.find(gpu)
    return {"name": found.name, "memory_bytes": found.memory_bytes, "source": dict(vars(found.source))}
