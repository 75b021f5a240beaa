"""Ratios of a LoRA step's FLOPs to full fine-tuning's: the bare rule, and the rank from which LoRA costs no less."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .adapter import Adapted, AdapterSpec
from .flops import Tally


def rule_ratio(adapted: Iterable[Adapted]) -> float | None:
    """The article's bare rule over the adapted matrices: sum of 2 d_in d_out + 3 r (d_in + d_out), over the sum
    of 3 d_in d_out; for square matrices (2N^2 + 6NR) / 3N^2. Neglects attention, frozen matrices and the first
    layer's missing input gradients. Source: LoRA Without Regret (2025)."""
    lora = full = 0
    for item in adapted:
        if item.matrix.kind == "embedding":
            continue
        weight = item.matrix.d_in * item.matrix.d_out * item.matrix.experts_active * len(item.layers)
        pairs = sum(p.rank * (p.uses_in * p.d_in + p.uses_out * p.d_out) for p in item.pairs) * len(
            item.layers
        )
        lora += 2 * weight + 3 * pairs
        full += 3 * weight
    return lora / full if full else None


def break_even_rank(lora: Tally, full: Tally, spec: AdapterSpec, adapted: Sequence[Adapted]) -> int | None:
    """The smallest rank at which a LoRA step costs at least as much as a full one; None where patterns fix ranks.

    The adapter's work grows in proportion to the rank (an expert's to rank / top_k, at least 1, under `scaled`);
    everything else stays. For square matrices the bare rule gives N / 6. None where the adapter does no work.
    """
    mixed = spec.experts == "scaled" and spec.target_parameters
    if mixed or any(item.pinned for item in adapted):
        return None
    top_k = next((i.matrix.experts_active for i in adapted if i.matrix.kind == "experts"), 1)
    scaled = spec.experts == "scaled"
    expert_now = max(1, spec.rank // top_k) if scaled else spec.rank
    dense = lora.adapter / spec.rank
    expert = lora.expert_adapter / expert_now
    fixed = lora.total - lora.adapter - lora.expert_adapter

    def cost(rank: int) -> float:
        return fixed + dense * rank + expert * (max(1, rank // top_k) if scaled else rank)

    slope = dense + (expert / top_k if scaled else expert)
    if slope <= 0:
        return None
    target = full.total - full.overcount
    rank = max(1, int((target - fixed) / slope) - 2 * top_k)
    while cost(rank) < target:
        rank += 1
    return rank
