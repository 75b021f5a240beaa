"""Best learning rates out of the shipped sweep."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from ... import facts
from ...learning_rate.families import family_of_name


@dataclass(frozen=True)
class Best:
    """The best rate of one model and rank; only a bound on it where it lies at the edge of the grid."""

    model: str
    hidden_size: int
    rank: int
    rate: float
    inside: bool


def _vertex(points: list[tuple[float, float]]) -> float:
    """The rate at the vertex of the parabola through three points (rate, loss), in log rate."""
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(rate), loss) for rate, loss in points]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    return math.exp((x0 + x1) / 2 - left * (x2 - x0) / (2 * (right - left)))


def best_rates(family: str | None) -> tuple[list[Best], bool]:
    """Those of a family, and True; of all models, and False, where the sweep has none of the family."""
    found = _best_rates()
    ours = [best for best in found if family and family_of_name(best.model) == family]
    return (ours, True) if ours else (found, False)


def _best_rates() -> list[Best]:
    """The best rate of each model and rank in data/sweeps/tinker_sft.csv: the vertex of the parabola
    around the lowest loss, or the lowest itself at the edge of what did not diverge."""
    losses: dict[tuple[str, int, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in csv.DictReader(io.StringIO(facts.read_data("sweeps", "tinker_sft.csv"))):
        if row["status"] == "ok":
            cell = (row["model"], int(row["hidden_size"]), int(row["rank"]))
            losses[cell][float(row["lr"])].append(float(row["test_nll_nats_per_token"]))
    found = []
    for (model, hidden, rank), by_rate in losses.items():
        points = sorted((rate, fmean(values)) for rate, values in by_rate.items())
        i = min(range(len(points)), key=lambda j: points[j][1])
        inside = 0 < i < len(points) - 1
        rate = _vertex(points[i - 1 : i + 2]) if inside else points[i][0]
        found.append(Best(model, hidden, rank, rate, inside))
    return found
