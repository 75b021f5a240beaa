"""Figures from what claims found: quantities with intervals against their prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..document import Figure
from .style import COLOURS, INK, QUIET, draw, powers

Claims = Mapping[str, Mapping[str, Any]]
Row = tuple[str, float, "float | None", "float | None"]  # a name, a value, the ends of its interval


def _dots(
    title: str, key: str, rows: list[Row], line: float, what: str, words: str, log: bool = False,
) -> Figure:  # fmt: skip
    """Values with intervals, one below another, against a line."""

    def paint(axes: Any) -> None:
        for place, (_, value, low, high) in enumerate(rows):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=QUIET, lw=1.1, marker="|", ms=6)
            axes.plot(value, place, "o", color=COLOURS[0], ms=5)
        axes.axvline(line, color=INK, ls="--", lw=0.9)
        axes.text(line, -0.75, " predicted", ha="left", va="center", color=INK)
        axes.set_yticks(range(len(rows)), labels=[name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -1.0)
        if log:
            axes.set_xscale("log")
            ends = [end for _, value, low, high in rows for end in (value, low, high, line) if end]
            ticks = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
            kept = [tick for tick in ticks if min(ends) / 1.3 < tick < max(ends) * 1.3]
            powers(axes, "x", kept, [f"{tick:g}" for tick in kept])
        axes.set_xlabel(what)

    return Figure(title, draw(key, 0.9 + 0.3 * len(rows), paint), words, words)


def ratios(found: Claims) -> Figure | None:
    """LoRA's best rate over full fine-tuning's, model by model."""
    by_model = ((found.get("C3") or {}).get("details") or {}).get("by_model") or {}
    rows = [(model, one["value"], one["low"], one["high"]) for model, one in by_model.items()]
    if not rows:
        return None
    words = "LoRA’s best learning rate over full fine-tuning’s by model, with 95% intervals over seeds."
    line = float(found["C3"]["predicted"])
    return _dots("Ratio of best rates", "ratios", rows, line, "ratio of best learning rates", words, log=True)


def capacity(found: Claims) -> Figure | None:
    """Bits a parameter that adapters stored."""
    bits = ((found.get("C11") or {}).get("details") or {}).get("bits_a_parameter") or {}
    rows = [
        (name, one["value"], one.get("low"), one.get("high"))
        if isinstance(one, Mapping)
        else (name, one, None, None)
        for name, one in bits.items()
    ]
    rows = [row for row in rows if row[1] is not None]
    if not rows:
        return None
    words = "Bits a parameter that adapters stored of random strings, by rank and layer set."
    line = float(found["C11"]["predicted"])
    return _dots("Bits a parameter", "bits", rows, line, "bits a trained parameter", words)


def layers(found: Claims) -> Figure | None:
    """Loss by layer set, each at its best rate; the least over seeds to the most."""
    losses = ((found.get("C7") or {}).get("details") or {}).get("loss") or {}
    if len(losses) < 2:
        return None
    held = found["C7"]["details"].get("params") or {}
    rows = [
        (f"{name} ({held[name]:,} parameters)" if name in held else name, sum(v) / len(v), min(v), max(v))
        for name, v in losses.items()
    ]
    best = min(value for _, value, _, _ in rows)

    def paint(axes: Any) -> None:
        for place, (_, value, low, high) in enumerate(rows):
            axes.plot([low, high], [place, place], color=QUIET, lw=1.1, marker="|", ms=6)
            axes.plot(value, place, "o", color=COLOURS[0], ms=5)
        axes.axvline(best, color=INK, ls=":", lw=0.8)
        axes.set_yticks(range(len(rows)), labels=[name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("evaluation loss at the best rate, nats a character")

    words = "Evaluation loss by the layers that are adapted, each at its own best rate; bars span the seeds."
    return Figure("Layer sets", draw("layer-sets", 0.8 + 0.35 * len(rows), paint), words, words)
