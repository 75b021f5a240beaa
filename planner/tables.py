"""Plans, searches and comparisons as tables: rows of names and values for a notebook, and as pandas frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from . import units
from .errors import InputError, hint
from .moments import FIT_WORDS

Data = Mapping[str, Any]  # what Plan.to_dict gives
FRAMES = ("summary", "params", "memory", "layer_sets", "warnings")
OF_SEARCH = ("plans", "frontier", "binding", "rejected", "warnings")
OF_COMPARISON = ("columns", "memory", "warnings")


def summary(data: Data) -> Iterator[tuple[str, str, str]]:
    """(what, value, basis) of the plan's main figures."""
    model, adapter, cap, rate = (data[key] for key in ("model", "adapter", "capacity", "learning_rate"))
    yield "model", f"{model['id']}, {units.count(model['params'])} parameters", model["basis"]
    text = f"rank {adapter['rank']}, alpha {adapter['alpha']:g}, {adapter['params']:,} parameters"
    yield "adapter", text, adapter["basis"]
    if data["flops"]:
        yield "FLOPs of a step", f"{data['flops']['ratio']:.3f} of full fine-tuning's", data["flops"]["basis"]
    if cap["utilisation"] is not None:
        text = f"{cap['verdict']}: {cap['utilisation']:.1%} used, rank {cap['required_rank']} needed"
        yield "capacity", text, cap["basis"]
    if rate["value"] is not None:
        span = f" ({rate['low']:.2g} to {rate['high']:.2g})" if rate["low"] and rate["high"] else ""
        yield "learning rate", f"{rate['value']:.2g}{span}", str(rate["basis"])
    for method, found in (data["memory"] or {}).items():
        if found:
            fits = f", {FIT_WORDS[found['fit']]}" if found.get("fit") else ""
            yield f"memory, {method}", f"{units.byte_size(found['per_gpu_bytes'])} a GPU{fits}", "analytic"
    if data["time"] and data["time"]["seconds"] is not None:
        yield "time", units.duration(data["time"]["seconds"]), data["time"]["basis"]
    if data["cost"] and data["cost"]["usd"] is not None:
        yield "cost", f"{data['cost']['usd']:,.2f} USD", data["cost"]["basis"]


def text(data: Data) -> str:
    """The summary in lines, for an interpreter."""
    return "\n".join(f"{what}: {value} ({basis})" for what, value, basis in summary(data))


def html(data: Data) -> str:
    """The summary and the warnings as HTML; every text is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(what)}</th><td style='text-align:left'>{escape(value)}</td>"
        f"<td style='text-align:left'><em>{escape(basis)}</em></td></tr>"
        for what, value, basis in summary(data)
    )
    notes = "".join(f"<li>{escape(notice['message'])}</li>" for notice in data["warnings"])
    return f"<table><tbody>{rows}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")


def rows(data: Data, name: str) -> list[dict[str, Any]]:
    """One table of the plan as a list of rows. Raises InputError for a name that it does not have."""
    if name == "summary":
        return [{"what": what, "value": value, "basis": basis} for what, value, basis in summary(data)]
    if name == "params":
        return [{"role": role, "params": n} for role, n in data["adapter"]["params_by_role"].items() if n]
    if name == "layer_sets":
        return [{"layers": layers, "params": n} for layers, n in data["adapter"]["layer_sets"].items()]
    if name == "warnings":
        return [dict(notice) for notice in data["warnings"]]
    if name == "memory":
        return [
            {"method": method, "part": part, "bytes": size}
            for method, found in (data["memory"] or {}).items()
            if found
            for part, size in found["parts"].items()
        ]
    raise _unknown(name, FRAMES)


def _unknown(name: str, known: Sequence[str]) -> InputError:
    return InputError("table", name, f"one of {', '.join(known)}", hint(str(name), known).strip())


def flat(data: Data) -> dict[str, Any]:
    """A row of nested values: {"cost": {"usd": 1}} is {"cost_usd": 1}."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            found |= {f"{key}_{name}": each for name, each in flat(value).items()}
        elif value is not None or key not in (
            "cost",
            "regret",
        ):  # where they are known they are several columns
            found[key] = value
    return found


def rows_of_search(data: Data, name: str) -> list[dict[str, Any]]:
    """One table of what `plan` found: its plans (the best first), the frontier, what binds, or the neighbours."""
    if name == "plans":
        named = [("best", data["best"]), ("sure", data["sure"])]
        named += [("alternative", plan) for plan in data["alternatives"]]
        return [{"plan": label, **flat(plan)} for label, plan in named if plan]
    if name == "frontier":
        return [flat(plan) for plan in data["frontier"]]
    if name == "binding":
        return [{"limit": b["limit"], "message": b["message"], **flat(b["without"])} for b in data["binding"]]
    if name == "rejected":
        said = ("change", "kind", "reason")
        return [{**{key: item[key] for key in said}, **flat(item["plan"])} for item in data["rejected"]]
    if name == "warnings":
        return [dict(notice) for notice in data["warnings"]]
    raise _unknown(name, OF_SEARCH)


def rows_of_comparison(data: Data, name: str) -> list[dict[str, Any]]:
    """One table of a comparison: a row for each way to fine-tune, or its memory by part.
    `gpus` are the fewest on which it fits."""
    if name == "columns":
        memory = ("per_gpu_bytes", "low", "high", "fits")
        found = []
        for column in data["columns"]:
            own = {
                key: column[key] for key in ("label", "model", "method", "rank", "params", "flops_per_token")
            }
            own |= {"memory": {key: column["memory"][key] for key in memory}, "gpus": column["smallest_gpus"]}
            for part, first in (("time", "seconds"), ("cost", "usd"), ("regret", "value")):
                own[part] = {key: (column[part] or {}).get(key) for key in (first, "low", "high")}
            found.append(flat(own))
        return found
    if name == "memory":
        return [
            {"label": column["label"], "part": part, "bytes": size}
            for column in data["columns"]
            for part, size in column["memory"]["parts"].items()
        ]
    if name == "warnings":
        return [dict(notice) for notice in data["warnings"]]
    raise _unknown(name, OF_COMPARISON)


def frame(data: Data, name: str, of: Callable[[Data, str], list[dict[str, Any]]] = rows) -> Any:
    """One table as a pandas DataFrame."""
    import pandas as pd

    return pd.DataFrame(of(data, name))
