"""A tower that images pass as one sequence (Pixtral's): the norm before its layers, and the mask that keeps images
apart, an additive one of every pair of positions of the micro-batch."""

from __future__ import annotations

from dataclasses import field

from ..dataclass import dataclass
from .attention import mask_as_given
from .elementwise import norm
from .kinds import KEPT, STREAM, Job, handed_on
from .passes import Pass
from .stretch import Held, Stretch, plus, stretch
from .tape import Size

POSITION_BYTES = 2 * 8  # row and column of a patch


@dataclass(frozen=True)
class Entry:
    """What lies before the layers: passed `forward` and `back`, held `during` them, and as `leaf` to the backward
    pass's end; `brought`: what every layer that runs again brings back from the host."""

    forward: Stretch
    back: Stretch
    during: Held
    leaf: Held
    brought: Held = field(default_factory=dict)


def entry_of(job: Job, lowered: Size, d_head: int, grad: bool, reached: bool, patches: int) -> Entry:
    """Patches in their images' order, joined in one sequence and normed. The images' patches stay while the tower
    runs, as do cosines, sines and the mask; `grad`: patches need a gradient; `reached`: some layer's result does;
    `patches` are the parameters of their convolution, whose gradient is made in full fine-tuning."""
    run = job.run()
    hidden, tape = job.arch.hidden_size, run.tape
    width = run.compute if run.autocast else run.stream
    one: Size = run.rows * (hidden * width)
    x = tape.leaf(run.rows * hidden, width, grad=grad)
    out = norm(run, x, hidden, job.traits.norm)
    del x
    size, node = out.bytes, out.node
    forward = handed_on(tape, out)
    forward.highest = plus(forward.highest, {"temporary": lowered + one})
    back = Stretch()
    start = len(tape.events)
    del out
    if node is not None:
        tape.backward(node, [tape.new(size, STREAM)]).clear()
        del node
        back = stretch(tape, start, len(tape.events))
        full = job.setup.method == "full"
        own: Held = {"gradients": patches * run.whole} if full else {}
        back.change, back.highest = plus(back.change, own), plus(back.highest, {**own, STREAM: one * 2})
    turned = run.rows * (2 * d_head * run.stream)
    held: Held = {"temporary": one + turned + run.rows * POSITION_BYTES}
    leaf: Held = {KEPT: one} if grad and job.setup.method != "full" else {KEPT: lowered if grad else 0}
    if reached:
        held["temporary"] -= turned
        leaf[KEPT] += turned
    mask = mask_bytes(job, run)
    away = reached and job.setup.checkpointing == "layer-offload"
    stays = reached and not away and (job.setup.checkpointing != "none" or _is_kept(run))
    (leaf if stays else held)[KEPT if stays else "temporary"] += mask
    return Entry(forward, back, held, leaf, {"temporary": mask} if away else {})


def mask_bytes(job: Job, run: Pass) -> Size:
    """Bytes of the mask: none where a flash kernel takes lengths."""
    return 0 if run.kernel == "flash" and not job.traits.no_flash else run.pairs * run.stream


def _is_kept(run: Pass) -> bool:
    """Whether attention keeps the mask itself for its backward pass, not a copy."""
    width = run.compute if run.autocast else run.stream
    return run.kernel == "sdpa" and mask_as_given(run.length, run.stream, width)
