"""The optimizer's step, run over every trained parameter: its state and its temporaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..dataclass import dataclass
from ..memory.optimizers import wide_tables
from ..setup import Setup
from .requests import Request
from .step import uncollected
from .timeline import Block, Place, Recording, stretches
from .tracker import Tracker

PLACE = Place("optimizer", "step")
QUANTILE_BLOCK = 256  # values that share a scale in an 8-bit optimizer's states
SMALLEST_8BIT = 4096  # bitsandbytes keeps the states of smaller parameters in float32


class _EightBit(torch.optim.Optimizer):  # type: ignore[misc]
    """Holds what bitsandbytes' 8-bit optimizers hold: `states` bytes a value and a float32 scale for 256 of them;
    parameters of fewer than 4096 values keep float32 states, and so do those that are `wide`. The step itself needs
    no temporaries."""

    def __init__(self, parameters: Sequence[Any], states: int) -> None:
        super().__init__(parameters, {})
        self.states = states

    def step(self, closure: Any = None) -> None:
        """Make the states at the first step; update in place at later ones."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if self.state[parameter]:
                    continue
                number = parameter.numel()
                small = number < SMALLEST_8BIT or parameter.wide
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


class _OnCpu(torch.Tensor):  # type: ignore[misc]
    """A tensor that says it is the CPU's and holds nothing: torch's fused kernels take none of the meta device."""

    @staticmethod
    def __new__(cls, shape: Any, dtype: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device="cpu")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Another like it, or nothing where an operator works in place."""
        if func in (torch.ops.aten.zeros_like.default, torch.ops.aten.empty_like.default):
            return cls(args[0].shape, (kwargs or {}).get("dtype") or args[0].dtype)
        return NotImplemented if func._schema.returns else None


def _by_muon(parameter: Any, ends: Sequence[Any]) -> bool:
    """Muon is for matrices, but for the tables at both ends, as its authors use it."""
    return parameter.dim() == 2 and not any(parameter is end for end in ends)


def _kind(parameter: Any) -> tuple[Any, Any]:
    return tuple(parameter.shape), parameter.dtype


def _neighbours(matrices: Sequence[Any]) -> list[Any]:
    """Every two neighbours of different kinds or places once, for one matrix alone that one: Muon takes one after the
    other, all alike, and what it takes beside its states depends on no more than the matrix and the one before."""
    found = {(_kind(a), _kind(b)): (a, b) for a, b in pairwise(matrices)}
    return [each for pair in found.values() for each in pair] or list(matrices)


def _muon(parameters: Sequence[Any], setup: Setup) -> list[Any]:
    """Muon where it is used, two at a time, and AdamW for the rest."""
    matrices, rest = ([p for p in parameters if p.by_muon is each] for each in (True, False))
    groups = [{"params": matrices[i : i + 2]} for i in range(0, len(matrices), 2)]
    found = [torch.optim.Muon(groups, lr=1e-4)] if matrices else []
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


def _adafactor(parameters: Sequence[Any]) -> Any:
    """As HF's Trainer makes it (trainer.py, get_optimizer_cls_and_kwargs)."""
    from transformers.optimization import Adafactor

    return Adafactor(parameters, lr=1e-4, scale_parameter=False, relative_step=False)


# AdamW (beside Muon too) as the set-up says, the others as torch chooses for CUDA (foreach), Adafactor in a loop.
MAKERS: dict[str, Callable[[Sequence[Any], Setup], list[Any]]] = {
    "adamw": _adamw,
    "sgd": lambda p, _: [torch.optim.SGD(p, lr=1e-4, foreach=True)],
    "sgd-momentum": lambda p, _: [torch.optim.SGD(p, lr=1e-4, momentum=0.9, foreach=True)],
    "adafactor": lambda p, _: [_adafactor(p)],
    "lion": lambda p, _: [_Lion(p)],
    "adamw-8bit": lambda p, _: [_EightBit(p, 2)],
    "lion-8bit": lambda p, _: [_EightBit(p, 1)],
    "muon": _muon,
}


@dataclass(frozen=True)
class Update:
    """The optimizer's step: bytes of the states that it keeps and the most that a later step takes beyond them; the
    requests of its `first` step and of a `later` one, and the `apart` bytes of what it holds beside, each: float32
    copies, and the states of matrices that did not run."""

    state_bytes: int
    extra_bytes: int
    first: tuple[Request, ...] = ()
    later: tuple[Request, ...] = ()
    apart: tuple[int, ...] = ()


def optimizer_step(
    parameters: Sequence[Any], setup: Setup, block_bytes: int, ends: Sequence[Any] = ()
) -> Update:
    """The update of trained parameters, as a first and as a later step make it.

    `ends` are the weights of embedding and unembedding. Parameters and gradients are counted elsewhere. With
    masters states are those of float32 copies, which count too (a fused kernel reads 16-bit gradients). Paged
    states lie in host memory and count nothing, and bitsandbytes' kernels update in place.
    """
    if setup.optimizer.startswith("paged"):
        return Update(0, 0)
    fused = setup.optimizer in ("adamw", "muon") and setup.optimizer_kernel == "fused"
    masters = setup.masters
    matrices = [p for p in parameters if setup.optimizer == "muon" and _by_muon(p, ends)]
    by_muon = set(map(id, matrices))
    tables = len(ends) > 0 and wide_tables(setup)
    run = [*(p for p in parameters if id(p) not in by_muon), *_neighbours(matrices)]
    with uncollected(), _AnyNumber():
        held = []
        for parameter in run:
            muon = id(parameter) in by_muon
            held.append(_like(parameter, torch.float32 if masters else parameter.dtype, fused and not muon))
            held[-1].by_muon = muon
            held[-1].wide = tables and parameter is ends[0]
        tracker = Tracker(block_bytes, *(("meta", "cpu") if fused else ("meta",)))
        tracker.ignore((*held, *(t.grad for t in held)))
        optimizers = MAKERS[setup.optimizer](held, setup)
        with tracker:
            tracker.enter(PLACE)
            for optimizer in optimizers:
                optimizer.step()
            before = len(tracker.recording.events)
            for optimizer in optimizers:
                optimizer.step()
    blocks, events = tracker.recording.blocks, tuple(tracker.recording.events)
    like = dict(zip(map(_kind, run), held, strict=True))
    others = _of_others(matrices, run, like, optimizers[0], block_bytes) if matrices else []
    later = Recording(blocks, list(events[before:]), [(0, PLACE)])
    copies = [4 * p.numel() for p in parameters] if masters else []
    return Update(
        _bytes(tracker.recording, events[:before]) + sum(others) + sum(copies),
        sum(stretches(later, {})[0].here.highest),
        tuple(_requests(blocks, events[:before])), tuple(_requests(blocks, events[before:])),
        (*copies, *(each for each in others if each > 0)),
    )  # fmt: skip


def _requests(blocks: Sequence[Block], events: Sequence[int]) -> Iterator[Request]:
    """Events as requests."""
    for event in events:
        yield ("optimizer", abs(event)), blocks[event - 1].bytes if event > 0 else 0


def _of_others(
    matrices: Sequence[Any], run: Sequence[Any], like: Mapping[Any, Any], optimizer: Any, block_bytes: int
) -> list[int]:
    """Bytes of each state of the matrices that did not run; negative where more ran than are there."""
    number = Counter(map(_kind, matrices))
    number.subtract(Counter(map(_kind, run[-len(_neighbours(matrices)) :])))
    return [
        (1 if times > 0 else -1) * -(-tensor.numel() * tensor.element_size() // block_bytes) * block_bytes
        for kind, times in number.items() for tensor in optimizer.state[like[kind]].values()
        for _ in range(abs(times))
    ]  # fmt: skip


def _like(parameter: Any, dtype: Any, on_cpu: bool) -> Any:
    """A parameter of this shape with a gradient."""
    shape = parameter.shape
    found = _OnCpu(shape, dtype) if on_cpu else torch.empty(shape, dtype=dtype, device="meta")
    found.requires_grad_().grad = torch.empty_like(found)
    return found


def _bytes(recording: Recording, events: Sequence[int]) -> int:
    """Bytes alive after these events."""
    return sum(recording.blocks[abs(e) - 1].bytes * (1 if e > 0 else -1) for e in events)
