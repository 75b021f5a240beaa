"""Stand-ins for quantised Linear modules: the bytes that bitsandbytes and others hold, and the buffers they make.

Weights of 4 bits are packed in bytes, with a scale for each 64 of them; forward and backward dequantise the whole
weight into a temporary of the compute type, as bitsandbytes' MatMul4Bit does, and keep neither it nor the input.
LLM.int8() keeps its input, holds it in 8 bits and the product in 32 while it multiplies, and dequantises for the
backward pass alone. What is kept of inputs is an attribute of the node in the graph, not what autograd saves: it
stays until the graph goes, and no checkpoint and no hook on saved tensors sees it. Sources: bitsandbytes 0.43.1, 0.49
and 0.50.2, autograd/_functions.py (`ctx.tensors`), nn/modules.py; peft 0.21, lora/bnb.py.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.nn import functional

from ..setup import Setup
from .fp8_experts import quantise_experts

BLOCK = 64  # weights that share a scale
NESTED = 256  # scales that share a scale, doubly quantised
CODE_BYTES, NESTED_CODE_BYTES = 64, 1024


class QuantisedLinear(nn.Linear):  # type: ignore[misc]
    """A Linear module whose weight is held quantised: `kind` is nf4, nf4-double, int8 or fp8. `keeps`: what it reads
    is kept for the backward pass, as bitsandbytes before 0.43.2 did."""

    def __init__(
        self, d_in: int, d_out: int, bias: Any, kind: str, compute: Any, *, keeps: bool = False
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.keeps = keeps
        self.in_features, self.out_features = d_in, d_out
        self.kind, self.compute = kind, compute
        number = d_in * d_out
        four = kind.startswith("nf4")
        packed = (-(-number // 2), 1) if four else (d_out, d_in)
        stored = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}.get(kind, torch.uint8)
        self.weight = nn.Parameter(torch.empty(packed, dtype=stored, device="meta"), requires_grad=False)
        self.bias = bias
        blocks = -(-number // BLOCK)
        if kind == "nf4":
            self._hold(absmax=(blocks, torch.float32), code=(CODE_BYTES, torch.uint8))
        elif kind == "nf4-double":
            self._hold(
                absmax=(blocks, torch.uint8), code=(CODE_BYTES, torch.uint8), offset=(1, torch.float32),
                absmax2=(-(-blocks // NESTED), torch.float32), code2=(NESTED_CODE_BYTES, torch.uint8),
            )  # fmt: skip
        else:
            self._hold(scale=(d_out, torch.float32))

    def _hold(self, **buffers: tuple[int, Any]) -> None:
        for name, (number, dtype) in buffers.items():
            self.register_buffer(name, torch.empty(number, dtype=dtype, device="meta"))

    def dequantised(self, dtype: Any) -> Any:
        """The weight as a temporary; doubly quantised scales are made whole first."""
        scales = None
        if self.kind == "nf4-double":
            scales = torch.empty(self.absmax.numel(), dtype=torch.float32, device="meta")
        weight = torch.empty(self.out_features, self.in_features, dtype=dtype, device="meta")
        del scales
        return weight

    @property
    def W_q(self) -> Any:  # noqa: N802
        """The packed weight; by this name PEFT's DoRA knows that it has to call `dequantize`."""
        return self.weight

    def dequantize(self) -> Any:
        """The weight as DoRA reads it: bitsandbytes multiplies 8 bits by their scales in float32."""
        return self.dequantised(torch.float32 if self.kind == "int8" else self.compute)

    def forward(self, x: Any) -> Any:
        """The product in the compute type, given back in the input's."""
        given = x.dtype
        if self.kind == "int8":
            return _Int8.apply(x, self)
        return _Dequantised.apply(x.to(self.compute), self).to(given)


class _Dequantised(torch.autograd.Function):  # type: ignore[misc]
    """x W^T with a dequantised W that is gone afterwards; nothing, or x alone, is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Any, layer: QuantisedLinear) -> Any:
        ctx.layer = layer
        ctx.tensors = x if layer.keeps and ctx.needs_input_grad[0] else None
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return functional.linear(x, layer.dequantised(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return torch.matmul(grad, ctx.layer.dequantised(grad.dtype)), None


class _Int8(torch.autograd.Function):  # type: ignore[misc]
    """x W^T in 8 bits: x is kept, as bitsandbytes keeps it though no weight gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, x: Any, layer: QuantisedLinear) -> Any:
        ctx.layer, ctx.given = layer, x.dtype
        ctx.tensors = x if ctx.needs_input_grad[0] else None
        rows = x.reshape(-1, layer.in_features)
        quantised = torch.empty_like(rows, dtype=torch.int8)
        product = torch.ops.aten._int_mm(quantised, layer.weight.t())
        out = torch.empty(product.shape, dtype=torch.float16, device=x.device).to(x.dtype)
        return out.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return torch.matmul(grad.to(ctx.given), ctx.layer.dequantised(ctx.given)), None


class _Lora4bit(LoraLinear):  # type: ignore[misc]
    """PEFT's LoRA on a 4-bit module: the base's output is cloned, and the pair's output given its type."""

    clones = True
    autocast = False

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        if self.clones:
            result = result.clone()
        for name in self.active_adapters:
            if name not in self.lora_A:
                continue
            expected = result.dtype
            inner = x if self.autocast else self._cast_input_dtype(x, self.lora_A[name].weight.dtype)
            if name in self.lora_variant:
                result = self.lora_variant[name].forward(self, active_adapter=name, x=inner, result=result)
                result = result if self.autocast else result.to(expected)
                continue
            dropped = self.lora_dropout[name](inner)
            out = self.lora_B[name](self.lora_A[name](dropped)) * self.scaling[name]
            result = result + (out if self.autocast else out.to(expected))
        return result


class _Lora8bit(_Lora4bit):
    """The same on an 8-bit module, without the clone."""

    clones = False


def quantise(model: Any, setup: Setup) -> None:
    """Replace the Linear modules that transformers gives to bitsandbytes: all but the output embedding, tied ones,
    the last, and those that the model's code wants in float32 (T5's wo, which stays in the type of the others)."""
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = [*get_keys_to_not_convert(model), *(getattr(model, "_keep_in_fp32_modules", None) or ())]
    model.config._is_quantized = True  # by which some models know that they cannot read weights
    compute = getattr(torch, setup.compute_dtype)
    for name, module in list(model.named_modules()):
        if not should_convert_module(name, kept):
            continue
        if isinstance(module, Conv1D):
            d_in, d_out = module.weight.shape
        elif isinstance(module, nn.Linear):
            d_in, d_out = module.in_features, module.out_features
        else:
            continue
        made = QuantisedLinear(
            d_in, d_out, module.bias, setup.quantize, compute, keeps=setup.quantised_inputs_kept
        )
        model.set_submodule(name, made)
    if setup.quantize_experts:
        quantise_experts(model)


def adapt_quantised(model: Any, setup: Setup) -> None:
    """Give adapted quantised modules the forward that PEFT has for them."""
    for module in model.modules():
        if type(module) is LoraLinear and isinstance(module.base_layer, QuantisedLinear):
            kind = module.base_layer.kind
            if kind != "fp8":
                module.__class__ = _Lora8bit if kind == "int8" else _Lora4bit
                module.autocast = setup.under_autocast
