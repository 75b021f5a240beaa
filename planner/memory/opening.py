"""From the embedding to the first layer: what has a name meanwhile, what stays, and a matrix on the way."""

from __future__ import annotations

from ..dataclass import dataclass
from ..schema import Apply, Architecture, Block
from .elementwise import concatenated, drop, layer_norm
from .kinds import KEPT, STREAM, Job, handed_on
from .known import maybe_at, remembered
from .layer import MASKED_BEFORE, Walk
from .passes import CASTS, FLOAT32, Pass
from .stem import Stem
from .stretch import Held, Stretch, at_values, label_kept, stretch
from .tape import Size, Value, copy

POSITIONS = ("wpe", "embed_positions", "position_embeddings", "token_type_embeddings")  # and kinds of tokens
# Matrices between the embedding and the layers: behind all that is added and normed, before the positions, or of rows
# of several tables, before all else.
BEHIND, BEFORE, JOINED = (
    ("embeddings_project", "embedding_hidden_mapping_in"),
    ("project_in",),
    ("map_inputs_layer",),
)


@dataclass(frozen=True)
class Opening:
    """What is `named` while layers run forward, bytes that are `kept` for the way back, whether the first layer's
    input needs a gradient; and the way there and back where a matrix stands on it."""

    named: Held
    kept: Size
    grad: bool
    forward: Stretch | None = None
    backward: Stretch | None = None


def open_stem(job: Job, stem: Stem) -> Opening:
    """From the embedding's result to the first layer."""
    grad = stem.trains or job.setup.needs_input_grads
    block = _mapping(job.arch)
    if block is None:
        return Opening(_named(job, stem), _kept(job, stem), grad)
    op = _apply(block)
    forward, back, needs = remembered(
        job, ("stem", grad, stem.trains), lambda own: _mapped(own, block, grad, stem.trains),
        lambda found, values: (at_values(found[0], values), maybe_at(found[1], values), found[2]), (op.matrix,),
    )  # fmt: skip
    run = job.run(width=first_width(job))
    named: Held = {"temporary": run.rows * (job.arch.hidden_size * run.stream)}
    if needs and job.setup.checkpointing in ("layer", "selective"):  # which the first layer keeps
        named = {"temporary": 0}
    return Opening(named, 0, needs, forward, back)


def _mapping(arch: Architecture) -> Block | None:
    """The block with a matrix between the embedding and the layers."""
    if arch.images is not None:
        return None
    names = (*BEHIND, *BEFORE, *JOINED)
    stems = [block for block in arch.blocks if block.stack == "stem" and _applies(block)]
    return next((block for block in stems if arch.matrices[_apply(block).matrix].leaf in names), None)


def _applies(block: Block) -> list[Apply]:
    return [op for op in block.operations if isinstance(op, Apply)]


def _apply(block: Block) -> Apply:
    return _applies(block)[0]


def _mapped(job: Job, block: Block, grad: bool, trains: bool) -> tuple[Stretch, Stretch | None, bool]:
    """The way through a matrix, and back, and whether what it makes needs a gradient. Of the embedding's result a
    leaf whose gradient is asked for stays. Rows of further tables are none but where they are joined to the first."""
    run, op, arch = job.run(), _apply(block), job.arch
    tape, matrix = run.tape, arch.matrices[op.matrix]
    table = next(m for m in arch.matrices if m.role == "embedding")
    looked_up = tape.leaf(run.rows * table.d_out, run.stream, grad=grad)
    walk = Walk(arch, block, 0, run, job.traits, job.trained, job.unpacked)
    x = looked_up
    if trains or not grad:
        del looked_up
    if matrix.leaf in JOINED:
        x = concatenated(x, tape.leaf(run.rows * (matrix.d_in - table.d_out), run.stream, grad=run.full))
    if matrix.leaf not in BEHIND:
        x = walk._linear(op, x, clones=False)
    x = _placed_and_normed(job, run, x, matrix.d_in if matrix.leaf in BEHIND else matrix.d_out)
    if matrix.leaf in BEHIND:
        x = walk._linear(op, x, clones=False)
    run.casts.clear()
    label_kept(tape, KEPT, CASTS)
    size, node = x.bytes, x.node
    forward = handed_on(tape, x)
    start = len(tape.events)
    del x
    if node is None:
        return forward, None, False
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return forward, stretch(tape, start, len(tape.events)), True


def _placed_and_normed(job: Job, run: Pass, x: Value, width: int) -> Value:
    """Positions added, then a norm and dropout, as far as the model has them."""
    x = copy(x)
    if job.traits.stem_norm:
        x = layer_norm(run, x, width)
    return drop(run, x) if job.traits.dropped_stem and run.drops else x


def first_width(job: Job) -> int:
    """Bytes a value of what comes into the first layer; 0 for the embedding's own. Under autocast torch's own norm
    widens it, unless a matrix follows, and a convolution that makes patches narrows them where nothing is added; a
    projection of patches that is held in whole numbers leaves them in float32, as the pixels are."""
    if job.traits.wide_stem and 0 in job.unpacked and job.setup.quantize != "fp8":  # the tower's first matrix
        return FLOAT32
    if job.traits.narrow_stem and job.run().autocast:
        return job.run().compute
    if not (job.traits.stem_norm and job.traits.norm == "layer" and job.run().autocast):
        return 0
    block = _mapping(job.arch)
    index = -1 if block is None else _apply(block).matrix
    behind = index >= 0 and job.arch.matrices[index].leaf in BEHIND
    return job.run().compute if behind and index not in job.unpacked else FLOAT32


def mask_width(job: Job) -> int:
    """Bytes a value of the mask that eager attention adds; 0 for the embedding's own."""
    return 0 if job.arch.model_type in MASKED_BEFORE else first_width(job)


def _named(job: Job, stem: Stem) -> Held:
    """What has a name while layers run forward: the embedding's result, unless a checkpoint keeps it as the first
    layer's input."""
    setup = job.setup
    graph = stem.trains or setup.needs_input_grads or not setup.reentrant  # else a checkpoint keeps nothing
    same = job.traits.stem_module or not _altered(job)
    keeps = graph and same and setup.checkpointing in ("layer", "selective")
    return {**stem.held, "temporary": 0} if keeps else stem.held


def _placed(arch: Architecture) -> bool:
    """Whether rows of another table are added to the embedding's."""
    return any(m.role == "other" and m.name.endswith(POSITIONS) for m in arch.matrices)


def _altered(job: Job) -> bool:
    """Whether something is done to the embedding's result before the first layer."""
    return _placed(job.arch) or job.traits.stem_norm or job.traits.dropped_stem or job.arch.images is not None


def _kept(job: Job, stem: Stem) -> Size:
    """Bytes that stay of the way from the embedding to the first layer where its result needs a gradient: that result
    itself as a leaf whose gradient is asked for, unless it is what the first layer keeps; what a norm reads; the mask
    of dropout."""
    setup, traits, one = job.setup, job.traits, stem.held["temporary"]
    if not (stem.trains or setup.needs_input_grads):
        return 0
    placed = _placed(job.arch)
    altered = _altered(job) or traits.scaled_outside
    leaf = not stem.trains and (altered or setup.checkpointing == "layer-offload")
    kept: Size = one if leaf else 0
    run = job.run()
    if traits.stem_norm and traits.norm == "rms-bare" and run.stream < FLOAT32:  # which keeps a wide copy
        kept = kept + run.rows * job.arch.hidden_size * FLOAT32
    elif traits.stem_norm and traits.norm == "layer" and run.autocast and run.stream < FLOAT32:
        kept = kept + run.rows * job.arch.hidden_size * FLOAT32  # autocast's copy
    elif traits.stem_norm and (placed or stem.trains):
        kept = kept + one
    if traits.dropped_stem:
        kept = kept + run.rows * job.arch.hidden_size
    return kept
