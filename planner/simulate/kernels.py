"""What CUDA does otherwise than the meta device: fused attention and dropout, autocast's choice of types, experts.

The meta device takes the general path of an operation. Where CUDA has a kernel of its own that keeps other tensors,
the call is turned to a stand-in that allocates what the kernel allocates and counts the FLOPs that torch's counter
counts for it. Source of autocast's lists: pytorch v2.13, aten/src/ATen/autocast_mode.h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .attention import HALVES, attention_kernel, bias_of, flash, fused, math_attention
from .experts import ExpertPairs, Grouped
from .tracker import Tracker

LOWER = frozenset(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d prelu addmm addmv addr matmul "
    "__matmul__ __rmatmul__ einsum mm mv linear addbmm baddbmm bmm chain_matmul scaled_dot_product_attention".split()
)
FLOAT = frozenset(
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__ softplus layer_norm "
    "rms_norm group_norm cosine_similarity nll_loss cross_entropy kl_div l1_loss smooth_l1_loss huber_loss mse_loss "
    "dist cdist logsumexp binary_cross_entropy_with_logits prod softmax log_softmax cumprod cumsum sum norm".split()
)

# What code asks of data that are not there: whether all of them are as usual, whether any is not. Of a mask of
# tokens, which has two dimensions, not all are where some are hidden; those of an image's patches always are.
TOKENS_DIM = 2
SUMS = ("sum", "prod", "cumsum", "cumprod")
SOFTMAXES = (functional.softmax, torch.softmax)
QUESTIONS = {torch.Tensor.all: True, torch.all: True, torch.Tensor.any: False, torch.any: False}
# What has a rule here. All else, most of it the reading of a tensor's shape, runs as it is but for autocast.
RULED = frozenset((
    *SOFTMAXES, *QUESTIONS, functional.scaled_dot_product_attention, functional.dropout, torch._grouped_mm,
    torch.Tensor.__bool__, torch.Tensor.__contains__,
))  # fmt: skip


class CudaKernels(TorchFunctionMode):  # type: ignore[misc]
    """Runs a model's calls as CUDA would run them. `autocast` is the type that autocast lowers to, if it is on.

    `pairs` are adapters on tensors of experts by the storage of the tensor. `masked` says that a mask hides some
    tokens, of sequences of `length`. `compute` is the type of matrix products. `maths`: no fused attention is taken.
    With `cuda` false it only answers questions about data that are not there.
    """

    active: ClassVar[CudaKernels | None] = None

    def __init__(
        self, tracker: Tracker, autocast: Any = None, cuda: bool = True,
        pairs: Mapping[int, ExpertPairs] | None = None, masked: bool = False, compute: Any = torch.bfloat16,
        maths: bool = False, length: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cuda = cuda
        self.pairs = pairs or {}
        self.masked = masked
        self.compute = compute
        self.maths = maths
        self.length = length
        self.tracker = tracker
        self.autocast = autocast
        self.casting = False
        self.asks = True
        self._cast: dict[int, tuple[Any, Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in RULED and not self.casting:
            return func(*args, **kwargs)
        # Rotations switch autocast off, by a way that the meta device does not have; they alone ask for no gradient.
        widens = self.cuda and func in SOFTMAXES and self._widens(args[0], kwargs)
        if self.casting and not widens and (torch.is_grad_enabled() or not self.asks):
            name = getattr(func, "__name__", "")
            if name in LOWER:
                args, kwargs = self._all(args, kwargs, self._lower)
            elif name in SUMS and "dtype" not in kwargs and args and _is_half(args[0]):
                kwargs = {**kwargs, "dtype": torch.float32}  # in one kernel, without a copy
            elif name == "cross_entropy" and _is_half(args[0]):
                return _cross_entropy(*args, **kwargs)
            elif name in FLOAT and kwargs.get("dtype") is None:  # one that is told its type keeps to it
                args, kwargs = self._all(args, kwargs, _raise)
        if self.cuda and func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if widens:
            return torch._softmax(args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1), True)
        if self.cuda and func is functional.dropout:
            return _dropout(*args, **kwargs)
        if func is torch._grouped_mm and args[0].device.type == "meta":
            return self._experts(*args, **kwargs)
        if func in QUESTIONS and len(args) == 1 and not kwargs and args[0].device.type == "meta":
            tokens = args[0].dim() == TOKENS_DIM and args[0].shape[-1] == self.length
            hides = self.masked and tokens and QUESTIONS[func]
            return torch.tensor(QUESTIONS[func] and not hides)
        if func in (torch.Tensor.__bool__, torch.Tensor.__contains__) and args[0].device.type == "meta":
            return func is torch.Tensor.__bool__ and not self.masked
        return func(*args, **kwargs)

    def _widens(self, x: Any, given: Mapping[str, Any]) -> bool:
        """Whether CUDA's softmax reads float16 and writes float32: where it is told so, by code or by autocast."""
        told = given.get("dtype") or (
            torch.float32 if self.casting and (torch.is_grad_enabled() or not self.asks) else None
        )
        return bool(x.dtype == torch.float16 and told == torch.float32)

    def _experts(self, rows: Any, weight: Any, offs: Any = None, **more: Any) -> Any:
        """A grouped product, and the pairs on its tensor of experts."""
        if rows.dtype == torch.bfloat16:
            out = torch._grouped_mm(rows, weight, offs=offs, **more)
        else:
            out = Grouped.apply(rows, weight, self.tracker)
        pairs = self.pairs.get(weight.untyped_storage()._cdata)
        return out if pairs is None else pairs.add(rows, out, self.tracker, self.casting)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """In a forward pass, or a part of one that runs again: autocast is on, and forgets its casts at the end."""
        self.casting, CudaKernels.active = self.autocast is not None, self
        try:
            with _autocast_asked(self):
                yield
        finally:
            self.casting, CudaKernels.active = False, None
            self._cast.clear()

    def forget(self) -> None:
        """Autocast left and entered again, as where accelerate wraps each call of a model: no cast is kept."""
        self._cast.clear()

    @contextmanager
    def ungraded(self) -> Iterator[None]:
        """In a part of a forward pass that asks for no gradient, as the first run of a reentrant checkpoint."""
        was, self.asks = self.asks, False
        try:
            yield
        finally:
            self.asks = was

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        """With autocast switched on or off for a while."""
        was, self.casting = self.casting, on and self.autocast is not None
        try:
            yield
        finally:
            self.casting = was

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
        kernel = "math" if self.maths else attention_kernel(query, key, value, attn_mask, enable_gqa)
        if kernel == "math" and dropout_p > 0:
            return math_attention(query, key, value, attn_mask, dropout_p, is_causal)
        if kernel == "math":
            return torch.ops.aten._scaled_dot_product_attention_math(
                query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
            )[0]
        if attn_mask is not None:
            attn_mask = bias_of(attn_mask, query, key)
            attn_mask = attn_mask.expand(*query.shape[:3], attn_mask.shape[-1])
        return fused(self.tracker, query, key, value, attn_mask, kernel)


def _each(x: Any, cast: Callable[[Any], Any]) -> Any:
    if isinstance(x, torch.Tensor):
        return cast(x)
    return type(x)(_each(item, cast) for item in x) if type(x) in (tuple, list) else x


def _is_half(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype in HALVES


def _raise(x: Any) -> Any:
    return x.float() if x.dtype in HALVES else x


def _cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """As under autocast, which leaves log-softmax the logits' type, since it is told it, and makes the result float32
    for the likelihood."""
    wide = torch._log_softmax(input, 1, False).float()
    return functional.nll_loss(wide, target, weight, ignore_index=ignore_index, reduction=reduction)


def _dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """CUDA's fused dropout keeps a mask of one byte a value; the general path keeps one of the input's type."""
    if not training or p == 0.0:
        return input
    return torch.native_dropout(input, p, True)[0]


@contextmanager
def _autocast_asked(kernels: CudaKernels) -> Iterator[None]:
    """What code does with torch.autocast on the meta device, which has none, it does with ours."""
    enabled, context = torch.is_autocast_enabled, torch.autocast

    def is_enabled(device_type: str = "meta") -> bool:
        return kernels.casting if device_type in ("meta", "cuda") else bool(enabled(device_type))

    def switch(device_type: str, *args: Any, enabled: bool = True, **kwargs: Any) -> Any:
        if device_type != "meta":
            return context(device_type, *args, enabled=enabled, **kwargs)
        return kernels.switched(enabled)

    torch.is_autocast_enabled, torch.autocast = is_enabled, switch
    try:
        yield
    finally:
        torch.is_autocast_enabled, torch.autocast = enabled, context


def flash_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any
) -> tuple[Any, None]:
    """transformers' attention function that stands for the flash-attn package."""
    kernels = CudaKernels.active
    if kernels is None:
        raise RuntimeError("the stand-in for flash attention runs inside a simulation only")
    dtype = kernels.autocast or next(
        (p.dtype for p in module.parameters() if p.dtype in HALVES), kernels.compute
    )
    return flash(kernels.tracker, query, key, value, dtype, kwargs.get("cu_seq_lens_q")), None
