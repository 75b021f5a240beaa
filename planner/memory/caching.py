"""What the allocator's cache holds beyond what a step allocates: which bytes it goes by."""

from __future__ import annotations

import math

from ..moments import BEFORE, Moment
from ..setup import Setup
from .highest import NAMES
from .log_probs import TILE_TOKENS
from .sharding import one_stream
from .step import Course

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


def reduced_apart(moments: list[Moment], setup: Setup, gradients: int) -> int:
    """Bytes by which the gradients of full fine-tuning under FSDP 2 come on top of the peak: it reduces them into
    blocks of a stream of its own, which no block that other moments left can serve (torch 2.13,
    distributed/fsdp/_fully_shard/_fsdp_collectives.py, foreach_reduce: reduce_output). Neglected: pairs', and what
    is gathered, on another stream; FSDP 1's, which gathered units' constant was fitted with."""
    if setup.method != "full" or not one_stream(setup) or setup.shards == 1:
        return 0
    steps = [moment for moment in moments if moment.phase not in BEFORE]
    others = max(moment.bytes - min(gradients, moment.parts().get("gradients", 0)) for moment in steps)
    return max(0, others + gradients - max(moment.bytes for moment in steps))


def varied_bytes(moments: list[Moment], setup: Setup) -> int:
    """Bytes at the peak of what grows with the length."""
    top = max((m for m in moments if m.phase not in (*BEFORE, "optimizer")), key=lambda moment: moment.bytes)
    names = [NAMES[label] for label in grows(setup)]
    return sum(item.bytes for item in top.items if (item.part, item.name) in names)
