"""fit: from a sweep to a law with intervals, its regret out of sample, and what the sweep decides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ...errors import InputError
from ...schema import Notice
from ...units import parse_count
from ..sweep import Sweep, read_sweep
from .cells import MIN_RATES, Cells, Floats, Ints, make_cells
from .compare import Data, FormFit, compare, fit_form, questions, sample
from .curves import INTERPOLATIONS, Curves, Interpolation
from .forms import GIVEN, make_design, parse_form
from .intervals import LEVEL, Interval, bootstrap
from .result import Estimate, FitResult, FitStatus, FormScore, Regret, SimilarRates
from .similar import Similar, similar
from .terms import terms_of

FEW_MODELS = 5
LOG_LINEAR = (
    "Straight lines are lowest at rates of the grid: log-linear interpolation draws every constant towards the grid "
    "and small exponents towards 0, and the intervals do not hold that."
)
MOST_DRAWS = 100_000


def fit(
    sweep: str | os.PathLike[str] | pd.DataFrame | Sweep, *, form: str = "auto",
    interpolation: str = "quadratic", draws: int = 1000, seed: int = 0, non_finite: str = "error",
) -> FitResult:  # fmt: skip
    """Fit a learning-rate law to a sweep: a CSV file, a DataFrame with its columns, or a Sweep.

    `form` is auto (the form with the lowest regret out of sample), a name (constant, article) or terms joined by +.
    Raises InputError, which names the line and column of what is wrong.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError("interpolation", interpolation, f"one of {', '.join(INTERPOLATIONS)}")
    kind: Interpolation = "quadratic" if interpolation == "quadratic" else "log-linear"
    n_draws = parse_count("draws", draws)
    if not 10 <= n_draws <= MOST_DRAWS:
        raise InputError("draws", draws, f"10 to {MOST_DRAWS}")
    wanted = None if form == "auto" else parse_form(form)
    read = sweep if isinstance(sweep, Sweep) else read_sweep(sweep, non_finite=non_finite)
    cells = _usable(read)
    data = Data.of(cells, kind)
    notes = [*read.warnings, *cells.warnings, *_partly_given(cells)]
    if kind == "log-linear":
        notes.append(Notice("log-linear", LOG_LINEAR))
    part = sample(data) if wanted is None else data
    if wanted is None:
        forms = compare(part)
    else:
        forms = [fit_form(data, wanted)]
        notes += make_design(wanted, data.features)[1]
    best, alike = forms[0], similar(data) if wanted is None else None
    if part is not data:
        best = fit_form(data, best.terms, best.pooling)
        text = f"Forms were compared on {part.cells.n:,} of {cells.n:,} cells; the best was fitted to all."
        notes.append(Notice("compared-on-part", text))
    return _result(read, data, best, alike, part, forms, notes, n_draws, seed)


def _usable(sweep: Sweep) -> Cells:
    """The cells, or InputError where no law can be fitted."""
    done = sweep.finished
    if not len(done):
        raise InputError("sweep", sweep.name, "finished runs", "No run has a loss.")
    rates = done["lr"].nunique()
    if rates < MIN_RATES:
        shown = ", ".join(f"{rate:g}" for rate in sorted(done["lr"].unique()))
        expected = f"at least {MIN_RATES} rates for some model and rank"
        raise InputError(
            f"{sweep.name}, column lr", shown, expected, "A best rate has to have rates on both sides."
        )
    cells = make_cells(sweep)
    if not cells.n:
        raise InputError(
            f"{sweep.name}, column lr",
            "fewer in every cell",
            f"{MIN_RATES} finished rates for some model and rank",
        )
    spans = np.maximum.reduceat(cells.loss, cells.start[:-1]) - np.minimum.reduceat(
        cells.loss, cells.start[:-1]
    )
    if not (spans > 0).any():
        found = "one loss at all rates of every cell"
        raise InputError(f"{sweep.name}, column loss", found, "losses that depend on the rate")
    return cells


def _partly_given(cells: Cells) -> list[Notice]:
    """Names the columns that some cells have and others lack: what they would be there is not guessed."""
    notes = []
    for column in GIVEN:
        rows = cells.table if column != "alpha" else cells.table[cells.table["method"] == "lora"]
        empty = rows[column].isna()
        if empty.any() and not empty.all():
            text = f"{column} is given for {int((~empty).sum())} of {len(empty)} cells: no term can use it."
            notes.append(Notice("column-partly-given", text))
    return notes


def _summary(data: Data, x: Floats, interpolation: str) -> Regret | None:
    if not np.isfinite(x).all():
        return None
    regret = data.regret(x, interpolation)
    curves = data.fit_curves
    outside = int(((x < curves.low - 1e-9) | (x > curves.high + 1e-9)).sum())
    median, p90 = np.quantile(regret, [0.5, 0.9])
    return Regret(float(regret.mean()), float(median), float(p90), float(regret.max()), outside)


def _scored(data: Data, found: FormFit | Similar) -> dict[str, dict[str, Regret | None]]:
    """The regret of predictions in and out of sample, by both interpolations."""
    return {
        kind: {
            "in_sample": _summary(data, found.predicted, kind),
            "leave_one_model_out": _summary(data, found.left_out, kind),
            "leave_one_family_out": _summary(data, found.family_out, kind),
        }
        for kind in INTERPOLATIONS
    }


def _similar_rates(
    data: Data, found: Similar | None, of_form: Mapping[str, Mapping[str, Regret | None]]
) -> SimilarRates | None:
    """What the rule of similar sweeps says, beside the regret of the form."""
    if found is None:
        return None
    scored = _scored(data, found)

    def left_out(one: Mapping[str, Mapping[str, Regret | None]]) -> float:
        regrets = [one[kind]["leave_one_model_out"] for kind in INTERPOLATIONS]
        return sum(np.inf if regret is None else regret.mean for regret in regrets)

    better = left_out(scored) < left_out(of_form)
    return SimilarRates(
        found.reach, found.share, found.unknown, found.rates, scored, _spreads(data, found), better,
    )  # fmt: skip


def _unit(data: Data) -> tuple[Ints | None, str]:
    """What the bootstrap draws: models, or cells where models are few, or nothing."""
    if len(data.features.models) >= FEW_MODELS:
        return data.features.model, "models"
    if data.cells.n >= FEW_MODELS:
        return np.arange(data.cells.n), "cells"
    return None, "nothing"


def _spread(data: Data, curves: Curves, x: Floats) -> float | None:
    """The standard deviation of log best rate around predictions made without the model (or family), or as much more
    as it takes for 1.645 of it to hold nine in ten.

    A cell whose best rate lies at the end of its grid counts by what is known: its distance to that end, or nothing
    where the prediction lies beyond."""
    if not np.isfinite(x).all():
        return None
    gap = curves.best - x
    gap = np.where(
        curves.censored > 0, np.maximum(gap, 0.0), np.where(curves.censored < 0, np.minimum(gap, 0.0), gap)
    )
    n = len(data.features.models)
    wide = float(np.quantile(np.abs(gap), LEVEL)) / 1.645
    return max(wide, float(np.sqrt((gap**2).mean() * n / max(1, n - 1))))


def _spreads(data: Data, best: FormFit | Similar) -> dict[str, float | None]:
    """Of a form by the curves it is fitted to; of a table, which is made from both interpolations, by parabolas
    alone, which scatter somewhat more."""
    curves = data.score_curves["quadratic"] if isinstance(best, Similar) else data.fit_curves
    found = {"known_family": best.left_out, "unknown_family": best.family_out}
    return {name: _spread(data, curves, x) for name, x in found.items()}


def _status(
    data: Data, fit: FormFit, interval: Interval | None, terms: Mapping[str, object]
) -> tuple[FitStatus, str, list[Notice]]:
    """How far the fit can be trusted."""
    curves, notes = data.fit_curves, []
    censored = int((curves.censored != 0).sum())
    if censored:
        above = int((curves.censored > 0).sum())
        notes.append(Notice(
            "optimum-at-edge",
            f"In {censored} of {curves.n} cells the best finished rate is the last of its grid ({above} at the top): "
            "their optimum is only bounded.",
        ))  # fmt: skip
    for side, word in ((1, "highest"), (-1, "lowest")):
        if (curves.censored == side).all():
            bound = "lower" if side > 0 else "upper"
            text = f"The best rate of every cell is the {word} that finished: the law is a {bound} bound."
            return "bound_hit", text, [*notes, Notice("bound-hit", text)]
    if interval is None:
        text = "Too few cells for intervals: the values are the sweep's own best rates."
        return "poorly_determined", text, [*notes, Notice("no-intervals", text)]
    wide = _wide(terms)
    weak = [c for c, few in zip(fit.design.columns, interval.pooled_spread, strict=True) if few]
    if weak:
        text = f"Fewer than three models bear on {', '.join(weak)}: their intervals are by the spread of all models."
        notes.append(Notice("few-models-for-term", text))
    if wide:
        text = f"Hardly determined: {', '.join(wide)}."
        return "poorly_determined", text, notes
    if not fit.converged:
        return "max_iter", "The optimiser stopped before it came to rest.", notes
    return "converged", "The optimiser came to rest at the lowest regret of all its starts.", notes


def _wide(terms: Mapping[str, object]) -> list[str]:
    """The used constants whose interval spans a factor of ten, or two units of an exponent."""
    found = []
    for name, value in terms.items():
        if isinstance(value, Estimate) and value.used and value.low is not None and value.high is not None:
            factor = name in ("base", "m_lora", "base_lora")
            if (factor and value.high > 10 * max(value.low, 1e-300)) or (
                not factor and value.high - value.low > 2
            ):
                found.append(name)
    return found


def _few_models(data: Data, unit: str) -> list[Notice]:
    n = len(data.features.models)
    notes = []
    if unit != "models":
        notes.append(Notice(
            "few-models",
            f"{n} model{'s' if n > 1 else ''}: intervals are over {unit}, and say nothing about other models.",
        ))  # fmt: skip
    if data.blocked:
        notes.append(Notice("blocked-folds", f"{n} models: out of sample they are left out in 60 blocks."))
    return notes


def _table(data: Data, fit: FormFit, interval: Interval | None, spread: float | None) -> pd.DataFrame:
    """A row for each cell."""
    curves = data.fit_curves
    frame = data.cells.table.copy()
    for column in ("model", "family", "method", "dataset"):
        frame[column] = frame[column].astype(str)
    frame["n_rates"] = np.diff(data.cells.start)
    frame["best_lr"] = np.exp(curves.best)
    frame["best_loss"] = curves.best_loss
    frame["at_edge"] = np.array(["lowest", "", "highest"])[curves.censored + 1]
    frame["law_lr"] = np.exp(fit.predicted)
    frame["regret_percent"] = data.regret(fit.predicted)
    frame["law_lr_left_out"] = np.exp(fit.left_out)
    left = np.isfinite(fit.left_out).all()
    frame["regret_left_out_percent"] = data.regret(fit.left_out) if left else np.nan
    sd = np.zeros(len(frame)) if interval is None else (interval.draws @ fit.design.matrix.T).std(axis=0)
    half = 1.645 * np.sqrt(sd**2 + (spread or 0.0) ** 2)
    if interval is None and spread is None:
        half = np.full(len(frame), np.nan)
    frame["law_low"], frame["law_high"] = frame["law_lr"] * np.exp(-half), frame["law_lr"] * np.exp(half)
    return frame


def _widen_population(
    terms: dict[str, Estimate | Mapping[str, Estimate] | None], spread: Mapping[str, float | None]
) -> None:
    """Give the multiplier of an unknown family (1) the interval in which families lie."""
    family, known, unknown = terms["family"], spread["known_family"], spread["unknown_family"]
    if isinstance(family, Mapping) and known is not None and unknown is not None:
        half = 1.645 * max(0.0, unknown**2 - known**2) ** 0.5
        used = family["population"].used
        population = Estimate(1.0, float(np.exp(-half)), float(np.exp(half)), used)
        terms["family"] = {**family, "population": population}


def _covariance(fit: FormFit, interval: Interval | None) -> dict[str, dict[str, float]]:
    if interval is None:
        return {}
    matrix = np.atleast_2d(np.cov(interval.draws.T))
    names = fit.design.columns
    return {one: {two: float(matrix[i, j]) for j, two in enumerate(names)} for i, one in enumerate(names)}


def _result(
    sweep: Sweep, data: Data, best: FormFit, alike: Similar | None, part: Data, forms: Sequence[FormFit],
    notes: list[Notice], draws: int, seed: int,
) -> FitResult:  # fmt: skip
    """Everything that is said of the best form; `forms` were compared on `part` of the data."""
    unit, resampled = _unit(data)
    problem = data.problem(best.design, best.pooling)
    interval = None if unit is None else bootstrap(problem, best.theta, unit, draws, seed)
    terms = terms_of(data, best, interval, unit, draws, seed)
    status, message, more = _status(data, best, interval, terms)
    if status == "bound_hit":  # nothing above or below the grid says how far the best rate lies
        interval = None
        spread: dict[str, float | None] = dict.fromkeys(("known_family", "unknown_family"))
        terms = terms_of(data, best, None, None, draws, seed)
    else:
        spread = _spreads(data, best)
    _widen_population(terms, spread)
    scored = _scored(data, best)
    tabled = None if status == "bound_hit" else _similar_rates(data, alike, scored)
    if interval is not None and interval.linearised:
        more.append(
            Notice("linearised-draws", "So many cells that each draw is one Newton step from the optimum.")
        )
    noise = data.cells.noise
    return FitResult(
        form=best.name, interpolation=data.interpolation, pooling=best.pooling if best.design.pooled.any() else None,
        terms=terms, coefficients=dict(zip(best.design.columns, map(float, best.theta), strict=True)),
        covariance=_covariance(best, interval), spread=spread,
        regret=scored[data.interpolation], scored=scored, similar=tabled,
        forms=tuple(_form_score(part, one) for one in forms), verdicts=tuple(questions(part, forms)),
        status=status, message=message, n_models=len(data.features.models), n_families=len(data.features.families),
        n_sweeps=data.cells.n, n_runs=len(sweep.runs), n_censored=int((data.fit_curves.censored != 0).sum()),
        noise=100 * noise if np.isfinite(noise) else None, n_repeats=data.cells.n_repeats, resampled=resampled,
        draws=draws if interval is not None else 0, level=LEVEL,
        cells=_table(data, best, interval, spread["known_family"]),
        warnings=(*notes, *_few_models(data, resampled), *more),
    )  # fmt: skip


def _form_score(data: Data, one: FormFit) -> FormScore:
    def mean(x: Floats) -> float | None:
        return float(data.regret(x).mean()) if np.isfinite(x).all() else None

    inside = mean(one.predicted)
    assert inside is not None
    return FormScore(one.name, len(one.design.columns), inside, mean(one.left_out), mean(one.family_out))
