"""FLOPs of a training step, with what is frozen left out: the one home of "2 FLOPs per multiply-add".

The count walks the operations of each block as automatic differentiation would: a product costs its forward,
and in the backward pass once more for every side whose gradient is needed. It counts what
torch.utils.flop_counter.FlopCounterMode counts (matrix products, convolutions and attention; the causal half
is not skipped), and equals it to the last FLOP for every family whose architecture has no `flops_gap`.
Elementwise work (norms, activations, softmax, rotations, the optimizer) is neglected, by that counter as here:
well under 1% of a step at ordinary sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .adapter import Adapted, AdapterSpec, Pair
from .schema import Apply, Architecture, Attend, Block, Join, Matrix, Product

FLOPS_PER_MAC = 2


@dataclass
class Tally:
    """Multiply-adds of a pass over a batch. Adapter work is kept apart by how its rank scales."""

    forward: int = 0
    backward: int = 0
    attention: int = 0
    attention_forward: int = 0
    adapter: int = 0
    expert_adapter: int = 0
    recompute: int = 0

    def add(self, other: Tally, times: int = 1) -> None:
        """Add another tally, `times` over."""
        self.forward += other.forward * times
        self.backward += other.backward * times
        self.attention += other.attention * times
        self.attention_forward += other.attention_forward * times
        self.adapter += other.adapter * times
        self.expert_adapter += other.expert_adapter * times
        self.recompute += other.recompute * times

    @property
    def total(self) -> int:
        """Multiply-adds of forward, backward and recompute."""
        return self.forward + self.backward + self.recompute


@dataclass(frozen=True)
class Step:
    """The size of a step: sequences, positions a sequence, and how attention and checkpointing work.

    `skip_masked` counts only the pairs of positions that a causal or sliding-window mask leaves, as a fused
    kernel does; the default counts all of them, as the counter does.
    """

    batch: int
    seq_len: int
    checkpointing: bool = False
    skip_masked: bool = False


def visible_pairs(seq_len: int, window: int | None, causal: bool) -> int:
    """Pairs (query, key) left by the mask: s(s+1)/2 when causal, less what a window of w positions cuts off."""
    if not causal:
        return seq_len * seq_len
    if window is None or window >= seq_len:
        return seq_len * (seq_len + 1) // 2
    return window * (window + 1) // 2 + (seq_len - window) * window


class _Walk:
    """One pass over a block for given trainable weights."""

    def __init__(
        self, arch: Architecture, step: Step, trained: Mapping[int, Adapted] | None, lengths: Mapping[str, int]
    ) -> None:
        self.matrices = arch.matrices
        self.step = step
        self.trained = trained
        self.lengths = lengths
        self.uniform = trained is None or all(item.layers == item.matrix.layers for item in trained.values())

    def block(self, block: Block, layer: int, stream_grad: bool, memory_grad: bool) -> tuple[Tally, bool]:
        """Multiply-adds of one layer, and whether its output needs a gradient."""
        tally = Tally()
        needs = [stream_grad, memory_grad]
        length = block.fixed_length or self.lengths[block.stack]
        tail = 0
        for op in block.operations:
            if isinstance(op, Apply):
                grad, tail = self._apply(op, layer, length, needs[op.source], tally)
                needs.append(grad)
            elif isinstance(op, Attend):
                needs.append(self._attend(op, length, needs, tally))
            elif isinstance(op, Join):
                needs.append(any(needs[source] for source in op.sources))
            else:
                needs.append(self._product(op, length, needs, tally))
        if self.step.checkpointing and block.stack in ("decoder", "encoder"):
            tally.recompute = tally.forward - (tail if block.open_end else 0)
        return tally, needs[block.out]

    def _apply(self, op: Apply, layer: int, length: int, grad: bool, tally: Tally) -> tuple[bool, int]:
        """Whether the result needs a gradient, and the work of the last product in it."""
        matrix = self.matrices[op.matrix]
        positions = self.lengths["memory"] if op.length == "memory" else length
        positions = self.step.batch * (positions // op.per + op.extra)
        base = positions * matrix.d_in * matrix.d_out * matrix.experts_active
        tally.forward += base
        if op.forward_only:
            return False, base
        if self.trained is None:
            tally.backward += base + (base if grad else 0)
            return True, base
        tally.backward += base if grad else 0
        adapted = self.trained.get(op.matrix)
        if adapted is None or layer not in adapted.layers:
            return grad, base
        for pair in adapted.pairs:
            base = _lora(pair, matrix, positions, grad, tally)
        return True, base

    def _attend(self, op: Attend, length: int, needs: list[bool], tally: Tally) -> bool:
        if op.memory:
            pairs = length * self.lengths["memory"]
        elif self.step.skip_masked:
            pairs = visible_pairs(length, op.window, op.causal)
        else:
            pairs = length * length
        pairs *= self.step.batch * op.n_heads
        q, k, v = needs[op.q], needs[op.k], needs[op.v]
        forward = pairs * (op.d_qk + op.d_v)
        backward = pairs * (op.d_qk * (q + k) + op.d_v * ((q or k) + v))
        tally.forward += forward
        tally.backward += backward
        tally.attention += forward + backward
        tally.attention_forward += forward
        return q or k or v

    def _product(self, op: Product, length: int, needs: list[bool], tally: Tally) -> bool:
        left, right = needs[op.left], needs[op.right]
        macs = self.step.batch * length * op.macs_per_position
        tally.forward += macs
        tally.backward += macs * (left + right)
        return left or right


def _lora(pair: Pair, matrix: Matrix, positions: int, grad: bool, tally: Tally) -> int:
    """Add a pair's multiply-adds: A and B forward, both their gradients, B's input gradient, A's where needed.
    Returns the work of its last product.

    A pair that PEFT materialises costs the product B A of every expert, forward and twice backward, and the
    gradient of the expert tensor: it depends on the experts, not on the tokens. DoRA's norm is B A applied to
    an identity, forward only.
    """
    rank = pair.rank
    if pair.materialised:
        last = matrix.experts * matrix.d_in * matrix.d_out * rank
        forward, backward = last, 2 * last
        tally.backward += positions * matrix.d_in * matrix.d_out * matrix.experts_active
        last = 0
    else:
        down = positions * rank * pair.d_in * pair.uses_in
        last = positions * rank * pair.d_out * pair.uses_out
        forward = down + last
        backward = down + 2 * last + (down if grad else 0)
        if pair.magnitudes:
            forward += pair.n_out * rank * pair.d_in * (pair.d_in + pair.d_out)
            last = 0
    tally.forward += forward
    tally.backward += backward
    if matrix.kind == "experts":
        tally.expert_adapter += forward + backward
    else:
        tally.adapter += forward + backward
    return last


def _stacks(arch: Architecture) -> list[tuple[str, list[tuple[int, Block]]]]:
    """Stacks in the order in which they run, each with its layers in order."""
    stacks: dict[str, list[tuple[int, Block]]] = {}
    for block in arch.blocks:
        stacks.setdefault(block.stack, []).extend((layer, block) for layer in block.layers)
    return [(name, sorted(layers, key=lambda pair: pair[0])) for name, layers in stacks.items()]


def _embedding(adapted: Iterable[Adapted], positions: int, tally: Tally) -> bool:
    """Add the up-projections of adapted look-up tables; whether the stream starts with a gradient."""
    found = False
    for item in adapted:
        if item.matrix.kind == "embedding":
            found = True
            for pair in item.pairs:
                up = positions * pair.rank * pair.d_out
                tally.forward += up
                tally.backward += 2 * up
                tally.adapter += 3 * up
    return found


def step_macs(arch: Architecture, step: Step, adapted: Iterable[Adapted] | None) -> Tally:
    """Multiply-adds of one forward and backward over the batch; `adapted=None` is full fine-tuning.

    Checkpointing makes the embedding's output require a gradient, as PEFT does itself.
    """
    trained = None if adapted is None else {item.index: item for item in adapted}
    lengths = dict.fromkeys(("decoder", "encoder", "head", "memory"), step.seq_len)
    walk = _Walk(arch, step, trained, lengths)
    total = Tally()
    start = trained is None or step.checkpointing
    if trained is not None:
        start = _embedding(trained.values(), step.batch * step.seq_len, total) or start
    stream, memory, previous = start, False, ""
    for name, layers in _stacks(arch):
        if previous == "encoder" and name == "decoder":
            memory, stream = stream, start
        previous = name
        cache: dict[tuple[int, bool], tuple[Tally, bool]] = {}
        for layer, block in layers:
            key = (id(block) if walk.uniform else layer, stream)
            if key not in cache:
                cache[key] = walk.block(block, layer, stream, memory)
            tally, stream = cache[key]
            total.add(tally)
    return total


def flops(tally: Tally) -> int:
    """FLOPs of a tally."""
    return FLOPS_PER_MAC * tally.total


def rule_ratio(adapted: Iterable[Adapted], spec: AdapterSpec) -> float | None:
    """The article's bare rule over the adapted matrices: sum of 2 d_in d_out + 3 r (d_in + d_out), over the sum
    of 3 d_in d_out; for square matrices (2N^2 + 6NR) / 3N^2. Neglects attention, frozen matrices and the first
    layer's missing input gradients. Source: LoRA Without Regret (2025)."""
    lora = full = 0
    for item in adapted:
        if item.matrix.kind == "embedding":
            continue
        weight = item.matrix.d_in * item.matrix.d_out * item.matrix.experts_active * len(item.layers)
        pairs = sum(p.rank * (p.uses_in * p.d_in + p.uses_out * p.d_out) for p in item.pairs) * len(item.layers)
        lora += 2 * weight + 3 * pairs
        full += 3 * weight
    return lora / full if full else None
