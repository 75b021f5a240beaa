"""The search of plans, and what can be taken away, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import units
from ..report.numbers import dollars
from ..search.layout import WAYS, Layout
from .answer import Answer, Search
from .downloads import DOCUMENTS, exports
from .markup import link, note, table, text
from .views import between, time_held


def _setting(plan: Mapping[str, Any]) -> str:
    base = "16-bit base" if plan["quantize"] == "none" else f"{plan['quantize']} base"
    kept = "no checkpointing" if plan["checkpointing"] == "none" else "checkpointing"
    how = {
        name: plan[name] for name in ("gpus", "sharding", "expert_parallel", *WAYS, "offload", "shard_size")
    }
    shared = Layout(**how).spread.strip(" ,")
    spread = units.counted(plan["gpus"], "GPU") + (f", {shared}" if shared else "")
    step = f"{plan['micro_batch']} x {plan['accumulation']}"
    return f"rank {plan['rank']} on {plan['layers']}, {base}, {spread}, {step}, {kept}"


def _row(name: str, plan: Mapping[str, Any]) -> tuple[object, ...]:
    cost = dollars(plan["cost"]["usd"]) if plan["cost"] else "not known"
    loss = units.percent(plan["regret"]["value"]) if plan["regret"] else "not known"
    size = units.byte_size(plan["memory"]["per_gpu_bytes"])
    return name, _setting(plan), units.duration(plan["time"]["seconds"]), cost, loss, size


HEAD = ("", "rank, base, GPUs, sequences", "time", "cost", "more loss", "memory")


def plans(found: Search) -> str:
    """The best plan, its alternatives, the frontier, and the limits that bind."""
    if found.missing:
        return note(f"Choose {' and '.join(found.missing)} to search for the best plans.")
    if found.found is None:
        return f'<div class="lp-error" role="alert"><b>No plan.</b> {text(found.error)}</div>'
    data = found.found
    best = data["best"]
    rows = [_row("best", best)]
    rows += [_row("sure to fit", data["sure"])] if data["sure"] else []
    rows += [_row(f"{number}", plan) for number, plan in enumerate(data["alternatives"], 2)]
    front = [_row(f"{number}", plan) for number, plan in enumerate(data["frontier"], 1)]
    time, cost = best["time"], best["cost"]
    ends = between(time["low"], time["high"], units.duration)
    said = f"Best: {_setting(best)}; {ends} ({time_held(time['interval'])})"
    if cost:
        said += f", {between(cost['low'], cost['high'], dollars)}"
    counted = f"{data['candidates']:,} plans were weighed, {data['feasible']:,} keep within the limits."
    bound = "".join(f"<li>{text(each['message'])}</li>" for each in data["binding"])
    more = "".join(f"<li>{text(each['message'])}</li>" for each in data["warnings"])
    return (
        note(f"{said}. {counted}")
        + table("Best plans", HEAD, rows, marked="best", words=True)
        + table("Frontier: none is beaten in loss, cost and time together", HEAD, front, words=True)
        + (f'<ul class="lp-list">{bound}{more}</ul>' if bound or more else "")
        + f'<p>The same by command:</p><pre class="lp-command">{text(found.command)} --json</pre>'
    )


def downloads(answer: Answer) -> str:
    """Links to the documents, the JSON and each trainer's config of this plan, and the command."""
    documents = "".join(
        link(label, f"download/{name}?{answer.query}", download=True) for name, label in DOCUMENTS.items()
    )
    configs = "".join(
        link(target.label, f"download/export/{target.name}?{answer.query}") for target in exports()
    )
    return (
        f'<h3>Documents</h3><div class="lp-buttons">{documents}</div>'
        f'<h3>Configs for trainers</h3><div class="lp-buttons">{configs}</div>'
        "<p>Where a trainer cannot express the plan, its link says why, and what is nearest.</p>"
        f'<h3>The same by command</h3><pre class="lp-command" tabindex="0">{text(answer.command)}</pre>'
    )
