"""A loss by pieces of the vocabulary against the same loop in torch: tensors without values, watched by storage."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from planner.running import running

TOKENS, HIDDEN, VOCABULARY, ENTRIES = 16384, 1024, 151936, 2048
SELECTED = 1  # per cent that a row's numbers may add; picking labels is left out here


class Watch(TorchDispatchMode):
    """The most bytes of storages alive at once, of those made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        storage = out.untyped_storage()
        key = storage._cdata
        if key not in self.alive and all(
            key != a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)
        ):
            self.alive[key] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, key)
            self.most = max(self.most, sum(self.alive.values()))
        return out


def _tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = torch.empty(TOKENS, HIDDEN, dtype=torch.bfloat16, device="meta")
    weights = torch.empty(VOCABULARY, HIDDEN, dtype=torch.bfloat16, device="meta")
    return rows, weights, torch.empty(TOKENS, 1, device="meta"), torch.empty(TOKENS, 1, device="meta")


def _forward(rows: Tensor, weights: Tensor, scale: Tensor, top: Tensor) -> None:
    for start in range(0, VOCABULARY, ENTRIES):
        product = rows @ weights[start : start + ENTRIES].t()
        logits = product.to(torch.float32) * scale
        powers = torch.exp(logits - top)
        powers.sum(-1), (powers * logits).sum(-1)
        del powers  # a name of a function that has returned
    del product, logits


def _backward(rows: Tensor, weights: Tensor, scale: Tensor, normaliser: Tensor) -> tuple[Tensor, Tensor]:
    of_rows, of_weights = torch.zeros_like(rows), torch.zeros_like(weights)
    for start in range(0, VOCABULARY, ENTRIES):
        some = weights[start : start + ENTRIES]
        product = rows @ some.t()
        logits = product.to(torch.float32) * scale
        chances = torch.exp(logits - normaliser)
        slope = normaliser * chances
        slope = slope * scale
        of_rows.add_(slope.to(rows.dtype) @ some)
        of_weights[start : start + ENTRIES].add_(slope.to(rows.dtype).t() @ rows)
    del product, logits, chances, slope
    return of_rows, of_weights


def _estimated(phase: str) -> int:
    options = {"trainer": "prime-rl", "seq_len": TOKENS, "checkpointing": "layer", "kernels": "compiled"}
    found = running("Qwen/Qwen3-0.6B", {**options, "method": "lora", "rank": 8}).memory()
    own = next(m for m in found.moments if m.phase == phase and m.where in ("", "unembedding"))
    return own.parts()["logits"]


@pytest.mark.parametrize(("phase", "loop"), [("loss", _forward), ("backward", _backward)])
def test_the_loop_in_torch_takes_as_much(phase: str, loop: Any) -> None:
    tensors = _tensors()
    with Watch() as watch:
        loop(*tensors)
    assert _estimated(phase) == pytest.approx(watch.most, rel=SELECTED / 100)
