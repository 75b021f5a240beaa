"""How figures look: the document's letters and colours, lines told apart without colour, labels beside the data."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from typing import Any

INK, QUIET, HAIR = "#1a1a1a", "#595959", "#b8b8b8"
# Okabe and Ito's colours that differ for colour-blind readers too; dashes and marks tell them apart in grey.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++", "oooo", "----")
WIDTH_IN = 6.5
# STIX comes with matplotlib and is nearly as wide as Libertinus, which is inside Typst: one measures, one shows.
MEASURED, SHOWN = "STIXGeneral", "Libertinus Serif"


def draw(name: str, height_in: float, paint: Callable[[Any], None]) -> str:
    """An SVG of so many inches, painted on its axes by `paint`; the same bytes for the same data."""
    return draw_grid(name, height_in, 1, 1, lambda panels: paint(panels[0]))


def draw_grid(
    name: str,
    height_in: float,
    rows: int,
    columns: int,
    paint: Callable[[list[Any]], None],
    shared: bool = True,
) -> str:
    """An SVG of rows x columns panels, painted together; `shared` panels have the same axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.family": MEASURED, "font.size": 9.5,
        "text.color": INK, "axes.edgecolor": QUIET, "axes.labelcolor": INK, "xtick.color": QUIET,
        "ytick.color": QUIET, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
        "hatch.linewidth": 0.6, "lines.linewidth": 1.5, "axes.unicode_minus": True, "text.parse_math": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        panels = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel().tolist()
        paint(panels)
        for axes in panels:
            if not axes.has_data():
                axes.set_axis_off()
        stream = io.StringIO()
        for patch in (figure.patch, *(axes.patch for axes in panels)):
            patch.set(facecolor="none", edgecolor="none")
        # Not by savefig, which draws everything twice.
        canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"'?STIXGeneral'?", f"'{SHOWN}', Georgia, serif", svg)
    return svg[svg.index("<svg") :]


def powers(axes: Any, which: str, values: list[float], words: list[str]) -> None:
    """Ticks of a logarithmic axis at these values and no others."""
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(_fixed(values))
    axis.set_minor_locator(_fixed([]))
    getattr(axes, f"set_{which}ticks")(values, labels=words)


def _fixed(values: list[float]) -> Any:
    from matplotlib.ticker import FixedLocator

    return FixedLocator(values)


def spread(places: list[float], least: float) -> list[float]:
    """Places on a line moved apart to at least `least`, in their order, about where they were."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    for lower, upper in itertools.pairwise(order):
        found[upper] = max(found[upper], found[lower] + least)
    shift = (sum(found) - sum(places)) / max(1, len(places))
    return [value - shift for value in found]
