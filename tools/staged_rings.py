"""What rings reach of PCIe where cards have no access to each other's memory, as others' nccl-tests measured it."""

from __future__ import annotations

import csv
import io
import math
from statistics import fmean, stdev

from planner.facts import read_data


def rings() -> dict[str, float]:
    """The share of a PCIe link's marketed rate that rings reached, by publisher: the geometric mean of its rows."""
    rows: dict[str, list[float]] = {}
    for row in csv.DictReader(io.StringIO(read_data("measured", "links.csv"))):
        share = float(row["bus_bytes_per_s"]) / float(row["pcie_bytes_per_s"])
        rows.setdefault(row["source"], []).append(math.log(share))
    return {source: math.exp(fmean(logs)) for source, logs in rows.items()}


def staged() -> tuple[float, float]:
    """The geometric mean over publishers, and the deviation of their logarithms."""
    logs = [math.log(share) for share in rings().values()]
    return math.exp(fmean(logs)), stdev(logs)
