"""Losses of trainers: what each holds at most, against its operations in torch on tensors without values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

from planner.running import running

from .test_by_entries import Watch

LLAMA, BATCH, LENGTH, HIDDEN, VOCABULARY = "meta-llama/Llama-3.1-8B", 2, 1024, 4096, 128256
Held = tuple[Tensor, Tensor | None]  # a loss, and the logits that the loop still holds


class _Watch(Watch):
    """The same of operations that have several results (a loss and the weight of its tokens)."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for out in tree_leaves(found):
            super().__torch_dispatch__(lambda *_, out=out: out, types, args)
        return found


class _Kernel(torch.autograd.Function):
    """flash-attn's cross-entropy: keeps the logits, and makes their gradient beside them."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        ctx.save_for_backward(logits)
        return logits.new_empty(())

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return torch.empty_like(ctx.saved_tensors[0])


def _labels(sequences: int, length: int) -> Tensor:
    return torch.empty(sequences * length, dtype=torch.long, device="meta")


def _shifted(logits: Tensor) -> Tensor:
    short = logits[..., :-1, :].contiguous()
    return cross_entropy(short.view(-1, VOCABULARY), _labels(BATCH, LENGTH - 1))


def openrlhf(logits: Tensor) -> Held:
    wide = logits.to(torch.float32)
    return _Kernel.apply(wide), wide


def openrlhf_2024(logits: Tensor) -> Held:
    wide = logits.to(torch.float32)
    return _shifted(wide), wide


def lit_llama(logits: Tensor) -> Held:
    return _shifted(logits), logits


def h2o(logits: Tensor) -> Held:
    return _shifted(logits), None


def transformers_2025(logits: Tensor) -> Held:
    return cross_entropy(logits.float().view(-1, VOCABULARY), _labels(BATCH, LENGTH)), None


def deepspeed_chat(logits: Tensor) -> Held:
    wide = logits.float()
    return _shifted(wide), wide


def mistral(logits: Tensor) -> Held:
    """One packed sequence of both."""
    wide = logits.float()
    return cross_entropy(wide.view(-1, VOCABULARY), _labels(BATCH, LENGTH)), wide


def _most(loss_of: Callable[[Tensor], Held]) -> int:
    rows = torch.empty(BATCH, LENGTH, HIDDEN, dtype=torch.bfloat16, device="meta", requires_grad=True)
    weights = torch.empty(VOCABULARY, HIDDEN, dtype=torch.bfloat16, device="meta")
    with _Watch() as watch:
        logits = rows @ weights.t()
        loss, held = loss_of(logits)
        del logits
        loss.backward()
        del held
    return int(watch.most)


@pytest.mark.parametrize(
    ("trainer", "loss_of", "options"),
    [
        ("openrlhf", openrlhf, {"sharding": "zero2", "gpus": 2}),
        ("openrlhf-0.6", openrlhf_2024, {"sharding": "zero2", "gpus": 2}),
        ("deepspeed-chat", deepspeed_chat, {"sharding": "zero2", "gpus": 2}),
        ("lit-llama", lit_llama, {}),
        ("h2o-llmstudio", h2o, {"method": "full"}),
        ("hf-trainer-4.53", transformers_2025, {"autocast": False}),
        ("mistral-finetune", mistral, {"batch": 1, "seq_len": BATCH * LENGTH}),
    ],
)
def test_the_end_of_a_step(trainer: str, loss_of: Callable[[Tensor], Held], options: dict[str, Any]) -> None:
    """Logits of all tokens and what is made of them, on the way there and back, in bytes of all at once."""
    usual = {"batch": BATCH * int(options.get("gpus", 1)), "seq_len": LENGTH, "checkpointing": "layer"}
    found = running(LLAMA, {"trainer": trainer, "rank": 8, **usual, **options}).memory()
    ends = [m for m in found.moments if m.phase == "loss" or m.where == "unembedding"]
    assert max(m.parts()["logits"] for m in ends) == pytest.approx(_most(loss_of), rel=0.015)


def _most_in_pieces(positions: int, *, wide: bool, bounded: bool, rank: int = 8) -> int:
    """Of an unembedding with a pair and its loss, each for so many positions of every sequence at a time."""
    rows = torch.empty(BATCH, LENGTH, HIDDEN, dtype=torch.bfloat16, device="meta", requires_grad=True)
    weights = torch.empty(VOCABULARY, HIDDEN, dtype=torch.bfloat16, device="meta")
    down, up = (
        torch.empty(*shape, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for shape in ((HIDDEN, rank), (rank, VOCABULARY))
    )
    with _Watch() as watch:
        pieces = []
        for some in rows.split(positions, dim=1):
            logits = some @ weights.t() + (some @ down @ up) * 2.0
            pieces.append(torch.tanh(logits / 30.0) * 30.0 if bounded else logits)
            del logits
        flat = [each.flatten(0, 1) for each in pieces]
        losses = [cross_entropy(each.float() if wide else each, _labels(1, len(each))) for each in flat]
        torch.stack(losses).sum()
    return int(watch.most)


@pytest.mark.parametrize(
    ("trainer", "positions", "wide", "model"),
    [
        ("litgpt", 128, False, LLAMA),
        ("torchtune", 512, True, LLAMA),
        ("litgpt", 128, False, "google/gemma-2-9b"),
    ],
)
def test_pairs_on_an_unembedding_of_pieces_are_of_a_piece_too(
    trainer: str, positions: int, wide: bool, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = model != LLAMA
    if bounded:
        monkeypatch.setitem(globals(), "HIDDEN", 3584)
        monkeypatch.setitem(globals(), "VOCABULARY", 256000)
    options = {"trainer": trainer, "rank": 8, "batch": BATCH, "seq_len": LENGTH, "checkpointing": "layer"}
    found = running(model, {**options, "layers": "unembedding", "adapter_dtype": "bfloat16"}).memory()
    most = max(m.parts()["logits"] for m in found.moments if m.phase == "loss")
    assert most == pytest.approx(_most_in_pieces(positions, wide=wide, bounded=bounded), rel=0.02)
