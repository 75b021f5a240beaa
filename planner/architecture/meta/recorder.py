"""Watching a forward pass on the meta device: which products it makes, of which weights and of which values.

Nothing is computed: only shapes flow. Each tensor is known by its roots, the products (and the embedding) that it
was made from by anything elementwise; a tensor made of a parameter by views alone is still that parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from .shapes import result

PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "convolution"))
FUSED = tuple(
    "_scaled_dot_product _flash_attention _efficient_attention _fft fft_ _cudnn lstm gru addmv mv dot addbmm "
    "_grouped_mm _scaled_mm".split()
)
# What leaves a parameter a parameter, seen from the counter of products.
VIEWS = frozenset(
    "view _unsafe_view reshape t transpose permute expand unsqueeze squeeze slice select split split_with_sizes "
    "chunk unbind clone contiguous detach alias _to_copy index index_select as_strided".split()
)
# What changes each number of a tensor by itself: of one parameter, it leaves a tensor that stands for it.
UNARY = frozenset("clamp clamp_min clamp_max mul div neg abs tanh sigmoid".split())
# What takes another tensor's shape only.
MADE_NEW = frozenset(
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
    "new_empty_strided".split()
)
# What keeps none of its inputs for the backward pass.
SAVES_NOTHING = VIEWS | frozenset(
    "add sub neg cat stack sum add_ copy_ constant_pad_nd narrow lift_fresh".split()
)
MOST_OPERATIONS = 24_000
# Where the library asks a tensor whether all is as usual: no padding, no packing. It is, in what is counted.
ASKS_THE_USUAL = ("masking_utils", "modeling_utils")
# Where it asks only to make sure that no sequence is longer than the batch: 0 is not.
ASKS_THE_LONGEST = ("modeling_xlm", "modeling_flaubert")

Root = tuple[int, int]  # segment, number inside it; number 0 is the stream
Roots = frozenset[Root]
NOTHING: Roots = frozenset()


class NotCountedError(Exception):
    """Why no exact count can be read off."""


@dataclass(frozen=True)
class Weight:
    """A tensor that is a parameter, or views of it."""

    parameter: int


@dataclass
class Event:
    """A product: its operands, its multiply-adds and its place."""

    op: str
    left: Roots | Weight
    right: Roots | Weight
    out: Root
    macs: int
    sizes: tuple[int, ...]
    segment: int
    modules: tuple[int, ...]
    graded: bool
    groups: int = 1


@dataclass
class Segment:
    """A stretch of the pass: what comes before the layers, a layer, what comes after them."""

    layer: tuple[str, int] | None
    events: list[Event] = field(default_factory=list)
    out: Roots = NOTHING
    saves_after: bool = False


class Recording:
    """What a pass left behind."""

    def __init__(self, parameters: dict[int, str]) -> None:
        self.parameters = parameters
        self.segments = [Segment(None)]
        self.values: dict[int, Roots | Weight] = {}
        self.written: dict[int, Roots] = {}
        self.derived: set[int] = set()
        self.cut_off: set[int] = set()
        self.final: Roots = NOTHING
        self.alive: list[Any] = []
        self.modules: list[int] = []
        self.numbers = 0
        self.operations = 0
        self.embedded = False

    def root(self) -> Root:
        """A new root in the current segment."""
        self.numbers += 1
        return len(self.segments) - 1, self.numbers

    def stream(self) -> Root:
        """The stream as it comes into the current segment."""
        return len(self.segments) - 1, 0

    def of(self, tensor: Any) -> Roots | Weight:
        """What a tensor is made of."""
        known = self.values.get(id(tensor))
        if known is None:
            known = Weight(id(tensor)) if id(tensor) in self.parameters else NOTHING
        later = self.written.get(_storage(tensor))
        return known | later if later and not isinstance(known, Weight) else known

    def put(self, tensor: Any, value: Roots | Weight) -> None:
        """Note what a tensor is made of."""
        self.alive.append(tensor)
        self.values[id(tensor)] = value

    def enter(self, layer: tuple[str, int], hidden: Any) -> None:
        """A layer begins; what came before ends with its input."""
        current = self.segments[-1]
        if current.layer is None and len(self.segments) == 1:
            current.out = _roots(self.of(hidden))
            self.segments.append(Segment(layer))
            self.put(hidden, frozenset((self.stream(),)))
        elif current.events:
            raise NotCountedError("products run between its layers")
        else:
            current.layer = layer

    def leave(self, hidden: Any) -> None:
        """A layer ends; what follows begins with its output."""
        self.segments[-1].out = _roots(self.of(hidden))
        self.segments.append(Segment(None))
        self.put(hidden, frozenset((self.stream(),)))


def _roots(value: Roots | Weight) -> Roots:
    return NOTHING if isinstance(value, Weight) else value


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in nested arguments."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def dispatch_mode(recording: Recording) -> Any:
    """The mode that writes a recording."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # nothing is compiled here, and to say so at every operation takes time

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name == "_local_scalar_dense" and args[0].device.type == "meta":
                return _asked(args[0])
            recording.operations += 1
            if recording.operations > MOST_OPERATIONS:
                raise NotCountedError(f"its forward pass takes more than {MOST_OPERATIONS:,} operations")
            out = result(func, args, kwargs or {})
            note(recording, name, args, kwargs or {}, out, torch.is_grad_enabled())
            return out

    return Mode()


class Sizes:
    """The products of a pass by their sizes alone. It must run no more operations than the pass before."""

    def __init__(self, most: int) -> None:
        self.products: list[tuple[str, int]] = []
        self.left = most


def sizes_mode(sizes: Sizes) -> Any:
    """The mode that notes sizes alone."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):  # type: ignore[misc]
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # nothing is compiled here, and the wrapper that says so costs a fifth of a pass

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
                return _asked(args[0])
            sizes.left -= 1
            if sizes.left < 0:
                raise NotCountedError("it runs more operations on longer sequences")
            out = result(func, args, kwargs or {})
            name = func.overloadpacket.__name__
            if name in PRODUCTS:
                left, right = args[1:3] if name in ("addmm", "baddbmm") else args[:2]
                sizes.products.append((name, _macs(name, left, right, out)))
            return out

    return Mode()


def _macs(name: str, left: Any, right: Any, out: Any) -> int:
    """Multiply-adds of a product, from the shapes of its operands and its result."""
    if name == "convolution":
        return int(out.shape[0] * prod(out.shape[2:]) * prod(right.shape))
    return int(prod(left.shape) * right.shape[-1])


def _asked(tensor: Any) -> Any:
    import sys

    import torch

    frame: Any = sys._getframe()
    while frame is not None and "transformers" not in frame.f_code.co_filename:
        frame = frame.f_back
    place = frame.f_code.co_filename if frame is not None else ""
    if tensor.dtype == torch.bool and any(f"{name}.py" in place for name in ASKS_THE_USUAL):
        return True
    if tensor.dtype == torch.long and any(f"{name}.py" in place for name in ASKS_THE_LONGEST):
        return 0
    raise NotCountedError("its forward pass depends on the values of its input")


def note(recording: Recording, name: str, args: Any, kwargs: Any, out: Any, graded: bool) -> None:
    """Note one operation of the pass."""
    if name in PRODUCTS:
        _product(recording, name, args, out, graded)
        return
    given = list(tensors_in(args)) + list(tensors_in(kwargs))
    if any(name.startswith(word) for word in FUSED) and any(t.is_floating_point() for t in given):
        raise NotCountedError(f"it runs {name}, which is no plain product")
    values = [recording.of(tensor) for tensor in given]
    weights = [value for value in values if isinstance(value, Weight)]
    joined = NOTHING.union(*(value for value in values if not isinstance(value, Weight)))
    if name not in SAVES_NOTHING and joined and not _by_number(name, given):
        recording.segments[-1].saves_after = True
    if name.endswith("_") and given and not weights and given[0].is_floating_point():
        place = _storage(given[0])
        recording.written[place] = recording.written.get(place, NOTHING) | joined
    derived = bool(weights) or any(id(tensor) in recording.derived for tensor in given)
    cut_off = (not graded and bool(joined)) or any(id(tensor) in recording.cut_off for tensor in given)
    for tensor in tensors_in(out):
        if not tensor.is_floating_point() and not tensor.is_complex():
            recording.put(tensor, NOTHING)
        elif (
            weights and not joined and (name in VIEWS or _changed(name, given, tensor)) and len(weights) == 1
        ):
            recording.put(tensor, weights[0])
        elif name in MADE_NEW:
            recording.put(tensor, NOTHING)
        else:
            recording.put(tensor, NOTHING if name == "detach" and graded else joined)
            if not joined and derived:
                recording.derived.add(id(tensor))
            if cut_off:
                recording.cut_off.add(id(tensor))


def _by_number(name: str, given: list[Any]) -> bool:
    """Whether this is a scaling by a number, which keeps no tensor."""
    return name in ("mul", "div") and len(given) == 1


def _changed(name: str, given: list[Any], out: Any) -> bool:
    """Whether this is one tensor with each of its numbers changed by itself."""
    return name in UNARY and len(given) == 1 and out.shape == given[0].shape


def _product(recording: Recording, name: str, args: Any, out: Any, graded: bool) -> None:
    left, right = args[1:3] if name in ("addmm", "baddbmm") else args[:2]
    groups = 1
    if name == "convolution":
        if args[6]:
            raise NotCountedError("it runs a transposed convolution")
        groups = int(args[8])
        sizes = (*left.shape, *right.shape)
    else:
        sizes = (*(() if left.dim() == 3 else (1,)), *left.shape, right.shape[-1])
    for side in (left, right):
        if id(side) in recording.derived and recording.of(side) == NOTHING:
            raise NotCountedError("it multiplies by values made from parameters alone")
        if graded and id(side) in recording.cut_off:
            raise NotCountedError("its gradients do not follow its forward pass")
    root = recording.root()
    values = [recording.of(left), recording.of(right)]
    event = Event(
        name, values[0], values[1], root, _macs(name, left, right, out), tuple(map(int, sizes)),
        len(recording.segments) - 1, tuple(recording.modules), graded, groups,
    )  # fmt: skip
    recording.segments[-1].events.append(event)
    recording.segments[-1].saves_after = False
    extra = _roots(recording.of(args[0])) if name in ("addmm", "baddbmm") else NOTHING
    recording.put(out, frozenset((root,)) | extra)
    if not graded:
        recording.cut_off.add(id(out))


def _tables(model: Any) -> set[int]:
    """The modules that look tokens up: the model's table, its encoder's and its decoder's, and those that share their
    weights."""
    found = [model.get_input_embeddings()]
    if getattr(model.config, "is_encoder_decoder", False):
        for name in ("get_encoder", "get_decoder"):
            part = getattr(model, name)()
            with suppress(NotImplementedError, AttributeError):
                found.append(part.get_input_embeddings())
    found += [inner for table in found if type(table).__name__ == "ModuleList" for inner in table]
    weights = {id(table.weight) for table in found if getattr(table, "weight", None) is not None}
    same = {id(m) for m in model.modules() if id(getattr(m, "weight", None)) in weights}
    output = model.get_output_embeddings()
    return ({id(table) for table in found} | same) - {id(output)}


@contextmanager
def watching(model: Any, recording: Recording, layers: dict[int, tuple[str, int]]) -> Iterator[None]:
    """Hooks that follow modules, layers and the embedding while a pass runs."""
    tables = _tables(model)

    def before(module: Any, args: Any, kwargs: Any) -> None:
        recording.modules.append(id(module))
        if id(module) in layers:
            hidden = next((t for t in tensors_in((args, kwargs)) if _roots(recording.of(t))), None)
            if hidden is None:
                raise NotCountedError("a layer takes in nothing made from the tokens")
            recording.enter(layers[id(module)], hidden)

    def after(module: Any, args: Any, out: Any) -> None:
        recording.modules.pop()
        if id(module) in tables:
            recording.embedded = True
            recording.put(next(tensors_in(out)), frozenset(((0, 0),)))
        if id(module) in layers:
            recording.leave(next(tensors_in(out)))

    with ExitStack() as stack:
        for module in model.modules():
            stack.enter_context(_handle(module.register_forward_pre_hook(before, with_kwargs=True)))
            stack.enter_context(_handle(module.register_forward_hook(after)))
        stack.enter_context(dispatch_mode(recording))
        yield


@contextmanager
def _handle(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
