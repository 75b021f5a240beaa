"""Examples as padded token tensors, and the loss on completions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import InputError
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
    pairs = [
        (tokenizer.encode(item.prompt) if item.prompt else [], tokenizer.encode(item.completion))
        for item in examples
    ]
    length = min(seq_len, max(len(prompt) + len(completion) for prompt, completion in pairs))
    tokens, labels, loss_tokens = array("q"), array("q"), 0
    for prompt, completion in pairs:
        row = (prompt + completion)[:length]
        silent = min(length, max(1, len(prompt)))
        mark = [IGNORED] * (silent - 1) + row[silent:]
        tokens.extend(row + [tokenizer.pad] * (length - len(row)))
        labels.extend(mark + [IGNORED] * (length - 1 - len(mark)))
        loss_tokens += len(row[silent:])
    if not labels:
        raise InputError("task", examples[0].completion, "examples of at least two tokens")
    # A tensor on an array's own memory costs a tenth of one made from lists.
    shaped = (
        torch.frombuffer(values, dtype=torch.int64).view(len(pairs), width)
        for values, width in ((tokens, length), (labels, length - 1))
    )
    inputs, targets = (tensor.to(device) for tensor in shaped)
    return Batch(inputs, targets, loss_tokens)


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
