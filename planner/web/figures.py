"""Figures as plain Plotly JSON: traces and a layout. Colours are Okabe and Ito's, which colour-blind readers tell
apart; letters and grid take the page's colours by its style sheet, so that dark and light both read well. Every
figure stands beside a table with the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import units
from ..moments import parts_of
from .answer import Answer, Search
from .views import METHODS

BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c8c8c",
)  # fmt: skip
PALE = "#b3bac4"
PARTS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY, "#5b5b5b", "#b0b000", "#7f5fb0")
GIB = 2.0**30
Figure = dict[str, Any]


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "zeroline": False,
        "fixedrange": True,
        **more,
    }


def _figure(data: Sequence[Any], height: int, x: Any, y: Any, **more: Any) -> Figure:
    layout = {
        "height": height, "autosize": True, "margin": {"l": 8, "r": 16, "t": 12, "b": 44}, "xaxis": x, "yaxis": y,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "showlegend": False, "dragmode": False,
        "font": {"family": "system-ui, sans-serif", "size": 13}, "hoverlabel": {"font": {"size": 13}},
        "legend": {"orientation": "h", "y": -0.28, "x": 0, "traceorder": "normal"}, **more,
    }  # fmt: skip
    return {"data": list(data), "layout": layout}


def parameters(answer: Answer) -> Figure:
    """Bars: parameters of each layer set at this rank; the chosen set in colour."""
    adapter = (answer.plan or {})["adapter"]
    names, numbers = list(adapter["layer_sets"]), list(adapter["layer_sets"].values())
    if adapter["layers"] not in names:
        names, numbers = [*names, "this adapter"], [*numbers, adapter["params"]]
    chosen = adapter["layers"] if adapter["layers"] in names else "this adapter"
    bar = {
        "type": "bar", "orientation": "h", "y": names, "x": numbers,
        "marker": {"color": [BLUE if name == chosen else PALE for name in names]},
        "text": [units.count(n) for n in numbers], "textposition": "outside", "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:,} parameters<extra></extra>",
    }  # fmt: skip
    x = _axis("trained parameters", range=[0, 1.22 * max(*numbers, 1)])
    return _figure([bar], 280, x, _axis("", autorange="reversed", ticksuffix=" "))


def capacity(answer: Answer) -> Figure:
    """Lines on logarithmic axes: bits that adapters hold by rank, against the bits of the data."""
    plan = answer.plan or {}
    info, found = plan["information"], plan["capacity"]
    ranks, held = [rank for rank, _ in answer.curve], [bits for _, bits in answer.curve]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": "adapter holds", "x": ranks, "y": held,
            "line": {"color": BLUE, "width": 2.5}, "hovertemplate": "rank %{x}: %{y:.3s}bit<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "this rank",
            "x": [plan["adapter"]["rank"]], "y": [found["bits"]], "marker": {"color": BLUE, "size": 13},
            "hovertemplate": "rank %{x}: %{y:.4s}bit<extra></extra>",
        },
    ]  # fmt: skip
    if info is not None:
        ends = [ranks[0], ranks[-1]]
        for name, bits, dash in (
            ("data", info["bits"], "dash"),
            ("data twice: ample", 2 * info["bits"], "dot"),
        ):
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": name, "x": ends, "y": [bits, bits],
                    "line": {"color": ORANGE, "width": 2, "dash": dash},
                    "hovertemplate": f"{name}: %{{y:.4s}}bit<extra></extra>",
                }
            )  # fmt: skip
        needed = found["required_rank"]
        at = dict(answer.curve).get(needed)
        if needed is not None and at is not None:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": f"required rank {needed:,}",
                    "x": [needed], "y": [at],
                    "marker": {"color": ORANGE, "size": 13, "symbol": "diamond"},
                    "hovertemplate": "required rank %{x}<extra></extra>",
                }
            )  # fmt: skip
    ticks = [rank for rank in (1, 4, 16, 64, 256, 1024, 4096, 16384) if rank <= ranks[-1]]
    x = _axis("rank", type="log", tickvals=ticks, ticktext=[f"{rank:,}" for rank in ticks])
    return _figure(traces, 380, x, _axis("bits", type="log", exponentformat="SI", dtick=1), showlegend=True)


def memory(answer: Answer) -> Figure | None:
    """Stacked bars: peak memory of LoRA, QLoRA and full fine-tuning by part, with intervals and the card's size."""
    found = {METHODS[name]: value for name, value in ((answer.plan or {})["memory"] or {}).items() if value}
    if not found:
        return None
    names = list(found)
    traces: list[dict[str, Any]] = []
    for number, part in enumerate(parts_of(found.values())):
        sizes = [each["parts"].get(part, 0) / GIB for each in found.values()]
        if any(sizes):
            traces.append(
                {
                    "type": "bar", "orientation": "h", "name": part, "y": names, "x": sizes,
                    "marker": {"color": PARTS[number % len(PARTS)], "line": {"width": 0}},
                    "hovertemplate": f"{part}: %{{x:,.2f}} GiB<extra>%{{y}}</extra>",
                }
            )  # fmt: skip
    peaks = [each["per_gpu_bytes"] / GIB for each in found.values()]
    traces.append(
        {
            "type": "scatter", "mode": "markers", "showlegend": False, "y": names, "x": peaks,
            "marker": {"color": GREY, "size": 5, "symbol": "line-ns-open"},
            "error_x": {
                "type": "data", "symmetric": False, "color": GREY, "thickness": 2.5, "width": 7,
                "array": [each["high"] / GIB - peak for each, peak in zip(found.values(), peaks, strict=True)],
                "arrayminus": [peak - each["low"] / GIB for each, peak in zip(found.values(), peaks, strict=True)],
            },
            "hovertemplate": "peak %{x:,.1f} GiB<extra>%{y}</extra>",
        }
    )  # fmt: skip
    more: dict[str, Any] = {}
    if answer.card is not None:
        size = answer.card / GIB
        rule = {"color": ORANGE, "width": 2.5, "dash": "dash"}
        more["shapes"] = [
            {"type": "line", "x0": size, "x1": size, "y0": 0, "y1": 1, "yref": "paper", "line": rule}
        ]
        words = f"{size:,.1f} GiB, the GPU"
        more["annotations"] = [
            {"x": size, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False, "text": words}
        ]
        more["margin"] = {"l": 8, "r": 16, "t": 30, "b": 44}
    y = _axis("", autorange="reversed", ticksuffix=" ")
    return _figure(
        traces,
        380,
        _axis("GiB of one GPU; whiskers: interval", rangemode="tozero"),
        y,
        barmode="stack",
        showlegend=True,
        bargap=0.35,
        **more,
    )


def learning_rate(answer: Answer) -> Figure | None:
    """The rate with its interval on a logarithmic axis, and full fine-tuning's."""
    rate = (answer.plan or {})["learning_rate"]
    if rate["value"] is None:
        return None
    lora: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "name": "LoRA", "x": [rate["value"]], "y": ["LoRA"],
        "marker": {"color": BLUE, "size": 14}, "hovertemplate": "LoRA: %{x:.3g}<extra></extra>",
    }  # fmt: skip
    if rate["low"] is not None and rate["high"] is not None:
        lora["error_x"] = {
            "type": "data", "symmetric": False, "color": BLUE, "thickness": 3, "width": 9,
            "array": [rate["high"] - rate["value"]], "arrayminus": [rate["value"] - rate["low"]],
        }  # fmt: skip
    full = {
        "type": "scatter", "mode": "markers", "name": "full", "x": [rate["full_finetune"]], "y": ["full"],
        "marker": {"color": ORANGE, "size": 14, "symbol": "diamond"},
        "hovertemplate": "full: %{x:.3g}<extra></extra>",
    }  # fmt: skip
    ticks = [(times, power) for power in range(-7, 0) for times in (1, 2, 5)]
    x = _axis("learning rate", type="log", tickangle=0)
    x["tickvals"] = [times * 10.0**power for times, power in ticks]
    x["ticktext"] = [f"{times}e{power}" for times, power in ticks]
    return _figure([lora, full], 220, x, _axis("", autorange="reversed", ticksuffix=" "))


def compute(answer: Answer) -> Figure | None:
    """Bars: FLOPs of a token, in full and with LoRA."""
    flops = (answer.plan or {})["flops"]
    if flops is None:
        return None
    names = ["full fine-tuning", "LoRA", "LoRA, masked half skipped"]
    numbers = [flops["full_per_token"], flops["lora_per_token"], flops["masked"]["lora_per_token"]]
    bar = {
        "type": "bar", "orientation": "h", "y": names, "x": numbers, "marker": {"color": [PALE, BLUE, SKY]},
        "text": [units.flops(n) for n in numbers], "textposition": "outside", "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:.4s}FLOP<extra></extra>",
    }  # fmt: skip
    x = _axis("FLOPs of a token", range=[0, 1.3 * max(numbers)], exponentformat="SI")
    return _figure([bar], 230, x, _axis("", autorange="reversed", ticksuffix=" "))


def step(answer: Answer) -> Figure | None:
    """One bar: what the time of a step goes to."""
    time = (answer.plan or {})["time"]
    if time is None:
        return None
    parts: Mapping[str, float] = time["step"]["parts"]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": name.replace("_", " "), "y": ["step"], "x": [seconds],
            "marker": {"color": PARTS[number % len(PARTS)]},
            "hovertemplate": f"{name.replace('_', ' ')}: %{{x:.3s}}s<extra></extra>",
        }
        for number, (name, seconds) in enumerate(parts.items())
        if seconds
    ]  # fmt: skip
    return _figure(
        traces,
        240,
        _axis("seconds of a step"),
        _axis("", showticklabels=False),
        barmode="stack",
        showlegend=True,
        bargap=0.4,
    )


def frontier(found: Search) -> Figure | None:
    """Points: plans that none beats in loss, cost and time together, by cost and expected loss (by cost and time
    where the loss is not known); more GPUs are other marks, and the best plan is a star."""
    if found.found is None:
        return None
    best = found.found["best"]
    shown = [plan for plan in found.found["frontier"] if plan["cost"]]
    if not shown or not best["cost"]:
        return None
    known = all(plan["regret"] for plan in (best, *shown))
    traces = [
        _points([plan for plan in shown if plan["gpus"] == gpus], gpus, number, known)
        for number, gpus in enumerate(sorted({plan["gpus"] for plan in shown}))
    ]
    star = {
        "type": "scatter", "mode": "markers", "name": "best", "x": [best["cost"]["usd"]], "y": [_height(best, known)],
        "hovertemplate": f"best: {_told(best)}<extra></extra>",
        "marker": {"symbol": "star", "size": 19, "color": ORANGE, "line": {"width": 1, "color": "white"}},
    }  # fmt: skip
    ticks = [times * 10.0**power for power in range(-4, 6) for times in (1, 3)]
    title = "more loss than an ample rank, %" if known else "time, hours"
    y = _axis(title, type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    x = _axis("cost, USD", exponentformat="none", nticks=8)
    return _figure([*traces, star], 380, x, y, showlegend=True)


def _height(plan: Mapping[str, Any], known: bool) -> float:
    return 100 * float(plan["regret"]["value"]) if known else float(plan["time"]["seconds"]) / 3600


def _told(plan: Mapping[str, Any]) -> str:
    base = "16-bit" if plan["quantize"] == "none" else plan["quantize"]
    loss = f", {units.percent(plan['regret']['value'])} more loss" if plan["regret"] else ""
    run = f"${plan['cost']['usd']:,.2f}, {units.duration(plan['time']['seconds'])}{loss}"
    return f"rank {plan['rank']} on {plan['layers']}, {base} base<br>{run}"


def _points(plans: Sequence[Any], gpus: int, number: int, known: bool) -> dict[str, Any]:
    marks = ("circle", "square", "diamond", "cross", "triangle-up", "pentagon")
    return {
        "type": "scatter", "mode": "markers", "name": f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs",
        "x": [plan["cost"]["usd"] for plan in plans], "y": [_height(plan, known) for plan in plans],
        "text": [_told(plan) for plan in plans], "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 11, "symbol": marks[number % len(marks)], "color": PARTS[(0, 2, 3, 4, 5, 6)[number % 6]]},
    }  # fmt: skip
