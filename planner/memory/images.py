"""Images on their way to the text: patches, the tower's layers, the connector, and the places that they fill among
the tokens; and back, as far as gradients reach.

The tower is walked like a text model's layers, over as many units (images, tiles) as the micro-batch has. Where
nothing needs a gradient it leaves its result alone.
"""

from __future__ import annotations

from dataclasses import replace

from ..adapter import Adapted
from ..adapter.tower import in_tower, whole_in_tower
from ..choices import Precision
from ..dataclass import dataclass
from ..schema import Apply, Attend, Block, Images, Matrix
from ..setup import Setup
from .kinds import KEPT, STREAM, Job, Walked, walk_layer
from .known import maybe_at, remembered
from .linear import Values
from .merged import entry_of
from .passes import FLOAT32, Pass
from .pooled import patches_of, pooler_of
from .rounds import in_rounds
from .states import leaves_towers
from .step import Course, Layers, walked_layers
from .stretch import Held, Stretch, at_values, plus
from .tape import Size

TEMPORARY = "temporary"


@dataclass(frozen=True)
class Manner:
    """What a tower's code does around its layers.

    `permuted`: patches are put in the order of windows, and features back. `rotary`: cosines and sines in float32 are
    held beside them. `positioned`: learned positions are added. `held`: the last layer's result is handed on with the
    features and held while the text runs. `joined`: features are joined anew from a list of images. `ended`: a norm
    stands behind the last layer. `copied`: pixel values are, to leave padded images out. `placed`: it is patches with
    their positions that are made to need a gradient. `pooled`: squares of patches are averaged behind the layers.
    `interpolated`: positions are sums in float32, which have a name. `embedded`: what the layers begin with has one.
    """

    permuted: bool = False
    rotary: bool = False
    positioned: bool = False
    held: bool = True
    joined: bool = False
    ended: bool = False
    copied: bool = False
    placed: bool = False
    pooled: bool = False
    interpolated: bool = False
    embedded: bool = False


MANNERS = {
    "qwen2_vl_vision": Manner(rotary=True, joined=True),
    "qwen2_5_vl_vision": Manner(rotary=True, permuted=True, joined=True),
    "qwen3_vl_vision": Manner(rotary=True, positioned=True, joined=True, interpolated=True),
    "gemma3_vision": Manner(positioned=True, ended=True, embedded=True),
    "idefics3_vision": Manner(
        positioned=True, ended=True, joined=True, copied=True, placed=True, embedded=True
    ),
    "clip_vision": Manner(positioned=True, joined=True, embedded=True),
    "internvl_vision": Manner(positioned=True, ended=True, embedded=True),
    **dict.fromkeys(
        (f"gemma4_vision{clips}{pads}" for clips in ("", "_clipped") for pads in ("", "_padded")),
        Manner(held=False, joined=True, pooled=True),
    ),
    "pixtral_vision": Manner(rotary=True, joined=True),
}


@dataclass(frozen=True)
class Tower:
    """A tower, walked: `entry` and `exit` around its layers, with their ways back. `mergers` connect results of
    inner layers; `inner` is held while the last layers run without a graph. `during` is held while it runs,
    `beside` while the text does, `leaf` until the backward pass ends, `brought` while layers run backward."""

    entry: Stretch
    layers: Layers
    exit: Walked
    mergers: tuple[Walked, ...]
    back: Stretch
    scatter: Stretch
    during: Held
    beside: Held
    leaf: Held
    inner: Held
    brought: Held

    @property
    def grad(self) -> bool:
        """Whether the features need a gradient."""
        return self.exit.grad

    def see(self, going: Course) -> None:
        """Pass the tower forward; what the text runs beside is then held."""
        kinds = self.layers.kinds
        going.go("forward", "tower: patches", self.entry)
        going.hold(self.leaf)
        going.hold(self.during)
        for rounds in in_rounds(self.layers.order):
            passed = [[(f"tower {where}", kinds[kind].forward) for where, kind in each] for each in rounds]
            going.go_through("forward", passed, 1)
        for each in (*self.mergers, self.exit):
            going.go("forward", "tower: connector", each.forward, 1)
        going.hold(self.during, -1)
        going.hold(self.beside)

    def see_back(self, going: Course) -> None:
        """Pass the tower backward, as far as its features need a gradient."""
        going.go("backward", "images among tokens", self.scatter)
        if self.exit.backward is None:
            return
        for each in (self.exit, *self.mergers):
            if each.backward is not None:
                going.go("backward", "tower: connector", each.backward, 1)
        kinds = self.layers.kinds
        going.hold(self.brought)
        for rounds in in_rounds(self.layers.order)[::-1]:
            passed = [
                [
                    (f"tower {where}", part)
                    for where, kind in each[::-1]
                    if (part := kinds[kind].backward) is not None
                ]
                for each in rounds[::-1]
            ]
            if passed[0]:
                going.go_through("backward", passed, 1)
        going.hold(self.brought, -1)
        going.go("backward", "tower: patches", self.back)
        going.hold(self.leaf, -1)


def pixel_bytes(images: Images, setup: Setup) -> int:
    """Bytes of the pixel values of a micro-step, which processors hand on in float32 and the batch holds."""
    size = FLOAT32 * setup.sequences
    for number in images.pixel_shape:
        size *= number
    return size


def _setup_of(images: Images, setup: Setup) -> Setup:
    """The set-up as the tower sees it: its units as sequences, nothing hidden, no split of sequences."""
    dropout = setup.lora_dropout if setup.objective == "sft" else 0.0
    units = setup.sequences * images.units
    joined = units if images.merged else 1
    if leaves_towers(setup):  # it runs as one that pairs on the text leave alone
        held: Precision = "bf16" if setup.precision == "autocast" else setup.precision
        setup = replace(setup, method="lora", precision=held, autocast=setup.under_autocast)
    return replace(
        setup, micro_batch=units // joined, seq_len=images.length * joined, packing="full", objective="sft",
        reference="base", loss="full", lora_dropout=dropout, sequence_parallel=1,
        gpus=setup.gpus // setup.sequence_parallel, input_grads=setup.needs_input_grads and images.hooked,
        cache_held=False,
    )  # fmt: skip


def _job_of(job: Job, images: Images) -> Job:
    pairs = () if leaves_towers(job.setup) else job.adapted
    adapted = None if pairs is None else in_tower(images, pairs)
    unpacked = {own: job.unpacked[i] for own, i in enumerate(images.indices) if i in job.unpacked}
    setup = _setup_of(images, job.setup)
    return Job(
        images.tower,
        setup,
        adapted,
        whole_in_tower(images, job.whole),
        merges=job.merges,
        unpacked=unpacked,
        evaluates=job.evaluates,
    )


def _block(images: Images, stack: str) -> Block:
    return next(block for block in images.tower.blocks if block.stack == stack)


def _patches(images: Images) -> Matrix:
    """The convolution that makes patches."""
    op = next(op for op in _block(images, "stem").operations if isinstance(op, Apply))
    return images.tower.matrices[op.matrix]


def _exit_at(found: Walked, values: Values) -> Walked:
    return found._replace(forward=at_values(found.forward, values), backward=maybe_at(found.backward, values))


def _connectors(images: Images) -> list[tuple[Block, int]]:
    """The connector, and mergers of inner layers' results, by their numbers: what they make is handed on, not what
    they read."""
    inner = [
        replace(block, out=block.operations[-1].out)
        for block in images.tower.blocks
        if block.stack == "deepstack"
    ]
    found = [(block, number) for block in inner for number in block.layers]
    return [(_block(images, "connector"), 0), *found]


def _connected(own: Job, block: Block, number: int, grad: bool, width: int) -> Walked:
    """A connector, walked."""
    return remembered(
        own, ("connector", block, number, grad, width, own.evaluates),
        lambda each: walk_layer(each, block, number, grad, width), _exit_at,
    )  # fmt: skip


def tower_of(job: Job, images: Images) -> Tower:
    """The tower, walked for a micro-step."""
    own, manner = _job_of(job, images), MANNERS[images.tower.model_type]
    run, setup = own.run(), own.setup
    grad = setup.method == "full" or own.trained.any_in(_block(images, "stem"))
    placed = _on_positions(job, images)
    grad = grad or (setup.needs_input_grads and not manner.pooled) or placed is not None
    layers = walked_layers(own, grad)
    last = layers.kinds[layers.order[-1][1]] if layers.order else None
    ended = found = (last.grad, last.width) if last else (grad, 0)
    pooler = (
        pooler_of(own, images, last.grad if last else grad, found[1] or run.stream) if manner.pooled else None
    )
    if pooler:
        found = (pooler.grad, pooler.width)
    out, *mergers = (_connected(own, block, number, *found) for block, number in _connectors(images))
    pixels, brought = pixel_bytes(images, job.setup), Held()
    if manner.pooled:
        first = patches_of(own, pixels, any(kind.grad for kind in layers.kinds))
        entry, back, during, leaf = first.forward, first.back, first.during, first.leaf
    elif images.merged:
        heads = next(op.d_qk for op in _block(images, "encoder").operations if isinstance(op, Attend))
        low = 0 if run.stream == FLOAT32 else pixels * (run.stream / FLOAT32)
        reached = any(kind.grad for kind in layers.kinds)
        first = entry_of(own, low, heads, grad, reached, _patches(images).params)
        entry, back, during, leaf = first.forward, first.back, first.during, first.leaf
        brought = first.brought
    else:
        entry, back, during, leaf = _entry(images, run, setup, manner, grad, pixels)
        if setup.method != "full" and grad:
            kept = _kept_by_patches(own, images, run, pixels, _lowered(run, manner, pixels), placed)
            leaf = plus(leaf, {KEPT: kept})
    text = job.run()
    features: Size = images.rows * job.setup.sequences * (job.arch.hidden_size * text.stream)
    width = layers.kinds[layers.order[-1][1]].width if layers.order else run.stream
    beside: Held = {TEMPORARY: run.rows * (images.tower.hidden_size * width) if manner.held else 0}
    if ended[0]:  # kept by the graph already, where the connector keeps what it reads
        beside = {}
    results = (1 + manner.joined) * (1 + len(mergers))
    inner = (*mergers, pooler) if pooler else tuple(mergers)
    beside = {TEMPORARY: beside.get(TEMPORARY, 0) + features * results}
    begun = run.rows * (images.tower.hidden_size * run.stream) if manner.embedded else 0
    merged: Held = {TEMPORARY: features * len(mergers) + begun}
    scatter = _scatter(job, features, out.grad)
    return Tower(entry, layers, out, inner, back, scatter, during, beside, leaf, merged, brought)


def _entry(
    images: Images, run: Pass, setup: Setup, manner: Manner, grad: bool, pixels: int
) -> tuple[Stretch, Stretch, Held, Held]:
    """From pixels to the first layer, and back: pixels in the weights' type, patches, positions."""
    patches, width = (
        images.tower.hidden_size,
        run.compute if run.autocast and not manner.positioned else run.stream,
    )
    one: Size = run.rows * (patches * width)
    lowered = _lowered(run, manner, pixels)
    heads = next(op for op in _block(images, "encoder").operations if hasattr(op, "d_qk"))
    turned = 2 * FLOAT32 * run.rows * heads.d_qk if manner.rotary else 0
    copies = 1 + manner.permuted + manner.positioned
    placed = run.rows * (patches * FLOAT32) if manner.interpolated else 0
    during: Held = {TEMPORARY: lowered + turned + placed}
    forward = Stretch({}, {TEMPORARY: lowered + turned + placed, STREAM: one * copies})
    altered = images.hooked and (manner.permuted or (manner.positioned and not manner.placed))
    leaf: Held = {KEPT: one} if grad and setup.method != "full" and altered else {}
    if setup.method != "full":
        return forward, Stretch({}, {STREAM: one * 2} if grad else {}), during, leaf
    leaf = {KEPT: lowered}
    conv = _patches(images)
    made = conv.params * run.whole
    return forward, Stretch({"gradients": made}, {"gradients": made, STREAM: one * 2}), during, leaf


def _lowered(run: Pass, manner: Manner, pixels: int) -> Size:
    """Bytes of pixels in the weights' type, where they are copied."""
    return 0 if run.stream == FLOAT32 and not manner.copied else pixels * (run.stream / FLOAT32)


def _on_positions(job: Job, images: Images) -> Adapted | None:
    """The pairs on a tower's table of positions."""
    home = _patches(images).name.rpartition(".")[0].removesuffix(".patch_embed")  # Qwen3-VL's lie beside it
    found = (each for each in job.adapted or () if each.matrix.kind == "embedding")
    return next((each for each in found if each.matrix.name.startswith(f"{home}.")), None)


def _kept_by_patches(
    own: Job, images: Images, run: Pass, pixels: Size, lowered: Size, placed: Adapted | None
) -> Size:
    """Bytes that stay where patches are made by what is trained: the convolution's pixels (which its way back asks
    for though a bias alone is trained), and DoRA's rows of positions with what its pair made, of four corners where
    they are interpolated."""
    kept: Size = 0
    if own.trained.any_in(_block(images, "stem")):
        kept = lowered or (pixels * (run.compute / FLOAT32) if run.autocast else 0)
    if placed is not None and placed.pairs[0].magnitudes:
        wide = run.compute if run.autocast else max(run.stream, run.trained)
        corners = 4 if MANNERS[images.tower.model_type].interpolated else 1
        kept = kept + corners * run.rows * (images.tower.hidden_size * (run.stream + wide))
    return kept


def _scatter(job: Job, features: Size, grad: bool) -> Stretch:
    """Features laid over the tokens' places: the way back takes those of the tokens and those of the features."""
    run = job.run()
    whole = run.rows * (job.arch.hidden_size * run.stream)
    return Stretch({}, {STREAM: 2 * whole + (features if grad else 0)})
