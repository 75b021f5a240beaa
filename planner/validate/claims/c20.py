"""C20: the article's tally of bits in two reinforcement-learning runs."""

from __future__ import annotations

from ...estimator import estimate
from ...information import policy_gradient
from ..grid import Lookup
from . import Claim, Judgement, Setting, exact

MATH_BITS = 10_000 * 32
R1_ZERO_BITS = 10_400 * 32 * 16
PRINTED = (320_000, 5_324_800)
RANK_1_PRINTED = 3_000_000


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The planner's bits of both runs, and rank 1 of Llama-3.1-8B rounded to millions."""
    bits = tuple(policy_gradient(episodes).bits for episodes in (MATH_BITS, R1_ZERO_BITS))
    rank_1 = estimate("meta-llama/Llama-3.1-8B", rank=1).adapter.params
    off = sum(abs(a - b) for a, b in zip(bits, PRINTED, strict=True))
    details = {"bits": list(bits), "rank_1_params": rank_1, "room_in_math": rank_1 / bits[0]}
    return exact(
        off == 0 and round(rank_1, -6) == RANK_1_PRINTED, float(off),
        f"both tallies agree; rank 1 has {rank_1:,} parameters, {rank_1 / bits[0]:.1f} a bit of MATH",
        f"tallies differ by {off:g} bits", details,
    )  # fmt: skip


CLAIM = Claim(
    "C20", "10,000 problems x 32 samples of MATH are 320,000 bits, DeepSeek-R1-Zero's run 5,324,800; rank 1 of "
    "Llama-3.1-8B has 3M parameters.", "LoRA Without Regret, reinforcement learning", "bits off the printed figures",
    "confirmed where both tallies are equal and the parameters round to 3M, else refuted",
    lambda setting: 0.0, judge,
)  # fmt: skip
