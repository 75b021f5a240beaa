"""Walks that are remembered: a model, a set-up and an adapter's shape are walked a few times, whatever the ranks.

The sizes of a walk are linear in the adapter's ranks (`linear`), and nothing else of it depends on them. A kind of
step whose ranks change, or will, is therefore walked with symbols for ranks, and from then on only evaluated. Where
ranks will change micro-batches do too: there is one walk with a symbol for them, of two sequences and more (a single
one takes other kernels). Where sizes are no whole parts of a byte (matrices split over three GPUs), every new rank is
walked, and where micro-batches are compared with something, every one.
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
from .linear import More, NotLinearError, Values, symbols
from .passes import fsdp_mixed
from .sharding import gradients_go, in_flat_units
from .stretch import Stretch, at_values

# Fields of a set-up that walks see only by what `_choices` adds: how states are spread over GPUs and updated.
_BESIDE = (
    "optimizer", "optimizer_kernel", "deferred_gradients", "accumulation", "gpus", "sharding", "fsdp_units",
    "shard_size", "pipeline_parallel", "offload", "trainer", "lengths_vary", "tf32",
    "gathered_kept", "loading", "prepared_wide", "placing", "generation", "vllm_memory", "vllm_sleep", "gpu_bytes",
    "vllm_gpus", "vllm_tensor_parallel", "mean_completion",
)  # fmt: skip
_WALKED = [name for name in Setup.__dataclass_fields__ if name not in (*_BESIDE, "micro_batch")]
_OF_ANY_BATCH, _BATCH = attrgetter(*_WALKED), "micro_batch"
_FEW = 3  # ranks that are walked by themselves before symbols are, which takes twice as long
_MOST = 1024
Found = TypeVar("Found")


def _choices(setup: Setup) -> tuple[Any, ...]:
    """Everything of a set-up that a walk depends on, but for the micro-batch."""
    units = gradients_go(setup), in_flat_units(setup)
    return *_OF_ANY_BATCH(setup), *units, fsdp_mixed(setup), retains_inputs(setup)


def _with_symbols(job: Job, ranks: Sequence[int], *, mixed: bool = False) -> Job:
    """The job with a symbol for each rank, and with `mixed` for the micro-batch."""
    found = symbols(len(ranks), mixed=mixed)
    named: dict[int, Any] = dict(zip(ranks, found, strict=False))
    adapted = tuple(
        replace(item, pairs=tuple(replace(pair, rank=named[pair.rank]) for pair in item.pairs))
        for item in job.adapted or ()
    )
    setup = job.setup
    if mixed:  # past what a set-up checks of the numbers that it is made of
        setup = object.__new__(Setup)
        vars(setup).update({**vars(job.setup), _BATCH: 1 + found[-1]})
    return replace(job, adapted=adapted, setup=setup)


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
    job: Job, what: tuple[Any, ...], walk: Callable[[Job], Found], at: Callable[[Found, Values], Found]
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
    key = job.arch, _choices(job.setup), job.merges, shape, whole, what
    walks = _walks(job.setup.micro_batch, *key)
    if ranks in walks.by_ranks:
        found: Found = walks.by_ranks[ranks]
        return found
    few = 0 if job.ranks_follow else _FEW
    if ranks and walks.linear and walks.symbolic is None and len(walks.by_ranks) >= few:
        walks.symbolic = _of_any_batch(job, ranks, key, walk, at)
        walks.linear = walks.symbolic is not None
    if walks.symbolic is not None:
        return at(walks.symbolic, ranks)
    if len(walks.by_ranks) > _FEW:
        walks.by_ranks.pop(next(iter(walks.by_ranks)))
    walks.by_ranks[ranks] = walk(job)
    found = walks.by_ranks[ranks]
    return found


def _of_any_batch(
    job: Job, ranks: Sequence[int], key: tuple[Any, ...], walk: Callable[[Job], Found],
    at: Callable[[Found, Values], Found],
) -> Found | None:  # fmt: skip
    """The walk with symbols for ranks; where these will change, from one with a symbol for micro-batches of several
    sequences too. None where sizes are not linear."""
    more = More(job.setup.micro_batch - 1)
    if job.ranks_follow and more:
        walks = _walks(None, *key)
        if walks.linear and walks.symbolic is None:
            walks.symbolic = _symbolic(job, ranks, walk, mixed=True)
            walks.linear = walks.symbolic is not None
        if walks.linear:
            return at(walks.symbolic, more)
    return _symbolic(job, ranks, walk)


def _symbolic(
    job: Job, ranks: Sequence[int], walk: Callable[[Job], Found], *, mixed: bool = False
) -> Found | None:
    try:
        return walk(_with_symbols(job, ranks, mixed=mixed))
    except NotLinearError:
        return None


def maybe_at(part: Stretch | None, values: Values) -> Stretch | None:
    """A stretch at these values of its symbols, where there is one."""
    return None if part is None else at_values(part, values)
