"""The figure of a data set: its information by each way, with intervals."""

from __future__ import annotations

from typing import Any

from ... import units
from ..document import Figure
from ..numbers import Material
from .style import COLOURS, INK, QUIET, draw


def information(info: Material) -> Figure | None:
    """Bits by the rule, by compression and by a model's loss, on one axis; None with fewer than two ways."""
    rows: list[tuple[str, float, float | None, float | None, bool]] = []
    for key, label in (("rule", "rule"), ("compression", "compression"), ("measured", "model’s loss")):
        bits = info.get(f"{key}/bits")
        if bits:
            rows.append(
                (
                    label,
                    bits,
                    info.get(f"{key}/low"),
                    info.get(f"{key}/high"),
                    info.get(f"{key}/bound") == "upper",
                )
            )
    if len(rows) < 2:
        return None

    def paint(axes: Any) -> None:
        for place, (_, bits, low, high, bound) in enumerate(rows):
            if low and high and low < high:
                axes.plot([low, high], [place] * 2, color=QUIET, lw=1.1, marker="|", ms=6)
            axes.plot(bits, place, "<" if bound else "o", color=COLOURS[0], ms=6)
            axes.annotate(
                f"{'at most ' if bound else ''}{units.bits(bits)}", (bits, place), xytext=(0, 7),
                textcoords="offset points", ha="center", color=INK,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yticks(range(len(rows)), labels=[label for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.8)
        axes.xaxis.set_major_formatter(
            lambda value, _: units.bits(value).replace(".00", "").replace(".0 ", " ")
        )
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_xlabel("bits in the data")

    words = "The data’s information by each way; a triangle is an upper bound, bars are intervals."
    return Figure("Information", draw("information", 0.9 + 0.45 * len(rows), paint), words, words)
