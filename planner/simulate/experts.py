"""Adapters on tensors of experts that PEFT has no place for: a pair for each expert, or with one side shared.

They run beside transformers' grouped product (its default on CUDA): rows sorted by expert, each through the pair of
its expert. What they keep is what any implementation must: the rows (cast to the adapter's type), and the rank-wide
products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..adapter import Adapted, Pair
from ..errors import InputError
from .attention import Counter

FLOPS_PER_MAC = 2


class _Pair(torch.autograd.Function):  # type: ignore[misc]
    """rows A B, each row through the A and B of its expert; keeps rows and rows A."""

    @staticmethod
    def forward(ctx: Any, rows: Any, a: Any, b: Any, tracker: Counter) -> Any:
        rank, d_out = b.shape[-1], b.shape[-2]
        inner = rows.new_empty(rows.shape[0], rank)
        ctx.save_for_backward(rows, a, b, inner)
        ctx.tracker = tracker
        _count(tracker, rows, rank, d_out, passes=1)
        return rows.new_empty(rows.shape[0], d_out)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradients of both sides."""
        rows, a, b, inner = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        _count(ctx.tracker, rows, b.shape[-1], b.shape[-2], passes=2 if wanted else 1, up=2)
        d_b, d_inner = torch.empty_like(b), torch.empty_like(inner)
        d_a = torch.empty_like(a)
        d_rows = torch.empty_like(rows) if wanted else None
        del d_inner
        return d_rows, d_a, d_b, None


def _count(tracker: Counter, rows: Any, rank: int, d_out: int, passes: int, up: int = 1) -> None:
    number, d_in = rows.shape
    tracker.add_flops("_grouped_mm", FLOPS_PER_MAC * number * rank * (passes * d_in + up * d_out))


class Grouped(torch.autograd.Function):  # type: ignore[misc]
    """A grouped product in types that the meta device refuses and CUDA takes: all but bfloat16."""

    @staticmethod
    def forward(ctx: Any, rows: Any, weight: Any, tracker: Counter) -> Any:
        """The product, keeping what its gradients need."""
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight)
        ctx.tracker = tracker
        ctx.flops = FLOPS_PER_MAC * rows.shape[0] * weight.shape[-2] * weight.shape[-1]
        tracker.add_flops("_grouped_mm", ctx.flops)
        return rows.new_empty(rows.shape[0], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradients of both sides."""
        weight = ctx.saved_tensors[1]
        ctx.tracker.add_flops("_grouped_mm", ctx.flops * sum(ctx.needs_input_grad[:2]))
        d_rows = grad.new_empty(grad.shape[0], weight.shape[-2]) if ctx.needs_input_grad[0] else None
        return d_rows, torch.empty_like(weight) if ctx.needs_input_grad[1] else None, None


class ExpertPairs(nn.Module):  # type: ignore[misc]
    """The pairs of one tensor of experts, one for each of its logical matrices side by side."""

    def __init__(self, pairs: Sequence[Pair], dtype: Any) -> None:
        super().__init__()
        self.ranks = tuple(pair.rank for pair in pairs)
        self.a = nn.ParameterList(
            nn.Parameter(torch.empty(p.n_in, p.rank, p.d_in, dtype=dtype, device="meta")) for p in pairs
        )
        self.b = nn.ParameterList(
            nn.Parameter(torch.empty(p.n_out, p.d_out, p.rank, dtype=dtype, device="meta")) for p in pairs
        )

    def add(self, rows: Any, out: Any, tracker: Counter, autocast: bool = False) -> Any:
        """The product with the pairs' added, in its own type. Autocast leaves rows in 16 bits."""
        inner = rows if autocast else rows.to(self.a[0].dtype)
        made = [_Pair.apply(inner, a, b, tracker) for a, b in zip(self.a, self.b, strict=True)]
        both = made[0] if len(made) == 1 else torch.cat(made, dim=-1)
        return out + both.to(out.dtype)


def check_pairs(adapted: Sequence[Adapted]) -> None:
    """Raise InputError where the pairs are not plain low-rank ones."""
    if any(pair.magnitudes for item in adapted for pair in item.pairs):
        raise InputError("variant", "dora", "lora: no trainer has DoRA for experts", "Use --experts none.")


def attach(model: Any, adapted: Sequence[Adapted], dtype: Any, prefix: str = "") -> dict[int, ExpertPairs]:
    """Put pairs on tensors of experts, as modules of the layer's own; by the tensors' storages."""
    found: dict[int, ExpertPairs] = {}
    for item in adapted:
        for layer in item.layers:
            path, _, leaf = item.matrix.name.replace("{}", str(layer)).rpartition(".")
            module = model.get_submodule(prefix + path)
            pairs = ExpertPairs(item.pairs, dtype)
            module.add_module(f"lora_{leaf}", pairs)
            found[getattr(module, leaf).untyped_storage()._cdata] = pairs
    return found
