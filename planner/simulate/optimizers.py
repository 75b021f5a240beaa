"""The optimizer's step, run over every trained parameter: its state and its temporaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from ..setup import Setup
from .step import uncollected
from .timeline import Place, Recording, stretches
from .tracker import Tracker

PLACE = Place("optimizer", "step")
QUANTILE_BLOCK = 256  # values that share a scale in an 8-bit optimizer's states
SMALLEST_8BIT = 4096  # bitsandbytes keeps the states of smaller parameters in float32


class _EightBit(torch.optim.Optimizer):  # type: ignore[misc]
    """Holds what bitsandbytes' 8-bit optimizers hold: `states` bytes a value and a float32 scale for 256 of them;
    parameters of fewer than 4096 values keep float32 states. The step itself needs no temporaries."""

    def __init__(self, parameters: Sequence[Any], states: int) -> None:
        super().__init__(parameters, {})
        self.states = states

    def step(self, closure: Any = None) -> None:
        """Make the states at the first step; update in place at later ones."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state[parameter]:
                    continue
                number, small = parameter.numel(), parameter.numel() < SMALLEST_8BIT
                for index in range(self.states):
                    kind = torch.float32 if small else torch.uint8
                    self.state[parameter][f"state{index}"] = parameter.new_empty(number, dtype=kind)
                    if not small:
                        scales = parameter.new_empty(-(-number // QUANTILE_BLOCK), dtype=torch.float32)
                        self.state[parameter][f"scale{index}"] = scales


class _Lion(torch.optim.Optimizer):  # type: ignore[misc]
    """Lion: one momentum of the parameter's type; the sign of its mix with the gradient moves the parameter."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        super().__init__(parameters, {})

    def step(self, closure: Any = None) -> None:
        """p -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g."""
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    self._move(parameter, self.state[parameter])

    def _move(self, parameter: Any, state: dict[str, Any]) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        update = state["momentum"].lerp(parameter.grad, 0.1).sign_()
        parameter.add_(update, alpha=-1e-4)
        state["momentum"].lerp_(parameter.grad, 0.01)


def _muon(parameters: Sequence[Any], setup: Setup) -> list[Any]:
    """Muon for matrices, AdamW for the rest and for the tables at both ends, as its authors use it."""
    matrices = [p for p in parameters if p.dim() == 2 and not getattr(p, "is_end", False)]
    rest = [p for p in parameters if p.dim() != 2 or getattr(p, "is_end", False)]
    found = [torch.optim.Muon(matrices, lr=1e-4)] if matrices else []
    return [*found, *_adamw(rest, setup)] if rest else found


class _AnyNumber(TorchFunctionMode):  # type: ignore[misc]
    """Answers 1.0 where an optimizer reads a number out of tensors that hold none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.item and args[0].device.type == "meta":
            return 1.0
        return func(*args, **(kwargs or {}))


def _adamw(parameters: Sequence[Any], setup: Setup) -> list[Any]:
    kernel = setup.optimizer_kernel
    return [torch.optim.AdamW(parameters, lr=1e-4, fused=kernel == "fused", foreach=kernel == "foreach")]


# AdamW (beside Muon too) as the set-up says, the others as torch chooses for CUDA (foreach), Adafactor in a loop as
# HF's is.
MAKERS: dict[str, Callable[[Sequence[Any], Setup], list[Any]]] = {
    "adamw": _adamw,
    "sgd": lambda p, _: [torch.optim.SGD(p, lr=1e-4, foreach=True)],
    "sgd-momentum": lambda p, _: [torch.optim.SGD(p, lr=1e-4, momentum=0.9, foreach=True)],
    "adafactor": lambda p, _: [torch.optim.Adafactor(p, lr=1e-4, foreach=False)],
    "lion": lambda p, _: [_Lion(p)],
    "adamw-8bit": lambda p, _: [_EightBit(p, 2)],
    "lion-8bit": lambda p, _: [_EightBit(p, 1)],
    "muon": _muon,
}


def optimizer_step(
    parameters: Sequence[Any], setup: Setup, block_bytes: int, ends: Sequence[Any] = ()
) -> tuple[int, int]:
    """Bytes of the states that the optimizer keeps, and the most that a later step takes beyond them.

    `ends` are the weights of embedding and unembedding. Parameters and gradients are counted elsewhere. Under
    "bf16-master" states are those of float32 copies, which count too (a fused kernel reads 16-bit gradients). Paged
    states lie in host memory and count nothing, and bitsandbytes' kernels update in place.
    """
    if setup.optimizer.startswith("paged"):
        return 0, 0
    name = setup.optimizer
    # The fused kernel takes no tensors of the meta device; fake ones of the CPU's are slower for all others.
    fused = name in ("adamw", "muon") and setup.optimizer_kernel == "fused"
    device, mode = ("cpu", FakeTensorMode()) if fused else ("meta", nullcontext())
    masters = setup.precision == "bf16-master"
    with uncollected(), mode, _AnyNumber():
        held = [_like(p, torch.float32 if masters else p.dtype, device) for p in parameters]
        for parameter, like in zip(parameters, held, strict=True):
            like.is_end = any(parameter is end for end in ends)
        tracker = Tracker(block_bytes, device)
        tracker.ignore((*held, *(t.grad for t in held)))
        optimizers = MAKERS[name](held, setup)
        with tracker:
            tracker.enter(PLACE)
            for optimizer in optimizers:
                optimizer.step()
            before = len(tracker.recording.events)
            for optimizer in optimizers:
                optimizer.step()
    events = tracker.recording.events
    state = _bytes(tracker.recording, events[:before])
    later = Recording(tracker.recording.blocks, events[before:], [(0, PLACE)])
    extra = sum(stretches(later, {})[0].here.highest)
    copies = sum(t.numel() * t.element_size() for t in held) if masters else 0
    return state + copies, extra


def _like(parameter: Any, dtype: Any, device: str) -> Any:
    """A parameter of this shape with a gradient."""
    found = torch.empty(parameter.shape, dtype=dtype, device=device).requires_grad_()
    found.grad = torch.empty_like(found)
    return found


def _bytes(recording: Recording, events: Sequence[int]) -> int:
    """Bytes alive after these events."""
    return sum(recording.blocks[abs(e) - 1].bytes * (1 if e > 0 else -1) for e in events)
