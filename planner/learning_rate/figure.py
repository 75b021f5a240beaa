"""The figure of a fit: every sweep with its interpolant, the law's rate with its interval, by family.

Vector graphics by matplotlib, imported here only. One panel a family; within it a colour for each rank and a line
style for the method. Below, the law's rate against the best rate of every cell, with intervals.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError
from ..whole_files import put
from .fit import FitResult
from .fit.cells import make_cells
from .fit.curves import Curves, fit_curves
from .sweep import Sweep, read_sweep

FORMATS = ("svg", "pdf", "png")
MOST_PANELS = 12
TOP_REGRET = 4.0  # percent: where the panels end; walls go on above
MOST_CURVES = 60  # in a panel
INK, SOFT = "#222222", "#8a8a8a"


def _style() -> dict[str, Any]:
    return {
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "svg.hashsalt": "lora-plan",  # the same bytes for the same fit
        "pdf.fonttype": 42,
    }


def _colour(rank: int, ranks: Sequence[int]) -> Any:
    """Dark for high ranks, light for low ones: legible without colour."""
    import matplotlib

    if rank == 0:
        return INK
    at = ranks.index(rank) / max(1, len(ranks) - 1)
    return matplotlib.colormaps["viridis"](0.85 - 0.75 * at)


def check_figure_path(path: str | os.PathLike[str]) -> str:
    """The format of a figure's file by its ending; a file of another kind, or in no folder, is refused."""
    target = os.fspath(path)
    ending = target.rsplit(".", 1)[-1].lower() if "." in os.path.basename(target) else ""
    if ending not in FORMATS:
        raise InputError("figure", target, f"a file that ends in {', '.join('.' + name for name in FORMATS)}")
    if not os.path.isdir(os.path.dirname(target) or "."):
        raise InputError("figure", target, "a file in a folder that exists")
    return ending


def render(
    result: FitResult, sweep: Sweep | str | os.PathLike[str] | pd.DataFrame, format: str = "svg"
) -> bytes:
    """The figure of a fit to a sweep as the bytes of an SVG, PDF or PNG, the same for the same fit."""
    if format not in FORMATS:
        raise InputError("format", format, f"one of {', '.join(FORMATS)}")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    read = sweep if isinstance(sweep, Sweep) else read_sweep(sweep)
    metadata = {
        "svg": {"Creator": "lora-plan", "Date": None},
        "pdf": {"Creator": "lora-plan", "CreationDate": None},
        "png": {"Software": "lora-plan"},
    }
    out = io.BytesIO()
    with plt.rc_context(_style()):
        figure = _figure(plt, result, read)
        try:
            figure.savefig(out, format=format, dpi=160, metadata=metadata[format])
        finally:
            plt.close(figure)
    return out.getvalue()


def draw(
    result: FitResult, sweep: Sweep | str | os.PathLike[str] | pd.DataFrame, path: str | os.PathLike[str]
) -> None:
    """Write the figure of a fit to a sweep as SVG, PDF or PNG, by the file's ending, whole or not at all. Raises
    InputError."""
    data = render(result, sweep, check_figure_path(path))
    try:
        put(path, data)
    except OSError as error:
        raise InputError(
            "figure", os.fspath(path), "a file that can be written", f"{error.strerror}."
        ) from error


def _figure(plt: Any, result: FitResult, sweep: Sweep) -> Any:
    cells = make_cells(sweep)
    curves = fit_curves(cells, result.interpolation)
    table = result.to_frame()
    families = list(dict.fromkeys(table.sort_values(["family"])["family"]))[:MOST_PANELS]
    columns = min(4, len(families))
    rows = math.ceil(len(families) / columns)
    figure = plt.figure(figsize=(2.6 * columns + 0.6, 1.9 * rows + 3.4), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.0] * rows + [1.55])
    ranks = sorted(set(table["rank"]) - {0})
    first = None
    for number, family in enumerate(families):
        axes = figure.add_subplot(grid[number // columns, number % columns], sharex=first, sharey=first)
        first = first or axes
        _panel(axes, family, cells.start, cells.x, curves, table, ranks)
        if number % columns == 0:
            axes.set_ylabel("loss above the cell's best, %")
    assert first is not None
    first.set_ylim(-0.12, TOP_REGRET)
    _against(figure.add_subplot(grid[rows, :]), table, ranks)
    handles = [plt.Line2D([], [], color=_colour(rank, ranks), label=f"rank {rank}") for rank in ranks]
    if (table["method"] == "full").any():
        handles.append(plt.Line2D([], [], color=INK, ls="--", label="full fine-tuning"))
    mean = result.regret["leave_one_model_out"] or result.regret["in_sample"]
    where = "models left out" if result.regret["leave_one_model_out"] else "in sample"
    assert mean is not None
    figure.suptitle(
        f"{result.form}: {mean.mean:.2f}% of loss above the best on average ({where}), "
        f"{result.n_sweeps} sweeps of {result.n_models} models", fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), frameon=False)
    return figure


def _panel(
    axes: Any, family: str, start: Any, x: Any, curves: Curves, table: pd.DataFrame, ranks: Sequence[int]
) -> None:
    """One family: curves over the finished rates, measured points, the law's rates as ticks on the axis."""
    chosen = np.flatnonzero((table["family"] == family).to_numpy())[:MOST_CURVES]
    for cell in chosen:
        rank, full = int(table["rank"].iloc[cell]), table["method"].iloc[cell] == "full"
        colour = _colour(rank, ranks)
        line = np.linspace(curves.low[cell], curves.high[cell], 120)
        points = x[start[cell] : start[cell + 1]]
        axes.plot(
            np.exp(line), _one(curves, cell, line), color=colour, lw=0.9, ls="--" if full else "-", alpha=0.9
        )
        axes.plot(np.exp(points), _one(curves, cell, points), ".", color=colour, ms=3)
        axes.plot(table["law_lr"].iloc[cell], -0.06, "|", color=colour, ms=7, mew=1.2, clip_on=False)
    axes.set_xscale("log")
    n = table["model"].iloc[chosen].nunique()
    axes.set_title(f"{family} ({n} model{'s' if n > 1 else ''})", loc="left", color=INK)
    axes.set_xlabel("learning rate (ticks: the law)")


def _one(curves: Curves, cell: int, x: Any) -> Any:
    """One cell's regret at log rates x."""
    i = np.searchsorted(curves.lower[curves.first[cell] : curves.first[cell + 1]], x, side="right") - 1
    i = i + curves.first[cell]
    u = x - curves.anchor[i]
    c = curves.coefficients[:, i]
    return c[0] + u * (c[1] + u * (c[2] + u * c[3]))


def _against(axes: Any, table: pd.DataFrame, ranks: Sequence[int]) -> None:
    """The law's rate with its interval against each cell's best rate; arrows where the best lies at a grid's end."""
    for row in table.itertuples():
        colour = _colour(int(row.rank), ranks)
        axes.plot([row.best_lr] * 2, [row.law_low, row.law_high], color=colour, lw=0.7, alpha=0.55)
        marker = {"highest": ">", "lowest": "<"}.get(str(row.at_edge), "s" if row.method == "full" else "o")
        axes.plot(row.best_lr, row.law_lr, marker, color=colour, ms=4, mec="white", mew=0.4)
    ends = np.array(
        [table[["best_lr", "law_lr"]].min().min() / 1.4, table[["best_lr", "law_lr"]].max().max() * 1.4]
    )
    axes.plot(ends, ends, color=INK, lw=0.8)
    axes.set(
        xscale="log", yscale="log", xlim=ends, xlabel="best rate of a sweep (arrow: at least, or at most)"
    )
    axes.set_ylabel("the law's rate, 90% interval")
    axes.set_title(
        "The law against each sweep's own best rate; on the line they agree", loc="left", color=INK
    )
