"""The price of too small a rank: how much loss an adapter gives up against one of ample rank, by a fitted law.

Plain arithmetic on one table; `tools/fit_regret.py` makes its constants and judges them on models left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from . import facts
from .dataclass import dataclass
from .errors import InputError
from .fact_types import RegretFact

# 80 % of a normal distribution lies within this many standard deviations.
EIGHTY_PERCENT = 1.2816


@dataclass(frozen=True)
class Regret:
    """Expected excess loss, as a fraction of the loss (0.006: 0.6 % more), with an interval of 80 %.

    `within_noise`: no more than the sweep could tell apart. `extrapolated`: outside the fitted range of ratios.
    """

    value: float
    low: float
    high: float
    within_noise: bool
    extrapolated: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Departure:
    """The distinct loss tokens after which an adapter is expected to leave the curve that all ranks share."""

    value: float
    low: float
    high: float


def power_law(ratio: float, coefficient: float, exponent: float) -> float:
    """coefficient * ratio ** -exponent: excess loss, in the coefficient's unit, at parameters per loss token."""
    return float(coefficient * ratio**-exponent)


def law_for(moe: bool) -> RegretFact:
    """The law of dense models or of mixtures of experts."""
    return next(law for law in facts.regret_laws() if law.moe == moe)


def expected_regret(params_per_loss_token: float, *, moe: bool = False) -> Regret:
    """Excess loss at the best learning rate over an ample rank: c * x ** -a, x in parameters per loss token.

    The interval is the law's spread over models that were left out of the fit, times or divided by; it holds 80 % of
    them. Capped at what an untrained adapter leaves (the base model's loss over the tuned one). Neglects what the
    highest rank of the sweep (64 or 128) itself gives up, and takes tokens to matter through the ratio alone: the
    sweep had one number of them, seen once. Experts are counted as in Tinker's layout. Raises InputError.
    """
    x = params_per_loss_token
    if not (isinstance(x, (int, float)) and 0 < x < math.inf):
        raise InputError("parameters per loss token", x, "a number above 0")
    law = law_for(moe)
    value = power_law(x, law.coefficient_percent / 100, law.exponent)
    factor = math.exp(EIGHTY_PERCENT * law.spread)
    cap = law.ceiling_percent / 100
    return Regret(
        value=min(value, cap), low=min(value / factor, cap), high=min(value * factor, cap),
        within_noise=value <= law.noise_percent / 100,
        extrapolated=not law.ratio_low <= x <= law.ratio_high,
    )  # fmt: skip


def least_seen(*, moe: bool = False) -> float:
    """Excess loss at the most parameters per loss token of the sweep that the law was fitted on, as a fraction of the
    loss: of larger adapters no difference was ever seen."""
    law = law_for(moe)
    return power_law(law.ratio_high, law.coefficient_percent / 100, law.exponent)


def departure(params: int, *, moe: bool = False) -> Departure:
    """Loss tokens at which the law's excess rises above the noise: params / x*, x* = (c / noise) ** (1 / a).

    Before it, the adapter is expected to learn like any larger one. Takes the law to hold at every moment of a run,
    which the sweep did not show: it has final losses only.
    """
    law = law_for(moe)
    factor = math.exp(EIGHTY_PERCENT * law.spread)

    def tokens(coefficient: float) -> float:
        return float(params / (coefficient / law.noise_percent) ** (1 / law.exponent))

    c = law.coefficient_percent
    return Departure(tokens(c), tokens(c * factor), tokens(c / factor))


def smallest_rank_within(
    limit: float, ranks: Iterable[tuple[int, int]], loss_tokens: int, *, moe: bool = False
) -> int | None:
    """The first of (rank, parameters) whose expected regret is at most `limit`; None where none is."""
    for rank, params in ranks:
        if expected_regret(params / loss_tokens, moe=moe).value <= limit:
            return rank
    return None
