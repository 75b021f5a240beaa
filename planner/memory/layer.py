"""A layer's forward pass on a tape: the operations of its block in order, with the elementwise code between them.

The block says which matrices meet which values; what a Join is follows from what it joins (a residual sum, a gated
activation, experts' weighting). Values are let go where the library's variables go: a residual after its sum,
queries, keys and values when attention returns. Scans (state spaces, linear attention) are taken as their fused
kernels run them, which keep what comes in and what goes out; reference code without kernels keeps several times
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..schema import (
    MEMORY,
    STREAM,
    Apply,
    Architecture,
    Attend,
    Block,
    Join,
    Keep,
    Operation,
    Product,
    Recall,
    Scan,
)
from .attention import Shape, attend, beside_heads
from .bias import Shared
from .elementwise import activation, by_buffer, drop, gated, norm, rotate, rotated
from .experts import folded, folds
from .indexer import choose, chooses
from .joins import UNNORMED, Joins
from .layout import Trained, from_latent, layout, low_ranks, reads_copy, split_sides, uses
from .outside import ALONE, Outside
from .passes import FLOAT32, Pass
from .products import Weight, adapted, linear, whole
from .scans import by_filters, convolve, gated_result, mixer_of, read_turned, scanned
from .shared import is_shared
from .tape import Size, Value, cast, multiply, piece, scale, unary
from .traits import NESTED, Traits, in_scans

MASKED_BEFORE = ("bloom",)  # types whose mask is in the type of embeddings before their norm
CLIPPED = ".linear"  # a Linear inside a module that clamps what goes in and what comes out


class Walk(Joins):
    """One layer being run. `values` holds what is alive, by the block's numbers; `normed` the normed stream;
    `kept` what earlier layers kept for later ones."""

    def __init__(
        self, arch: Architecture, block: Block, layer: int, run: Pass, traits: Traits, trained: Trained,
        unpacked: Mapping[int, int], outside: Outside = ALONE,
    ) -> None:  # fmt: skip
        self.arch, self.block, self.layer = arch, block, layer
        self.run, self.trained, self.unpacked = run, trained, unpacked
        self.plan = layout(arch, block)
        self.mixer = mixer_of(arch, block) if run.split == 1 else None
        self.turned = read_turned(self.mixer, block) if run.sequences != 1 else -1
        self.traits = in_scans(traits, arch) if self.plan.scans else traits
        self.mixed: Value | None = None
        self.number = 0  # of the operation that runs
        self.width_in = run.stream  # bytes a value of the normed stream
        self.beside: dict[int, list[Value]] = {}  # what has a name of its own as long as a value has
        self.handing: dict[int, list[Value]] = {}  # probabilities of attention that has not returned yet
        self.act = arch.activation or traits.activation
        self.outside = outside
        self.kept: dict[str, Value] = {}
        super().__init__()
        self.normed: dict[tuple[int, str], Value] = {}
        self.biases: list[Shared] = []  # which have a name until the layer ends
        self.returned: list[Value] = []  # probabilities that attention handed on, which have one name
        self.inner: list[Value] = []  # what an MLP's last matrix reads, where that has a name
        self.joined = run.joins_pairs and self._adapts_mlp()
        self.python = run.kernels in ("transformers", "litgpt") or (
            run.kernels in ("unsloth", "pairs") and not self.joined
        )

    def _adapts_mlp(self) -> bool:
        """Whether every matrix of the dense MLP has a pair, which Unsloth then runs in one function."""
        roles = [
            (op.matrix, self.arch.matrices[op.matrix].role)
            for op in self.block.operations
            if isinstance(op, Apply)
        ]
        mlp = [index for index, role in roles if role == "mlp"]
        return bool(mlp) and all(self.trained.of(index, self.layer) is not None for index in mlp)

    def forward(self, x: Value) -> Value:
        """The layer's result."""
        self.values[STREAM] = x
        self.values[MEMORY] = self._memory(x)
        for number, op in enumerate(self._in_order()):
            self.number = number
            if self.mixer is not None and number in self.mixer.inside:
                self._scan(number, op)
                self._let_go(number)
                continue
            made = self._run(op)
            if self.python and op.out in self.plan.gates:
                made = scale(made) if self.traits.late_gate else made
                self.values[op.out] = activation(self.run, made, self.act)
            else:
                self.values[op.out] = made
            del made
            self._let_go(number)
        return self.clamped(self.values.pop(self.block.out), "end")

    def _in_order(self) -> Sequence[Operation]:
        """The block's operations, a gate behind what it gates where the model's code has it so."""
        found = list(self.block.operations)
        for number, op in enumerate(self.block.operations[:-1]):
            if self.traits.late_gate and op.out in self.plan.gates:
                found[number], found[number + 1] = found[number + 1], found[number]
        return found

    def _let_go(self, number: int) -> None:
        """Forget the values of which this operation was the last use."""
        for value in self.plan.ends.get(number, ()):
            if (
                self.mixer is not None and number < self.mixer.first
            ):  # whoever calls a scan names what it reads
                made = self.block.operations[self.mixer.last].out
                self.beside[made] = [v for (source, _), v in self.normed.items() if source == value]
            self.values.pop(value, None)
            self.beside.pop(value, None)
            self.returned = self.handing.pop(value, self.returned)
            again = self.traits.multiplied  # whose numbers' products go with the calls that they are given to
            self.normed = {
                k: v for k, v in self.normed.items() if k[0] != value or (k[1] and k[1] not in again)
            }

    def _scan(self, number: int, op: Operation) -> None:
        """An operation inside a scan: the kernel runs at the first, the gate at the last, nothing between."""
        mixer = self.mixer
        assert mixer is not None
        if number == mixer.first:
            self.mixed = scanned(self.run, mixer, self.values, self.block)
            convolved = next(iter(uses(op)))
            self.beside.setdefault(self.block.operations[mixer.last].out, []).append(self.values[convolved])
        if number == mixer.last and self.mixed is not None:
            mixed, self.mixed = self.mixed, None
            mixed = gated_result(self.run, mixer, mixed, self.values[uses(op)[-1]])
            self.beside[op.out] += [mixed, *self.run.named]
            self.run.named = []
            self.values[op.out] = cast(mixed, self.width_in)  # as the mixer's input was

    def _memory(self, x: Value) -> Value:
        """What layers attend to from outside, held elsewhere: an encoder's output, else the embedding's."""
        tape, outside = self.run.tape, self.outside
        rows = self.run.tokens if outside.rows is None else outside.rows
        elements, width = rows * self.arch.hidden_size, outside.width or x.width
        if outside.rows is None:
            held = elements * width if outside.held and reads_copy(self.block) else 0
            return Value(tape.new(held), elements, width, tape.leaf(0, width, grad=x.node is not None).node)
        buffer = tape.new(elements * width if outside.held else 0)
        if outside.seen is not None:
            outside.seen.append(buffer.index)
        node = tape.sink(gathers=outside.last) if outside.grad and self.run.grad else None
        found = Value(buffer, elements, width, node)
        if self.run.leaves:  # which a checkpoint detaches like the stream
            self.run.detach(found)
        return found

    def _run(self, op: Operation) -> Value:
        if isinstance(op, Apply):
            return self._apply(op)
        if isinstance(op, Attend):
            return self._attend(op)
        if isinstance(op, Join):
            return self.join(op)
        if isinstance(op, Keep):
            self.kept[op.name] = self.values[op.source]
            return self.values[op.source]
        if isinstance(op, Recall):
            return self.kept[op.name] if op.name in self.kept else self._absent()
        return self._product(op)

    def _absent(self) -> Value:
        """A value that another layer kept and holds: nothing of this layer's."""
        return self.run.tape.leaf(0, self.run.compute if self.run.autocast else self.run.stream, grad=False)

    def _product(self, op: Product | Scan) -> Value:
        """A product of two activations in a scan: keeps both sides, which are kept once however often they are
        used."""
        left, right = self.value(op.left), self.value(op.right)
        larger = left if left.elements >= right.elements else right
        tape, sizes = self.run.tape, (left.bytes, right.bytes)
        return tape.apply(
            (left, right), larger.elements, larger.width, (left.buffer, right.buffer),
            lambda g: [tape.new(size) for size in sizes],
        )  # fmt: skip

    def value(self, number: int) -> Value:
        """A value; on the stream, the normed one."""
        if number in self.plan.normed:
            return self._normed(number)
        return self.values[number]

    # What goes into a matrix

    def _input(self, op: Apply) -> Value:
        """What a matrix reads: the normed stream, or a value with its activation or its norm."""
        if op.source in self.plan.normed and self.arch.matrices[op.matrix].leaf not in UNNORMED:
            role = self.arch.matrices[op.matrix].role
            routed = self.traits.routed_norms and role in ("router", "expert")
            apart = routed or (self.traits.two_norms and role == "mlp") or role in self.traits.multiplied
            found = self._normed(op.source, role if apart else "")
            if self.traits.mlp_inline and role == "mlp":
                self.normed.pop((op.source, ""), None)
            return found
        value, made = self.values[op.source], self.plan.made_by.get(op.source)
        if self._nests(op):
            return value
        if isinstance(made, Join) and self.plan.kinds[made.out] == "added":
            made = self.plan.made_by[made.sources[0]]
        if not isinstance(made, Apply):
            gated_one = self.plan.kinds.get(op.source) == "gated"
            if self.traits.inner_norms and (gated_one or isinstance(made, Attend)):
                self._unname(op.source)
                return norm(self.run, value, self.arch.matrices[op.matrix].d_in, self.traits.norm)
            if not gated_one:
                return value
            self._unname(op.source)
            return self._dropped(value)
        role = self.arch.matrices[made.matrix].role
        if role in ("mlp", "shared_expert") and self.arch.matrices[op.matrix].role == role:
            self._unname(op.source)
            value = self._activated(made, value)
            value = self._dropped(value)
            if self.traits.inner_named:
                self.inner.append(value)
            return value
        if from_latent(self.arch, op, self.plan.made_by):
            width = self.arch.matrices[op.matrix].d_in
            return norm(self.run, piece(value, self.run.tokens * width), width, self.traits.norm)
        return value

    def _nests(self, op: Apply) -> bool:
        """Whether a matrix makes what a checkpoint inside of the layer holds, of what an MLP has made."""
        return self.traits.nested and self.arch.matrices[op.matrix].leaf == NESTED

    def _unname(self, source: int) -> None:
        """Forget what is read for the last time before it is activated or dropped: it has no name of its own."""
        if source in self.plan.ends.get(self.number, ()):
            del self.values[source]

    def _dropped(self, value: Value) -> Value:
        """An MLP's inner values with their dropout."""
        return drop(self.run, value) if self.traits.dropped_inner and self.run.drops else value

    def _activated(self, made: Apply, value: Value) -> Value:
        if not self.arch.matrices[made.matrix].parts:
            return activation(self.run, value, self.act)
        half = value.elements * 0.5
        gate, up = piece(value, half), piece(value, half)
        if self.python:
            return multiply(activation(self.run, gate, self.act), up)
        return gated(self.run, gate, up, self.act)

    def _normed(self, number: int, apart: str = "") -> Value:
        """The normed stream, made once for all that read it but for a role that has a norm of its own (`apart`)."""
        key, rule = (number, apart), self.traits.norm if self.traits.before else "none"
        if key not in self.normed and apart in self.traits.multiplied:
            self.normed[key] = scale(self._normed(number))
        elif key not in self.normed:
            x = self.values[number]
            if self.traits.wide_residual:
                x = cast(x, self.run.norms)
            if apart and self.traits.two_norms:  # attention has read its own
                self.normed.pop((number, ""), None)
            self.normed[key] = whole(self.run, norm(self.run, x, self.arch.hidden_size, rule))
        self.width_in = self.normed[key].width
        return self.normed[key]

    # Matrices

    def _apply(self, op: Apply) -> Value:
        matrix = self.arch.matrices[op.matrix]
        x = self._input(op)
        if matrix.kind == "experts":
            return self.meet(op, x)
        if matrix.kind == "convolution" and matrix.d_out != matrix.d_in:
            if self.mixer is not None:
                return convolve(self.run, x, self.weight(op.matrix), self.mixer)
            rows = self._rows(op) * matrix.d_out
            if x.elements > rows:  # LFM2's: what one projection made is first gated by another part of it
                x = multiply(piece(x, rows), piece(x, rows))
            return by_filters(self.run, x, x.elements, self.weight(op.matrix))
        if matrix.role == "router" and self.traits.float_router:
            x = cast(x, FLOAT32)
        if matrix.wide:  # its code casts to the weight's type, whatever autocast does next
            x = cast(x, self.weight(op.matrix).width)
        clips = self.traits.clipped and matrix.name.endswith(CLIPPED)
        out = self._linear(op, unary(x, "in", 1) if clips else x, clones=op.out in self.plan.turned)
        if clips:
            out = unary(out, "in", 1)
        if (
            matrix.role == "state_space"
            and matrix.role in self.traits.multiplied
            and op.source in self.plan.normed
        ):
            out = by_buffer(self.run, out)
        if matrix.role == "router":
            self.logits = out
        if self._nests(op):
            self.run.inside.append(out.buffer.index)
        if op.forward_only:
            out.node = None
        return out

    def _rows(self, op: Apply) -> Size:
        """Positions that a matrix meets."""
        if op.length == "memory" and self.outside.rows is not None:
            return self.outside.rows
        return self.run.tokens if op.per == op.times else self.run.tokens * (op.times / op.per)

    def weight(self, index: int) -> Weight:
        """A matrix, or its share of it under tensor parallelism."""
        matrix, run = self.arch.matrices[index], self.run
        trained = run.full or self.layer in self.trained.whole.matrices.get(index, ())
        d_in, d_out = split_sides(matrix, run.split)
        width = run.whole if trained else run.base if index in self.unpacked else run.saved
        return Weight(
            d_in, d_out, trained, matrix.bias, self.unpacked.get(index, 0) // run.split,
            FLOAT32 if matrix.wide and run.widens else width,
            self.layer in self.trained.whole.biases.get(index, ()), is_shared(self.arch, matrix),
            run.sequences if self.mixer is not None and self.mixer.apart > 1 and matrix.kind == "parameter" else 0,
            matrix.role == "router", self.traits.flat and matrix.role == "mlp", index == self.turned,
        )  # fmt: skip

    def _linear(self, op: Apply, x: Value, *, clones: bool) -> Value:
        rows, weight, matrix = self._rows(op), self.weight(op.matrix), self.arch.matrices[op.matrix]
        item = self.trained.of(op.matrix, self.layer if op.layer is None else op.layer)
        if item is None:
            return linear(self.run, x, rows, weight, clones=clones)
        pairs = low_ranks(item, self.run.split)
        if folds(self.run, self.arch, item, weight):
            return folded(self.run, x, rows, weight, pairs[0])
        again = self.joined and matrix.role == "mlp" and matrix.d_out == self.arch.hidden_size
        return adapted(self.run, x, rows, weight, pairs, clones=clones, again=again)

    # Attention

    def _attend(self, op: Attend) -> Value:
        run, traits = self.run, self.traits
        if chooses(self.arch, self.block, op):
            return choose(run, op, run.pairs)
        q, k, v = self._heads(op)
        masked = (run.masked and self.outside.padded(op)) or (
            op.window is not None and op.window <= run.reach
        )
        masked = masked or traits.mask_given or (traits.windows_masked and op.window is not None)
        n_heads, n_kv_heads = self.counts(op)
        pairs: Size = run.pairs if op.pairs is None else run.sequences * op.pairs
        if op.memory and self.outside.rows is not None:
            pairs = run.length * self.outside.rows
        narrow = traits.narrow and not (traits.floored and run.half)
        shape = Shape(
            n_heads, n_kv_heads, op.d_qk, op.d_v, pairs, masked, traits.capped_scores, traits.eager, traits.no_flash,
            narrow, traits.dropped, traits.wide_scores, traits.wide_bias,
            traits.sinks or (traits.lessened and op.window is not None),
            traits.ungrouped and op.n_kv_heads == 1, self._bias(op), traits.sink_scales,
            None if op.bias is None else self.values[op.bias], traits.pieced,
            traits.floored, run.stream if traits.mask_shared else 0, traits.handed, traits.named,
            not (op.causal or masked), traits.scores_named, traits.scores_stay, traits.lessened,
            op.chosen or 0, self.outside.rows if op.memory else None, traits.lowered,
            run.stream if traits.stem_norm and self.arch.model_type not in MASKED_BEFORE else 0,
        )  # fmt: skip
        for number, value in ((op.q, q), (op.k, k), (op.v, v)):
            self.values[number] = value
        self.outside.keep(run, k, v)
        mixed = attend(run, q, k, v, shape)
        self.beside[op.out], self.handing[op.out] = run.named, run.returned
        run.named, run.returned = [], []
        return mixed

    def _bias(self, op: Attend) -> Shared | None:
        """The bias that attention's scores get: the stack's, or one that this layer makes."""
        outside, run = self.outside, self.run
        bias = outside.cross if op.memory else outside.own
        if bias is None or bias.apart:
            return bias.made(run) if bias else None
        made = bias.made(run) if outside.first else bias.shared(run, held=outside.held, last=outside.last)
        self.biases.append(made)
        return made

    def counts(self, op: Attend) -> tuple[int, int]:
        """Heads, and those of keys and values, on one of the GPUs that share them."""
        return -(-op.n_heads // self.run.split), -(-op.n_kv_heads // self.run.split)

    def _heads(self, op: Attend) -> tuple[Value, Value, Value]:
        """Queries, keys and values, normed and turned."""
        run, traits = self.run, self.traits
        n_heads, n_kv_heads = self.counts(op)
        widths = (n_heads * op.d_qk, n_kv_heads * op.d_qk, n_kv_heads * op.d_v)
        if op.q == op.k:
            q, k, v = (piece(self.values[op.q], run.tokens * width) for width in widths)
        else:
            q, k, v = self.value(op.q), self.value(op.k), self.value(op.v)
        if q.elements > run.tokens * widths[0]:  # queries with a gate beside them
            q = piece(q, run.tokens * widths[0])
        if run.fused_heads and op.q != op.k and n_heads == n_kv_heads:
            v = beside_heads(v, q, k)
        if self.plan.qk_norms:
            q, k = norm(run, q, op.d_qk, traits.qk_norm), norm(run, k, op.d_qk, traits.qk_norm)
            if op.q != op.k:  # what they were is named no more
                self.values[op.q], self.values[op.k] = q, k
        if traits.v_norm:
            v = norm(run, v, 0, traits.qk_norm)
        if self.plan.latent:
            return rotate(run, q, "partial", 0.5), k, v
        q, k = rotated(run, q, k, traits.rotary, traits.rotary_share)
        if traits.norms_turned:
            q, k = norm(run, q, op.d_qk, traits.qk_norm), norm(run, k, op.d_qk, traits.qk_norm)
        return q, k, v
