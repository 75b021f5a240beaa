"""Fused attention as CUDA's kernels run it: what they keep for the backward pass and hold while they run.

Sources: pytorch v2.13, aten/src/ATen/native/transformers/cuda/{sdp_utils.cpp, attention.cu, attention_backward.cu,
flash_attn/flash_api.cpp}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from torch.nn import functional
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from ..memory.bias import ALIGNED

HALVES = (torch.float16, torch.bfloat16)
FLASH_MOST = 256  # widest head of the flash kernel


class Results:
    """Whether the results of fused attention are being made, which a policy of checkpointing may look for, and
    whether they were kept of a first run, so that the second one computes nothing."""

    made = False
    kept = False

    @contextmanager
    def are(self, what: Literal["made", "kept"]) -> Iterator[None]:
        """While they are made, or a layer runs again of which they were kept."""
        setattr(self, what, True)
        try:
            yield
        finally:
            setattr(self, what, False)


RESULTS = Results()


class Counter(Protocol):
    """Takes counts of FLOPs."""

    def add_flops(self, operator: str, count: int) -> None:
        """Count FLOPs of an operator."""


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """Fused attention: keeps q, k, v, the output and the log of each row's sum; nothing of size seq_len^2.

    Shapes are (batch, heads, length, width). The output lies as (batch, length, heads, width), as the kernels write
    it.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: str, tracker: Counter, q: Any, k: Any, v: Any, bias: Any, lengths: Any
    ) -> Any:  # fmt: skip
        batch, heads, length, _ = q.shape
        rows = length if kernel == "flash" else -(-length // 32) * 32
        with RESULTS.are("made"):
            out = q.new_empty(batch, length, heads, v.shape[-1])
            log_sums = q.new_empty(batch, heads, rows, dtype=torch.float32)
        out = out.transpose(1, 2)
        ctx.save_for_backward(q, k, v, out, log_sums, bias)
        ctx.kernel, ctx.tracker, ctx.lengths = kernel, tracker, lengths
        flops = _in_pieces(sdpa_flop_count(q.shape, _wide(k, heads), _wide(v, heads)), length, lengths)
        if not RESULTS.kept:
            tracker.add_flops(f"_scaled_dot_product_{kernel}_attention", int(flops))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        q, k, v, out, _, bias = ctx.saved_tensors
        heads = q.shape[1]
        flops = sdpa_backward_flop_count(grad.shape, q.shape, _wide(k, heads), _wide(v, heads))
        flops = _in_pieces(flops, q.shape[2], ctx.lengths)
        ctx.tracker.add_flops(f"_scaled_dot_product_{ctx.kernel}_attention_backward", int(flops))
        grads = [x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v)]
        scratch = (_flash_scratch if ctx.kernel == "flash" else _efficient_scratch)(q, k, out)
        del scratch
        wanted = bias is not None and ctx.needs_input_grad[5]
        d_bias = bias.new_empty(bias.shape) if wanted else None  # of every sequence, summed afterwards
        return None, None, *grads, d_bias, None


def _in_pieces(flops: int, length: int, lengths: Any) -> int:
    """FLOPs where positions meet those of their own piece alone, of these lengths; all where there are none."""
    return int(flops) if lengths is None else int(flops) // length**2 * sum(each**2 for each in lengths)


def _wide(x: Any, heads: int) -> tuple[int, ...]:
    """The shape of keys or values as if every head had its own."""
    return (x.shape[0], heads, *x.shape[2:])


def _round(number: int, to: int) -> int:
    return -(-number // to) * to


def _flash_scratch(q: Any, k: Any, out: Any) -> list[Any]:
    """What the flash backward holds while it runs: a float32 a row and the query's gradient in float32, lengths
    rounded to 128 and widths to 32 (64 above 128); with grouped heads, keys' and values' gradients for every query
    head."""
    batch, heads, length, width = q.shape
    rows, wide = _round(length, 128), _round(width, 32 if width <= 128 else 64)
    scratch = [
        q.new_empty(batch, heads, rows, dtype=torch.float32),
        q.new_empty(batch, rows, heads, wide, dtype=torch.float32),
    ]
    if k.shape[1] != heads:
        scratch += [k.new_empty(batch, k.shape[2], heads, width) for _ in range(2)]
    return scratch


def _efficient_scratch(q: Any, k: Any, out: Any) -> list[Any]:
    """What the memory-efficient backward holds: a float32 a row (in float32 by way of a whole product of output and
    gradient) and the query's gradient in float32, rounded to its tiles of 64. Neglects the accumulators of keys and
    values that heads wider than 128 take: 64 rows a head where keys are not split."""
    batch, heads, length, width = q.shape
    if q.dtype == torch.float32:
        torch.empty_like(out)  # made and freed before the rest
    return [
        q.new_empty(batch, heads, length, dtype=torch.float32),
        q.new_empty(batch, heads, _round(length, 64), _round(width, 64), dtype=torch.float32),
    ]


def attention_kernel(q: Any, k: Any, v: Any, mask: Any, grouped: bool) -> str:
    """The kernel that scaled_dot_product_attention takes on an Ampere or newer GPU: flash for 16-bit types without a
    mask where the widths agree, and heads too unless they are said to be `grouped`; else memory-efficient where every
    head has its keys, else math."""
    same, each = q.shape[-1] == k.shape[-1] == v.shape[-1], q.shape[1] == k.shape[1]
    if q.dtype in HALVES and mask is None and same and q.shape[-1] <= FLASH_MOST and (each or grouped):
        return "flash"
    if each:
        return "efficient"
    return "math"


def math_attention(q: Any, k: Any, v: Any, mask: Any, dropout: float, causal: bool) -> Any:
    """Attention by products in float32, as aten's _scaled_dot_product_attention_math makes it, with CUDA's dropout,
    which keeps a byte a value where the meta device's keeps a float."""
    width, dtype = math.sqrt(1 / math.sqrt(q.shape[-1])), q.dtype
    if causal:
        mask = q.new_ones(q.shape[2], k.shape[2], dtype=torch.bool)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=dtype, device=q.device))
    if dtype in HALVES:
        q, k, v = q.float(), k.float(), v.float()
    copies = q.shape[1] // k.shape[1]
    if 1 < copies < q.shape[1]:
        k, v = k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)
    scores = (q * width) @ (k.transpose(-2, -1) * width)
    if mask is not None:
        scores.add_(mask)
    chances = torch.native_dropout(torch.softmax(scores, -1), dropout, True)[0]
    return (chances @ v).to(dtype)


def bias_of(mask: Any, q: Any, k: Any) -> Any:
    """A mask as the memory-efficient kernel takes it: additive, in the query's type, rows padded to ALIGNED
    values."""
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=q.dtype, device=q.device))
    rest = -mask.shape[-1] % ALIGNED
    if rest:
        mask = functional.pad(mask, (0, rest))[..., : k.shape[2]]
    return mask


def fused(
    tracker: Counter, q: Any, k: Any, v: Any, bias: Any = None, kernel: str = "flash", lengths: Any = None
) -> Any:
    """Fused attention; widths that are no multiple of 8 are padded first, as the flash kernel wants them."""
    width = v.shape[-1]
    if kernel == "flash" and width % 8:
        q, k, v = (functional.pad(x, (0, -width % 8)) for x in (q, k, v))
    out = _Attention.apply(kernel, tracker, q, k, v, bias, lengths)
    return out[..., :width] if out.shape[-1] != width else out


def flash(tracker: Counter, q: Any, k: Any, v: Any, dtype: Any, ends: Any = None) -> Any:
    """Attention as the flash-attn package is called by transformers: in 16 bits, values padded to the width of the
    queries; the output is (batch, length, heads, width). `ends` are those of pieces, from 0, as a tower's images and
    windows have them."""
    known = ends is not None and ends.device.type != "meta"
    lengths = (ends[1:] - ends[:-1]).tolist() if known else None
    if q.dtype == torch.float32:
        q, k, v = (x.to(dtype) for x in (q, k, v))
    width = v.shape[-1]
    if width != q.shape[-1]:
        v = functional.pad(v, (0, q.shape[-1] - width))
    out = fused(tracker, q, k, v, lengths=lengths).transpose(1, 2)
    return out[..., :width] if out.shape[-1] != width else out
