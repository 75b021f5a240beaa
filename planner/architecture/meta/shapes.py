"""Shapes of elementwise results on the meta device, without the library's own way to them: it takes a tenth of a
millisecond an operation, most of what a pass over a deep model costs. Only where the answer is plain: operands of one
floating type whose first is contiguous and has the result's shape. All else runs as it is."""

from __future__ import annotations

from typing import Any

ELEMENTWISE = frozenset("mul add sub div neg relu pow rsqrt silu gelu tanh sigmoid exp sqrt softplus".split())


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation's result on the meta device."""
    import torch

    name = func.overloadpacket.__name__
    first = args[0] if args else None
    if isinstance(first, torch.Tensor) and first.is_contiguous() and first.is_floating_point():
        if name in ELEMENTWISE and func._overloadname != "out" and _like_first(first, args[1:]):
            return torch.empty_like(first)
        if name == "native_layer_norm":
            rest = (*first.shape[: -len(args[1])], *(1 for _ in args[1]))
            return torch.empty_like(first), first.new_empty(rest), first.new_empty(rest)
        if name == "mean" and len(args) > 2 and args[1] == [-1] and args[2] and not kwargs:
            return first.new_empty((*first.shape[:-1], 1))
    return func(*args, **kwargs)


def _like_first(first: Any, others: Any) -> bool:
    """Whether the result has the first operand's shape, type and order."""
    import torch

    for other in others:
        if isinstance(other, torch.Tensor):
            if other.dtype != first.dtype or other.dim() > first.dim():
                return False
            if other.shape == first.shape:
                if not other.is_contiguous():
                    return False
            elif any(
                size not in (1, whole)
                for size, whole in zip(other.shape[::-1], first.shape[::-1], strict=False)
            ):
                return False
        elif isinstance(other, complex):
            return False
    return True
