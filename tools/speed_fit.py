"""Constants of planner/speed from published runs, and how far sources that a fit has not seen lie from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, minimize

from planner.speed.efficiency import Efficiency, Spread, family_of
from planner.speed.roofline import staged_share, step_parts, thin_share
from tools.speed_priors import PRIORS
from tools.speed_runs import Run
from tools.staged_rings import staged

CITED = {"attention_native": 0.5, "scan": 0.2, "staged": staged()[0]}
NAMES = tuple(PRIORS)
SCALE = 0.2  # what a source's run counts as one deviation of a prior, as a logarithm
DAMPED = 0.5  # from where on errors count less than by their squares, in such deviations
HELD = 2.0 / 3.0  # how strongly priors hold
COVERAGE = 0.9
Z = 1.645  # half-width of a normal distribution's middle 90%
PACE = (0.26, 0.15, 0.9)  # where the search for `between`, `within` and `thin` starts


def predicted(found: Sequence[Run], constants: Efficiency) -> Any:
    """Seconds of each run, and the share of host time and communication in it."""
    parts = [step_parts(r.work, r.setup, r.machine, r.traffic, constants) for r in found]
    return np.array([sum(p.values()) for p in parts]), np.array([thin_share(p) for p in parts])


def fit(found: Sequence[Run], start: Efficiency | None = None) -> Efficiency:
    """The constants that bring predicted and measured times closest, large errors damped, held to their priors."""
    counts: dict[str, int] = {}
    for run in found:
        counts[run.source] = counts.get(run.source, 0) + 1
    weights = np.sqrt([counts[run.source] ** -0.8 for run in found]) / SCALE
    measured = np.log([run.measured_s for run in found])
    expected, deviation, low, high = (np.array([PRIORS[name][i] for name in NAMES]) for i in range(4))

    def constants(values: Any) -> Efficiency:
        return Efficiency(**CITED, **dict(zip(NAMES, map(float, values), strict=True)))

    def errors(values: Any) -> Any:
        off = weights * (np.log(predicted(found, constants(values))[0]) - measured)
        return np.concatenate([off, HELD * np.log(values / expected) / deviation])

    first = expected if start is None else np.array([getattr(start, name) for name in NAMES])
    result = least_squares(
        errors, np.clip(first, low * 1.001 + 1e-9, high * 0.999), bounds=(low, high), loss="soft_l1", f_scale=DAMPED,
        x_scale=expected, diff_step=1e-3, max_nfev=40,
    )  # fmt: skip
    return constants(result.x)


def log_ratios(found: Sequence[Run], constants: Efficiency) -> Any:
    """Logarithms of measured over predicted, and the thin shares."""
    seconds, thin = predicted(found, constants)
    return np.log([run.measured_s for run in found]) - np.log(seconds), thin


@dataclass(frozen=True)
class LeftOut:
    """A run under constants fitted without its source: measured over predicted (a logarithm), the share of host time
    and communication, whether another source has its accelerator, and the share of what goes through a host's memory.
    """

    run: Run
    ratio: float
    thin: float
    known: bool
    staged: float = 0.0


def left_out(found: Sequence[Run]) -> list[LeftOut]:
    """Every run under constants fitted on all other sources."""
    whole, result = fit(found), []
    for source in sorted({run.source for run in found}):
        others = [run for run in found if run.source != source]
        mine = [run for run in found if run.source == source]
        seen = {family_of(run.machine.accelerator.name) for run in others}
        made = fit(others, whole)
        ratios, thin = log_ratios(mine, made)
        result += [
            LeftOut(
                run, float(ratio), float(share), family_of(run.machine.accelerator.name) in seen, staged_of(run, made)
            )
            for run, ratio, share in zip(mine, ratios, thin, strict=True)
        ]  # fmt: skip
    return result


def staged_of(run: Run, constants: Efficiency) -> float:
    """The share of a run that goes through a host's memory."""
    if not run.machine.staged:
        return 0.0
    return staged_share(step_parts(run.work, run.setup, run.machine, run.traffic, constants), run.machine)


def noise_of(found: Sequence[LeftOut]) -> tuple[float, float, float]:
    """`between`, `within` and `thin` of the greatest likelihood, where a source's runs share a part of deviation
    sqrt(between^2 + (thin x share)^2), share the mean of theirs."""
    groups = [
        (np.array([item.ratio for item in items]), float(np.mean([item.thin for item in items])))
        for items in by_source(found).values()
    ]

    def minus_log_likelihood(values: Any) -> float:
        between, within, extra = np.exp(values)
        total = 0.0
        for y, share in groups:
            common = between**2 + (extra * share) ** 2
            precision = 1 / common + len(y) / within**2
            total += len(y) * math.log(within**2) + math.log(common * precision)
            total += np.sum(y**2) / within**2 - (np.sum(y) / within**2) ** 2 / precision
        return total

    best = minimize(minus_log_likelihood, np.log(PACE), method="Nelder-Mead")
    between, within, extra = (round(float(v), 4) for v in np.exp(best.x))
    return between, within, extra


def by_source(found: Sequence[LeftOut]) -> dict[str, list[LeftOut]]:
    """Runs by their source."""
    result: dict[str, list[LeftOut]] = {}
    for item in found:
        result.setdefault(item.run.source, []).append(item)
    return result


def even(found: Sequence[LeftOut]) -> Any:
    """Weights with which every source counts the same."""
    counts = {source: len(items) for source, items in by_source(found).items()}
    return np.array([1.0 / counts[item.run.source] for item in found])


def halves(thin: float, staged: float, deviations: Spread) -> tuple[float, float]:
    """How far the interval goes below and above the estimate, in logarithms, where nothing was calibrated."""
    noise = deviations.noise(thin, staged)
    below, above = (
        deviations.z * math.sqrt(side**2 + noise) for side in (deviations.below, deviations.above)
    )
    return below, above


def holds(ratio: float, ends: tuple[float, float]) -> bool:
    """Whether an interval holds a measured time, given the logarithm of measured over predicted."""
    return -ends[0] <= ratio <= ends[1]
