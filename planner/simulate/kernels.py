"""What CUDA does otherwise than the meta device: fused attention, fused dropout, autocast's choice of types.

The meta device takes the general path of an operation. Where CUDA has a kernel of its own that keeps other tensors,
the call is turned to a stand-in that allocates what the kernel allocates and counts the FLOPs that torch's counter
counts for it. Sources: pytorch v2.13, aten/src/ATen/native/transformers/cuda/{sdp_utils.cpp, attention.cu,
attention_backward.cu, flash_attn/flash_api.cpp}, aten/src/ATen/autocast_mode.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from .tracker import Tracker

HALVES = (torch.float16, torch.bfloat16)
FLASH_MOST = 256  # widest head of the flash kernel
LOWER = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv addr matmul __matmul__ "
    "__rmatmul__ einsum mm mv linear addbmm baddbmm bmm chain_matmul scaled_dot_product_attention".split()
)
FLOAT = frozenset(
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ softplus layer_norm "
    "rms_norm group_norm cosine_similarity nll_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss dist cdist "
    "logsumexp binary_cross_entropy_with_logits cross_entropy prod softmax log_softmax cumprod cumsum sum norm".split()
)


# What code asks of data that are not there: whether every token is a token, whether any is padding.
QUESTIONS = {torch.Tensor.all: True, torch.all: True, torch.Tensor.any: False, torch.any: False}


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """Fused attention: keeps q, k, v, the output and the log of each row's sum; nothing of size seq_len^2.

    Shapes are (batch, heads, length, width). The output lies as (batch, length, heads, width), as the kernels write
    it.
    """

    @staticmethod
    def forward(ctx: Any, kernel: str, tracker: Tracker, q: Any, k: Any, v: Any, bias: Any) -> Any:
        batch, heads, length, _ = q.shape
        out = q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)
        rows = length if kernel == "flash" else -(-length // 32) * 32
        log_sums = q.new_empty(batch, heads, rows, dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, log_sums, bias)
        ctx.kernel, ctx.tracker = kernel, tracker
        flops = sdpa_flop_count(q.shape, _wide(k, heads), _wide(v, heads))
        tracker.add_flops(f"_scaled_dot_product_{kernel}_attention", int(flops))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        q, k, v, out, log_sums, bias = ctx.saved_tensors
        heads = q.shape[1]
        flops = sdpa_backward_flop_count(grad.shape, q.shape, _wide(k, heads), _wide(v, heads))
        ctx.tracker.add_flops(f"_scaled_dot_product_{ctx.kernel}_attention_backward", int(flops))
        scratch = (_flash_scratch if ctx.kernel == "flash" else _efficient_scratch)(q, k, v, log_sums)
        grads = [x.new_empty(x.transpose(1, 2).shape).transpose(1, 2) for x in (q, k, v)]
        del scratch
        d_bias = torch.empty_like(bias) if bias is not None and ctx.needs_input_grad[5] else None
        return None, None, *grads, d_bias


def _wide(x: Any, heads: int) -> tuple[int, ...]:
    """The shape of keys or values as if every head had its own."""
    return (x.shape[0], heads, *x.shape[2:])


def _round(number: int, to: int) -> int:
    return -(-number // to) * to


def _flash_scratch(q: Any, k: Any, v: Any, log_sums: Any) -> list[Any]:
    """What the flash backward holds while it runs: the row sums and the query's gradient in float32, lengths rounded
    to 128 and widths to 32; with grouped heads, gradients of keys and values for every query head."""
    batch, heads, length, width = q.shape
    rows, wide = _round(length, 128), _round(width, 32)
    scratch = [
        q.new_empty(batch, heads, rows, dtype=torch.float32),
        q.new_empty(batch, rows, heads, wide, dtype=torch.float32),
    ]
    if k.shape[1] != heads:
        scratch += [k.new_empty(batch, k.shape[2], heads, width) for _ in range(2)]
    return scratch


def _efficient_scratch(q: Any, k: Any, v: Any, log_sums: Any) -> list[Any]:
    """What the memory-efficient backward holds: the row sums of output times gradient, in float32, and where values
    are 16-bit and wider than one tile (128), float32 accumulators of the query's gradient."""
    scratch = [q.new_empty(log_sums.shape, dtype=torch.float32)]
    if q.dtype != torch.float32 and max(q.shape[-1], v.shape[-1]) > 128:
        scratch.append(q.new_empty(q.shape, dtype=torch.float32))
    return scratch


class CudaKernels(TorchFunctionMode):  # type: ignore[misc]
    """Runs a model's calls as CUDA would run them. `autocast` is the type that autocast lowers to, if it is on.

    With `cuda` false it only answers questions about data that are not there.
    """

    def __init__(self, tracker: Tracker, autocast: Any = None, cuda: bool = True) -> None:
        super().__init__()
        self.cuda = cuda
        self.tracker = tracker
        self.autocast = autocast
        self._casting = False
        self._cast: dict[int, tuple[Any, Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._casting and torch.is_grad_enabled():
            name = getattr(func, "__name__", "")
            if name in LOWER:
                args, kwargs = self._all(args, kwargs, self._lower)
            elif name in FLOAT:
                args, kwargs = self._all(args, kwargs, _raise)
        if self.cuda and func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if self.cuda and func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func in QUESTIONS and len(args) == 1 and not kwargs and args[0].device.type == "meta":
            return torch.tensor(QUESTIONS[func])
        return func(*args, **kwargs)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """In a forward pass, or a part of one that runs again: autocast is on, and forgets its casts at the end."""
        self._casting = self.autocast is not None
        try:
            yield
        finally:
            self._casting = False
            self._cast.clear()

    def _all(self, args: Any, kwargs: Any, cast: Callable[[Any], Any]) -> tuple[Any, dict[str, Any]]:
        return tuple(_each(x, cast) for x in args), {name: _each(x, cast) for name, x in kwargs.items()}

    def _lower(self, x: Any) -> Any:
        """A floating tensor in autocast's type; the cast of a trained leaf is kept until the context is left."""
        if x.dtype == self.autocast or not x.is_floating_point() or x.dtype == torch.float64:
            return x
        if not (x.is_leaf and x.requires_grad and x.dtype == torch.float32):
            return x.to(self.autocast)
        if id(x) not in self._cast:
            self._cast[id(x)] = x, x.to(self.autocast)
        return self._cast[id(x)][1]

    def _attention(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        kernel = attention_kernel(query, key, value, attn_mask, enable_gqa)
        if kernel == "math":
            return torch.ops.aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
            )[0]
        if attn_mask is not None:
            attn_mask = _bias(attn_mask, query, key)
        return flash(self.tracker, query, key, value, attn_mask, kernel)


def _each(x: Any, cast: Callable[[Any], Any]) -> Any:
    if isinstance(x, torch.Tensor):
        return cast(x)
    return type(x)(_each(item, cast) for item in x) if type(x) in (tuple, list) else x


def _raise(x: Any) -> Any:
    return x.float() if x.dtype in HALVES else x


def attention_kernel(q: Any, k: Any, v: Any, mask: Any, grouped: bool) -> str:
    """The kernel that scaled_dot_product_attention takes on an Ampere or newer GPU: flash for 16-bit types without a
    mask where the widths agree, else memory-efficient where every head has its keys, else math."""
    same = q.shape[-1] == k.shape[-1] == v.shape[-1]
    if q.dtype in HALVES and mask is None and same and q.shape[-1] <= FLASH_MOST:
        return "flash"
    if not grouped or q.shape[1] == k.shape[1]:
        return "efficient"
    return "math"


def _bias(mask: Any, q: Any, k: Any) -> Any:
    """A mask as the memory-efficient kernel takes it: additive, in the query's type, rows padded to a multiple of 16
    bytes."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(mask.logical_not(), -math.inf)
    step = 16 // mask.element_size()
    rest = -mask.shape[-1] % step
    if rest:
        mask = functional.pad(mask, (0, rest))[..., : k.shape[2]]
    return mask


def flash(tracker: Tracker, q: Any, k: Any, v: Any, bias: Any = None, kernel: str = "flash") -> Any:
    """Fused attention; widths that are no multiple of 8 are padded first, as the flash kernel wants them."""
    width = v.shape[-1]
    if kernel == "flash" and width % 8:
        q, k, v = (functional.pad(x, (0, -width % 8)) for x in (q, k, v))
    out = _Attention.apply(kernel, tracker, q, k, v, bias)
    return out[..., :width]


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """CUDA's fused dropout keeps a mask of one byte a value; the general path keeps one of the input's type."""
    if not training or p == 0.0:
        return input
    return torch.native_dropout(input, p, True)[0]
