"""Figures of one plan, each from numbers of the report's material; none where its numbers are missing."""

from __future__ import annotations

import math
from typing import Any

from ... import units
from ..document import Figure
from ..numbers import Material
from .style import COLOURS, DASHES, HAIR, HATCHES, INK, MARKS, QUIET, draw, powers, spread

SETS = ("attention", "mlp", "unembedding", "all", "all-linear")


def _ranks(root: Material) -> list[int]:
    return [int(rank) for rank in root.get("ranks") or ()]


def _label_ends(axes: Any, x: float, ends: list[tuple[float, str]], log: bool = True) -> None:
    """Names beside the right ends of lines, moved apart so that each can be read."""
    from matplotlib.transforms import blended_transform_factory

    low, high = axes.get_ylim()
    scale = math.log10 if log else float
    a, b = scale(low), scale(high)
    heights = spread([(scale(y) - a) / (b - a) for y, _ in ends], 0.075)
    place = blended_transform_factory(axes.transData, axes.transAxes)
    for (_, words), height in zip(ends, heights, strict=True):
        axes.text(x, height, words, color=INK, va="center", ha="left", transform=place, clip_on=False)


def parameters(root: Material) -> Figure | None:
    """Trainable parameters against the rank, a line for each layer set."""
    ranks = _ranks(root)
    if len(ranks) < 2:
        return None
    held = {name: [root.get(f"ranks/{rank}/adapter/layer_sets/{name}") for rank in ranks] for name in SETS}
    held = {name: values for name, values in held.items() if all(values)}
    own, mine = root.get("plan/adapter/rank"), root.get("plan/adapter/params")

    def paint(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for number, values in enumerate(held.values()):
            axes.plot(
                ranks, values, color=COLOURS[number], linestyle=DASHES[number], marker=MARKS[number], ms=3.5
            )
        axes.plot([own], [mine], marker="o", ms=9, mfc="none", mec=INK, ls="none")
        axes.annotate(
            "this plan", (own, mine), xytext=(-10, 9), textcoords="offset points", ha="right", color=INK
        )
        powers(axes, "x", [float(rank) for rank in ranks], [str(rank) for rank in ranks])
        axes.set_xlabel("rank")
        axes.set_ylabel("trainable parameters")
        axes.yaxis.set_major_formatter(lambda value, _: units.count(value).replace(".00", ""))
        ends = [(values[-1], name) for name, values in held.items()]
        _label_ends(axes, ranks[-1] * 1.25, ends)

    words = "Trainable parameters against rank by layer set, both logarithmic. The ring marks this plan."
    return Figure("Parameters", draw("parameters", 2.9, paint), words, words)


def compute(root: Material) -> Figure | None:
    """LoRA's FLOPs over full fine-tuning's against the rank, a line for each sequence length."""
    lengths, ranks = root.get("lengths") or {}, _ranks(root)
    if not lengths or len(ranks) < 2:
        return None
    curves = {length: [root.get(f"lengths/{length}/{rank}") for rank in ranks] for length in lengths}

    def paint(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        for number, values in enumerate(curves.values()):
            shares = [100 * value for value in values]
            axes.plot(
                ranks, shares, color=COLOURS[number], linestyle=DASHES[number], marker=MARKS[number], ms=3.5
            )
        axes.axhline(100, color=QUIET, lw=0.7)
        axes.text(ranks[0], 100.6, "full fine-tuning", color=QUIET, va="bottom")
        axes.set_ylim(top=max(104.0, axes.get_ylim()[1]))
        powers(axes, "x", [float(rank) for rank in ranks], [str(rank) for rank in ranks])
        axes.set_xlabel("rank")
        axes.set_ylabel("FLOPs, % of full fine-tuning")
        ends = [(100 * values[-1], f"{int(length):,} tokens") for length, values in curves.items()]
        _label_ends(axes, ranks[-1] * 1.25, ends, log=False)

    words = (
        "FLOPs of a step with this adapter over full fine-tuning’s, against rank, at four sequence lengths."
    )
    return Figure("Compute", draw("compute", 2.8, paint), words, words)


def capacity(root: Material) -> Figure | None:
    """What each rank holds, against the data."""
    ranks = _ranks(root)
    if len(ranks) < 2:
        return None
    held = [root.get(f"ranks/{rank}/capacity/bits") for rank in ranks]
    data, own = root.get("plan/information/bits"), root.get("plan/adapter/rank")

    def paint(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.plot(ranks, held, color=COLOURS[0], marker="o", ms=3.5)
        axes.plot([own], [root.get("plan/capacity/bits")], marker="o", ms=9, mfc="none", mec=INK, ls="none")
        axes.annotate(
            "this plan", (own, root.get("plan/capacity/bits")), xytext=(8, -10), textcoords="offset points", va="top"
        )  # fmt: skip
        if data:
            axes.axhline(data, color=COLOURS[1], ls="--")
            axes.text(
                ranks[0], data * 1.12, f"the data hold {units.bits(data)}", color=COLOURS[1], va="bottom"
            )
        powers(axes, "x", [float(rank) for rank in ranks], [str(rank) for rank in ranks])
        axes.set_xlabel("rank")
        axes.set_ylabel("adapter holds, bits (assumed)")
        axes.yaxis.set_major_formatter(
            lambda value, _: units.bits(value).replace(".00", "").replace(".0 ", " ")
        )

    words = "What an adapter of each rank can hold, at the assumed bits a parameter"
    words += ", against what the data hold." if data else "."
    return Figure("Information and capacity", draw("capacity", 2.5, paint), words, words)


def learning_rate(root: Material) -> Figure | None:
    """The law over ranks with its interval, among the best rates that the shipped sweep found."""
    from .sweep import best_rates

    ranks, family = _ranks(root), root.get("plan/learning_rate/family")
    rates = [root.get(f"ranks/{rank}/learning_rate/value") for rank in ranks]
    if len(ranks) < 2 or not all(rates) or root.get("plan/learning_rate/value") is None:
        return None
    ends = [[root.get(f"ranks/{rank}/learning_rate/{end}") for rank in ranks] for end in ("low", "high")]
    points, known = best_rates(family)
    own, value = root.get("plan/adapter/rank"), root.get("plan/learning_rate/value")

    def paint(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        if all(ends[0]) and all(ends[1]):
            axes.fill_between(ranks, *ends, color=HAIR, alpha=0.35, lw=0)
        axes.plot(ranks, rates, color=COLOURS[1], ls="--")
        for inside, face in ((True, COLOURS[0]), (False, "none")):
            chosen = [p for p in points if p.inside == inside]
            axes.plot(
                [p.rank for p in chosen], [p.rate for p in chosen], ls="none", marker="o", ms=4, mfc=face,
                mec=COLOURS[0], mew=0.9, alpha=0.75,
            )  # fmt: skip
        axes.plot([own], [value], marker="D", ms=7, color=COLOURS[1], mec=INK, ls="none")
        axes.annotate(
            f"this plan, {units.rate(value)}", (own, value), xytext=(9, -11), textcoords="offset points",
            color=INK, bbox={"boxstyle": "square,pad=0.1", "fc": "#ffffff", "ec": "none", "alpha": 0.85},
        )  # fmt: skip
        axes.text(ranks[-1] * 1.15, rates[-1], "the law", va="center")
        powers(axes, "x", [float(rank) for rank in ranks], [str(rank) for rank in ranks])
        shown = [*(p.rate for p in points), *rates, *(e for end in ends for e in end if e)]
        every = [m * 10.0**e for e in range(-6, 0) for m in (1, 2, 5)]
        kept = [r for r in every if min(shown) / 1.3 < r < max(shown) * 1.3]
        powers(axes, "y", kept, [units.rate(r).replace(".00", "") for r in kept])
        axes.set_xlabel("rank")
        axes.set_ylabel("learning rate of LoRA")

    whose = f"models of the {family} family" if known else "models of all families, none of this one"
    words = (
        f"The law over ranks (dashed), its interval (grey), and the best rates of the shipped sweep: {len(points)} "
        f"pairs of rank and model, {whose}. Open circles lie at the edge of its grid and are only bounds."
    )
    return Figure("Learning rate", draw("learning-rate", 2.8, paint), words, words)


def memory(root: Material) -> Figure | None:
    """Memory of one GPU by part, a bar for each method, with the interval."""
    m = root.within("plan/memory")
    names = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}
    methods = [key for key in names if m.get(f"{key}/per_gpu_bytes") is not None]
    if not methods:
        return None
    parts = [p for p in m.get(f"{methods[0]}/parts") or {} if any(m.get(f"{k}/parts/{p}") for k in methods)]
    colours = (*COLOURS, "#999999", HAIR)

    def paint(axes: Any) -> None:
        widest = max(m.get(f"{key}/high") or m.get(f"{key}/per_gpu_bytes") for key in methods) / 2**30
        for place, key in enumerate(methods):
            start = 0.0
            for number, part in enumerate(parts):
                size = (m.get(f"{key}/parts/{part}") or 0) / 2**30
                axes.barh(
                    place, size, left=start, height=0.55, color=colours[number % 8], hatch=HATCHES[number % 8],
                    edgecolor="#ffffff", linewidth=0.6,
                )  # fmt: skip
                if size > 0.09 * widest:
                    axes.text(
                        start + size / 2, place, part, ha="center", va="center", fontsize=8.5,
                        bbox={"boxstyle": "square,pad=0.15", "fc": "#ffffff", "ec": "none", "alpha": 0.9},
                    )  # fmt: skip
                start += size
            if m.get(f"{key}/low") is not None:
                ends = [m.get(f"{key}/{end}") / 2**30 for end in ("low", "high")]
                axes.plot(ends, [place - 0.36] * 2, color=INK, lw=1.1, marker="|", ms=6)
        card = root.get("card/memory_bytes")
        if card:
            axes.axvline(card / 2**30, color=INK, ls="--", lw=1)
            axes.text(card / 2**30, -0.62, f" {root.get('card/name')}", ha="left", va="center")
        axes.set_yticks(range(len(methods)), labels=[names[key] for key in methods])
        axes.set_ylim(len(methods) - 0.5, -0.8)
        axes.set_xlabel("memory of one GPU, GiB")

    words = "Memory of one GPU at the peak of a step, by part; the thin bars are the intervals."
    return Figure("Memory", draw("memory", 0.9 + 0.6 * len(methods), paint), words, words)


def figures(root: Material) -> dict[str, Figure]:
    """Every figure that the material has numbers for, by the section it belongs to."""
    drawn = (make(root) for make in (parameters, compute, capacity, learning_rate, memory))
    return {figure.name: figure for figure in drawn if figure is not None}
