"""A whole step put together from its stretches: stem, layers, unembedding and loss, and back again.

Every kind of layer is run once on a tape of its own; the step then adds up what layers keep, and the highest point
of each stretch above what is held when it begins.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..choices import FsdpUnits, Method
from ..dataclass import dataclass, replace
from ..objective_rules import COMPARED
from ..schema import Apply, Architecture, Attend, Block
from ..setup import Setup
from .back import back_through
from .cache import passed_out, widened_outputs
from .course import NOTHING, Course, Place
from .head import LOGITS, head_stretches, sums_unembedding
from .kinds import CACHES, Job, Walked, walk_layer
from .known import maybe_at, remembered
from .layout import low_ranks, reads_copy
from .linear import Values
from .log_probs import logged_copies, of_pairs
from .opening import Opening, first_width, mask_width, open_stem
from .passes import CASTS, Pass
from .per_layer import copied, per_layer
from .products import LowRank
from .rounds import in_rounds
from .sharding import end_unit, gradients_go, handed_over, in_flat_units, in_one, one_stream
from .shared import shared_casts, shared_gradients
from .stages import Stage, stages, whole_model
from .stem import Stem, stem_stretches
from .stretch import Held, at_values, plus
from .tape import Size
from .unembedding import Dense, Head

POSITION_BIAS = "relative_attention_bias"
ENDS = ("head", "stem", "unused", "deepstack", "pooler", "connector")


def stacks(arch: Architecture) -> list[tuple[str, int, Block]]:
    """All layers between the ends in the order in which they run, each with its stack and block."""
    return [
        (name, layer, block) for name, layers in arch.stacks if name not in ENDS for layer, block in layers
    ]


def signature(job: Job, layer: int) -> tuple[Any, ...]:
    """What sets a layer apart from others of its block: its pairs and what it trains in full."""
    pairs = tuple(
        (index, position)
        for index, items in job.trained.pairs.items()
        for position, item in enumerate(items)
        if layer in item.layers
    )
    whole = (*job.whole.matrices.items(), *((~index, layers) for index, layers in job.whole.biases.items()))
    return pairs, tuple(index for index, layers in whole if layer in layers)


@dataclass(frozen=True)
class Layers:
    """Every layer in the order in which they run: its place, and which of the `kinds` it is."""

    order: tuple[tuple[str, int], ...]
    kinds: tuple[Walked, ...]

    @property
    def handed(self) -> Held:
        """Bytes that one layer hands on beside its result and that the model's loop holds while the next one runs:
        of those whose graph is kept none. Neglects that the first layer finds none, and layers without a graph
        before others with one."""
        kept = any(each.backward is not None and not each.handed.change for each in self.kinds)
        found = [] if kept else [each.handed.change for each in self.kinds if each.handed.change]
        return found[0] if found else {}

    def of_either(self) -> tuple[Layers, Layers]:
        """Of a walk for `either` that with gradients that wait, and that with such that go."""
        waiting = tuple(each._replace(backward=each.waiting, waiting=None) for each in self.kinds)
        going = tuple(each._replace(waiting=None) for each in self.kinds)
        return Layers(self.order, waiting), Layers(self.order, going)

    def at(self, values: Values) -> Layers:
        """The same at these values of symbols."""
        kinds = tuple(
            each._replace(
                forward=at_values(each.forward, values),
                backward=maybe_at(each.backward, values),
                handed=at_values(each.handed, values) if each.handed.change else each.handed,
            )
            for each in self.kinds
        )
        return Layers(self.order, kinds)


def _walk_layers(job: Job, grad: bool) -> Layers:
    known: dict[tuple[Any, ...], int] = {}
    kinds: list[Walked] = []
    order = []
    width = first_width(job)
    for name, layer, block in stacks(job.arch):
        key = id(block), signature(job, layer), grad, width
        if key not in known:
            known[key] = len(kinds)
            kinds.append(_walked(job, block, layer, key))
        grad, width = kinds[known[key]].grad, kinds[known[key]].width
        order.append((f"{name} layer {layer}", known[key]))
    return Layers(tuple(order), tuple(kinds))


def _walked(job: Job, block: Block, layer: int, key: tuple[Any, ...]) -> Walked:
    """A layer's stretches; `key` says what kind it is, last whether its input needs a gradient and how wide it is."""
    experts = any(
        isinstance(op, Apply) and job.arch.matrices[op.matrix].kind == "experts" for op in block.operations
    )
    if experts or job.plain is None:
        return walk_layer(job, block, layer, *key[-2:])
    if key not in job.plain:
        job.plain[key] = walk_layer(job, block, layer, *key[-2:])
    found: Walked = job.plain[key]
    return found


def walked_layers(job: Job, grad: bool) -> Layers:
    """Every layer's stretches, each kind walked once; `grad` says whether the embedding's result needs a gradient."""
    return remembered(
        job, ("layers", grad, job.highest_alone, job.evaluates), lambda own: _walk_layers(own, grad), Layers.at,
        either=Layers.of_either,
    )  # fmt: skip


def masks(job: Job) -> Size:
    """Bytes of the masks of tokens that a model makes before its layers: one for each window, of every pair of
    positions; of each sequence where tokens are hidden. Eager attention adds them to its scores, in their type and
    for every sequence; to SDPA it gives truth values, where it gives any. Where all tokens see all it makes none
    (transformers 5.23, masking_utils.py, create_bidirectional_mask), or but one of a value a token. Beside them
    MPNet's biases by position, which are there for every sequence while layers run."""
    setup, run = job.setup, job.run()
    found = () if job.arch.is_encoder_decoder else job.arch.matrices
    biases: Size = sum(m.d_out * run.norms for m in found if m.leaf == POSITION_BIAS)
    return biases * run.pairs + _masks(job, setup, run)


def _masks(job: Job, setup: Setup, run: Pass) -> Size:
    if run.kernel == "flash" and not job.traits.no_flash:
        return 0
    eager = run.kernel == "eager" or job.traits.eager
    given = run.masked or job.traits.mask_given
    own = [op for block in job.arch.blocks for op in block.operations if isinstance(op, Attend)]
    windows = {op.window for op in own if op.causal or op.window is not None or given}
    if job.traits.windows_inside:
        windows = {None}
    width = max(run.stream, mask_width(job)) if eager and not job.traits.truth_masks else 1
    one, total = setup.seq_len * setup.seq_len * width, 0
    for window in windows:
        seen = job.arch.images is not None and (given or (job.traits.windows_masked and window is not None))
        if eager or given or seen or (window is not None and window <= run.reach):
            total += one * (setup.sequences if run.masked or eager or seen else 1)
    return total


def adders(arch: Architecture) -> frozenset[str]:
    """The layers that read a copy of the embedding's result, whose gradient and those of the matrices that they share
    are added up; none where there is no copy."""
    found = stacks(arch) if copied(arch) else []
    return frozenset(f"{name} layer {layer}" for name, layer, block in found if reads_copy(block))


class Seen(Protocol):
    """What passes a tower before the text: whether its features need a gradient, and what is held `beside` the text
    until that has gone forward."""

    @property
    def grad(self) -> bool:
        """Whether the features need a gradient."""

    @property
    def beside(self) -> Held:
        """What the text's forward pass holds of it."""

    def see(self, going: Course) -> None:
        """Pass it forward."""

    def see_back(self, going: Course) -> None:
        """Pass it backward."""


def _away(job: Job) -> Held:
    """A hidden state where offloaded ones come back through buffers that stay: until the way back begins there is one
    for each of these and that of the last layer, which is not offloaded; then the layer that runs again has one."""
    setup = job.setup
    if not setup.offload_buffers or setup.checkpointing != "layer-offload":
        return {}
    run = job.run()
    return {"activations": run.rows * (job.arch.hidden_size * run.stream)}


def course(job: Job, base: Held, stage: Stage, unit: Size = 0, tower: Seen | None = None) -> Course:
    """The forward and backward pass of one micro-step of a stage over what is held throughout (`base`); `unit` is
    what a gathered layer takes, 0 where none is. Images pass their `tower` first."""
    stem = stem_of(job)
    tower = tower if stage.stem else None
    seen = tower is not None and tower.grad
    opening = open_stem(job, stem)
    layers = walked_layers(job, opening.grad or seen)
    kinds = layers.kinds
    last = kinds[layers.order[-1][1]] if layers.order else None
    grad = last.grad if last else stem.trains
    stretches = in_rounds(layers.order[stage.first : stage.end])
    going = Course(base, job, unit)
    away = _away(job)
    going.hold(away, (job.setup.offload_buffers + 1) * bool(away))
    if stage.in_flight > 1:
        for _, kind in layers.order[stage.first : stage.end]:
            going.hold(kinds[kind].forward.change, stage.in_flight - 1)
    if stem.forward is not None and stage.stem:
        going.go("forward", "embedding", stem.forward)
    if opening.forward is not None and stage.stem:
        going.go("forward", "embedding", opening.forward)
    going.hold(opening.named)
    if tower:
        tower.see(going)
    kept = masks(job)
    going.hold({"temporary": kept})
    if stage.stem:
        going.hold({"activations": opening.kept})
    going.hold({CASTS: shared_casts(job.arch, job.setup)})
    beside = per_layer(job, stem.trains or job.setup.needs_input_grads)
    going.hold(beside.held)
    going.hold(beside.kept)
    handed = layers.handed
    going.hold(handed)
    for rounds in stretches:
        there = [[(where, kinds[kind].forward) for where, kind in each] for each in rounds]
        going.go_through("forward", there, 2)
    going.hold(plus(opening.named, handed), -1)
    going.hold(beside.held, -1)
    if tower:
        going.hold(tower.beside, -1)
    graph = any(each.grad for each in kinds)
    if job.setup.checkpointing == "none" or not graph:  # else layers keep what they are called with
        going.hold({"temporary": kept}, -1)
    if stage.head:
        pass_head(job, going, grad, last.width if last else 0)
    going.hold(away, -2)
    shared = shared_gradients(job.arch, job.setup)
    added = plus(beside.gradient, {"gradients": shared}) if shared else beside.gradient
    back_through(going, stretches, kinds, 1 if handed_over(job.setup) else 2, added, adders(job.arch))
    going.hold(beside.kept, -1)
    going.hold(beside.gradient, -1)
    if tower:
        tower.see_back(going)
    if stage.stem:
        _through_stem(job, going, stem, opening)
    going.end()
    return going


def _through_stem(job: Job, going: Course, stem: Stem, opening: Opening) -> None:
    """The way back to the embedding, whose table is gathered once more where it is a unit of its own."""
    if opening.backward is not None:
        going.go_whole("backward", "embedding", opening.backward)
    if stem.trains:
        table: Held = {"gathered": end_unit(job.arch, job.setup) if going.end_buffer else 0}
        going.hold(table)
        going.go_whole("backward", "embedding", stem.backward)
        going.hold(table, -1)


def pass_head(job: Job, going: Course, grad: bool, width: int, normed: bool = True) -> None:
    """From the last layer's result, `width` bytes a value, to the loss, and back; `normed`: by way of a norm."""
    setup = job.setup
    loss, back = remembered(
        job, ("head", grad, width, normed),
        lambda own: head_stretches(
            own.run(width=width), replace(head_of(own), normed=normed), own.traits, setup.loss, setup.loss_chunk, grad
        ),
        lambda found, values: (at_values(found[0], values), maybe_at(found[1], values)),
        head_matrices(job.arch),
    )  # fmt: skip
    live = 2 if setup.sharding == "zero3" else 0  # FSDP's root holds the unembedding throughout
    own: Held = {"gathered": end_unit(job.arch, setup)}
    going.hold(own)
    going.go("loss", "", loss, live)
    if values := passed_out(job.arch, setup):
        returned = widened_outputs(job, values)
        going.hold(returned)
        going.go("loss", "outputs", NOTHING, live)
        going.hold(returned, -1)
    if setup.objective in COMPARED:
        named, logged = of_pairs(job.run(), setup, job.arch.vocab_size, widened=job.traits.wide_logits)
        going.hold({LOGITS: named})
        if setup.reference_inside:
            pass_reference(job, going, live)
        going.hold({LOGITS: logged})
        going.go("loss", "", NOTHING, live)
        going.hold({LOGITS: named + logged}, -1)
    elif setup.loss == "full-copied":
        copies: Held = {LOGITS: logged_copies(job.run(), job.arch.vocab_size, widened=job.traits.wide_logits)}
        going.hold(copies)
        going.go("loss", "", NOTHING, live)
        going.hold(copies, -1)
    going.let_go(CASTS)
    going.let_go(CACHES)
    if back is not None:
        going.go_whole("backward", "unembedding", back, live)
    going.hold(own, -1)
    found = head_of(job)
    if setup.method == "full" and found.trained and job.arch.tied_embeddings and gradients_go(setup):
        # One gradient of both ends: the unembedding's waits for the embedding's.
        going.hold({"gradients": found.hidden * found.vocab * job.run().whole})


def pass_reference(job: Job, going: Course, live: int) -> None:
    """The base run once more, without its adapter and without gradients, while what the trained model kept waits."""
    method: Method = "lora" if job.setup.method == "full" else job.setup.method
    units: FsdpUnits = job.setup.fsdp_units if one_stream(job.setup) else "pairs"  # none has a gradient
    setup = replace(job.setup, checkpointing="none", input_grads=False, method=method, fsdp_units=units)
    alone = Job(job.arch, setup, (), merges=job.merges, unpacked=job.unpacked)
    stem, layers, kept = stem_of(alone), walked_layers(alone, False), {"temporary": masks(alone)}
    during = plus(plus(stem.held, kept), layers.handed)
    going.hold(during)
    for rounds in in_rounds(layers.order):
        passed = [
            [(f"reference {where}", layers.kinds[kind].forward) for where, kind in each] for each in rounds
        ]
        going.go_through("forward", passed, 2)
    going.hold(during, -1)
    width = layers.kinds[layers.order[-1][1]].width if layers.order else 0
    loss, _ = remembered(
        alone, ("head", False, width, True),
        lambda own: head_stretches(
            own.run(grad=False, width=width), head_of(own), own.traits, setup.loss, setup.loss_chunk, False
        ),
        lambda found, values: (at_values(found[0], values), None), head_matrices(alone.arch),
    )  # fmt: skip
    going.go("loss", "reference", loss, live)


def stem_of(job: Job) -> Stem:
    """The embedding, with what is trained of it."""
    fresh = sums_unembedding(job.setup)
    return stem_stretches(job.run(), job.arch, trains=table_trained(job), pairs=table_pairs(job), fresh=fresh)


def table_trained(job: Job) -> bool:
    """Whether the token table is trained in full, or has a gradient with all else of one flat parameter."""
    together = in_flat_units(job.setup) and in_one(job.setup)
    return job.setup.method == "full" or job.whole.embedding or together


def table_pairs(job: Job) -> tuple[LowRank, ...]:
    """Pairs beside the token table, where its module runs."""
    every, matrices = job.trained.pairs.items(), job.arch.matrices
    found = [items for index, items in every if matrices[index].role == "embedding" and matrices[index].runs]
    return tuple(pair for items in found for item in items for pair in low_ranks(item))


def embeddings_trained(job: Job) -> bool:
    """Whether the token table is trained, in full or by a pair."""
    return table_trained(job) or bool(table_pairs(job))


def head_matrices(arch: Architecture) -> tuple[int, ...]:
    """The number of the matrix that makes logits, and before it that of one whose result it reads; none where nothing
    makes them."""
    for block in arch.blocks:
        made = {op.out: op for op in block.operations if isinstance(op, Apply) and block.stack == "head"}
        for op in made.values():
            if arch.matrices[op.matrix].role == "unembedding":
                before = made.get(op.source)
                return (before.matrix, op.matrix) if before else (op.matrix,)
    return ()


def head_of(job: Job) -> Head:
    """The unembedding of a model, split over tensor-parallel GPUs by the vocabulary."""
    arch, split = job.arch, job.setup.tensor_parallel
    *before, index = head_matrices(arch) or (-1,)
    if index < 0:
        return Head(arch.hidden_size, 0, keeps=_keeps_tokens(job))
    matrix, item = arch.matrices[index], job.trained.of(index, 0)
    dense = _dense(job, before[0]) if before else None
    return Head(
        arch.hidden_size, -(-matrix.d_out // split), _is_trained(job, index), low_ranks(item) if item else (),
        job.unpacked.get(index, 0), d_in=0 if matrix.d_in == arch.hidden_size else matrix.d_in, dense=dense,
        bias=matrix.bias or dense is not None)  # fmt: skip


def _keeps_tokens(job: Job) -> bool:
    """Whether all hidden states stay though a classifier of sequences reads one token of them: where a trained matrix
    meets that as a view, and not dropped before, as RoBERTa's kind does. PEFT trains each whose name ends with
    "classifier"."""
    if not str(job.arch.class_name).endswith("ForSequenceClassification"):
        return True
    for index, matrix in enumerate(job.arch.matrices):
        if matrix.name.endswith(("pooler.dense", "pre_classifier")):
            by_pairs = job.trained.of(index, 0) is not None or matrix.leaf.endswith("classifier")
            return by_pairs or _is_trained(job, index)
    return False


def _is_trained(job: Job, index: int) -> bool:
    return index in job.whole.matrices or job.setup.method == "full"


def _dense(job: Job, index: int) -> Dense | None:
    """A matrix before the unembedding, where a norm of its own follows it."""
    base = job.arch.matrices[index].name.rpartition(".")[0]
    names = [v.name.removesuffix(".weight") for v in job.arch.vectors if v.name.endswith("orm.weight")]
    if base not in [name.rpartition(".")[0] for name in names]:
        return None
    item = job.trained.of(index, 0)
    return Dense(
        job.arch.activation or job.traits.activation, _is_trained(job, index), low_ranks(item) if item else (),
        job.unpacked.get(index, 0),
    )  # fmt: skip


__all__ = ["Course", "Place", "Stage", "course", "stages", "whole_model"]
