"""Watches a step run: every storage that is allocated and freed, at which layer, and the FLOPs of each operator.

Works on tensors of the meta device (nothing is computed, nothing is held) and, to check it, on real ones.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..architecture.meta.shapes import result
from .timeline import ACTIVATIONS, Block, Place, Recording

_sequence: Callable[[], int] = torch._C._autograd._get_sequence_nr
_node: Callable[[], Any] = torch._C._current_autograd_node
_ACCUMULATE = 2**63  # AccumulateGrad nodes are numbered past any other: they belong to whatever runs


def _grouped_flops(a: Any, b: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """2 FLOPs per multiply-add of a grouped product: every row meets one group's matrix."""
    rows, inner = a.shape[-2:]
    return int(2 * rows * inner * b.shape[-1])


def _int_flops(a: Any, b: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """2 FLOPs per multiply-add of a product of integers."""
    return int(2 * a.shape[0] * a.shape[1] * b.shape[1])


# torch's counter leaves out grouped and integer products, and those that are added in place.
FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry, torch.ops.aten._grouped_mm: _grouped_flops, torch.ops.aten._int_mm: _int_flops,
    torch.ops.aten.addmm_: flop_registry[torch.ops.aten.addmm],
}  # fmt: skip


# Formulas by the ids of operations that ran, kept beside them: torch works out an operation's hash in Python.
_formulas: dict[int, tuple[Any, Callable[..., int] | None]] = {}


def _formula(func: Any) -> Callable[..., int] | None:
    """What counts an operation's FLOPs, where something does."""
    number = id(func)
    if number not in _formulas:
        _formulas[number] = func, FLOPS.get(func._overloadpacket)
    return _formulas[number][1]


SOFTMAX_BACK = torch.ops.aten._softmax_backward_data.default
ADD = torch.ops.aten.add.Tensor


class Uncompiled(TorchDispatchMode):  # type: ignore[misc]
    """A mode that torch need not keep its compiler out of at every operation: nothing is compiled here."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Tracker(Uncompiled):
    """Records a step. Storages known before it starts are given to `ignore`; they are counted elsewhere.

    A storage is known by weak reference, so that watching it does not keep it. In the backward pass the place is
    that of the forward in which the running autograd node was made, which its sequence number tells.
    """

    def __init__(self, block_bytes: int = 1, *devices: str) -> None:
        super().__init__()
        self.devices = devices or ("meta",)
        self.recording = Recording()
        self.block_bytes = block_bytes
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._ignored: dict[int, Any] = {}
        self._starts: list[int] = []
        self._places: list[Place] = []
        self._here: Place | None = None
        self._outside = False
        self._recomputing = False
        self._alone = sole_owner()
        self.cuda = True
        self.counts = True  # FLOPs: not those of what comes before the step

    # -- places ------------------------------------------------------------------------------------------------

    def enter(self, place: Place) -> None:
        """From here on the step stands at `place`; autograd nodes made from now on belong to it."""
        self._starts.append(_sequence())
        self._places.append(place)
        if not self._recomputing:
            self._stand(place)

    @property
    def place(self) -> Place:
        """Where the step stands."""
        assert self._here is not None
        return self._here

    def _stand(self, place: Place) -> None:
        if place != self._here:
            self._here = place
            self.recording.marks.append((len(self.recording.events), place))

    def _follow(self) -> None:
        """Stand where the running autograd node was made."""
        node = _node()
        if node is None or self._recomputing:
            return
        number = node._sequence_nr()
        if number < _ACCUMULATE:
            made = self._places[max(0, bisect_right(self._starts, number) - 1)]
            self._stand(made._replace(phase="backward"))

    # -- memory ------------------------------------------------------------------------------------------------

    def ignore(self, tensors: Iterable[Any]) -> None:
        """Leave these tensors' storages out of the recording, and keep them alive while it runs."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._ignored[storage._cdata] = storage

    def see(self, tensor: Any) -> int | None:
        """Record a tensor's storage where it is new; its block's number, or None where it is ignored."""
        if tensor.device.type not in self.devices:
            return None
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._alive.get(key)
        if known is not None:
            return known[1]
        if key in self._ignored or self._here is None:
            return None
        record = self.recording
        number = len(record.blocks)
        size = -(-storage.nbytes() // self.block_bytes) * self.block_bytes
        record.blocks.append(Block(size, self._here))
        record.events.append(number + 1)

        def gone(_: Any) -> None:
            del self._alive[key]
            record.events.append(-number - 1)

        self._alive[key] = weakref.ref(storage, gone), number
        return number

    def label(self, tensor: Any, part: int) -> None:
        """Say what a tensor's memory counts as."""
        number = self.see(tensor)
        if number is not None:
            self.recording.blocks[number].part = part

    def label_alive(self, since: int = 0) -> None:
        """What is alive and has no label yet is kept for the backward pass: activations."""
        for _, number in self._alive.values():
            block = self.recording.blocks[number]
            if number >= since and block.part is None:
                block.part = ACTIVATIONS

    @contextmanager
    def recompute(self) -> Iterator[None]:
        """A checkpointed layer runs its forward again: what is alive when it is left are activations."""
        since, self._recomputing = len(self.recording.blocks), True
        try:
            yield
        finally:
            self._recomputing = False
            self.label_alive(since)

    # -- operations --------------------------------------------------------------------------------------------

    def add_flops(self, operator: str, count: int) -> None:
        """Count FLOPs where the step stands."""
        if self._here is not None and self.counts:
            key = self._here, operator
            self.recording.flops[key] = self.recording.flops.get(key, 0) + count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._follow()
        if func is ADD and not kwargs and self._meet_in_place(*args):
            return torch.ops.aten.add_.Tensor(*args)
        beside = torch.empty_like(args[1]) if self.cuda and func is SOFTMAX_BACK else None
        if beside is not None:  # gradient times result, which CUDA makes first
            self.see(beside)
        out = result(func, args, kwargs)
        formula = _formula(func)
        if formula is not None:
            self.add_flops(func._overloadpacket.__name__, int(formula(*args, **kwargs, out_val=out)))
        if isinstance(out, torch.Tensor):
            self.see(out)
        elif isinstance(out, (tuple, list)):
            for item in out:
                if isinstance(item, torch.Tensor):
                    self.see(item)
        return out

    def _meet_in_place(self, first: Any, second: Any) -> bool:
        """Whether two gradients of one value meet here of which autograd would add the second to the first in place,
        but does not where it sees a dispatch mode like this one: where it alone holds the first. Sums of a layer that
        runs again inside the backward pass are none of these."""
        if (
            self._alone is None
            or self._recomputing
            or _node() is None
            or not isinstance(second, torch.Tensor)
        ):
            return False
        return _owners(first) == self._alone and first.shape == second.shape and _dense(first)


def _owners(tensor: Any) -> tuple[int, int]:
    """How many hold a tensor, and its storage."""
    return tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def _dense(tensor: Any) -> bool:
    """Whether a tensor's values lie side by side in some order of its sides."""
    if tensor.layout is not torch.strided:
        return False
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected and tensor.numel() > 1:
            return False
        expected *= size
    return True


@cache
def sole_owner() -> tuple[int, int] | None:
    """How many hold a gradient that only autograd holds, those counted that a dispatch mode adds by looking; None
    where this torch does not tell."""
    if not hasattr(torch.Tensor, "_use_count"):
        return None
    found: list[tuple[int, int]] = []

    class Look(Uncompiled):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.add.Tensor:
                found.append(_owners(args[0]))
            return func(*args, **(kwargs or {}))

    x = torch.zeros(2, 2, requires_grad=True)
    y, still = x.exp(), torch.zeros(2, 2)
    total = (y @ still).sum() + (y @ still).sum()
    with Look():
        total.backward()
    return found[-1] if found else None
