"""FLOPs of one step by torch's counter: a model's forward and backward, and a stack of square layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .records import RunConfig
from .require import require
from .train import Outcome, Trainer

SQUARE = 64
DEPTH = 3


def square_ratio(width: int, rank: int, tokens: int = 8) -> float:
    """LoRA's FLOPs over full fine-tuning's for the middle of three width x width layers, as torch counts them: the
    difference that a third layer makes, whose input needs a gradient like any but a model's first."""
    full = _stack(width, 0, DEPTH, tokens) - _stack(width, 0, DEPTH - 1, tokens)
    lora = _stack(width, rank, DEPTH, tokens) - _stack(width, rank, DEPTH - 1, tokens)
    return lora / full


def _stack(width: int, rank: int, depth: int, tokens: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    torch = require()
    x = torch.ones(tokens, width)
    layers = []
    for _ in range(depth):
        weight = torch.ones(width, width, requires_grad=rank == 0)
        pair = [torch.ones(rank, width, requires_grad=True), torch.ones(width, rank, requires_grad=True)]
        layers.append((weight, pair if rank else None))
    with FlopCounterMode(display=False) as counter:
        for weight, low in layers:
            y = x @ weight.T
            x = y + (x @ low[0].T) @ low[1].T if low else y
        x.sum().backward()
    return int(counter.get_total_flops())


def count_step(config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> Outcome:
    """One forward and backward of the configuration, counted; nothing is trained."""
    trainer = Trainer(config, device, beat)
    loss = trainer.forward_backward(trainer.batch(0))
    out = trainer.outcome
    out.curve.append(loss)
    out.measured["length"] = int(trainer.batch(0).tokens.shape[1])
    measured: dict[str, Any] = out.measured
    if config.method == "lora":
        measured["square_ratio"] = square_ratio(SQUARE, config.rank)
    return out
