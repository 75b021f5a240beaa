"""Experts in FP8 as transformers 5.23 runs them: its FP8Experts in the place of a mixture's experts, whose code runs
as it is, with a stand-in for the kernel of the grouped product alone.

The kernel reads 16-bit rows and packed weights and makes no copy of either; on the way back the library makes experts
whole again, as many at a time as take 1 GiB (integrations/finegrained_fp8.py: FP8GroupedMatmulFunction). Where these
are not all of them, rows are taken to be spread evenly over experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .attention import Counter
from .experts import FLOPS_PER_MAC
from .kernels import CudaKernels

BUDGET = 2**30  # bytes of experts that are made whole at once


class _Grouped(torch.autograd.Function):  # type: ignore[misc]
    """Rows through the matrix of each one's expert."""

    @staticmethod
    def forward(ctx: Any, rows: Any, weight: Any, scales: Any, tracker: Counter) -> Any:
        ctx.save_for_backward(weight, scales)
        ctx.tracker = tracker
        return _product(rows, weight, tracker)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """The gradient of rows; weights have none."""
        weight, _ = ctx.saved_tensors
        experts, d_out, d_in = weight.shape
        ctx.tracker.add_flops("_grouped_mm", FLOPS_PER_MAC * grad.shape[0] * d_out * d_in)
        one = d_out * d_in * grad.element_size()
        some = max(1, BUDGET // one)
        if some >= experts:
            whole = torch.empty(weight.shape, dtype=grad.dtype, device=grad.device)
            found = grad.new_empty(grad.shape[0], d_in)
            del whole
            return found, None, None, None
        found = grad.new_zeros(grad.shape[0], d_in)
        for start in range(0, experts, some):
            number = min(some, experts - start)
            whole = torch.empty(number, d_out, d_in, dtype=grad.dtype, device=grad.device)
            own = grad.new_empty(grad.shape[0] * number // experts, d_in)
            del whole, own
        return found, None, None, None


def _product(rows: Any, weight: Any, tracker: Counter) -> Any:
    macs = rows.shape[0] * weight.shape[-1] * weight.shape[-2]
    tracker.add_flops("_grouped_mm", FLOPS_PER_MAC * macs)
    return rows.new_empty(rows.shape[0], weight.shape[-2])


def _run(function: Any, direct: Any, rows: Any, weight: Any, scales: Any, *_: Any) -> Any:
    """What the library runs of a product, with or without gradients, and the pairs on its experts."""
    kernels = CudaKernels.active
    assert kernels is not None
    tracker = kernels.tracker
    graded = torch.is_grad_enabled() and rows.requires_grad
    out = _Grouped.apply(rows, weight, scales, tracker) if graded else _product(rows, weight, tracker)
    pairs = kernels.pairs.get(weight.untyped_storage()._cdata)
    return out if pairs is None else pairs.add(rows, out, tracker, kernels.casting)


def quantise_experts(model: Any) -> None:
    """Put transformers' FP8Experts in the place of every module of experts (replace_with_fp8_linear).

    Raises InputError for experts that it does not take."""
    from transformers.integrations import finegrained_fp8 as library
    from transformers.integrations.moe import use_experts_implementation

    library._apply_if_grad = _run
    for name, module in list(model.named_modules()):
        if not name.endswith(".experts") or not any(p.dim() > 2 for p in module.parameters(recurse=False)):
            continue
        gated, biased = getattr(module, "has_gate", True), getattr(module, "has_bias", False)
        if biased:
            raise InputError(
                "quantize", "fp8", "nf4, nf4-double or int8 for this model",
                "Its experts have biases, which transformers' experts in FP8 do not.",
            )  # fmt: skip
        make: Callable[..., Any] = use_experts_implementation(
            experts_class=type("FP8Experts", (library.FP8Experts,), {}),
            experts_interface=library.ALL_FP8_EXPERTS_FUNCTIONS, has_bias=False, has_gate=gated,
        )  # fmt: skip
        with torch.device("meta"):
            made: nn.Module = make(
                config=getattr(module, "config", model.config.get_text_config()), block_size=(128, 128),
                has_bias=False, has_gate=gated,
            )  # fmt: skip
        made.requires_grad_(False)
        model.set_submodule(name, made)
