"""From a model, what is trained and how it is run to the work of a micro-step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from ..adapter import Adapted, by_matrix
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..choices import DTYPE_BYTES
from ..objective import passes
from ..schema import Architecture, Attend, Block, Images, Operation
from ..setup import Setup
from .communication import gathers
from .styles import optimizer_bytes
from .sums import Sums
from .trained import held
from .walk import Walk
from .work import Gemm, Linear, Product, Sweep, Work


def _embedding(walk: Walk, pairs: Iterable[Adapted], seq_len: int) -> bool:
    """Add the up-projections of adapted look-up tables; whether the stream starts with a gradient."""
    found = False
    for item in pairs:
        if item.matrix.kind != "embedding" or item.matrix.role in ("vision", "audio"):
            continue
        found = True
        for pair in item.pairs:
            up = (walk.rows(seq_len), float(pair.rank), float(pair.d_out))
            walk.low_rank("forward", None, up)
            walk.low_rank("backward", up, up)
            if pair.magnitudes:
                flops = Linear(2.0 * pair.rank * pair.d_in * pair.d_out)
                product = Product(flops, Linear(), flops)
                walk.sums.gemm("adapter", "forward", walk.setup.trained_dtype, product)
    return found


def _stack(
    walk: Walk, layers: Iterable[tuple[int, Block]], lengths: Mapping[str, int], stream: bool, memory: bool
) -> bool:
    """Add a stack's layers, each kind walked once; whether its output needs a gradient."""
    total = walk.sums
    walked: dict[object, tuple[Sums, bool, dict[str, bool]]] = {}
    uniform = walk.uniform
    for layer, block in layers:
        kept = tuple(sorted(walk.kept.items()))
        key = (id(block), 0 if uniform else layer, stream, kept)
        if key not in walked:
            walk.sums = Sums()
            start = [stream and not block.features, memory]
            length = block.fixed_length or lengths[block.stack]
            grad = walk.block(block, layer, length, lengths["memory"], start)
            walked[key] = (walk.sums, grad, walk.kept)
            walk.sums.times = 0.0
        sums, grad, walk.kept = walked[key]
        sums.times += 1
        stream = grad or (block.features and walk.setup.needs_input_grads)
    for sums, _, _ in walked.values():
        total.add(sums, sums.times)
    walk.sums = total
    return stream


def _optimizer(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted], whole: Whole
) -> tuple[float, float]:
    """Trained parameters of one GPU, as gradients accumulate and as the optimizer steps."""
    mine = held(arch, setup, adapted, whole)
    gradients = mine.share(setup, setup.shards if setup.gradients_sharded else 1)
    return gradients, mine.share(setup, setup.shards if setup.states_sharded else 1)


def step_bytes(setup: Setup) -> float:
    """Bytes that the optimizer's step moves for each parameter: of float32 copies under bf16-master and DeepSpeed's
    16 bits."""
    masters = setup.precision == "bf16-master" or (
        setup.sharding.startswith("zero") and setup.precision != "fp32"
    )
    return optimizer_bytes(
        setup.optimizer, setup.optimizer_kernel, 4 if masters else DTYPE_BYTES[setup.trained_dtype]
    )


@lru_cache(maxsize=64)
def _frozen(arch: Architecture, setup: Setup) -> Sums:
    """A pass of the model alone, whatever is trained beside it."""
    walk, lengths = Walk(arch, setup, {}, NOTHING_WHOLE), arch.lengths(setup.seq_len)
    if arch.images is not None:
        _see(walk, arch.images, ())
    for _, layers in arch.stacks:
        _stack(walk, layers, lengths, False, False)
    return walk.sums


def _without_gradients(walk: Walk, arch: Architecture, setup: Setup) -> None:
    """Add the forward passes that an objective makes without gradients, those of the trained model as the base's."""
    number = sum(passes(setup.objective, setup.reference, setup.generation))
    if not number:
        return
    found = _frozen(arch, replace(setup, checkpointing="none", input_grads=False))
    walk.sums.add(
        Sums(
            {key: calls for key, calls in found.gemms.items() if key[1] == "forward"},
            {key: moved for key, moved in found.sweeps.items() if key[1] == "forward"},
            {**found.operations, "backward": 0.0},
        ),
        float(number),
    )  # fmt: skip


@lru_cache(maxsize=64)
def together(images: Images, meeting: int = 1) -> Architecture:
    """The tower with all units of a sequence as one of units x length positions, of which each meets those of its
    unit, or of so many `meeting` ones."""

    def joined(op: Operation) -> Operation:
        if not isinstance(op, Attend):
            return op
        return replace(op, pairs=images.units * (op.pairs or images.length**2) * meeting)

    blocks = (
        replace(
            b, operations=tuple(map(joined, b.operations)),
            fixed_length=b.fixed_length and b.fixed_length * images.units,
        )
        for b in images.tower.blocks
    )  # fmt: skip
    return replace(images.tower, blocks=tuple(blocks))


def _see(walk: Walk, images: Images, pairs: tuple[Adapted, ...]) -> bool:
    """Add the work of the images' tower; whether its features need a gradient."""
    from ..adapter.tower import in_tower, whole_in_tower  # loaded where there are images

    inner, whole = in_tower(images, pairs), whole_in_tower(images, walk.whole)
    reached = images.hooked or walk.trained is None or bool(inner) or bool(whole.matrices or whole.biases)
    setup = replace(
        walk.setup,
        checkpointing=walk.setup.checkpointing if reached else "none", sequence_parallel=1,
        gpus=walk.setup.gpus // walk.setup.sequence_parallel,
        input_grads=walk.setup.needs_input_grads and images.hooked,
    )  # fmt: skip
    trained = None if walk.trained is None else by_matrix(inner)
    alone = setup.attention_kernel == "flash" or not images.merged
    tower = together(images, 1 if alone else images.units * setup.sequences)
    seen = Walk(tower, setup, trained, whole)
    lengths = tower.lengths(images.units * images.length)
    grad = trained is None or setup.needs_input_grads
    for _, layers in tower.stacks:
        grad = _stack(seen, layers, lengths, grad, False)
    walk.sums.add(seen.sums, 1.0)
    return grad


def work_of(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] = (), whole: Whole = NOTHING_WHOLE
) -> Work:
    """The work of a micro-step of `setup`, whatever its micro-batch; `adapted` is not looked at in full fine-tuning.

    The embedding's output needs a gradient where the set-up says so (HF's Trainer, with checkpointing).
    """
    pairs = () if setup.method == "full" else tuple(adapted)
    trained = None if setup.method == "full" else by_matrix(pairs)
    walk, lengths = Walk(arch, setup, trained, whole), arch.lengths(setup.seq_len)
    _without_gradients(walk, arch, setup)
    start = trained is None or setup.needs_input_grads or whole.embedding
    start = (_see(walk, arch.images, pairs) if arch.images else False) or start
    start = _embedding(walk, pairs, setup.seq_len) or start
    stream, memory, previous = start, start, ""
    for name, layers in arch.stacks:
        if previous == "encoder" and name == "decoder":
            memory, stream = stream, start
        previous = name
        stream = _stack(walk, layers, lengths, stream, memory)
    gradients, states = _optimizer(arch, setup, pairs, whole)
    matrices = len(arch.matrices) if setup.method == "full" else 2 * sum(len(i.layers) for i in pairs)
    return Work(
        gemms=tuple(Gemm(*key[:3], n, key[3]) for key, n in walk.sums.gemms.items()),
        sweeps=tuple(Sweep(what, phase, moved) for (what, phase), moved in walk.sums.sweeps.items()),
        operations=walk.sums.operations, stepped=states,
        optimizer_bytes=states * step_bytes(setup),
        optimizer_operations=float(20 + matrices // 10),
        accumulate_bytes=3.0 * DTYPE_BYTES[setup.trained_dtype] * gradients, gathers=gathers(arch, setup, pairs),
    )  # fmt: skip
