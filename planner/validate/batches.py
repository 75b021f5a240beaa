"""Examples as padded token tensors, and the loss on completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .require import require
from .tasks.base import Example

IGNORED = -100


class Tokenizer(Protocol):
    """What turns text into token numbers."""

    pad: int

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers."""


@dataclass(frozen=True)
class Batch:
    """Token numbers and, shifted by one, what is to be predicted; IGNORED where there is no loss."""

    tokens: Any
    targets: Any
    loss_tokens: int


def encode_batch(examples: Sequence[Example], tokenizer: Tokenizer, seq_len: int, device: str) -> Batch:
    """Right-padded tensors [batch, length] of at most seq_len positions. A causal model needs no mask for padding
    behind what carries loss. A completion at a sequence's start loses its first token, which nothing predicts."""
    torch = require()
    rows: list[list[int]] = []
    marks: list[list[int]] = []
    for item in examples:
        prompt = tokenizer.encode(item.prompt) if item.prompt else []
        completion = tokenizer.encode(item.completion)
        row = (prompt + completion)[:seq_len]
        rows.append(row)
        marks.append([IGNORED] * len(prompt) + completion)
    length = max(len(row) for row in rows)
    tokens = torch.tensor([row + [tokenizer.pad] * (length - len(row)) for row in rows])
    labels = torch.tensor(
        [(mark[: len(row)] + [IGNORED] * (length - len(row))) for row, mark in zip(rows, marks, strict=True)]
    )
    targets = labels[:, 1:].contiguous()
    return Batch(tokens.to(device), targets.to(device), int((targets != IGNORED).sum()))


def loss_of(model: Any, batch: Batch, reduction: str = "mean") -> Any:
    """Cross-entropy in nats a loss token (mean) or in all (sum)."""
    import torch.nn.functional as functional
    from torch.nn.utils import parametrize

    with parametrize.cached():  # experts' changed weights are made once a pass
        logits = model(input_ids=batch.tokens, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]), batch.targets.reshape(-1), ignore_index=IGNORED,
        reduction=reduction,
    )  # fmt: skip


def evaluate(model: Any, batches: Sequence[Batch]) -> float:
    """Loss in nats a loss token over all batches, without gradients."""
    torch = require()
    model.eval()
    with torch.no_grad():
        total = sum(loss_of(model, batch, "sum").item() for batch in batches)
    model.train()
    return float(total / sum(batch.loss_tokens for batch in batches))
