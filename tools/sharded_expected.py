"""What the estimate says of a spread step, in the terms in which it is measured."""

from __future__ import annotations

from collections import Counter
from typing import Any

from planner.memory import estimate_memory
from planner.memory.kinds import Job
from planner.memory.sharding import buckets, gathered, pairs_in_one
from planner.memory.stages import whole_model
from planner.memory.states import base_weights, trained_bytes, trained_tensors
from planner.memory.step import course
from planner.moments import MemoryEstimate

from .sharded_cases import Case

BESIDE = ("weights", "adapter", "optimizer")  # held when the measurement begins
NOT_MEASURED = ("tokens and workspaces",)


def expected(case: Case) -> dict[str, Any]:
    """Bytes of states, of what a forward pass leaves, of the most that both passes hold, and of what is sent."""
    run = case.run()
    found = estimate_memory(run.arch, run.setup, run.pairs, run.whole)
    last = next(moment for moment in found.moments if moment.phase == "optimizer").parts()
    states = {name: last[name] for name in ("weights", "adapter", "gradients", "optimizer")}
    sent: Counter[str] = Counter()
    for entry in found.traffic:
        sent[entry.collective] += entry.bytes
    return {**states, "held": held(case), "top": top(found), "sent": dict(sent)}


def held(case: Case) -> int:
    """Bytes that stand when the backward pass begins: what it needs, the root's weights and buckets."""
    run = case.run()
    arch, setup = run.arch, run.setup
    pairs = None if case.method == "full" else run.pairs
    stage = whole_model(arch)
    job = Job(arch, setup, pairs, run.whole, unpacked=base_weights(arch, setup).unpacked)
    going = course(job, {}, stage)
    begun = next(place.base for place in going.places if place.phase == "backward")
    tensors = trained_tensors(arch, setup, pairs, run.whole, stage)
    own, count = trained_bytes(tensors), sum(each.size * each.copies for each in tensors)
    root = gathered(arch, setup)[1] + pairs_in_one(count, setup)
    return round(sum(begun.values())) + root + buckets(own, setup)


def top(found: MemoryEstimate) -> int:
    """The most bytes of the forward and the backward pass, without what stands before."""
    return max(
        sum(item.bytes for item in moment.items if item.part not in BESIDE and item.name not in NOT_MEASURED)
        for moment in found.moments
        if moment.phase in ("forward", "loss", "backward")
    )
