"""Losses whose logits are made piece by piece: of some tokens at a time, kept or made again, or of some entries of
the vocabulary.

They stand behind a head that hands hidden states on, in the place of a model's own loss, and run as the code of their
trainers runs: litgpt 0.5, model.py (lm_head_chunk_size) and utils.py (chunked_cross_entropy); torchtune 0.6,
modules/loss/cross_entropy_loss.py (and compiled, which keeps the logits alone); trl 1.12 and 1.14,
trainer/sft_trainer.py (_chunk, _chunked_cross_entropy_loss); PrimeIntellect-ai/prime-rl b798a90d,
trainer/models/layers/lm_head.py (_ChunkedLogProbEntropyFn).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .kernels import CudaKernels

SPLIT = ("split", "split-wide", "split-fused")
RECOMPUTED = ("recomputed", "recomputed-wide")
BY_ENTRIES = "chunked-vocabulary"
BY_PIECES = (*SPLIT, *RECOMPUTED, BY_ENTRIES)


class _Kept(torch.autograd.Function):  # type: ignore[misc]
    """A piece's cross-entropy compiled into one kernel that keeps its logits."""

    @staticmethod
    def forward(ctx: Any, logits: Any, labels: Any) -> Any:
        ctx.save_for_backward(logits)
        return logits.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (logits,) = ctx.saved_tensors
        return torch.empty_like(logits), None


def split(
    kind: str, head: Any, hidden: Any, labels: Any, positions: int, most: float | None = None,
    held: list[Any] | None = None,
) -> Any:  # fmt: skip
    """Logits of all tokens in pieces of so many `positions` of every sequence, each with a loss of its own: "split"
    in the logits' own type, "split-wide" in float32, "split-fused" that compiled. Where a model bounds them by
    `most`, each piece is. They are `held` where the loop has a name for what the model returned."""
    pieces = [_bounded(head(piece), most) for piece in hidden.split(positions, dim=1)]
    losses = [
        _loss_of_piece(kind, logits.flatten(0, 1), some.reshape(-1))
        for logits, some in zip(pieces, labels.split(positions, dim=1), strict=True)
    ]
    if held is not None:
        held.extend(pieces)
    return torch.stack(losses).sum()


def _bounded(logits: Any, most: float | None) -> Any:
    return torch.tanh(logits / most) * most if most else logits


def _loss_of_piece(kind: str, logits: Any, labels: Any) -> Any:
    if kind == "split-fused":
        return _Kept.apply(logits, labels)
    return functional.cross_entropy(
        logits.float() if kind == "split-wide" else logits, labels, reduction="sum"
    )


def recomputed(kind: str, head: Any, hidden: Any, labels: Any, rows: int) -> Any:
    """Log-probabilities of `rows` tokens at a time, each piece under a checkpoint; `hidden` are those that predict a
    label, copied."""
    kernels = CudaKernels.active
    assert kernels is not None
    loss = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, hidden.shape[0], rows):
        piece, some = hidden[start : start + rows], labels[start : start + rows]
        run = _watched(kernels, kind.endswith("wide"))
        loss = loss + checkpoint(run, piece, head.weight, some, use_reentrant=False)[0]
    return loss


def _watched(kernels: CudaKernels, wide: bool) -> Callable[..., Any]:
    """A piece's loss, which the tracker sees running again in the backward pass."""
    place: Any = None

    def run(rows: Any, weight: Any, labels: Any) -> Any:
        nonlocal place
        if place is None:
            place = kernels.tracker.place
            return _chances(rows, weight, labels, wide)
        with kernels.tracker.recompute(), kernels, kernels.forward():
            kernels.tracker.enter(place)
            return _chances(rows, weight, labels, wide)

    return run


def _chances(rows: Any, weight: Any, labels: Any, wide: bool) -> Any:
    """A piece's loss, how many labels are likeliest, and its entropy."""
    if wide:
        logits = rows.float() @ weight.float().t()
        logits = logits.float()
    else:
        logits = (rows @ weight.to(rows.dtype).t()).float()
    chances = functional.log_softmax(logits, dim=-1)
    loss = functional.nll_loss(chances, labels, reduction="sum")
    right = (logits.argmax(dim=-1) == labels).sum()
    return loss, right, -(chances.exp() * chances).sum(dim=-1).sum()


class _ByEntries(torch.autograd.Function):  # type: ignore[misc]
    """Log-probability and entropy of every row's label, by pieces of the vocabulary that are made again on the way
    back; W's gradient is made whole also where it is frozen."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, labels: Any, entries: int) -> Any:
        rows = hidden.shape[0]
        scale = hidden.new_empty(rows, 1, dtype=torch.float32)
        sums, chances = torch.empty_like(scale), torch.empty_like(scale)
        for start in range(0, weight.shape[0], entries):
            product = hidden @ weight[start : start + entries].t()
            logits = product.to(torch.float32) * scale
            powers = torch.exp(logits - sums)
            powers.sum(-1), (powers * logits).sum(-1)
            del powers  # of a function that has returned
        ctx.save_for_backward(hidden, weight, labels, scale, sums, chances)
        ctx.entries = entries
        return chances.sum()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        hidden, weight, _, scale, sums, _ = ctx.saved_tensors
        of_hidden, of_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        for start in range(0, weight.shape[0], ctx.entries):
            some = weight[start : start + ctx.entries]
            product = hidden @ some.t()
            logits = product.to(torch.float32) * scale
            chances = torch.exp(logits - sums)
            slope = sums * chances
            slope = slope * scale
            of_hidden.add_(slope.to(hidden.dtype) @ some)
            of_weight[start : start + ctx.entries].add_(slope.to(hidden.dtype).t() @ hidden)
        return of_hidden, of_weight if ctx.needs_input_grad[1] else None, None, None


def by_entries(head: Any, hidden: Any, labels: Any, entries: int) -> Any:
    """The loss of all rows, by so many entries of the vocabulary at a time."""
    kernels = CudaKernels.active
    compute = (kernels.autocast if kernels else None) or hidden.dtype
    return _ByEntries.apply(hidden.to(compute), head.weight.to(compute), labels, entries)


def let_pieces_go(model: Any) -> None:
    """Forget the pieces of logits that a loop had a name for."""
    held = getattr(getattr(model, "loss_function", None), "held", None)
    if held is not None:
        held.clear()


def by_pieces(
    kind: str, head: Any, chunk: int, most: float | None = None, *, holds: bool = False
) -> Callable[..., Any]:  # fmt: skip
    """A loss in the place of a model's own, of hidden states instead of logits, which the model bounds by `most`: as
    litgpt's pieces are; what makes a piece's logits again is not."""

    held: list[Any] | None = [] if holds else None

    def loss(logits: Any, labels: Any, *_: Any, **__: Any) -> Any:
        width = logits.shape[-1]  # of hidden states, by the name that models call them by
        if kind in RECOMPUTED:
            rows, some = logits[..., :-1, :].reshape(-1, width), labels[..., 1:].reshape(-1)
            order = torch.empty(rows.shape[0], dtype=torch.long, device=rows.device)
            rows = rows[order]
            return recomputed(kind, head, rows, some[order], chunk)
        if kind == BY_ENTRIES:
            return by_entries(head, logits.reshape(-1, width), labels.reshape(-1), chunk)
        return split(kind, head, logits, labels, chunk, most, held)

    loss.held = held  # type: ignore[attr-defined]
    return loss
