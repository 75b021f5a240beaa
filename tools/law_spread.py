"""How far a law's rate lies from the best rate of a sweep: the quotients behind `optimum_ratio` in laws.toml.

    python tools/law_spread.py

For each model and rank of data/sweeps/tinker_sft.csv the best rate is the vertex of the parabola through the three
points around the lowest loss, in log rate; where the lowest loss lies at the edge of what did not diverge, the edge
itself, which only bounds it. Printed: the 10th and 90th percentile of best rate / law's rate by family.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from planner import facts
from planner.learning_rate.law import learning_rate

LAW = "tinker-cookbook-2025-11"
Cell = tuple[str, int, int]


def sweep_cells(path: Path) -> dict[Cell, list[tuple[float, float]]]:
    """(model, hidden size, rank) -> (rate, mean loss of repeats), by rate, finished runs only."""
    runs: dict[Cell, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "ok":
                cell = (row["model"], int(row["hidden_size"]), int(row["rank"]))
                runs[cell][float(row["lr"])].append(float(row["test_nll_nats_per_token"]))
    return {cell: sorted((lr, fmean(losses)) for lr, losses in by_lr.items()) for cell, by_lr in runs.items()}


def best_rate(points: list[tuple[float, float]]) -> tuple[float, bool]:
    """The best rate, and whether it lies inside the grid."""
    i = min(range(len(points)), key=lambda j: points[j][1])
    if not 0 < i < len(points) - 1:
        return points[i][0], False
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(lr), loss) for lr, loss in points[i - 1 : i + 2]]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    return math.exp((x0 + x1) / 2 - left / (2 * curvature)), True


def quotients(path: Path) -> dict[str, list[float]]:
    """Best rate over the law's rate, sorted, for each family of the published law."""
    law = facts.law(LAW)
    assert law.base is not None
    found: dict[str, list[float]] = {family: [] for family in law.exponents}
    for (model, hidden, _), points in sweep_cells(path).items():
        family = next((name for name in law.exponents if name in model.lower()), None)
        if family is not None:
            rate = learning_rate(
                base=law.base, multiplier=law.lora_multiplier, reference_width=law.reference_width,
                hidden_size=hidden, exponent=law.exponents[family] + law.lora_pow,
            )  # fmt: skip
            found[family].append(best_rate(points)[0] / rate)
    return {family: sorted(values) for family, values in found.items()}


def percentile(values: list[float], share: float) -> float:
    """The value at this share of a sorted list, the nearest one."""
    return values[round(share * (len(values) - 1))]


def main() -> None:
    """Print the percentiles."""
    for family, values in quotients(facts.data_dir() / "sweeps" / "tinker_sft.csv").items():
        low, high = percentile(values, 0.1), percentile(values, 0.9)
        print(f"{family}: {len(values)} cells, 10th to 90th percentile {low:.3g} to {high:.3g}")


if __name__ == "__main__":
    main()
