"""State-space and linear-attention layers as CUDA's kernels run them: what they keep and hold while they run.

transformers calls these kernels where mamba-ssm, causal-conv1d and flash-linear-attention are installed, by
functions of a model's module that fall back to reference code, which keeps several times more. Here these functions
are replaced while a step runs. Fused kernels that take the projections in (mamba_inner_fn,
mamba_split_conv1d_scan_combined) are left out: they pass by adapters on these. FLOPs are the reference code's.

Sources, read in the projects' public repositories for what each kernel saves (no version is pinned, none was run):
state-spaces/mamba, ops/selective_scan_interface.py at 01887ed and ops/triton/ssd_combined.py; causal-conv1d,
causal_conv1d_interface.py; fla-org/flash-linear-attention, ops/gated_delta_rule/chunk.py at 0315a70.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode

from .attention import Counter

SCAN_CHUNK = 2048  # positions between the states that selective_scan keeps
DELTA_CHUNK = 64
FLOPS_PER_MAC = 2
Flops = tuple[Mapping[str, int], Mapping[str, int]]


class _Kernel(torch.autograd.Function):  # type: ignore[misc]
    """A kernel by its rule, which gives the result, what is kept, and what is made on the way back beside the
    gradients."""

    @staticmethod
    def forward(ctx: Any, rule: Any, count: Any, flops: Flops, *tensors: Any) -> Any:
        """The result."""
        out, kept, ctx.later = rule(*tensors)
        ctx.save_for_backward(*kept)
        ctx.like = [None if x is None else (x.shape, x.dtype, x.device) for x in tensors]
        ctx.count, ctx.flops = count, flops[1]
        count(flops[0])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """A gradient for each input that asks for one; what was kept has a name until all are made."""
        ctx.count(ctx.flops)
        saved = ctx.saved_tensors
        held = ctx.later(saved)
        made = [
            torch.empty(like[0], dtype=like[1], device=like[2]) if like and need else None
            for like, need in zip(ctx.like, ctx.needs_input_grad[3:], strict=True)
        ]
        del held, saved
        return None, None, None, *made


def _convolution(x: Any, weight: Any, bias: Any) -> Any:
    """Depthwise convolution with its activation: keeps what it reads; weights' gradients are made in float32."""

    def later(saved: Any) -> Any:
        return [
            torch.empty(w.shape, dtype=torch.float32, device=w.device) for w in saved[1:] if w is not None
        ]

    return torch.empty_like(x), (x, weight, bias), later


def _selective_scan(u: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, z: Any, dt_bias: Any) -> Any:
    """Mamba's scan: copies of u and z with time innermost, dt, the result before the gate, and a state every 2,048
    positions are kept. Shapes are (batch, width, length), a's (width, states)."""
    u, z, b, c = (x if x is None or x.stride(-1) == 1 else x.contiguous() for x in (u, z, b, c))
    chunks = -(-u.shape[2] // SCAN_CHUNK)
    states = u.new_empty(u.shape[0], u.shape[1], chunks, 2 * a.shape[1], dtype=torch.float32)
    out = torch.empty_like(u)
    gated = out if z is None else torch.empty_like(u)

    def later(saved: Any) -> Any:
        return [torch.empty(x.shape, dtype=torch.float32, device=x.device) for x in saved[3:5]]

    return gated, (u, dt, a, b, c, d, z, dt_bias, states, out if z is not None else None), later


def _chunk_scan(x: Any, dt: Any, a: Any, b: Any, c: Any, d: Any, dt_bias: Any, chunk: int) -> Any:
    """Mamba 2's scan: keeps x, dt, B, C, its result and the sums of dt A in float32. Forward and backward it makes a
    state for each chunk, in float32 and then in C's type, and products C B for pairs within a chunk.

    Shapes are (batch, length, heads, width) and (batch, length, groups, states)."""
    batch, length, heads, width = x.shape
    # Shapes and types alone: what these functions hold is not freed before the graph is.
    device, own, narrow, sides = x.device, x.dtype, c.dtype, (b.shape, c.shape)
    chunks, groups, n = -(-length // chunk), b.shape[2], b.shape[3]

    def empty(*shape: int, dtype: Any = torch.float32) -> Any:
        return torch.empty(shape, dtype=dtype, device=device)

    def made() -> list[Any]:
        return [
            empty(batch, heads, chunks, chunk), empty(batch, chunks, heads, width, n),
            empty(batch, chunks, heads, width, n, dtype=narrow), empty(batch, chunks, groups, chunk, chunk),
        ]  # fmt: skip

    sums = empty(batch, heads, chunks, chunk)
    held = made()
    out = empty(batch, length, heads, width, dtype=own)
    del held

    def later(saved: Any) -> Any:
        return [
            *made(), empty(batch, chunks, heads, width, n, dtype=own), empty(batch, chunks, groups, chunk, chunk),
            empty(*sides[0]), empty(*sides[1]),
        ]  # fmt: skip

    return out, (out, x, dt, sums, a, b, c, d, dt_bias), later


def _delta_rule(q: Any, k: Any, v: Any, g: Any, beta: Any) -> Any:
    """The gated delta rule: keeps normed queries and keys, values, g's sums in float32, beta and, a position,
    a row of its chunk's triangle. Backward: two values a position for the triangle's products, states of all chunks
    and their gradients, new values and their gradient, and float32 or second gradients of keys and values.

    Shapes are (batch, length, heads, width); q and k have as many heads as v here or fewer."""
    batch, length, heads, d_v = v.shape
    device = v.device
    d_k, chunks = k.shape[-1], -(-length // DELTA_CHUNK)

    def empty(*shape: int, dtype: Any = k.dtype) -> Any:
        return torch.empty(shape, dtype=dtype, device=device)

    q, k = empty(*q.shape), empty(*k.shape)
    v = v if v.is_contiguous() else v.contiguous()
    sums = empty(*g.shape, dtype=torch.float32)
    rows = empty(batch, length, heads, DELTA_CHUNK)

    def recomputed() -> list[Any]:
        w, u = empty(batch, length, heads, d_k), empty(batch, length, heads, d_v)
        return [w, u, empty(batch, chunks, heads, d_k, d_v), empty(batch, length, heads, d_v)]

    held = recomputed()
    out = empty(batch, length, heads, d_v)
    del held

    def later(saved: Any) -> Any:
        more = [empty(batch, chunks, heads, d_k, d_v), empty(batch, length, heads, d_v)]
        return [*recomputed(), *more, *(empty(batch, length, heads, d_k) for _ in range(3))]

    return out, (q, k, v, sums, beta, rows), later


class Scans:
    """Stand-ins by the names of transformers' functions; `tracker` counts FLOPs."""

    def __init__(self, tracker: Counter) -> None:
        self.tracker = tracker
        self._known: dict[Any, Flops] = {}

    def _count(self, flops: Mapping[str, int]) -> None:
        for name, number in flops.items():
            self.tracker.add_flops(name, number)

    def _flops(self, reference: Callable[..., Any], *args: Any, **kwargs: Any) -> Flops:
        """FLOPs that torch counts in the reference code, forward and backward, by operator."""
        shapes = tuple((tuple(x.shape), x.requires_grad) for x in args if isinstance(x, torch.Tensor))
        key = reference.__name__, shapes
        if key not in self._known:
            with _disable_current_modes(), torch.enable_grad(), saved_tensors_hooks(_same, _same):
                inner = [_alone(x) for x in args]
                with FlopCounterMode(display=False) as forward:
                    out = reference(*inner, **{name: _alone(x) for name, x in kwargs.items()})
                first = out[0] if isinstance(out, tuple) else out
                with FlopCounterMode(display=False) as backward:
                    if first.requires_grad:
                        first.sum().backward()
            self._known[key] = _counts(forward), _counts(backward)
        return self._known[key]

    def causal_conv1d_fn(
        self, reference: Any, x: Any, weight: Any, bias: Any = None, activation: Any = None, **_: Any
    ) -> Any:
        """A depthwise convolution over time."""
        flops = self._flops(reference, x, weight, bias)
        return _Kernel.apply(_convolution, self._count, flops, x, weight, bias)

    def mamba_selective_scan(
        self, reference: Any, u: Any, dt: Any, A: Any, B: Any, C: Any, D: Any = None, z: Any = None,  # noqa: N803
        delta_bias: Any = None, **_: Any,
    ) -> Any:  # fmt: skip
        """Mamba's scan."""
        batch, width, length = u.shape
        once = FLOPS_PER_MAC * batch * width * length * A.shape[1]
        trained = 2 * once if u.requires_grad or dt.requires_grad else 0
        flops = {"bmm": once}, {"bmm": trained}
        return _Kernel.apply(_selective_scan, self._count, flops, u, dt, A, B, C, D, z, delta_bias)

    def mamba2_chunk_scan(
        self, reference: Any, x: Any, dt: Any, A: Any, B: Any, C: Any, chunk_size: int = 256, D: Any = None,  # noqa: N803
        dt_bias: Any = None, **more: Any,
    ) -> Any:  # fmt: skip
        """Mamba 2's scan."""
        flops = self._flops(reference, x, dt, A, B, C, chunk_size=chunk_size, D=D, dt_bias=dt_bias, **more)

        def rule(*tensors: Any) -> Any:
            return _chunk_scan(*tensors[:7], chunk_size)  # type: ignore[call-arg]

        return _Kernel.apply(rule, self._count, flops, x, dt, A, B, C, D, dt_bias)

    def torch_chunk_gated_delta_rule(
        self, reference: Any, query: Any, key: Any, value: Any, g: Any, beta: Any, **more: Any
    ) -> Any:
        """The gated delta rule."""
        flops = self._flops(reference, query, key, value, g=g, beta=beta, **more)
        return _Kernel.apply(_delta_rule, self._count, flops, query, key, value, g, beta), None


def _same(x: Any) -> Any:
    return x


def _alone(x: Any) -> Any:
    """A tensor of this form with no history."""
    if not isinstance(x, torch.Tensor):
        return x
    return torch.empty_like(x, device="meta").requires_grad_(x.requires_grad)


def _counts(counter: Any) -> dict[str, int]:
    return {
        str(getattr(op, "__name__", op)): int(n)
        for op, n in counter.get_flop_counts().get("Global", {}).items()
    }


NAMES = ("causal_conv1d_fn", "mamba_selective_scan", "mamba2_chunk_scan", "torch_chunk_gated_delta_rule")


@contextmanager
def scan_kernels(model: Any, tracker: Counter) -> Iterator[None]:
    """A model's module with its kernels' functions replaced."""
    stand_ins = Scans(tracker)
    modules = {
        sys.modules[type(m).__module__]
        for m in model.modules()
        if type(m).__module__.startswith("transformers.models")
    }
    replaced = [
        (module, name, getattr(module, name)) for module in modules for name in NAMES if hasattr(module, name)
    ]
    try:
        for module, name, reference in replaced:
            setattr(module, name, _bound(getattr(stand_ins, name), reference))
        yield
    finally:
        for module, name, reference in replaced:
            setattr(module, name, reference)


def _bound(stand_in: Any, reference: Any) -> Any:
    return lambda *args, **kwargs: stand_in(reference, *args, **kwargs)


__all__ = ["scan_kernels"]
