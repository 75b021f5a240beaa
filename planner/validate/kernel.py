"""The empirical neural tangent kernel at the start of training: LoRA's against full fine-tuning's.

The kernel of n samples is K = J J^T, row i of J being the gradient of sample i's summed log-probability of its own
continuation with respect to what is trained. With B = 0 only B has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import adapters
from .batches import encode_batch, loss_of
from .models import fresh
from .records import RunConfig
from .require import require
from .tasks import task
from .train import Outcome


def _kernel(model: Any, batches: list[Any]) -> Any:
    """K [n, n] in float64, with the gradients of all trainable parameters."""
    torch = require()
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for batch in batches:
        grads = torch.autograd.grad(loss_of(model, batch, "sum"), trained, allow_unused=True)
        rows.append(torch.cat([g.reshape(-1) for g in grads if g is not None]))
    jacobian = torch.stack(rows).cpu().double()  # not every accelerator has float64
    return jacobian @ jacobian.T


def alignment(first: Any, second: Any) -> float:
    """Cosine of two centred kernels (centred kernel alignment): 1 where they agree up to a factor."""
    torch = require()
    n = first.shape[0]
    centre = torch.eye(n, dtype=first.dtype) - 1 / n
    one, two = (centre @ kernel @ centre for kernel in (first, second))
    return float((one * two).sum() / (one.norm() * two.norm()))


def tangent_kernel(config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> Outcome:
    """Kernels of `batch` samples under LoRA and under full fine-tuning of the same matrices, and their alignment."""
    known = task(config.task)
    start = config.seed * config.batch
    model, base = fresh(config.model, device)
    batches = [
        encode_batch([known.example(start + n)], base.tokenizer, config.seq_len, device)
        for n in range(config.batch)
    ]
    full_model = adapters.attach(model, config.but(method="full", rank=0), base.config)
    full = _kernel(full_model, batches)
    model, _ = fresh(config.model, device)
    lora_model = adapters.attach(model, config, base.config)
    lora = _kernel(lora_model, batches)
    out = Outcome(weights=base.weights)
    out.trainable = sum(p.numel() for p in lora_model.parameters() if p.requires_grad)
    out.measured = {"alignment": alignment(lora, full), "samples": config.batch}
    if beat is not None:
        beat(1)
    return out
