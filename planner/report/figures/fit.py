"""Figures of a learning-rate fit: the law against each sweep's best rate, and the sweeps by family."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import units
from ...learning_rate.fit import FitResult
from ...learning_rate.fit.cells import make_cells
from ...learning_rate.fit.curves import Curves, fit_curves
from ...learning_rate.sweep import Sweep
from ..document import Figure
from .style import COLOURS, DASHES, HAIR, INK, MARKS, QUIET, draw, draw_grid, powers

MOST_PANELS = 9
MOST_CURVES = 40
TOP_REGRET = 4.0  # percent, where the panels end


def _ticks(low: float, high: float) -> list[float]:
    every = [m * 10.0**e for e in range(-7, 1) for m in (1, 3)]
    return [rate for rate in every if low / 1.2 < rate < high * 1.2]


def against(result: FitResult) -> Figure:
    """The law's rate with its interval against the best rate of every sweep."""
    table = result.to_frame()
    families = list(dict.fromkeys(table["family"]))
    low = float(table[["best_lr", "law_lr"]].min().min()) / 1.4
    high = float(table[["best_lr", "law_lr"]].max().max()) * 1.4

    def paint(axes: Any) -> None:
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        axes.plot([low, high], [low, high], color=INK, lw=0.8)
        for number, family in enumerate(families):
            chosen = table[table["family"] == family]
            for row in chosen.itertuples():
                edge = {"highest": ">", "lowest": "<"}.get(str(row.at_edge))
                colour = COLOURS[number % len(COLOURS)]
                if row.law_low is not None and math.isfinite(row.law_low):
                    axes.plot([row.best_lr] * 2, [row.law_low, row.law_high], color=HAIR, lw=0.8, zorder=1)
                axes.plot(
                    row.best_lr, row.law_lr, edge or MARKS[number % len(MARKS)], color=colour, ms=4.5,
                    mfc="none" if edge else colour, mec=colour,
                )  # fmt: skip
        for number, family in enumerate(families):
            axes.plot(
                [], [], MARKS[number % len(MARKS)], color=COLOURS[number % len(COLOURS)], ms=4.5, label=family
            )
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
        for which in "xy":
            ticks = _ticks(low, high)
            powers(axes, which, ticks, [units.rate(tick).replace(".00", "") for tick in ticks])
        axes.set_xlabel("best rate of a sweep (open arrows: a bound)")
        axes.set_ylabel("the law’s rate")

    words = (
        "The law’s rate with its interval against each sweep’s own best rate; on the line they agree. Open arrows "
        "lie at the end of a grid: the best is there or beyond."
    )
    return Figure("Against", draw("fit-against", 3.3, paint), words, words)


def sweeps(result: FitResult, sweep: Sweep) -> Figure:
    """Loss above each sweep's best against the rate, a panel for each family."""
    cells = make_cells(sweep)
    curves, table = fit_curves(cells, result.interpolation), result.to_frame()
    families = list(dict.fromkeys(table["family"]))[:MOST_PANELS]
    ranks = sorted(set(table["rank"]) - {0})
    columns = min(3, len(families))
    rows = math.ceil(len(families) / columns)

    ticks = [10.0**e for e in range(-7, 1) if curves.low.min() < math.log(10.0) * e < curves.high.max()]

    def paint(panels: list[Any]) -> None:
        for axes, family in zip(panels, families, strict=False):
            _panel(axes, family, cells, curves, table, ranks)
            axes.set_ylim(-0.15, TOP_REGRET)
            powers(axes, "x", ticks, [f"{tick:.0e}".replace("e-0", "e-") for tick in ticks])
        for axes in panels[len(families) - columns : len(families)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("learning rate")
        for axes in panels[::columns]:
            axes.set_ylabel("loss above best, %")

    words = (
        "Loss above each sweep’s own best against the rate, by family, read between the rates that finished (dots). "
        "Darker lines are higher ranks, dashed ones full fine-tuning; ticks at the bottom are the law’s rates."
    )
    return Figure("Sweeps", draw_grid("fit-sweeps", 0.5 + 1.75 * rows, rows, columns, paint), words, words)


def _panel(axes: Any, family: str, cells: Any, curves: Curves, table: Any, ranks: list[int]) -> None:
    chosen = np.flatnonzero((table["family"] == family).to_numpy())[:MOST_CURVES]
    for cell in chosen:
        full = table["method"].iloc[cell] == "full"
        shade = INK if full else _shade(int(table["rank"].iloc[cell]), ranks)
        line = np.linspace(curves.low[cell], curves.high[cell], 80)
        points = cells.x[cells.start[cell] : cells.start[cell + 1]]
        for at, look in (
            (line, {"lw": 0.9, "ls": DASHES[1] if full else "-"}),
            (points, {"ls": "none", "marker": "."}),
        ):
            whole = np.repeat(np.asarray(at)[:, None], curves.n, axis=1)
            axes.plot(np.exp(at), curves.value(whole)[:, cell], color=shade, ms=3, **look)
        axes.plot(table["law_lr"].iloc[cell], -0.08, "|", color=shade, ms=6, mew=1.1, clip_on=False)
    axes.set_xscale("log")
    count = table["model"].iloc[chosen].nunique()
    axes.set_title(
        f"{family}, {count} model{'s' if count > 1 else ''}", loc="left", fontsize=9.5, color=QUIET
    )


def _shade(rank: int, ranks: list[int]) -> Any:
    """Light for low ranks, dark for high ones: told apart in grey."""
    from matplotlib import colormaps

    at = ranks.index(rank) / max(1, len(ranks) - 1) if rank in ranks else 0.5
    return colormaps["viridis"](0.85 - 0.75 * at)


def figures(result: FitResult, sweep: Sweep) -> list[Figure]:
    """Both figures."""
    return [against(result), sweeps(result, sweep)]
