"""Predicted against measured, a panel for each quantity."""

from __future__ import annotations

from typing import Any

from ..accuracy import QUANTITIES, Pair
from ..document import Figure
from .style import COLOURS, HAIR, INK, QUIET, draw_grid

SCALES = {
    "memory": (2.0**30, "GiB"),
    "time": (1.0, "s"),
    "parameters": (1e9, "billions"),
    "flops": (1e9, "GFLOP"),
}


def predicted_against_measured(found: list[Pair]) -> Figure | None:
    """All pairs on logarithmic axes: filled where nothing was fitted on them, open where a constant was."""
    quantities = [name for name in QUANTITIES if any(pair.quantity == name for pair in found)]
    if not quantities:
        return None

    def paint(panels: list[Any]) -> None:
        for axes, quantity in zip(panels, quantities, strict=False):
            _panel(axes, quantity, [pair for pair in found if pair.quantity == quantity])

    rows = -(-len(quantities) // 2)
    words = (
        "Predicted against measured; on the line they agree, between the grey lines within 20%. Filled: no constant "
        "was fitted on the row; open: one was."
    )
    return Figure(
        "Predicted against measured",
        draw_grid("accuracy", 2.7 * rows, rows, 2, paint, shared=False),
        words,
        words,
    )


def _panel(axes: Any, quantity: str, pairs: list[Pair]) -> None:
    size, unit = SCALES[quantity]
    ends = [value / size for pair in pairs for value in (pair.predicted, pair.measured)]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.plot([low, high], [low, high], color=INK, lw=0.8)
    for factor in (0.8, 1.2):
        axes.plot([low, high], [low * factor, high * factor], color=HAIR, lw=0.7)
    for fitted, face in ((True, "none"), (False, COLOURS[0])):
        chosen = [pair for pair in pairs if pair.fitted == fitted]
        axes.plot(
            [pair.measured / size for pair in chosen], [pair.predicted / size for pair in chosen], "o", ms=2.6,
            mfc=face, mec=COLOURS[0], mew=0.5, alpha=0.7,
        )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: "")
    axes.set_title(
        f"{QUANTITIES[quantity].split(',')[0]}, {len(pairs)}", loc="left", fontsize=9.5, color=QUIET
    )
    axes.set_xlabel(f"measured, {unit}")
    axes.set_ylabel(f"predicted, {unit}")
