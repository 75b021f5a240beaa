"""What the planner predicted beside what others counted or measured: data/measured/accuracy.csv, summed up."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from .. import facts
from .document import Block, Figure, Row, Section, Table, Text, para
from .numbers import Material

QUANTITIES = {
    "parameters": "parameters of a model",
    "flops": "FLOPs of a step",
    "memory": "memory of a GPU, bytes",
    "time": "seconds of a step",
}


@dataclass(frozen=True)
class Pair:
    """One quantity as predicted and as measured; `fitted` where a constant was fitted on it."""

    quantity: str
    source: str
    predicted: float
    measured: float
    fitted: bool

    @property
    def error(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.predicted / self.measured - 1)


def pairs() -> list[Pair]:
    """Every row of the table."""
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", "accuracy.csv")))
    return [
        Pair(
            row["quantity"],
            row["source"],
            float(row["predicted"]),
            float(row["measured"]),
            row["fitted"] == "yes",
        )
        for row in rows
    ]


def summary(found: list[Pair]) -> list[dict[str, Any]]:
    """Median and 90th percentile of the errors by quantity and source, fitted rows apart; whole quantities first."""
    groups: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for pair in found:
        groups[pair.quantity, "", pair.fitted].append(pair.error)
        groups[pair.quantity, pair.source, pair.fitted].append(pair.error)
    order = list(QUANTITIES)
    rows = []
    for (quantity, source, fitted), errors in sorted(
        groups.items(), key=lambda item: (order.index(item[0][0]), item[0][2], item[0][1])
    ):
        ordered = sorted(errors)
        rows.append(
            {
                "quantity": quantity, "source": source, "fitted": fitted, "rows": len(errors),
                "median": statistics.median(errors), "p90": ordered[int(0.9 * (len(ordered) - 1) + 0.5)],
            }
        )  # fmt: skip
    return rows


def section(root: Material, figure: Figure | None) -> Section:
    """The table and the figure; `root` holds the summary under "accuracy"."""
    rows = []
    for number, row in enumerate(root.get("accuracy")):
        if row["source"] and row["quantity"] in ("parameters", "flops"):
            continue  # one source each
        path = f"accuracy/{number}"
        label: Text = (f"   {row['source']}",) if row["source"] else (QUANTITIES[row["quantity"]],)
        rows.append(
            Row(
                (
                    label, ("yes" if row["fitted"] else "no",), (root.number(f"{path}/rows"),),
                    (root.number(f"{path}/median", "percent"),), (root.number(f"{path}/p90", "percent"),),
                ),
                not row["source"],
            )
        )  # fmt: skip
    header = ("Quantity and source", "Fitted on", "Rows", "Median error", "90th percentile")
    blocks: list[Block] = [
        para(
            "Every figure that somebody else counted or measured, beside ours: parameters against transformers’ "
            "builds, FLOPs against torch’s counter, memory and step times against published runs. Rows on which a "
            "constant was fitted stand apart."
        ),
        *([figure] if figure else []),
        Table("Errors by source", header, tuple(rows), "lrrrr", basis="measured"),
    ]
    return Section("Predicted against measured", tuple(blocks), new_page=True)
