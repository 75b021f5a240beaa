"""A plan as tables: rows of names and values for a notebook, and as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from . import units
from .errors import InputError, hint

if TYPE_CHECKING:
    from .plan import Plan

FRAMES = ("summary", "params", "memory", "layer_sets", "warnings")


def summary(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """(what, value, basis) of the plan's main figures."""
    adapter, cap, rate = plan.adapter, plan.capacity, plan.learning_rate
    yield "model", f"{plan.model.id}, {units.count(plan.model.params)} parameters", plan.model.basis
    yield (
        "adapter",
        f"rank {adapter.spec.rank}, alpha {adapter.spec.alpha:g}, {adapter.params:,} parameters",
        "exact",
    )
    if plan.flops is not None:
        yield "FLOPs of a step", f"{plan.flops.ratio:.3f} of full fine-tuning's", plan.flops.basis
    if cap.utilisation is not None:
        yield (
            "capacity",
            f"{cap.verdict}: {cap.utilisation:.1%} used, rank {cap.required_rank} needed",
            cap.basis,
        )
    if rate.value is not None:
        span = f" ({rate.low:.2g} to {rate.high:.2g})" if rate.low and rate.high else ""
        yield "learning rate", f"{rate.value:.2g}{span}", str(rate.basis)
    for method, found in (plan.memory or {}).items():
        if found:
            fits = {True: ", fits", False: ", does not fit", None: ""}[found.get("fits")]
            yield f"memory, {method}", f"{units.byte_size(found['per_gpu_bytes'])} a GPU{fits}", "analytic"
    if plan.time and plan.time["seconds"] is not None:
        yield "time", units.duration(plan.time["seconds"]), plan.time["basis"]
    if plan.cost and plan.cost["usd"] is not None:
        yield "cost", f"{plan.cost['usd']:,.2f} USD", plan.cost["basis"]


def html(plan: Plan) -> str:
    """The summary and the warnings as HTML; every text is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(what)}</th><td style='text-align:left'>{escape(value)}</td>"
        f"<td style='text-align:left'><em>{escape(basis)}</em></td></tr>"
        for what, value, basis in summary(plan)
    )
    notes = "".join(f"<li>{escape(notice.message)}</li>" for notice in plan.warnings)
    return f"<table><tbody>{rows}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")


def rows(plan: Plan, name: str) -> list[dict[str, Any]]:
    """One table of the plan as a list of rows. Raises InputError for a name that it does not have."""
    data = plan.to_dict()
    if name == "summary":
        return [{"what": what, "value": value, "basis": basis} for what, value, basis in summary(plan)]
    if name == "params":
        return [
            {"role": role, "params": held} for role, held in data["adapter"]["params_by_role"].items() if held
        ]
    if name == "layer_sets":
        return [{"layers": layers, "params": held} for layers, held in data["adapter"]["layer_sets"].items()]
    if name == "warnings":
        return [dict(notice) for notice in data["warnings"]]
    if name == "memory":
        found: Mapping[str, Any] = data["memory"] or {}
        return [
            {"method": method, "part": part, "bytes": size}
            for method, each in found.items() if each
            for part, size in each["parts"].items()
        ]  # fmt: skip
    raise InputError("table", name, f"one of {', '.join(FRAMES)}", hint(str(name), FRAMES).strip())


def frame(plan: Plan, name: str) -> Any:
    """One table as a pandas DataFrame."""
    import pandas as pd

    return pd.DataFrame(rows(plan, name))
