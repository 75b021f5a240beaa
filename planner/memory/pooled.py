"""A tower that projects padded patches and averages squares of them behind its layers (Gemma 4's)."""

from __future__ import annotations

from ..schema import Apply, Attend, Images, Product
from .kinds import KEPT, STREAM, Job, Walked, handed_on
from .layer import Walk
from .merged import Entry
from .opening import first_width
from .passes import FLOAT32
from .stretch import Held, Stretch, stretch
from .tape import Size, add, cast, scale, unary

INDEX_BYTES = 8


def _stem(job: Job) -> Apply:
    stem = next(block for block in job.arch.blocks if block.stack == "stem")
    return next(op for op in stem.operations if isinstance(op, Apply))


def patches_of(job: Job, pixels: Size, reached: bool) -> Entry:
    """From pixels to the first layer: pixels shifted in float32 and lowered, their projection, positions by column
    and by row added. The first layer's input stays while the tower runs, as do cosines, sines and a mask of padded
    positions. Neglected: the table of positions' gradient in full fine-tuning."""
    run, op = job.run(width=first_width(job)), _stem(job)
    stem = next(block for block in job.arch.blocks if block.stack == "stem")
    tape, hidden, values = run.tape, job.arch.hidden_size, job.arch.matrices[op.matrix].d_in
    shifted = [tape.new(pixels), tape.new(pixels)]
    del shifted[0]
    x = tape.leaf(run.rows * values, run.stream, grad=False)
    del shifted
    walk = Walk(job.arch, stem, 0, run, job.traits, job.trained, job.unpacked)
    patches = walk._linear(op, x, clones=False)
    del x
    one: Size = run.rows * (hidden * run.stream)
    places = [tape.new(run.rows * (hidden * run.norms)) for _ in range(3)]  # of columns, of rows, their sum
    position = tape.leaf(run.rows * hidden, run.norms, grad=False)
    del places
    out = add(patches, position)
    del patches, position
    size, node = out.bytes, out.node
    forward = handed_on(tape, out)
    start = len(tape.events)
    del out
    back = Stretch()
    if node is not None:
        tape.backward(node, [tape.new(size, STREAM)]).clear()
        del node
        back = stretch(tape, start, len(tape.events))
    core = next(o for b in job.arch.blocks for o in b.operations if isinstance(o, Attend))
    turned = run.rows * (2 * core.d_qk * run.stream)
    mask = run.pairs if job.traits.mask_given and run.kernel != "flash" else 0
    mask *= run.compute if run.kernel == "eager" else 1
    again = reached and job.setup.checkpointing != "none"
    held: Held = {"temporary": one * (not reached) + turned * (not reached) + mask * (not again)}
    return Entry(forward, back, held, {KEPT: turned * reached + mask * again})


def pooler_of(job: Job, images: Images, grad: bool, width: int) -> Walked:
    """Squares of patches averaged: a product with a float32 matrix of weights by position and token, which it keeps;
    padded tokens left out, and the rest brought to scale in float32."""
    run = job.run(width=width)
    tape, hidden = run.tape, job.arch.hidden_size
    pooler = next(block for block in job.arch.blocks if block.stack == "pooler")
    tokens = next(op.macs_per_position for op in pooler.operations if isinstance(op, Product)) // hidden
    filled = unary(tape.leaf(run.rows * hidden, run.stream, grad=grad), "")
    places = tape.new(run.rows * (tokens * INDEX_BYTES))
    chosen = tape.new(run.rows * (tokens * FLOAT32))
    del places
    shares = tape.new(run.rows * (tokens * FLOAT32))
    del chosen
    wide = run.cast_in(cast(filled, FLOAT32))
    if run.autocast:
        shares = tape.new(run.rows * (tokens * run.compute))
    read = wide.bytes
    averaged = tape.apply(
        (wide,), run.sequences * tokens * hidden, wide.width, (shares,), lambda g: (tape.new(read),)
    )
    del wide, shares, filled
    scaled = scale(cast(cast(averaged, width), FLOAT32))
    del averaged
    whole = scaled.bytes
    kept = run.sequences * (images.rows // images.units * hidden)
    out = cast(tape.apply((scaled,), kept, FLOAT32, (), lambda g: (tape.new(whole),)), width)
    del scaled
    size, node, made = out.bytes, out.node, out.width
    forward = handed_on(tape, out)
    start = len(tape.events)
    del out
    if node is None:
        return Walked(forward, None, False, made)
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return Walked(forward, stretch(tape, start, len(tape.events)), True, made)
