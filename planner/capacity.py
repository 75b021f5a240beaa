"""What an adapter can hold, which rank is enough, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from . import facts
from .dataclass import dataclass
from .errors import InputError
from .schema import Source

Verdict = Literal["ample", "tight", "exceeded"]

BITS_PER_PARAM = 2.0  # data/capacity.toml has its source, and says up to where it may lie


@dataclass(frozen=True)
class Bits:
    """Bits per parameter that are counted with, and the interval in which they may lie."""

    value: float
    low: float
    high: float
    source: Source | None = None


@dataclass(frozen=True)
class RankInterval:
    """A rank that is enough; `low` where a parameter holds most and the data least, `high` the other way round. None
    where no rank is enough."""

    value: int | None
    low: int | None
    high: int | None


def bits_per_param(given: float | None = None) -> Bits:
    """Knowledge's 2 bits, from an adapter's least in our own runs up to the 3.6 of plain memorisation; or a figure
    that was measured. Raises InputError."""
    if given is None:
        known = facts.capacities()
        knowledge, most, least = known["knowledge"], known["memorisation"], known["adapter"]
        return Bits(knowledge.bits_per_param, least.low, most.bits_per_param, knowledge.source)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given <= 64:
        raise InputError("bits-per-param", given, "a number above 0, at most 64")
    return Bits(float(given), float(given), float(given))


# Where utilisation passes from ample to tight: one adapter parameter per loss token at 1 bit a token.
TIGHT = 0.5


def capacity_bits(params: int, bits_per_param: float = BITS_PER_PARAM) -> float:
    """Bits that `params` trainable parameters can hold: bits_per_param * params.

    A ceiling reached after many exposures: one pass stores less, and 3.6 bits per parameter were measured for
    plain memorisation (Morris et al. 2025), so 2 is neither an upper nor a lower limit of every task.
    """
    return bits_per_param * params


def verdict(utilisation: float) -> Verdict:
    """ample up to a utilisation of 0.5 (at 1 bit a token: one parameter per loss token, the advice of Tinker's
    documentation), tight up to 1, exceeded above: then expect regret against full fine-tuning."""
    if utilisation <= TIGHT:
        return "ample"
    return "tight" if utilisation <= 1 else "exceeded"


def required_rank(
    bits: float, params_at: Callable[[int], int], bits_per_param: float = BITS_PER_PARAM
) -> int | None:
    """The smallest rank whose adapter holds `bits`: for linear layouts ceil(bits / (bits_per_param *
    params_per_rank)), by bisection where expert ranks move in steps. None where no rank of up to 2^40 does.

    `params_at(rank)` gives the adapter's parameters and never falls as the rank grows.
    """
    low, high = 1, 1
    while capacity_bits(params_at(high), bits_per_param) < bits:
        low, high = high + 1, high * 2
        if high > 2**40:
            return None
    while low < high:
        middle = (low + high) // 2
        if capacity_bits(params_at(middle), bits_per_param) >= bits:
            high = middle
        else:
            low = middle + 1
    return low


def required_ranks(
    bits: tuple[float, float, float], params_at: Callable[[int], int], per_param: Bits
) -> RankInterval:
    """The required rank for `bits` (value, low, high), with its interval."""
    value, low, high = bits
    return RankInterval(
        required_rank(value, params_at, per_param.value),
        required_rank(low, params_at, per_param.high),
        required_rank(high, params_at, per_param.low),
    )
