"""The embedding before the layers: frozen, trained in full, or with a pair."""

from __future__ import annotations

from dataclasses import field

from ..dataclass import dataclass
from ..schema import Architecture, Matrix
from .passes import FLOAT32, Pass
from .products import LowRank, by_magnitude, meeting, trained_linear
from .stretch import Held, Stretch, label_kept, plus, stretch
from .tape import Buffer, Gradients, Value, add, cast, scale

KEPT, STREAM, TEMPORARY = "activations", "stream", "temporary"


@dataclass(frozen=True)
class Stem:
    """The embedding: what the model's forward pass holds of it until it returns, whether something of it is trained,
    the way there where that is more than a look-up, and its way back."""

    held: Held
    trains: bool
    backward: Stretch = field(default_factory=Stretch)
    forward: Stretch | None = None


def stem_stretches(
    run: Pass, arch: Architecture, *, trains: bool, pairs: tuple[LowRank, ...] = (), fresh: bool = False
) -> Stem:
    """The embedding's result is held by a variable of the model's forward pass. `trains`: the table is trained in
    full, whose gradient is as large as the table; where all is trained and the unembedding shares it, a second one
    is added to the first, in place where that is `fresh` and no view, as a loss makes it that runs the unembedding
    itself. `pairs` stand beside a frozen one."""
    held: Held = {TEMPORARY: run.rows * (arch.hidden_size * run.stream)}
    table = next((m for m in arch.matrices if m.role == "embedding"), None)
    if table is None or not (trains or pairs):
        return Stem(held, False)
    if not trains:
        return _with_pairs(run, table.d_in, table.d_out, pairs, held)
    size, tied = table.d_in * table.d_out * run.whole, arch.tied_embeddings and (run.full or run.flat)
    kept = size * (1 - tied - run.tape.accumulates)  # a tied one's other share is held, or goes, with it
    lowered = run.autocast and run.whole > run.compute
    # With the unembedding's in a new tensor where that is a view, which one that autocast widened is not.
    meeting = size * (1 + (tied and not lowered and not fresh))
    others = _beside(arch, table) * run.whole if run.full else 0
    most = max(meeting, others) if run.tape.accumulates else meeting + others
    back = Stretch({"gradients": kept + others * (1 - run.tape.accumulates)}, {"gradients": most, **held})
    return Stem(held, True, back)


def _beside(arch: Architecture, table: Matrix) -> int:
    """Parameters of tables of tokens beside the first one, as of per-layer embeddings."""
    return sum(
        m.d_in * m.d_out
        for m in arch.matrices
        if m.kind == "embedding" and m is not table and not m.tied and _of_tokens(m, table)
    )


def _of_tokens(matrix: Matrix, table: Matrix) -> bool:
    """Whether a table is looked up by tokens: as long as the first one, or of Gemma's per-layer embeddings, which may
    have fewer."""
    return matrix.d_in == table.d_in or matrix.name.endswith("per_layer")


def _with_pairs(run: Pass, vocab: int, hidden: int, pairs: tuple[LowRank, ...], held: Held) -> Stem:
    """A frozen table with pairs: rows of A (rank values a token), times B, on top of the table's rows."""
    tape = run.tape
    x = tape.leaf(run.rows * hidden, run.stream, grad=False)
    for pair in pairs:
        if pair.dora:
            _norm_of_table(run, vocab * hidden)
        up = trained_linear(run, _rows_of(run, vocab, pair), run.tokens, pair.rank, hidden)
        own = scale(by_magnitude(run, up, meets=run.autocast) if pair.dora else up)
        del up
        base = by_magnitude(run, x) if pair.dora else x
        x = add(base, own, width=meeting(run, base, own))
        del base, own
        x = cast(x, run.stream)
    label_kept(tape, KEPT)
    tape.labels[x.buffer.index] = TEMPORARY
    size, node = x.bytes, x.node
    forward = stretch(tape, 0, len(tape.events))
    forward.change = plus(forward.change, held, -1)
    del x
    start = len(tape.events)
    assert node is not None
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return Stem(held, True, stretch(tape, start, len(tape.events)), forward)


def _rows_of(run: Pass, vocab: int, pair: LowRank) -> Value:
    """Rows of A: its gradient is as large as A, and made once more in the order in which A lies."""
    tape, size = run.tape, pair.rank * (vocab * run.trained)

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size)
        tape.gradient(size)
        del made
        return ()

    return tape.apply((), run.tokens * pair.rank, run.trained, (), rule, trains=True)


def _norm_of_table(run: Pass, parameters: int) -> None:
    """What the norm of W + s A B holds on its way: A B, that times s, and the sum, all as large as the table."""
    width = run.compute if run.autocast else run.trained
    summed = FLOAT32 if run.apart and not run.autocast else max(width, run.norms)
    made = [run.tape.new(parameters * each) for each in (width, width, summed)]
    del made
