"""FLOPs of a training step, with what is frozen left out: the one home of "2 FLOPs per multiply-add".

The count walks the operations of each block as automatic differentiation would: a product costs its forward, and in
the backward pass once more for every side whose gradient is needed. It counts what
torch.utils.flop_counter.FlopCounterMode counts (matrix products, convolutions and attention; the causal half is not
skipped), and equals it to the last FLOP for every family whose architecture has no `flops_gap`. Elementwise work
(norms, activations, softmax, rotations, the optimizer) is neglected, by that counter as here: well under 1% of a
step at ordinary sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .adapter import Adapted, Pair, by_matrix
from .adapter.peft_rules import by_weight
from .adapter.whole import NOTHING_WHOLE, Whole
from .dataclass import dataclass
from .schema import Apply, Architecture, Attend, Block, Chunks, Join, Keep, Matrix, Product, Recall, Scan

FLOPS_PER_MAC = 2


@dataclass
class Tally:
    """Multiply-adds of a pass over a batch, recompute apart. `attention` (scores and values), `adapter` and
    `expert_adapter` (work that scales with the rank and with an expert's rank) are parts of the totals;
    `hidden` is the part of attention on pairs of positions that the mask hides, which fused kernels skip.
    `overcount` is what the counter sees and no machine does: it takes the weight gradient of a grouped
    convolution for that of a full one."""

    forward: int = 0
    backward: int = 0
    recompute: int = 0
    attention: int = 0
    hidden: int = 0
    overcount: int = 0
    adapter: int = 0
    expert_adapter: int = 0

    def add(self, other: Tally, times: int = 1) -> None:
        """Add another tally, `times` over."""
        self.forward += other.forward * times
        self.backward += other.backward * times
        self.recompute += other.recompute * times
        self.attention += other.attention * times
        self.hidden += other.hidden * times
        self.overcount += other.overcount * times
        self.adapter += other.adapter * times
        self.expert_adapter += other.expert_adapter * times

    @property
    def total(self) -> int:
        """Multiply-adds of forward, backward and recompute."""
        return self.forward + self.backward + self.recompute


@dataclass(frozen=True)
class Step:
    """The size of a step: sequences, positions a sequence; whether layers are checkpointed, and what comes in then
    needs a gradient (`hooked`), or results of attention and every second product are kept (`selective`); of how many
    positions logits are made (None: of all); whether dropout stands before pairs (`dropped`), PEFT folds pairs into
    weights that it has by no module (`folded`), of a `packed` base a router's alone, hidden states are in float16
    (`half`), where some code clamps them, a flash kernel is told where pieces of a sequence end (`ends_known`), and
    how many equal `pieces` it has; of the loss, whether it makes logits again (`logits_again`), passes pairs over
    (`past_pairs`), makes its gradient (`frozen_gradient`)."""

    batch: int
    seq_len: int
    checkpointing: bool = False
    hooked: bool = True
    scored: int | None = None
    dropped: bool = False
    folded: bool = False
    packed: bool = False
    half: bool = False
    ends_known: bool = False
    pieces: int = 1
    logits_again: bool = False
    past_pairs: bool = False
    frozen_gradient: bool = False
    selective: bool = False


def visible_pairs(seq_len: int, window: int | None, causal: bool, chunked: bool = False) -> int:
    """Pairs (query, key) left by the mask: s(s+1)/2 when causal, less what a window of w positions cuts off; in
    chunks of w positions that much a chunk."""
    if not causal:
        return seq_len * seq_len
    if window is None or window >= seq_len:
        return seq_len * (seq_len + 1) // 2
    if chunked:
        chunks, rest = divmod(seq_len, window)
        return chunks * (window * (window + 1) // 2) + rest * (rest + 1) // 2
    return window * (window + 1) // 2 + (seq_len - window) * window


def compressed_pairs(seq_len: int, rate: int) -> int:
    """Pairs (query, compressed key) left by the mask: a key of `rate` positions is seen once they are all past."""
    keys, rest = divmod(seq_len, rate)
    return rate * keys * (keys - 1) // 2 + keys * (rest + 1)


class _Walk:
    """One pass over a block for given trainable weights."""

    def __init__(
        self,
        arch: Architecture,
        step: Step,
        trained: Mapping[int, tuple[Adapted, ...]] | None,
        lengths: Mapping[str, int],
        whole: Whole = NOTHING_WHOLE,
    ) -> None:
        self.matrices, self.arch = arch.matrices, arch
        self.step = step
        self.trained = trained
        self.lengths = lengths
        self.kept: dict[str, bool] = {}
        self.products, self.chosen, self.chose = 0, 0, False
        self.whole = whole
        self.uniform = (trained is None or all(_in_all_layers(items) for items in trained.values())) and all(
            set(self.matrices[index].layers) <= layers
            for part in (whole.matrices, whole.biases)
            for index, layers in part.items()
        )

    def _adapted(self, index: int, layer: int) -> Adapted | None:
        """The pairs of a matrix in a layer."""
        items = self.trained.get(index, ()) if self.trained else ()
        if self.uniform and len(items) == 1:
            return items[0]
        return next((item for item in items if layer in item.layers), None)

    def block(self, block: Block, layer: int, stream_grad: bool, memory_grad: bool) -> tuple[Tally, bool]:
        """Multiply-adds of one layer, and whether its output needs a gradient."""
        tally = Tally()
        needs = [stream_grad, memory_grad]
        length = block.fixed_length or self.lengths[block.stack]
        tail = self.products = self.chosen = 0
        for op in block.operations:
            if isinstance(op, Apply):
                grad, tail = self._apply(op, layer, length, needs[op.source], tally)
                needs.append(grad)
            elif isinstance(op, Attend):
                needs.append(self._attend(op, length, needs, tally))
            elif isinstance(op, Join):
                needs.append(any(needs[source] for source in op.sources))
            elif isinstance(op, Keep):
                self.kept = {**self.kept, op.name: needs[op.source]}
                needs.append(needs[op.source])
            elif isinstance(op, Recall):
                needs.append(self.kept[op.name])
            elif isinstance(op, Scan):
                needs.append(self._scan(op, length, needs, tally))
            else:
                before = tally.forward
                needs.append(self._product(op, length, needs, tally))
                tail = tally.forward - before
        if self.step.checkpointing and block.stack in ("decoder", "encoder"):
            open_end = block.open_end and not (self.step.half and block.clamps != "none")
            tally.recompute = tally.forward - self.chosen - (tail if open_end and not self.chose else 0)
        return tally, needs[block.out]

    def _chooses(self, *products: int, biased: bool = False) -> None:
        """Count products by aten's mm: selective checkpointing keeps a layer's first and every second one after it,
        and what has a bias (addmm)."""
        for macs in products if self.step.selective else ():
            self.products += not biased
            self.chose = biased or self.products % 2 == 1
            self.chosen += macs * self.chose

    def _apply(self, op: Apply, layer: int, length: int, grad: bool, tally: Tally) -> tuple[bool, int]:
        """Whether the result needs a gradient, and the work of the last product in it."""
        matrix, layer = self.matrices[op.matrix], layer if op.layer is None else op.layer
        positions = self.lengths["memory"] if op.length == "memory" else length
        positions = positions if self.step.checkpointing else max(positions, op.at_least)
        positions = self.step.batch * (positions * op.times // op.per + op.extra)
        experts = matrix.experts if op.all_experts else matrix.experts_active
        base = positions * matrix.d_in * matrix.d_out * experts
        tally.forward += base
        if matrix.kind in ("linear", "conv1d") and matrix.role != "router":
            self._chooses(base, biased=matrix.bias)
        if op.forward_only or length < op.gradient_from:
            return False, self._unreached(op, layer, positions, base, tally)
        last = matrix.role == "unembedding"
        whole = self.trained is None or layer in self.whole.matrices.get(op.matrix, ())
        if last and (grad or whole):
            tally.recompute += base * self.step.logits_again
            tally.backward += base * (self.step.frozen_gradient and not whole)
        if whole:
            tally.backward += base * op.groups + (base if grad else 0)
            tally.overcount += base * (op.groups - 1)
            return True, base
        tally.backward += base if grad else 0
        past = op.bypassed or (last and self.step.past_pairs)
        adapted = None if past else self._adapted(op.matrix, layer)
        grad_out = grad or layer in self.whole.biases.get(op.matrix, ())
        if adapted is None:
            return grad_out, base
        again = base if self.step.dropped else 0
        for pair in adapted.pairs:
            if self.step.folded and folds(self.arch, matrix, pair, packed=self.step.packed):
                _folded(pair, matrix, base, tally)
            else:
                base = _lora(pair, matrix, positions, grad, tally, again)
                self._chooses(positions * pair.rank * pair.d_in * pair.uses_in, base)
        return True, base

    def _unreached(self, op: Apply, layer: int, positions: int, base: int, tally: Tally) -> int:
        """Add the forward of pairs that no gradient reaches; the work of the last product in it."""
        adapted = self._adapted(op.matrix, layer)
        if adapted is None:
            return base
        only, again = Tally(), base if self.step.dropped else 0
        for pair in adapted.pairs:
            base = _lora(pair, adapted.matrix, positions, False, only, again)
        tally.forward += only.forward
        tally.adapter += only.forward
        return base

    def _attend(self, op: Attend, length: int, needs: list[bool], tally: Tally) -> bool:
        keys = self.lengths["memory"] if op.memory else length // op.compress
        pairs, hidden = op.pairs or length // self.step.pieces * keys, 0
        if op.compress > 1:
            hidden = pairs - compressed_pairs(length, op.compress)
        elif not op.memory and not op.pairs:
            hidden = pairs - visible_pairs(length, op.window, op.causal, op.chunked)
        scale = self.step.batch * op.n_heads
        q, k, v = needs[op.q], needs[op.k], needs[op.v]
        scores = q or k or (op.bias is not None and needs[op.bias])
        forward = scale * (op.d_qk + op.d_v)
        backward = scale * (op.d_qk * (q + k) + op.d_v * (scores + v))
        again = forward if self.step.checkpointing and not self.step.selective else 0
        self.chosen += forward * pairs if self.step.selective else 0
        tally.forward += forward * pairs
        tally.backward += backward * pairs
        tally.attention += (forward + backward + again) * pairs
        tally.hidden += (forward + backward + again) * hidden
        return scores or v

    def _product(self, op: Product, length: int, needs: list[bool], tally: Tally) -> bool:
        left, right = needs[op.left], needs[op.right] and not op.one_sided
        macs = self.step.batch * length * op.macs_per_position
        tally.forward += macs
        tally.backward += macs * (left + right)
        return left or right

    def _scan(self, op: Scan, length: int, needs: list[bool], tally: Tally) -> bool:
        left, right = needs[op.left], needs[op.right]
        macs = self.step.batch * op.macs
        tally.forward += macs * chunk_sum(op, length, op.forward)
        tally.backward += macs * left * chunk_sum(op, length, op.left_grad)
        tally.backward += macs * right * chunk_sum(op, length, op.right_grad)
        return left or right


def _in_all_layers(items: tuple[Adapted, ...]) -> bool:
    return len(items) == 1 and items[0].layers == items[0].matrix.layers


def chunk_sum(op: Scan, length: int, which: Chunks) -> int:
    """Sum of c^power over the chunks in question, of c positions each."""
    n = -(-length // op.chunk)
    full = int(op.chunk**op.power)
    last = int((length - (n - 1) * op.chunk) ** op.power) if op.ragged else full
    if which == "pairs":
        return (n + 1) ** 2 * full
    return {
        "none": 0,
        "each": (n - 1) * full + last,
        "not-first": (n - 2) * full + last if n > 1 else 0,
        "not-last": (n - 1) * full,
    }[which]


def _lora(pair: Pair, matrix: Matrix, positions: int, grad: bool, tally: Tally, again: int = 0) -> int:
    """Add a pair's multiply-adds: A and B forward, both their gradients, B's input gradient, A's where needed.
    Returns the work of its last product.

    A pair that PEFT materialises costs the product B A of every expert, forward and twice backward, and the
    gradient of the expert tensor: it depends on the experts, not on the tokens. With several experts the forward
    runs it twice, the first time to check the shape. DoRA's norm is B A applied to an identity, forward only; behind
    dropout it makes the base's product of what dropout left once more (`again` multiply-adds), with its gradient.
    """
    rank = pair.rank
    if pair.materialised:
        last = matrix.experts * matrix.d_in * matrix.d_out * rank
        forward, backward = last * (2 if matrix.experts > 1 else 1), 2 * last
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
            tally.forward += again
            tally.backward += again if grad else 0
    tally.forward += forward
    tally.backward += backward
    if matrix.kind == "experts":
        tally.expert_adapter += forward + backward
    else:
        tally.adapter += forward + backward
    return last


def folds(arch: Architecture, matrix: Matrix, pair: Pair, *, packed: bool = False) -> bool:
    """Whether PEFT has this pair on a bare weight, which it folds in; of a `packed` base on a router's alone."""
    plain = matrix.kind != "experts" and not pair.magnitudes and not (packed and matrix.role != "router")
    return plain and not pair.materialised and by_weight(arch, matrix, materialised=False)


def _folded(pair: Pair, matrix: Matrix, base: int, tally: Tally) -> None:
    """Add a pair that is folded into one matrix: B A, of which both gradients are made, and the matrix's own."""
    product = matrix.d_in * matrix.d_out * pair.rank
    tally.forward += product
    tally.backward += 2 * product + base
    tally.adapter += 3 * product


def _embedding(adapted: Iterable[Adapted], positions: int, tally: Tally) -> bool:
    """Add the up-projections of adapted look-up tables (and DoRA's norm, B A over the whole table); whether the
    stream starts with a gradient."""
    found = False
    for item in adapted:
        if item.matrix.kind == "embedding" and item.matrix.runs:
            found = True
            for pair in item.pairs:
                up = positions * pair.rank * pair.d_out
                norm = pair.rank * pair.d_in * pair.d_out if pair.magnitudes else 0
                tally.forward += up + norm
                tally.backward += 2 * up
                tally.adapter += 3 * up + norm
    return found


def _stack(
    walk: _Walk, layers: Iterable[tuple[int, Block]], stream: bool, memory: bool, total: Tally
) -> bool:
    """Add a stack's layers, each kind walked once; whether its output needs a gradient."""
    walked: dict[tuple[Any, ...], tuple[Tally, bool, dict[str, bool]]] = {}
    times: dict[tuple[Any, ...], int] = {}
    for layer, block in layers:
        kept = tuple(sorted(walk.kept.items())) if walk.kept else ()
        key = (id(block), 0 if walk.uniform else layer, stream, kept)
        if key not in walked:
            tally, grad = walk.block(block, layer, stream and not block.features, memory)
            walked[key] = tally, grad, walk.kept
            times[key] = 0
        times[key] += 1
        _, grad, walk.kept = walked[key]
        stream = grad or (block.features and walk.step.checkpointing and walk.step.hooked)
    for key, n in times.items():
        total.add(walked[key][0], n)
    return stream


def step_macs(
    arch: Architecture, step: Step, adapted: Iterable[Adapted] | None, whole: Whole = NOTHING_WHOLE
) -> Tally:
    """Multiply-adds of one forward and backward over the batch; `adapted=None` is full fine-tuning. `whole` is what
    an adapter trains in full beside its pairs.

    Checkpointing makes the embedding's output require a gradient, as PEFT does itself. Images pass their tower first.
    """
    return _step(arch, step, adapted, whole)[0]


def of_images(
    arch: Architecture, step: Step, adapted: Iterable[Adapted] | None, whole: Whole
) -> tuple[Tally, bool]:
    """The tower's part of a step, and whether what it hands on needs a gradient."""
    images = arch.images
    if images is None:
        return Tally(), False
    from .adapter.tower import in_tower, whole_in_tower  # loaded where there are images

    pairs = None if adapted is None else in_tower(images, adapted)
    inside = whole_in_tower(images, whole)
    reached = images.hooked or pairs is None or bool(pairs) or bool(inside.matrices or inside.biases)
    units = step.batch * images.units
    joined = units if images.merged else 1
    size = replace(
        step, batch=units // joined, seq_len=images.length * joined, hooked=images.hooked, scored=None,
        checkpointing=step.checkpointing and reached, pieces=joined if step.ends_known else 1,
    )  # fmt: skip
    return _step(images.tower, size, pairs, inside)


def _step(
    arch: Architecture, step: Step, adapted: Iterable[Adapted] | None, whole: Whole
) -> tuple[Tally, bool]:
    """Multiply-adds of a step, and whether the last layer's result needs a gradient."""
    adapted = None if adapted is None else tuple(adapted)
    trained = None if adapted is None else by_matrix(adapted)
    lengths = arch.lengths(step.seq_len)
    if step.scored is not None:
        lengths["head"] = step.scored
    walk = _Walk(arch, step, trained, lengths, whole)
    total, seen = of_images(arch, step, adapted, whole)
    start = trained is None or (step.checkpointing and step.hooked) or whole.embedding or seen
    if adapted is not None:
        start = _embedding(adapted, step.batch * step.seq_len, total) or start
    stream = memory = start
    for number, (name, layers) in enumerate(arch.stacks):
        if name == "decoder" and number and arch.stacks[number - 1][0] == "encoder":
            memory, stream = stream, start
        stream = _stack(walk, layers, stream, memory, total)
    return total, stream


def flops(tally: Tally) -> int:
    """FLOPs of a tally."""
    return FLOPS_PER_MAC * tally.total
