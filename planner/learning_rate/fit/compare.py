"""Forms against each other by regret out of sample: every model, or every family, predicted by a law fitted on the
others.

A pooled form has a strength of pooling, which is chosen by the same regret; the regret that is reported for it comes
from a choice made without the model that is scored (nested).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from .cells import Cells, Floats, Ints, some_cells
from .curves import INTERPOLATIONS, Curves, Interpolation, fit_curves, make_curves
from .forms import TERMS, Design, Features, can_tell, candidates, features_of, form_name, make_design
from .solve import WINDOWS, Problem, fit_each, leave_out, refit, refit_each

POOLINGS = (0.01, 0.1, 1.0, 4.0, 16.0, 64.0)
WEAK = 1e-4  # keeps pooled coefficients that nothing determines at the population's value
MOST_FOLDS = 60
COMPARED_CELLS = 3000
NESTED_MODELS = 40  # with more models the choice of pooling hardly depends on any one
MODELS_FOR_A_VERDICT = 5
CLEARLY = 1e-3  # percentage points of regret: a longer form must gain this much


@dataclass(frozen=True, eq=False)
class Data:
    """A sweep made ready: cells, features, curves for fitting, curves by interpolation for scoring."""

    cells: Cells
    features: Features
    interpolation: Interpolation
    fit_curves: Curves
    score_curves: dict[str, Curves]

    @classmethod
    def of(cls, cells: Cells, interpolation: Interpolation) -> Data:
        """From cells."""
        score: dict[str, Curves] = {kind: make_curves(cells, kind, charged=True) for kind in INTERPOLATIONS}
        return cls(cells, features_of(cells), interpolation, fit_curves(cells, interpolation), score)

    def penalties(self, design: Design, poolings: Sequence[float]) -> Floats:
        """The cost of each coefficient (columns) at each strength of pooling."""
        return np.array([np.where(design.pooled, max(one, WEAK), 0.0) for one in poolings])

    def problem(self, design: Design, pooling: float) -> Problem:
        """The objective of a form."""
        penalty = self.penalties(design, (pooling,))[0]
        return Problem(self.fit_curves, design.matrix, penalty, WINDOWS[self.interpolation])

    def regret(self, x: Floats, interpolation: str | None = None) -> Floats:
        """Regret in percent at log rates, outside the finished rates as charged."""
        return self.score_curves[interpolation or self.interpolation].value(x)

    def judged(self, x: Floats) -> Floats:
        """Regret by which forms are chosen: outside the finished rates as in the fit, since what a grid happens to
        leave out says nothing for or against a form."""
        return self.fit_curves.value(x)

    @cached_property
    def folds(self) -> Ints:
        """The fold of each cell: its model, or a block of models where there are very many."""
        return np.asarray(self.features.model % MOST_FOLDS if self.blocked else self.features.model)

    @property
    def blocked(self) -> bool:
        """Whether several models are left out at a time."""
        return len(self.features.models) > MOST_FOLDS


@dataclass(frozen=True, eq=False)
class FormFit:
    """A form fitted to everything and out of sample. `left_out` and `family_out` are the log rates predicted for each
    cell by fits without its model and without its family (NaN where nothing is left to fit on)."""

    terms: tuple[str, ...]
    design: Design
    pooling: float
    theta: Floats
    objective: float
    converged: bool
    left_out: Floats
    family_out: Floats

    @property
    def name(self) -> str:
        """The form's name."""
        return form_name(self.terms)

    @property
    def predicted(self) -> Floats:
        """The law's log rate for each cell."""
        return np.asarray(self.design.matrix @ self.theta)


def _held_out(
    data: Data, design: Design, poolings: Sequence[float], thetas: Floats, groups: Ints
) -> Floats:  # fmt: skip
    """For each strength of pooling, with its optimum, the log rate of each cell by a fit without its group; NaN where
    there is but one group."""
    if int(groups.max()) < 1:
        return np.full((len(poolings), len(groups)), np.nan)
    found = refit_each(data.problem(design, 0.0), data.penalties(design, poolings), thetas, leave_out(groups))
    return np.asarray((design.matrix * found[:, groups]).sum(axis=-1))


def _nested(data: Data, design: Design, thetas: Floats, held: Floats) -> Floats:
    """Out-of-sample log rates where each fold's pooling is chosen on the other folds alone."""
    groups = data.folds
    n = int(groups.max()) + 1
    outer, inner = np.triu_indices(n, k=1)
    away = leave_out(groups)
    weights = away[outer] * away[inner]
    scores = np.zeros((len(thetas), n))
    for i, theta in enumerate(thetas):
        found = refit(data.problem(design, POOLINGS[i]), weights, near=theta)
        regret = data.judged(found.theta @ design.matrix.T)
        for one, two in ((outer, inner), (inner, outer)):
            np.add.at(scores[i], one, (regret * (groups[None] == two[:, None])).sum(axis=1))
    choice = np.argmin(scores, axis=0)
    return np.asarray(held[choice[groups], np.arange(len(groups))])


def fit_form(
    data: Data, terms: Iterable[str], pooling: float | None = None, *, nested: bool = True
) -> FormFit:
    """Fit a form to all cells and predict each model and each family from the others. The strength of pooling is
    chosen unless it is given; without `nested` models left out are predicted with the strength that suits all."""
    terms = tuple(terms)
    design, _ = make_design(terms, data.features)
    poolings = (pooling,) if pooling is not None else POOLINGS if design.pooled.any() else (0.0,)
    starts = max(2, min(24, 50_000 // data.cells.n))
    fits = fit_each(data.problem(design, 0.0), data.penalties(design, poolings), starts)
    held = _held_out(data, design, poolings, fits.theta, data.folds)
    means = np.array([float(data.judged(x).mean()) if np.isfinite(x).all() else np.inf for x in held])
    pick = int(np.argmin(means))
    left_out = held[pick]
    if nested and len(poolings) > 1 and 3 <= len(np.unique(data.folds)) <= NESTED_MODELS:
        left_out = _nested(data, design, fits.theta, held)
    best = fits.theta[pick]
    family_out = _held_out(data, design, poolings[pick : pick + 1], best[None], data.features.family)[0]
    return FormFit(
        design.terms, design, poolings[pick], best, float(fits.objective[pick]), bool(fits.converged[pick]),
        left_out, family_out,
    )  # fmt: skip


def score(data: Data, fit: FormFit) -> float:
    """The mean regret out of sample, or in sample where there is but one model."""
    x = fit.left_out if np.isfinite(fit.left_out).all() else fit.predicted
    return float(data.judged(x).mean())


def sample(data: Data) -> Data:
    """The data themselves, or where there are very many cells those of every n-th model: enough to choose a form."""
    if data.cells.n <= COMPARED_CELLS:
        return data
    every = math.ceil(data.cells.n / COMPARED_CELLS)
    # Within families, so that each stays in; models are numbered in the order of their names.
    rank = np.zeros(len(data.features.models), dtype=np.int64)
    family = data.features.family[np.unique(data.features.model, return_index=True)[1]]
    for one in np.unique(family):
        mine = np.flatnonzero(family == one)
        rank[mine] = np.arange(len(mine))
    return Data.of(some_cells(data.cells, (rank % every == 0)[data.features.model]), data.interpolation)


def compare(data: Data) -> list[FormFit]:
    """The candidate forms, best first by regret out of sample; a longer form must gain clearly.

    Every combination of width, family and rank is tried with all of batch, steps and alpha that the sweep can tell;
    then, on the best, each of these is left out and LoRA_pow is added, and kept so where that is better.
    """
    f = data.features
    extras = tuple(term for term in ("batch", "steps", "alpha") if can_tell(term, f))
    found: dict[tuple[str, ...], FormFit] = {}

    def tried(terms: Iterable[str]) -> FormFit:
        wanted = tuple(term for term in TERMS if term in set(terms))
        if wanted not in found:
            found[wanted] = fit_form(data, wanted)
        return found[wanted]

    for terms in candidates(f):
        tried((*terms, *extras))

    def order() -> list[FormFit]:
        return sorted(
            found.values(), key=lambda fit: (score(data, fit) + CLEARLY * len(fit.design.columns), fit.name)
        )

    for term in extras:
        tried(t for t in order()[0].terms if t != term)
    if can_tell("lora_width", f):
        tried((*order()[0].terms, "lora_width"))
    return order()


@dataclass(frozen=True)
class Verdict:
    """Whether one form beats another: the mean difference of their regrets out of sample in percentage points (better
    minus other, negative where `better` is better), its interval over models, and what follows."""

    question: str
    form: str
    other: str
    difference: float
    low: float
    high: float
    verdict: str


UNDECIDED = "not decided by these data"


def paired(
    data: Data, question: str, one: FormFit, two: FormFit, draws: int = 4000, seed: int = 0
) -> Verdict:
    """`one` (with a term) against `two` (without it), by a bootstrap over models of the paired differences."""
    gap = data.judged(one.left_out) - data.judged(two.left_out)
    model = data.features.model
    n = int(model.max()) + 1
    sums, counts = np.bincount(model, gap, n), np.bincount(model, minlength=n)
    weights = np.random.default_rng(seed).exponential(size=(draws, n))
    means = (weights @ sums) / (weights @ counts)
    centre = float(gap.mean())
    few = stats.t.ppf(0.95, max(1, n - 1)) / stats.norm.ppf(0.95)  # a spread known from n models only
    means = centre + (means - centre) * np.sqrt((n + 1) / max(1, n - 1)) * few
    low, high = (float(q) for q in np.quantile(means, [0.05, 0.95]))
    verdict = "yes" if high < 0 else "no" if low > 0 else UNDECIDED
    verdict = verdict if abs(centre) >= CLEARLY and n >= MODELS_FOR_A_VERDICT else UNDECIDED
    return Verdict(question, one.name, two.name, centre, low, high, verdict)


QUESTIONS = {
    "width": "does the width of the model matter?",
    "width_by_family": "does each family need its own exponent of the width?",
    "family": "does the family matter?",
    "rank": "does the rank matter, as a power?",
    "rank_sat": "does the rank matter, levelling off?",
    "lora_width": "does LoRA need an exponent of the width of its own (LoRA_pow other than 0)?",
    "batch": "does the batch size matter?",
    "steps": "does the number of steps matter?",
    "alpha": "does alpha matter?",
}


def questions(data: Data, forms: Sequence[FormFit]) -> list[Verdict]:
    """For each term the best form with it against the same form without it (or with the shared exponent)."""
    if not np.isfinite(forms[0].left_out).all():
        return []
    by_terms = {fit.terms: fit for fit in forms}
    asked = []
    for term, question in QUESTIONS.items():
        for fit in forms:
            if term not in fit.terms:
                continue
            without = tuple(t for t in fit.terms if t != term)
            if term == "width_by_family":
                without = tuple(t for t in TERMS if t in {*without, "width"})
            if without in by_terms:
                asked.append(paired(data, question, fit, by_terms[without]))
                break
    return asked + _levelling(data, by_terms)


def _levelling(data: Data, by_terms: Mapping[tuple[str, ...], FormFit]) -> list[Verdict]:
    """The best form with a rank that levels off against the same form with a power of the rank."""
    for terms, fit in by_terms.items():
        if "rank_sat" in terms:
            other = tuple(t for t in TERMS if t in {*terms, "rank"} and t != "rank_sat")
            if other in by_terms:
                question = "does the effect of the rank level off rather than follow a power?"
                return [paired(data, question, fit, by_terms[other])]
    return []
