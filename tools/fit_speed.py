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
from planner.speed.efficiency import Efficiency, Spread, family_of
from planner.speed.roofline import step_parts, thin_share
from tools.speed_later import LATER, LATEST, later, time_of
from tools.speed_pages import page
from tools.speed_reach import reached
from tools.speed_runs import Run, runs

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "data" / "speed.toml"
DATE = "2026-11-28"
CITED = {"attention_hopper": 0.35, "attention_native": 0.5, "scan": 0.2}
# name: start, lowest, highest
FITTED = {
    "matmul": (0.8, 0.3, 1.0),
    "matmul_cards": (0.85, 0.3, 1.0),
    "attention": (0.6, 0.2, 0.75),
    "memory": (0.8, 0.3, 0.95),
    "dequantise": (3.0, 0.2, 20.0),
    "link": (0.5, 0.1, 0.8),
    "overlap": (0.6, 0.0, 1.0),
    "host_s": (2e-5, 5e-6, 6e-5),
    "start_s": (3e-6, 5e-7, 1e-5),
    "unit_s": (2e-4, 0.0, 1e-2),
    "module_s": (1e-4, 0.0, 1e-2),
    "iteration_s": (0.03, 0.0, 0.2),
}
COVERAGE = 0.9
Z = 1.645  # half-width of a normal distribution's middle 90%
# Programs that run PEFT under HF's Trainer, as the fitted runs named hf-peft do.
HF_TRAINERS = (
    "hf-trainer", "hf-trainer-4", "hf-trainer-4.46", "trl", "trl-0.13", "llama-factory", "qwen-finetune", "ms-swift",
    "ms-swift-2024",
)  # fmt: skip


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


def _likely(groups: Any, ratios: Any, thin: Any) -> tuple[float, float]:
    """Deviations within groups: `within` and `thin`, by the likelihood of a normal model with a common part in each
    group."""

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
    _, within, extra = (round(float(v), 4) for v in np.exp(best.x))
    return within, extra


def matched(ratios: Any, noise: Any, weights: Any) -> float:
    """The smallest deviation between groups with which the interval holds the stated share of what was measured."""
    needed = np.sqrt(np.maximum(0.0, (ratios / Z) ** 2 - noise))
    order = np.argsort(needed)
    reached = np.cumsum(weights[order]) / weights.sum()
    return round(max(0.01, float(needed[order][np.argmax(reached >= COVERAGE)])) + 5e-5, 4)  # upwards


def even(sources: Any) -> Any:
    """Weights with which every source counts the same."""
    return np.array([1.0 / np.sum(sources == source) for source in sources])


def spread(found: Sequence[Run], constants: Efficiency) -> Spread:
    """Deviations within groups, and between them by what is known: of trainers and machines fitted on, as the
    fitted runs lie about their own fit; of new trainers, as each source lies about constants fitted on the others
    and as half of the later steps on such machines do; of accelerators that no fitted run had, as half of those on
    them do (tools/speed_later.py says which half)."""
    found = sorted(found, key=lambda run: run.source)
    parts = left_out(found)
    away = np.concatenate([values for values, _ in parts.values()])
    thin = np.concatenate([shares for _, shares in parts.values()])
    groups, sources = (np.array([getattr(run, name) for run in found]) for name in ("group", "source"))
    within, extra = _likely(groups, np.clip(away, -math.log(2), math.log(2)), thin)
    own, own_thin = log_ratios(found, constants)
    new, new_thin, new_sources = half(unseen=False)
    fresh, fresh_thin, _ = half(unseen=True)
    away, thin, away_sources = (
        np.concatenate(pair) for pair in ((away, new), (thin, new_thin), (sources, new_sources))
    )
    noise = [within**2 + (extra * shares) ** 2 for shares in (thin, own_thin, fresh_thin)]
    return Spread(
        matched(away, noise[0], even(away_sources)), matched(own, noise[1], even(sources)),
        matched(fresh, noise[2], np.ones(len(fresh))), within, extra, COVERAGE, Z,
    )  # fmt: skip


def half(unseen: bool) -> tuple[Any, Any, Any]:
    """Measured over predicted (logarithms), thin shares and sources of that half of the later steps, all stated, on
    which widths are fitted; `unseen`: on accelerators without a fitted run."""
    rows = []
    for name in (LATER, LATEST):
        for case in later(name):
            if case.stated and case.fits_widths and (case.evidence == "unseen") == unseen:
                time = time_of(case)
                share = thin_share(dict(time.parts))
                rows.append((math.log(case.seconds(time.tokens) / time.seconds), share, case.source))
    ratios, shares, sources = zip(*rows, strict=True)
    return np.array(ratios), np.array(shares), np.array(sources)


def fitted_on(found: Sequence[Run]) -> dict[str, list[str]]:
    """Chips and trainers with a fitted run."""
    return {
        "accelerators": sorted({family_of(run.machine.accelerator.name) for run in found}),
        "trainers": sorted({run.setup.trainer for run in found}),
    }


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
    if name in ("scan", "coverage", "z"):
        return "assumed", {**fitted, "locator": "chosen; no published run to fit it on", "kind": "assumed"}
    return "fitted", fitted


def write(constants: Efficiency, deviations: Spread, found: Sequence[Run]) -> None:
    """Write data/speed.toml and the JSON that the planner reads."""
    lines = [
        "# Written by tools/fit_speed.py. Shares of the peaks that programs reach, times that no peak explains (s),",
        "# and how far measured runs lie from the formula (standard deviations of the logarithm).",
    ]
    entries = []
    for name, value in {**asdict(constants), **asdict(deviations)}.items():
        basis, source = _source(name, len(found))
        entries.append({"name": name, "value": float(f"{value:.4g}"), "basis": basis, "source": source})
        shown = ", ".join(f"{key} = {json.dumps(text)}" for key, text in source.items())
        lines += ["", "[[constant]]", f'name = "{name}"', f"value = {float(value):.4g}", f'basis = "{basis}"']
        lines += [f"source = {{ {shown} }}"]
    known, seen = list(reached()), fitted_on(found)
    lines += ["", "[fitted_on]", *(f"{kind} = {json.dumps(names)}" for kind, names in seen.items())]
    for entry in known:
        shown = ", ".join(f"{key} = {json.dumps(text)}" for key, text in entry["source"].items())
        lines += [
            "",
            "[[reached]]",
            f'accelerator = "{entry["accelerator"]}"',
            f"share = {entry['share']:.4g}",
        ]
        lines += [f"source = {{ {shown} }}"]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(
        {"constant": entries, "fitted_on": seen, "reached": known}, ensure_ascii=False, indent=0
    )
    (ROOT / "data" / "compiled" / "speed.json").write_text(text + "\n", encoding="utf-8")
    speed_constants.constants.cache_clear()


def main() -> None:
    """Fit where asked, and write the page."""
    found = runs()
    if "--page" not in sys.argv:
        chosen = [run for run in found if run.fitted]
        constants = fit(chosen)
        write(constants, speed_constants.constants().spread, chosen)  # what later steps are predicted with
        write(constants, spread(chosen, constants), chosen)
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
