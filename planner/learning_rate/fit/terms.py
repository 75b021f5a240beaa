"""From coefficients of log rate to the law's constants with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .cells import Floats, Ints
from .compare import Data, FormFit
from .forms import EXPONENTS, TERMS, Design, can_tell, make_design
from .intervals import LEVEL, Interval, bootstrap
from .result import Estimate
from .solve import fit_all, refit

POWERS = ("lora_pow", "rank_pow", "rank_sat_pow", "batch_pow", "steps_pow", "alpha_pow")


class Coefficients:
    """The coefficients of a fitted form and their draws; reads off functions of them."""

    def __init__(
        self, columns: tuple[str, ...], theta: Floats, interval: Interval | None, level: float
    ) -> None:
        self.columns, self.theta, self.interval, self.level = columns, theta, interval, level

    def estimate(self, names: tuple[str, ...], *, factor: bool, used: bool = True) -> Estimate:
        """The sum of these coefficients, or its exponential, with its interval."""
        at = [self.columns.index(name) for name in names if name in self.columns]
        value = float(self.theta[at].sum())
        if self.interval is None:
            low = high = None
        else:
            low, high = self.interval.bounds(at, self.level)
            low, high = min(low, value), max(high, value)  # a pooled value may lie outside
        if factor:
            value = float(np.exp(value))
            low, high = (None if end is None else float(np.exp(end)) for end in (low, high))
        return Estimate(value, low, high, used)


def unpooled(data: Data, design: Design, near: Floats, unit: Ints, draws: int, seed: int) -> Interval:
    """The interval of a form's constants: of its fit without pooling, which draws no family towards the others."""
    problem = data.problem(design, 0.0)
    theta = refit(problem, np.ones((1, data.cells.n)), near=near).theta
    return bootstrap(
        problem, centred(design, theta)[0], unit, draws, seed, lambda found: centred(design, found)
    )  # fmt: skip


def centred(design: Design, theta: Floats) -> Floats:
    """Coefficients (draws, columns) with the middle of the families' effects in what all families share. Without
    pooling nothing but this says how the two share a level."""
    theta = theta.copy()
    at = np.flatnonzero(design.pooled)
    if len(at):
        shared = design.columns.index(
            "model_pow" if design.columns[at[0]].startswith("model_pow") else "base"
        )
        middle = theta[:, at].mean(axis=1)
        theta[:, at] -= middle[:, None]
        theta[:, shared] += middle
    return theta


def extended(
    data: Data, fit: FormFit, term: str, unit: Ints | None, draws: int, seed: int, level: float
) -> Coefficients:
    """The form with one more term, fitted for the sake of that term's interval; of the two terms of the rank only
    one at a time."""
    instead = {"rank": "rank_sat", "rank_sat": "rank"}.get(term)
    terms = [t for t in TERMS if t in {*fit.terms, term} and t != instead]
    design, _ = make_design(terms, data.features)
    problem = data.problem(design, fit.pooling if fit.design.pooled.any() else 1.0)
    theta = fit_all(problem).theta[0]
    if unit is None:
        return Coefficients(design.columns, theta, None, level)
    return Coefficients(design.columns, theta, unpooled(data, design, theta, unit, draws, seed), level)


def terms_of(
    data: Data,
    fit: FormFit,
    interval: Interval | None,
    unit: Ints | None,
    draws: int,
    seed: int,
    level: float = LEVEL,
    *,
    lacking: bool = True,
) -> dict[str, Estimate | Mapping[str, Estimate] | None]:
    """Every constant of the law; those that the form lacks, if wanted, from the form with that term added."""
    f = data.features
    free = interval
    if interval is not None and unit is not None and fit.design.pooled.any():
        free = unpooled(data, fit.design, fit.theta, unit, draws, seed)
    own = Coefficients(fit.design.columns, fit.theta, free, level)
    both = "method" in fit.terms
    lora, full = bool(f.lora.any()), bool((~f.lora).any())

    def wider(term: str) -> Coefficients | None:
        if not (lacking and can_tell(term, f)):
            return None
        found = extended(data, fit, term, unit, min(draws, 400), seed, level)
        return found if any(c.startswith(EXPONENTS.get(term, term)) for c in found.columns) else None

    out: dict[str, Estimate | Mapping[str, Estimate] | None] = {
        "base": own.estimate(("base",), factor=True) if full else None,
        "m_lora": own.estimate(("m_lora",), factor=True) if both else None,
        "base_lora": own.estimate(("base", "m_lora"), factor=True) if lora else None,
    }
    used = "model_pow" in fit.design.columns
    source = own if used else wider("width")
    out["model_pow"] = None if source is None else _by_family(source, "model_pow", f.families, used=used)
    for term, name in EXPONENTS.items():
        if name in POWERS:
            used = name in fit.design.columns
            source = own if used else wider(term)
            found = source is not None and name in source.columns
            out[name] = (
                source.estimate((name,), factor=False, used=used) if source is not None and found else None
            )
    used = "family" in fit.terms
    source = own if used else wider("family")
    out["family"] = None if source is None else _by_family(source, "family", f.families, used=used)
    return out


def _by_family(
    source: Coefficients, label: str, families: tuple[str, ...], *, used: bool
) -> dict[str, Estimate]:
    """A term for each family and for the population, from which an unknown family takes it."""
    shared = (label,) if label == "model_pow" else ()
    factor = label == "family"
    found = {
        name: source.estimate((*shared, f"{label}[{name}]"), factor=factor, used=used) for name in families
    }
    found["population"] = source.estimate(shared, factor=factor, used=used)
    return found
