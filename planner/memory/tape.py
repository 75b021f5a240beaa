"""A tape of memory: a step's tensors as sizes, made and dropped in the order in which the library makes and
drops them.

The functions of the neighbouring modules are written as the library's forward passes are, over `Value`s that
have a size and no contents. What a value's operation keeps for its gradient is named where it is made; the backward
pass then follows from the graph, as automatic differentiation does it. A buffer is freed when the last value or
graph node that holds it goes, by Python's own reference counts, as a tensor is.

Sizes are bytes, or sums linear in an adapter's ranks where a walk is to hold for all of them (`linear`). Nothing
here compares them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from .linear import Linear

Size: TypeAlias = "float | Linear"
Gradients = Sequence["Buffer | None"]
Backward = Callable[["Buffer"], Gradients]
EXPERT_GRADIENTS = "expert gradients"  # label of what only GPUs with the same experts share


class Tape:
    """Everything that was allocated and freed, in order: `events` holds i where buffer i came, ~i where it went.

    `labels` says which part of memory a buffer belongs to, None where what becomes of it decides. `merges`
    says that two gradients of one value are added into a new buffer (as under a dispatch mode) and not in place.
    `last_kept` is the number of events when something was last kept for the backward pass, `first_asked` that when it
    first asked for something kept, `let_go` are gradients that went as they came, `packed` sizes over symbols as
    `stretch` adds them up; `falling` are the numbers of those that have a coefficient below 0. `unpacks`: what was
    kept is unpacked for its node alone, as a checkpoint's second run hands it over, and so goes before the node's
    gradients are lowered.
    """

    __slots__ = (
        "accumulates",
        "events",
        "falling",
        "first_asked",
        "labels",
        "last_kept",
        "let_go",
        "merges",
        "packed",
        "ready",
        "sizes",
        "trained",
        "turn",
        "unpacks",
    )

    def __init__(self, *, merges: bool = False, accumulates: bool = False) -> None:
        self.events: list[int] = []
        self.sizes: list[Size] = []
        self.packed: list[int] = []
        self.falling: set[int] = set()
        self.labels: list[str | None] = []
        self.trained: list[Buffer] = []
        self.let_go: list[int] = []
        self.merges = merges
        self.accumulates = accumulates
        self.last_kept = 0
        self.first_asked: int | None = None
        self.turn = 0
        self.unpacks = False
        self.ready: list[tuple[int, Node]] = []

    def new(self, size: Size, label: str | None = None, *, viewed: bool = False) -> Buffer:
        """Allocate so many bytes; `viewed`: what is handed on is a view of them."""
        index = len(self.sizes)
        self.sizes.append(size)
        self.labels.append(label)
        self.events.append(index)
        return Buffer(self, index, viewed)

    def aside(self, size: Size, label: str) -> int:
        """The number of so many bytes that lie there from here on and that no value has: whoever asked says when
        they go."""
        index = len(self.sizes)
        self.sizes.append(size)
        self.labels.append(label)
        self.events.append(index)
        return index

    def use(self, aside: int, made: int) -> bool:
        """Say that what lies `aside` is what buffer `made` stands for from its making on. Whether that is before
        anything was last kept; else nothing is said."""
        at = self.events.index(made)
        if at >= self.last_kept:
            return False
        self.events.insert(at, ~aside)
        self.last_kept += 1
        return True

    def leaf(self, elements: Size, width: int, *, grad: bool, label: str | None = None) -> Value:
        """A value that comes from outside: a layer's input, a table's rows."""
        node = Node(self, (), (), None) if grad else None
        return Value(self.new(elements * width, label), elements, width, node)

    def sink(self, *, gathers: bool = False) -> Node:
        """A value from outside that many layers read: its gradients are added to one that is held elsewhere as soon
        as they are made; where it `gathers`, to the first of them, which stays."""
        return Node(self, (), (), None, sink=True, gathers=gathers)

    def gradient(self, size: Size, label: str = "gradients") -> None:
        """A trained weight's gradient: kept from here on; where micro-steps accumulate, it was there already and
        this one is added to it, and where the optimizer steps at once, it is used up."""
        made = self.new(size, label)
        if self.accumulates:
            self.let_go.append(made.index)
        else:
            self.trained.append(made)

    def apply(
        self, inputs: Sequence[Value], elements: Size, width: int, kept: Sequence[Buffer | None], rule: Backward,
        *, trains: bool = False, out: Buffer | None = None, label: str | None = None, hidden: bool = False,
        lowered: Sequence[Size | None] = (),
    ) -> Value:  # fmt: skip
        """The result of an operation. `kept` are the buffers that its gradient needs (None for a tensor that is held
        anyway, nothing at all where it needs none), `rule` makes the gradients
        of the inputs out of that of the result; `trains` where a weight of its own has a gradient. `out` is the
        result's buffer where it is not a new one (a view). What is kept may be `hidden`: as an attribute that
        automatic differentiation, and so a checkpoint, does not know of. `lowered` are the sizes that gradients take
        when all are made, in their inputs' types and shapes (torch/csrc/autograd/engine.cpp, validate_outputs)."""
        before = len(self.events)
        buffer = out if out is not None else self.new(elements * width, label)
        edges = tuple([value.node for value in inputs])
        if not trains and edges.count(None) == len(edges):
            return Value(buffer, elements, width, None)
        asks = bool(kept) and not hidden
        node = Node(self, edges, tuple([b for b in kept if b is not None]), rule, asks=asks, lowered=lowered)
        if asks:  # what an operation reads is kept before it makes its result
            self.last_kept = before
        return Value(buffer, elements, width, node)

    def backward(
        self, root: Node, gradient: list[Buffer], others: Mapping[Node, Buffer] | None = None
    ) -> dict[Node, Buffer]:
        """Run the backward pass from a node, and from `others` with their gradients; returns the gradients of leaves.
        Nodes run latest first. The gradient that comes in is taken out of its list, so that nobody else holds it.
        What a node was given and kept is let go before what it makes meets other gradients
        (torch/csrc/autograd/engine.cpp, evaluate_function)."""
        waiting: dict[Node, Buffer] = {root: gradient.pop(), **(others or {})}
        leaves: dict[Node, Buffer] = {}
        heap: list[tuple[int, Node]] = [(-node.turn, node) for node in waiting]
        heapq.heapify(heap)
        while heap:
            node = heapq.heappop(heap)[1]
            given = waiting.pop(node)
            if node.rule is None:
                leaves[node] = given
                continue
            if node.asks and self.first_asked is None:
                self.first_asked = len(self.events)
            made, edges = list(node.rule(given)), node.edges
            if self.unpacks:
                node.kept = ()
            for place, size in enumerate(node.lowered):
                if size is not None and made[place] is not None:
                    made[place] = self.new(size)
            del given
            node.release()
            del node
            for place, edge in enumerate(edges[: len(made)]):
                grad, made[place] = made[place], None
                if edge is None or grad is None:
                    continue
                if edge.sink:
                    if edge.gathers:
                        self.labels[grad.index], edge.gathers = "stream", False
                        self.trained.append(grad)
                    continue
                if edge not in waiting:
                    waiting[edge] = grad
                    heapq.heappush(heap, (-edge.turn, edge))
                elif self.merges or waiting[edge].viewed:
                    waiting[edge] = self.new(self.sizes[grad.index])
            del edges
            grad = None
        return leaves


class Buffer:
    """A stretch of memory, freed with the last reference to it. Of a gradient that is `viewed` automatic
    differentiation is not the only holder (its base is another), so that a second one is not added to it in place."""

    __slots__ = ("index", "tape", "viewed")

    def __init__(self, tape: Tape, index: int, viewed: bool = False) -> None:
        self.tape = tape
        self.index = index
        self.viewed = viewed

    def __del__(self) -> None:
        self.tape.events.append(~self.index)


class Node:
    """An operation in the graph, which holds what its gradient needs until it has run, and then `asks` automatic
    differentiation for it; then its gradients are `lowered`. What reaches a `sink` is let go at once, but
    for the first where it `gathers`."""

    __slots__ = ("asks", "edges", "gathers", "kept", "lowered", "rule", "sink", "turn")

    def __init__(
        self, tape: Tape, edges: tuple[Node | None, ...], kept: tuple[Buffer, ...], rule: Backward | None, *,
        sink: bool = False, asks: bool = False, lowered: Sequence[Size | None] = (), gathers: bool = False,
    ) -> None:  # fmt: skip
        self.asks = asks
        self.gathers = gathers
        self.lowered = lowered
        self.sink = sink
        self.edges = edges
        self.kept = kept
        self.rule = rule
        tape.turn += 1
        self.turn = tape.turn

    def __lt__(self, other: Node) -> bool:
        return self.turn > other.turn

    def release(self) -> None:
        """Let go of what the gradient needed."""
        self.kept = ()
        self.edges = ()
        self.rule = None


class Value:
    """A tensor: a buffer, the number of its elements and their width in bytes. `node` is None where nothing
    below it needs a gradient."""

    __slots__ = ("buffer", "elements", "node", "width")

    def __init__(self, buffer: Buffer, elements: Size, width: int, node: Node | None) -> None:
        self.buffer = buffer
        self.elements = elements
        self.width = width
        self.node = node

    @property
    def tape(self) -> Tape:
        """The tape that it is on."""
        return self.buffer.tape

    @property
    def bytes(self) -> Size:
        """Its size."""
        return self.elements * self.width


# Elementwise operations, as torch's own gradients keep what they keep.


def beside(tape: Tape, scratch: Size, made: Size) -> Backward:
    """The way back of an operation that makes its gradient beside a tensor that it drops again."""

    def rule(g: Buffer) -> Gradients:
        held = tape.new(scratch)
        found = tape.new(made)
        del held
        return (found,)

    return rule


def add(a: Value, b: Value, *, width: int = 0) -> Value:
    """a + b, in the wider type or in one of another `width`: keeps nothing; one gradient serves both."""
    width = width or max(a.width, b.width)
    tape = a.tape
    if a.width == b.width == width:
        return tape.apply((a, b), a.elements, width, (), lambda g: (g, g))
    sizes = a.bytes, b.bytes

    def rule(g: Buffer) -> Gradients:
        return tuple(
            g if value == width else tape.new(size) for value, size in zip(widths, sizes, strict=True)
        )

    widths = a.width, b.width
    return tape.apply((a, b), a.elements, width, (), rule)


def multiply(a: Value, b: Value) -> Value:
    """a * b of equal shapes: keeps each side where the other needs a gradient. Gradients are made in the wider type,
    both, and then lowered."""
    tape, width = a.tape, max(a.width, b.width)
    kept = (b.buffer if a.node else None, a.buffer if b.node else None)
    whole = a.elements * width
    needs = [each.node is not None for each in (a, b)]
    lowered = [each.bytes if each.width < width else None for each in (a, b)]

    def rule(g: Buffer) -> Gradients:
        return [tape.new(whole) if needed else None for needed in needs]

    return tape.apply((a, b), a.elements, width, kept, rule, lowered=lowered)


def scale(a: Value) -> Value:
    """a times a number, which automatic differentiation keeps as such and not as a tensor."""
    tape, size = a.tape, a.bytes
    return tape.apply((a,), a.elements, a.width, (), lambda g: (tape.new(size),))


def by_tensor(a: Value, kept: Buffer | None = None, *, width: int = 0) -> Value:
    """a times a tensor that needs no gradient: one that is held anyway, or a `kept` one. The result is `width` bytes
    a value, a's where that is 0: where the tensor is wider, the gradient is made so and then lowered."""
    width = width or a.width
    tape, size = a.tape, a.elements * width
    lowered = (a.bytes if a.width < width else None,)
    return tape.apply((a,), a.elements, width, (kept,), lambda g: [tape.new(size)], lowered=lowered)


def unary(a: Value, keeps: str = "in", temporaries: int = 0, width: int | None = None) -> Value:
    """An elementwise function that keeps its input ("in"), its result ("out") or nothing (""), and whose gradient
    makes so many full-size temporaries beside the result."""
    tape, size = a.tape, a.bytes
    out_width = a.width if width is None else width
    out = tape.new(a.elements * out_width)
    kept = {"in": (a.buffer,), "out": (out,), "": ()}[keeps]

    def rule(g: Buffer) -> Gradients:
        held = [tape.new(size) for _ in range(temporaries)]
        made = tape.new(size)
        del held
        return (made,)

    return tape.apply((a,), a.elements, out_width, kept, rule, out=out)


def cast(a: Value, width: int) -> Value:
    """a in another dtype: the value itself where it is the same."""
    if a.width == width:
        return a
    tape, size = a.tape, a.bytes
    return tape.apply((a,), a.elements, width, (), lambda g: (tape.new(size),))


def copy(a: Value) -> Value:
    """A copy (contiguous, a gather of all): the gradient is passed on."""
    return a.tape.apply((a,), a.elements, a.width, (), lambda g: (g,))


def view(a: Value, elements: Size | None = None, *, clones: bool = False) -> Value:
    """Another look at the same memory. `clones` where its gradient comes back in another order of dimensions
    and is copied."""
    tape, size = a.tape, a.bytes
    count = a.elements if elements is None else elements
    if not clones:
        return tape.apply((a,), count, a.width, (), lambda g: (g,), out=a.buffer)
    return tape.apply((a,), count, a.width, (), lambda g: (tape.new(size),), out=a.buffer)


def piece(a: Value, elements: Size) -> Value:
    """A slice of a: its gradient is laid into zeros of a's size."""
    tape, size = a.tape, a.bytes
    return tape.apply((a,), elements, a.width, (), lambda g: (tape.new(size),), out=a.buffer)
