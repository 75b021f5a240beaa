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

    def encode(self, text: str) -> Sequence[int]:
        """Token numbers of a text; as bytes where none can be above 255, which is faster."""

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
    prompts = [tokenizer.encode(item.prompt) if item.prompt else b"" for item in examples]
    rows = [
        _joined(prompt, tokenizer.encode(item.completion))[:seq_len]
        for prompt, item in zip(prompts, examples, strict=True)
    ]
    length = max(map(len, rows))
    if length < 2:
        raise InputError("task", examples[0].completion, "examples of at least two tokens")
    tokens = _padded(rows, length, tokenizer.pad)
    first = [max(1, len(prompt)) for prompt in prompts]
    carries = [max(0, len(row) - start) for row, start in zip(rows, first, strict=True)]
    targets = tokens[:, 1:]
    if min(map(len, rows)) == length and max(first) == 1:
        targets = targets.contiguous()
    else:
        place = torch.arange(1, length)
        start, end = (torch.tensor(values).unsqueeze(1) for values in (first, list(map(len, rows))))
        targets = targets.masked_fill((place < start) | (place >= end), IGNORED)
    return Batch(tokens.to(device), targets.to(device), sum(carries))


def _joined(prompt: Sequence[int], completion: Sequence[int]) -> Sequence[int]:
    if isinstance(completion, bytes):
        return bytes(prompt) + completion
    return [*prompt, *completion]


def _padded(rows: Sequence[Sequence[int]], length: int, pad: int) -> Any:
    """Rows as one tensor of whole numbers, padded on the right. A tensor on a buffer costs a tenth of one made from
    lists."""
    torch = require()
    if all(isinstance(row, bytes) for row in rows):
        whole = b"".join([bytes(row).ljust(length, bytes([pad])) for row in rows])
        return torch.frombuffer(bytearray(whole), dtype=torch.uint8).view(len(rows), length).long()
    flat = array("q")
    for row in rows:
        flat.extend([*row, *[pad] * (length - len(row))])
    return torch.frombuffer(flat, dtype=torch.int64).view(len(rows), length)


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
