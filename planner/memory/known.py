"""Walks that are remembered: a model, a set-up and an adapter's shape are walked a few times, whatever the ranks.

The sizes of a walk are linear in the adapter's ranks (`linear`), and nothing else of it depends on them. A kind of
step whose ranks change, or will, is therefore walked with symbols for ranks, and from then on only evaluated. Where
sizes are no whole parts of a byte (matrices split over three GPUs), every new rank is walked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from ..dataclass import dataclass
from ..setup import Setup
from .kinds import Job, retains_inputs
from .linear import NotLinearError, symbols
from .passes import fsdp_mixed
from .sharding import gradients_go, in_flat_units
from .stretch import Stretch, at_ranks

# Fields of a set-up that walks see only by what `_choices` adds: how states are spread over GPUs and updated.
_BESIDE = (
    "optimizer", "optimizer_kernel", "deferred_gradients", "accumulation", "gpus", "sharding", "fsdp_units",
    "shard_size", "pipeline_parallel", "offload", "trainer", "lengths_vary", "tf32",
    "gathered_kept", "loading", "prepared_wide", "placing", "generation", "vllm_memory", "vllm_sleep", "gpu_bytes",
    "vllm_gpus", "vllm_tensor_parallel", "mean_completion",
)  # fmt: skip
_WALKED = attrgetter(*(name for name in Setup.__dataclass_fields__ if name not in _BESIDE))
_FEW = 3  # ranks that are walked by themselves before symbols are, which takes twice as long
_MOST = 1024
Found = TypeVar("Found")


def _choices(setup: Setup) -> tuple[Any, ...]:
    """Everything of a set-up that a walk depends on."""
    units = gradients_go(setup), in_flat_units(setup)
    return *_WALKED(setup), *units, fsdp_mixed(setup), retains_inputs(setup)


def _with_symbols(job: Job, ranks: Sequence[int]) -> Job:
    """The job with a symbol for each rank."""
    named: dict[int, Any] = dict(zip(ranks, symbols(len(ranks)), strict=True))
    adapted = tuple(
        replace(item, pairs=tuple(replace(pair, rank=named[pair.rank]) for pair in item.pairs))
        for item in job.adapted or ()
    )
    return replace(job, adapted=adapted)


@dataclass
class _Walks:
    """What was found of one kind of step, by ranks; `symbolic` where it was walked with symbols."""

    by_ranks: dict[tuple[int, ...], Any] = field(default_factory=dict)
    symbolic: Any = None
    linear: bool = True


@lru_cache(maxsize=_MOST)
def _walks(*key: Any) -> _Walks:
    return _Walks()


def remembered(
    job: Job, what: tuple[Any, ...], walk: Callable[[Job], Found], at: Callable[[Found, Sequence[int]], Found]
) -> Found:
    """`walk(job)`, made anew only where it has to be. `what` says which walk of the job it is; `at` evaluates one
    that was made with symbols."""
    shape, ranks = job.shape
    whole = (
        tuple(job.whole.matrices.items()),
        job.whole.embedding,
        tuple(job.whole.biases.items()),
        job.norm_biases,
    )
    walks = _walks(job.arch, _choices(job.setup), job.merges, shape, whole, what)
    if ranks in walks.by_ranks:
        found: Found = walks.by_ranks[ranks]
        return found
    few = 0 if job.ranks_follow else _FEW
    if ranks and walks.linear and walks.symbolic is None and len(walks.by_ranks) >= few:
        try:
            walks.symbolic = walk(_with_symbols(job, ranks))
        except NotLinearError:
            walks.linear = False
    if walks.symbolic is not None:
        return at(walks.symbolic, ranks)
    if len(walks.by_ranks) > _FEW:
        walks.by_ranks.pop(next(iter(walks.by_ranks)))
    walks.by_ranks[ranks] = walk(job)
    found = walks.by_ranks[ranks]
    return found


def maybe_at(part: Stretch | None, ranks: Sequence[int]) -> Stretch | None:
    """A stretch at these ranks, where there is one."""
    return None if part is None else at_ranks(part, ranks)
