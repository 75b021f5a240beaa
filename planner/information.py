"""Bits in a dataset or in a reinforcement-learning run, by the article's rules."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
class Information:
    """How much there is to learn: `units` loss tokens (sft) or episodes (rl) of `bits_per_unit` bits."""

    kind: Literal["sft", "rl"]
    units: int
    bits_per_unit: float
    basis: Basis

    @property
    def bits(self) -> int | float:
        """Bits in all; a whole number where the product is one."""
        bits = self.units * self.bits_per_unit
        return int(bits) if bits == int(bits) else bits


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


def policy_gradient(episodes: int, success_rate: float | None = None) -> Information:
    """At most 1 bit per episode with a binary reward; H(p) at success rate p.

    An upper bound: what an episode teaches is at most the entropy of its advantage, and a group without variance
    teaches nothing. Real algorithms learn less per episode. Source: the article.
    """
    if success_rate is None:
        return Information("rl", episodes, 1.0, "assumed")
    return Information("rl", episodes, entropy(success_rate), "analytic")
