"""What the allocator's cache holds beyond what a step allocates: which bytes it goes by."""

from __future__ import annotations

import math

from ..dataclass import dataclass
from ..moments import BEFORE, Moment
from ..schema import Architecture
from ..setup import Setup
from .highest import NAMES
from .log_probs import TILE_TOKENS
from .sharding import end_unit, gradients_leave, one_stream
from .step import Course
from .tape import EXPERT_GRADIENTS

# Losses that make logits of so many tokens at a time, however long the sequences are.
PIECES = {"recomputed": 256, "recomputed-wide": 256, "tiled": TILE_TOKENS}


def in_pieces(setup: Setup) -> bool:
    """Whether logits are made of so many tokens at a time, so that their blocks fit whatever the lengths."""
    return setup.tokens >= PIECES.get(setup.loss, math.inf)


def grows(setup: Setup) -> tuple[str, ...]:
    """Labels of what grows with the length and whose blocks another length seldom takes. Without checkpointing
    activations are none of these: they are many small blocks, of which one serves as well as another (torch's
    allocator, run on many lengths without checkpointing, keeps 0.1 to 0.4 times the activations of Yi-6B beside
    what its logits have, not 3 times them: tools/reserved_by_lengths.py)."""
    found = ("stream", "temporary") if in_pieces(setup) else ("stream", "logits", "temporary")
    return found if setup.checkpointing == "none" else (*found, "activations")


def apart_bytes(going: Course, update: int) -> int:
    """Transient bytes of the phases but the largest: of a layer, of the unembedding with the loss, of the update."""
    places = [p for p in going.places if p.phase not in (*BEFORE, "generation", "evaluation")]
    layers = [sum(p.highest.values()) for p in places if "layer" in p.where]
    ends = [sum(p.highest.values()) for p in places if "layer" not in p.where]
    return round(sum(sorted((max(layers, default=0), max(ends, default=0), update))[:-1]))


def left_by_another_batch(moments: list[Moment], setup: Setup) -> int:
    """Transient bytes of training or of an evaluation, the less of both, where this takes more sequences at a time:
    its blocks are larger than those that training left in the allocator's cache, which serve it no more than they are
    given back; smaller ones would be cut from these (c10/cuda/CUDACachingAllocator.cpp, get_free_block,
    should_split). Logits that are made in pieces are as large in both."""
    if setup.eval_batch <= setup.sequences:
        return 0
    stays = ("weights", "adapter", "optimizer", "vllm", *(["logits"] if in_pieces(setup) else []))

    def passing(found: list[Moment]) -> int:
        top = max(found, key=lambda moment: moment.bytes)
        return sum(item.bytes for item in top.items if item.part not in stays)

    evaluated = [moment for moment in moments if moment.phase == "evaluation"]
    trained = [moment for moment in moments if moment.phase in ("forward", "loss", "backward", "optimizer")]
    return min(passing(evaluated), passing(trained)) if evaluated else 0


def varied_bytes(moments: list[Moment], setup: Setup) -> int:
    """Bytes at the peak of what grows with the length."""
    top = max((m for m in moments if m.phase not in (*BEFORE, "optimizer")), key=lambda moment: moment.bytes)
    names = [NAMES[label] for label in grows(setup)]
    return sum(item.bytes for item in top.items if (item.part, item.name) in names)


@dataclass(frozen=True)
class Pools:
    """What FSDP 2 takes on streams of its own at the most, bytes: reduced `gradients`, and what units are
    `gathered` in before they are copied to where parameters are. Of what the passes hold as gathered `standing`
    is a root's or an end's, and one `unit` of the rest is of that stream. The allocator gives a block to the
    stream that first had it alone (c10/cuda/CUDACachingAllocator.cpp, get_free_block), so that neither serves a
    step's own tensors when it is free."""

    gradients: int = 0
    gathered: int = 0
    unit: int = 0
    standing: int = 0


def pools_of(arch: Architecture, setup: Setup, gradients: int, unit: int, outside: int) -> Pools:
    """The pools of a set-up whose optimizer steps with so many bytes of gradients, under FSDP 2.

    It reduces gradients on a stream of its own, and gathers a unit on another one while the one before is still
    referred to there: the largest and a layer (torch 2.13, distributed/fsdp/_fully_shard: _fsdp_collectives.py,
    foreach_reduce; _fsdp_param_group.py, get_all_gather_streams and wait_for_unshard). What FSDP 1 keeps so is in
    the constant that is fitted to it (`cached`). Neglected: what is sent, and float32 copies of gradients.
    """
    if not one_stream(setup) or setup.shards == 1:
        return Pools()
    goes = gradients_leave(setup) or setup.optimizer_in_backward
    reduced = 0 if goes else gradients
    if not unit:
        return Pools(reduced)
    end = end_unit(arch, setup)
    return Pools(reduced, (outside or end or unit) + unit, unit, outside + end)


def streams_bytes(moments: list[Moment], pools: Pools) -> int:
    """Bytes that streams of FSDP's own keep beside the step's own tensors, beyond the peak: at some moment these and
    all of the pools stand, whatever of them is in use. Neglected: while completions are made."""
    steps = [moment for moment in moments if moment.phase not in (*BEFORE, "generation")]
    taken = (moment.bytes + free_of(pools, *_of_streams(moment)) for moment in steps)
    return max(taken, default=0) - max((moment.bytes for moment in steps), default=0)


def free_of(pools: Pools, gradients: int, gathered: int) -> int:
    """Bytes of the pools that are free where so many are held as gradients, and as gathered."""
    used = min(pools.unit, max(gathered - pools.standing, 0))
    return pools.gradients - min(pools.gradients, gradients) + pools.gathered - used


def _of_streams(moment: Moment) -> tuple[int, int]:
    """What a moment holds as gradients, and as gathered."""
    named = [NAMES["gradients"], NAMES[EXPERT_GRADIENTS]]
    gradients = sum(item.bytes for item in moment.items if (item.part, item.name) in named)
    return gradients, sum(i.bytes for i in moment.items if (i.part, i.name) == NAMES["gathered"])
