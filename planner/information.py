"""Bits in a dataset or in a reinforcement-learning run, by the article's rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from .dataclass import dataclass
from .errors import InputError
from .schema import Basis, Source

ARTICLE = Source(
    "LoRA Without Regret (Schulman and Thinking Machines Lab)",
    "https://thinkingmachines.ai/blog/lora/",
    "DOI 10.64434/tml.20250929",
    "2025-09-29",
    "paper",
)


@dataclass(frozen=True)
class Groups:
    """What sampling in groups of `size` does to a binary reward at one success rate, by group.

    `informative`: the share of groups whose rewards differ. `bits`: the entropy of a group's centred advantages, with
    all groups of equal rewards as one outcome; `bits_informative`: what of it stands in groups whose rewards differ.
    """

    size: int
    informative: float
    bits: float
    bits_informative: float


def _whole(bits: float) -> int | float:
    return int(bits) if bits == int(bits) else bits


@dataclass(frozen=True)
class Information:
    """How much there is to learn: `units` loss tokens (sft) or episodes (rl) of `bits_per_unit` bits.

    `units_low` to `units_high`: where the number of units is not exact."""

    kind: Literal["sft", "preference", "rl"]
    units: int
    bits_per_unit: float
    basis: Basis
    groups: Groups | None = None
    units_low: int | None = None
    units_high: int | None = None

    @property
    def bits(self) -> int | float:
        """Bits in all; a whole number where the product is one."""
        return _whole(self.units * self.bits_per_unit)

    @property
    def interval(self) -> tuple[float, float, float]:
        """Bits in all, and the least and the most they may be."""
        low = self.units if self.units_low is None else self.units_low
        high = self.units if self.units_high is None else self.units_high
        return self.bits, _whole(low * self.bits_per_unit), _whole(high * self.bits_per_unit)

    def to_dict(self) -> dict[str, Any]:
        """The contract's `information`."""
        _, low, high = self.interval
        return {
            "kind": self.kind,
            "units": self.units,
            "bits_per_unit": self.bits_per_unit,
            "bits": self.bits,
            "bits_low": low,
            "bits_high": high,
            "basis": self.basis,
            "groups": dict(vars(self.groups)) if self.groups else None,
        }


def supervised(loss_tokens: int) -> Information:
    """About 1 bit per token that carries loss (0.69 nats, a usual loss of a tuned model).

    `loss_tokens` counts distinct tokens once: another epoch brings no new information. Neglects what the base
    model already predicts and repetition in the data; a measured loss replaces the rule. Source: the article.
    """
    return Information("sft", loss_tokens, 1.0, "assumed")


def entropy(p: float) -> float:
    """Bits of a yes-or-no outcome with probability p: -p log2 p - (1-p) log2(1-p). Raises InputError."""
    if not 0 <= p <= 1:
        raise InputError("success-rate", p, "a number from 0 to 1")
    return 0.0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def measured(loss_tokens: int, nats_per_token: float) -> Information:
    """Bits by the model's own log loss over the first pass: nats / ln 2 a loss token.

    What the model could not predict of data that it sees for the first time, summed: the length of a code that its
    training defines (prequential coding). An upper bound on what there was to learn; a loss after the first epoch
    would count what has been learned already. Raises InputError.
    """
    number = isinstance(nats_per_token, (int, float)) and not isinstance(nats_per_token, bool)
    if not number or not 0 <= nats_per_token < math.inf:
        raise InputError("nats", nats_per_token, "a loss in nats per token, a number of at least 0")
    return Information("sft", loss_tokens, nats_per_token / math.log(2), "measured")


def informative_share(p: float, size: int) -> float:
    """The share of groups of `size` whose rewards differ: 1 - p^G - (1-p)^G."""
    return 1 - p**size - (1 - p) ** size


def group_of(p: float, size: int) -> Groups:
    """What a group of `size` samples with success rate p can teach, in bits.

    Rewards of G independent samples have entropy G H(p). Centring maps them one to one onto advantages, save that all
    alike gives zeros whether all failed or all succeeded: G H(p) + a log2 a + b log2 b - (a+b) log2 (a+b), a = p^G,
    b = (1-p)^G. A group of zeros changes nothing; less the entropy of being such, the rest stands in groups whose
    rewards differ. Centring makes up to 2G - 1 values of advantage, but all of them follow from G rewards: the group
    carries at most G bits, not G log2 (2G-1). Raises InputError.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError("group-size", size, "a whole number of at least 1")
    alone = size * entropy(p)
    if size == 1:  # its advantage is 0 whatever the reward
        return Groups(1, 0.0, 0.0, 0.0)
    fail, win = (1 - p) ** size, p**size
    bits = alone + _log_times(fail) + _log_times(win) - _log_times(fail + win)
    share = informative_share(p, size)
    return Groups(size, share, max(0.0, bits), max(0.0, bits - entropy(min(1.0, max(0.0, share)))))


def _log_times(share: float) -> float:
    return share * math.log2(share) if share else 0.0


def policy_gradient(
    episodes: int, success_rate: float | None = None, group_size: int | None = None
) -> Information:
    """At most 1 bit per episode with a binary reward; H(p) at success rate p, less what a group without variance
    loses where samples are drawn in groups.

    An upper bound: what an episode teaches is at most the entropy of its advantage. Real algorithms learn less per
    episode. Success rates that differ between prompts teach less than their mean says (H is concave). Source: the
    article.
    """
    if success_rate is None:
        return Information("rl", episodes, 1.0, "assumed")
    if group_size is None:
        return Information("rl", episodes, entropy(success_rate), "analytic")
    groups = group_of(success_rate, group_size)
    return Information("rl", episodes, groups.bits / group_size, "analytic", groups)


def by_success_rates(episodes: int, rates: Mapping[float, int], group_size: int | None = None) -> Information:
    """The same where each prompt has its own success rate: `rates` counts prompts by rate, each sampled as often."""
    prompts = sum(rates.values())
    parts = [(policy_gradient(1, rate, group_size), count / prompts) for rate, count in rates.items()]
    bits = sum(part.bits_per_unit * share for part, share in parts)
    groups = None
    if group_size is not None:
        sums = [
            sum(getattr(part.groups, name) * share for part, share in parts)
            for name in ("informative", "bits", "bits_informative")
        ]
        groups = Groups(group_size, *sums)
    return Information("rl", episodes, bits, "analytic", groups)
