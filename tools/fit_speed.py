"""Fit the constants of planner/speed on published runs and judge them on others.

    python -m tools.fit_speed          # fit, write data/speed.toml, its JSON and docs/speed.md
    python -m tools.fit_speed --page   # docs/speed.md from the constants as they are

Of each source's models every second one is fitted on (tools/speed_runs.py), the others are judged. Sources count
by the
0.2th power of their number of runs, so that one with many does not decide alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares, minimize

from planner.speed import efficiency as speed_constants
from planner.speed.efficiency import Efficiency, Spread
from planner.speed.roofline import step_parts, thin_share
from tools.speed_pages import page
from tools.speed_runs import Run, runs

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "speed.toml"
DATE = "2026-11-24"
CITED = {"attention_hopper": 0.35, "attention_native": 0.5, "scan": 0.2}
# name: start, lowest, highest
FITTED = {
    "matmul": (0.72, 0.3, 1.0),
    "matmul_cards": (0.85, 0.3, 1.0),
    "attention": (0.6, 0.2, 0.75),
    "memory": (0.8, 0.3, 0.95),
    "dequantise": (0.3, 0.05, 0.95),
    "link": (0.5, 0.1, 1.0),
    "overlap": (0.6, 0.0, 1.0),
    "host_s": (2e-5, 5e-6, 6e-5),
    "start_s": (3e-6, 5e-7, 1e-5),
    "unit_s": (4e-4, 0.0, 1e-2),
    "module_s": (4e-4, 0.0, 1e-2),
}
COVERAGE = 0.9


def predicted(found: Sequence[Run], constants: Efficiency) -> Any:
    """Seconds of each run, and the share of host time and communication in it."""
    parts = [step_parts(r.work, r.setup, r.machine, r.traffic, constants) for r in found]
    return np.array([sum(p.values()) for p in parts]), np.array([thin_share(p) for p in parts])


def fit(found: Sequence[Run]) -> Efficiency:
    """The constants that bring predicted and measured times closest, large errors damped."""
    names = list(FITTED)
    counts: dict[str, int] = {}
    for run in found:
        counts[run.source] = counts.get(run.source, 0) + 1
    weights = np.sqrt([counts[run.source] ** -0.8 for run in found])
    measured = np.log([run.measured_s for run in found])
    start, low, high = (np.array([FITTED[name][i] for name in names]) for i in range(3))

    def constants(values: Any) -> Efficiency:
        return Efficiency(**CITED, **dict(zip(names, map(float, values), strict=True)))

    def errors(values: Any) -> Any:
        return weights * (np.log(predicted(found, constants(values))[0]) - measured)

    result = least_squares(
        errors,
        start,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=0.1,
        x_scale=start,
        diff_step=1e-3,
        max_nfev=60,
    )
    return constants(result.x)


def log_ratios(found: Sequence[Run], constants: Efficiency) -> Any:
    """Logarithms of measured over predicted, and the thin shares."""
    seconds, thin = predicted(found, constants)
    return np.log([run.measured_s for run in found]) - np.log(seconds), thin


def left_out(found: Sequence[Run]) -> dict[str, Any]:
    """For each source, measured over predicted (logarithms) and thin shares with constants fitted on all others."""
    result = {}
    for source in sorted({run.source for run in found}):
        others = [run for run in found if run.source != source]
        result[source] = log_ratios([run for run in found if run.source == source], fit(others))
    return result


def spread(found: Sequence[Run]) -> Spread:
    """Deviations between and within groups, by the likelihood of a normal model with a common part in each group.

    Each source is predicted with constants fitted on the others, since that is how a new trainer and machine is met.
    Ratios are cut at a factor of 2 for that. The interval's half-width `z` then holds the stated share of the runs as
    they are, every source counting the same: errors have heavier tails than a normal model.
    """
    found = sorted(found, key=lambda run: run.source)
    parts = left_out(found)
    ratios = np.clip(np.concatenate([values for values, _ in parts.values()]), -math.log(2), math.log(2))
    thin = np.concatenate([shares for _, shares in parts.values()])
    groups = np.array([run.group for run in found])

    def minus_log_likelihood(values: Any) -> float:
        between, within, extra = np.exp(values)
        total = 0.0
        for group in set(groups):
            inside = groups == group
            noise, y = within**2 + (extra * thin[inside]) ** 2, ratios[inside]
            precision = 1 / between**2 + np.sum(1 / noise)
            total += np.sum(np.log(noise)) + math.log(between**2 * precision)
            total += np.sum(y**2 / noise) - np.sum(y / noise) ** 2 / precision
        return total

    best = minimize(minus_log_likelihood, np.log([0.15, 0.1, 0.3]), method="Nelder-Mead")
    between, within, extra = (round(float(v), 4) for v in np.exp(best.x))
    deviations = np.sqrt(between**2 + within**2 + (extra * thin) ** 2)
    away = np.concatenate([np.abs(values) for values, _ in parts.values()]) / deviations
    weights = np.concatenate([np.full(len(values), 1 / len(values)) for values, _ in parts.values()])
    order = np.argsort(away)
    reached = np.cumsum(weights[order]) / weights.sum()
    return Spread(
        between, within, extra, COVERAGE, round(float(away[order][np.argmax(reached >= COVERAGE)]), 3)
    )


def _source(name: str, number: int) -> tuple[str, dict[str, str]]:
    fitted = {
        "title": "tools/fit_speed.py on data/measured/speed.csv",
        "url": "https://github.com/foundation-model-stack/fms-acceleration",
        "locator": f"{number} published runs of this and nine other sources, data/measured/SPEED.md", "date": DATE,
        "kind": "derived",
    }  # fmt: skip
    paper = {
        "title": "FlashAttention-3: Fast and Accurate Attention with Asynchrony and Low-precision",
        "url": "https://arxiv.org/abs/2407.08608", "date": "2024-07", "kind": "paper",
    }  # fmt: skip
    if name == "attention_hopper":
        return "measured", {**paper, "locator": "abstract: flash attention 2 reaches 35% of an H100"}
    if name == "attention_native":
        return "assumed", {
            **paper,
            "locator": "forward up to 75% of an H100, less backward and at short lengths",
        }
    if name in ("scan", "coverage"):
        return "assumed", {**fitted, "locator": "chosen; no published run to fit it on", "kind": "assumed"}
    return "fitted", fitted


def write(constants: Efficiency, deviations: Spread, number: int) -> None:
    """Write data/speed.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/fit_speed.py. Shares of the peaks that programs reach, times that no peak explains (s),",
        "# and how far measured runs lie from the formula (standard deviations of the logarithm).",
    ]
    entries = []
    for name, value in {**asdict(constants), **asdict(deviations)}.items():
        basis, source = _source(name, number)
        entries.append({"name": name, "value": float(f"{value:.4g}"), "basis": basis, "source": source})
        shown = ", ".join(f"{key} = {json.dumps(text)}" for key, text in source.items())
        lines += ["", "[[constant]]", f'name = "{name}"', f"value = {float(value):.4g}", f'basis = "{basis}"']
        lines += [f"source = {{ {shown} }}"]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps({"constant": entries}, ensure_ascii=False, indent=0)
    (ROOT / "data" / "compiled" / "speed.json").write_text(text + "\n", encoding="utf-8")
    speed_constants.constants.cache_clear()


def main() -> None:
    """Fit where asked, and write the page."""
    found = runs()
    if "--page" not in sys.argv:
        chosen = [run for run in found if run.fitted]
        constants = fit(chosen)
        write(constants, spread(chosen), len(chosen))
    shipped = speed_constants.constants()
    path = ROOT / "docs" / "speed.md"
    ratios, thin = log_ratios(found, shipped.efficiency)
    path.write_text(
        page(found, ratios, thin, {name: values for name, (values, _) in left_out(found).items()}, shipped),
        encoding="utf-8",
    )
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
