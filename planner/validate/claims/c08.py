"""C8: on a mixture of experts, one LoRA an expert at rank / active experts behaves alike."""

from __future__ import annotations

from ..grid import Lookup
from . import Claim, Judgement, Setting, undecided


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Nothing is run: PEFT has no such adapter, and the zoo has no such model."""
    return undecided(
        "not tried: the zoo has no mixture of experts, and PEFT cannot train one pair an expert at rank / top_k on "
        "fused experts"
    )


CLAIM = Claim(
    "C8", "With one LoRA an expert at rank / active experts, the ratio of best rates stays about 10.",
    "LoRA Without Regret, Qwen3-30B-A3B", "ratio of best rates", "none yet: always undecided",
    lambda setting: 10.0, judge,
)  # fmt: skip
