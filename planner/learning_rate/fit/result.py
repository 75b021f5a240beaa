"""What a fit says: frozen, with a status, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from ...schema import Notice
from .compare import Verdict
from .curves import Interpolation
from .population import Option

FitStatus = Literal["converged", "max_iter", "bound_hit", "poorly_determined"]
SCHEMA = 1


@dataclass(frozen=True)
class Estimate:
    """A constant with its interval (None where the sweep cannot give one). `used`: the law has it; otherwise it comes
    from the law with this one term added, and the law takes it as nothing (an exponent of 0, a factor of 1)."""

    value: float
    low: float | None
    high: float | None
    used: bool = True

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "used": self.used}


@dataclass(frozen=True)
class Regret:
    """Loss above each cell's best at the predicted rate, in percent; `outside` counts cells whose predicted rate lies
    outside the finished ones."""

    mean: float
    median: float
    p90: float
    max: float
    outside: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class FormScore:
    """One form of the comparison."""

    form: str
    coefficients: int
    in_sample: float
    leave_one_model_out: float | None
    leave_one_family_out: float | None


@dataclass(frozen=True, eq=False)
class SimilarRates:
    """The rule of similar sweeps (similar.py): its constants, those for unknown families (population.py), rates by
    family (and `population`) and rank, its regret as `scored`, the spread of best rates around it, and whether it
    costs less than the form on models left out, by the mean of both interpolations."""

    reach: float
    share: float
    unknown: Option
    rates: Mapping[str, Mapping[int, float]]
    scored: Mapping[str, Mapping[str, Regret | None]]
    spread: Mapping[str, float | None]
    better: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "reach": self.reach,
            "share": self.share,
            "unknown_family": dict(vars(self.unknown)),
            "rates": {
                family: {str(rank): rate for rank, rate in row.items()} for family, row in self.rates.items()
            },
            "regret_by_interpolation": {
                kind: {split: one.to_dict() if one else None for split, one in found.items()}
                for kind, found in self.scored.items()
            },
            "spread": dict(self.spread),
            "better": self.better,
        }


@dataclass(frozen=True, eq=False)
class FitResult:
    """A law fitted to a sweep.

    `terms` maps base, m_lora, base_lora, lora_pow, rank_pow, rank_sat_pow, batch_pow, steps_pow, alpha_pow to an
    Estimate (None where the sweep cannot tell), model_pow and family to one for each family and `population`.
    `coefficients` and `covariance` are those of log rate, by column. `spread` are standard deviations of log best
    rate around the prediction for a new model of a known family and of an unknown one, from the fits that left it
    out."""

    form: str
    interpolation: Interpolation
    pooling: float | None
    terms: Mapping[str, Estimate | Mapping[str, Estimate] | None]
    coefficients: Mapping[str, float]
    covariance: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, float | None]
    regret: Mapping[str, Regret | None]
    scored: Mapping[str, Mapping[str, Regret | None]]
    similar: SimilarRates | None
    forms: tuple[FormScore, ...]
    verdicts: tuple[Verdict, ...]
    status: FitStatus
    message: str
    n_models: int
    n_families: int
    n_sweeps: int
    n_runs: int
    n_censored: int
    noise: float | None
    n_repeats: int
    resampled: str
    draws: int
    level: float
    cells: pd.DataFrame
    warnings: tuple[Notice, ...] = field(default=())

    def to_frame(self) -> pd.DataFrame:
        """A row for each cell: what was swept, the best rate and loss, the law's rate with its interval, in and out
        of sample, and the regret of each."""
        return self.cells.copy()

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of `fit`."""

        def plain(value: Estimate | Mapping[str, Estimate] | None) -> Any:
            if value is None:
                return None
            if isinstance(value, Estimate):
                return value.to_dict()
            return {name: one.to_dict() for name, one in value.items()}

        def regrets(found: Mapping[str, Regret | None]) -> dict[str, Any]:
            return {name: one.to_dict() if one else None for name, one in found.items()}

        return {
            "schema": SCHEMA,
            "form": self.form,
            "interpolation": self.interpolation,
            "pooling": self.pooling,
            "terms": {name: plain(value) for name, value in self.terms.items()},
            "regret": regrets(self.regret),
            "regret_by_interpolation": {name: regrets(found) for name, found in self.scored.items()},
            "similar": self.similar.to_dict() if self.similar else None,
            "forms": [dict(vars(one)) for one in self.forms],
            "verdicts": [dict(vars(one)) for one in self.verdicts],
            "spread": dict(self.spread),
            "status": self.status,
            "message": self.message,
            "n_models": self.n_models,
            "n_families": self.n_families,
            "n_sweeps": self.n_sweeps,
            "n_runs": self.n_runs,
            "n_censored": self.n_censored,
            "noise_percent": self.noise,
            "n_repeats": self.n_repeats,
            "resampled": self.resampled,
            "draws": self.draws,
            "level": self.level,
            "law": {
                "coefficients": dict(self.coefficients),
                "covariance": {one: dict(row) for one, row in self.covariance.items()},
            },
            "warnings": [dict(vars(notice)) for notice in self.warnings],
        }
