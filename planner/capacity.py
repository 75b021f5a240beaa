"""What an adapter can hold, which rank is enough, and the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .schema import Source

Verdict = Literal["ample", "tight", "exceeded"]

BITS_PER_PARAM = 2.0
SOURCE = Source(
    "Physics of Language Models 3.3: Knowledge Capacity Scaling Laws (Allen-Zhu and Li)",
    "https://arxiv.org/abs/2404.05405",
    "abstract: 2 bits of knowledge per parameter, after about 1000 exposures",
    "2024-04-08",
    "paper",
)

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
