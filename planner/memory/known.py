"""Walks that are remembered: a model, a set-up and an adapter's shape are walked a few times, whatever the ranks.

The sizes of a walk are linear in the adapter's ranks (`linear`), and nothing else of it depends on them. A kind of
step whose ranks change, or will, is therefore walked with symbols for ranks, and from then on only evaluated. Where
ranks will change micro-batches do too: there is one walk with a symbol for them, of two sequences and more where a
single one takes other kernels. Where sizes are no whole parts of a byte (matrices split over three GPUs), every new
rank is walked, and where micro-batches are compared with something else, every one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from ..dataclass import dataclass, replace
from ..setup import Setup
from .kinds import Job, retains_inputs
from .linear import AtPoints, Joined, More, NotLinearError, Points, Values, symbols
from .passes import fsdp_mixed
from .sharding import gradients_go, in_flat_units, in_one
from .states import scale_bytes
from .stretch import Stretch, at_values

# Fields of a set-up that walks see only by what `_choices` adds: how states are spread over GPUs and updated.
_BESIDE = (
    "optimizer", "optimizer_kernel", "deferred_gradients", "reduced_wide", "accumulation", "gpus", "sharding",
    "fsdp_units", "shard_size", "pipeline_parallel", "offload", "trainer", "lengths_vary", "expandable_segments",
    "tf32", "gradients_late", "workspace_bytes",
    "gathered_kept", "reduce_buckets", "loading", "prepared_wide", "placing", "generation", "vllm_memory",
    "vllm_sleep", "states_asleep", "gpu_bytes", "vllm_gpus", "vllm_tensor_parallel", "mean_completion",
)  # fmt: skip
_WALKED = [name for name in Setup.__dataclass_fields__ if name not in (*_BESIDE, "micro_batch")]
_OF_ANY_BATCH, _BATCH = attrgetter(*_WALKED), "micro_batch"
# Sequences from which on a micro-batch is a symbol: a single one may take other kernels, few rows make no full tile.
LEAST = (1, 2, 4, 8)
_FEW = 3  # ranks that are walked by themselves before symbols are, which takes twice as long
_QUANTIZE = _WALKED.index("quantize")
# What changes layers alone.
_EXPERTS = _WALKED.index("expert_parallel")
_IN_LAYERS = [_WALKED.index("checkpointing"), _EXPERTS]
# How often the scales of weights in NF4 count among what is unpacked, and once more: a symbol is at least 1.
_SCALES = {"nf4": 1, "nf4-double": 2}
_MOST = 1024
Found = TypeVar("Found")


def _choices(setup: Setup) -> tuple[Any, ...]:
    """Everything of a set-up that a walk depends on, but for the micro-batch and for scales in NF4; last whether
    gradients go."""
    own = list(_OF_ANY_BATCH(setup))
    if own[_QUANTIZE] in _SCALES:
        own[_QUANTIZE] = "nf4"
    flat = in_flat_units(setup)
    return *own, flat, flat and in_one(setup), fsdp_mixed(setup), retains_inputs(setup), gradients_go(setup)


def scales(setup: Setup) -> tuple[int, ...]:
    """The value of the symbol that stands for the scales of unpacked weights; none where these are not in NF4."""
    return (_SCALES[setup.quantize],) if setup.quantize in _SCALES else ()


def _with_symbols(job: Job, ranks: Sequence[int], least: int = 0) -> Job:
    """The job with a symbol for each rank, for scales of weights in NF4, and for the micro-batch where that is one of
    `least` and more."""
    level = scales(job.setup)
    found = symbols(len(ranks) + len(level), mixed=least > 0)
    named: dict[int, Any] = dict(zip(ranks, found, strict=False))
    unpacked: Mapping[int, Any] = job.unpacked
    if level:
        more = found[len(ranks)] - level[0]
        unpacked = {i: size + more * scale_bytes(job.arch.matrices[i]) for i, size in job.unpacked.items()}
    adapted = tuple(
        replace(item, pairs=tuple(replace(pair, rank=named[pair.rank]) for pair in item.pairs))
        for item in job.adapted or ()
    )
    setup = job.setup
    if least:
        setup = with_batch(setup, least - 1 + found[-1])
    return replace(job, adapted=adapted, setup=setup, shaped=None, unpacked=unpacked)


def with_batch(setup: Setup, micro_batch: Any) -> Setup:
    """A set-up with what stands for micro-batches, past what is checked of numbers."""
    found = object.__new__(Setup)
    vars(found).update({**vars(setup), _BATCH: micro_batch})
    return found


@dataclass
class _Walks:
    """What was found of one kind of step, by ranks and scales; `symbolic` where it was walked with symbols."""

    by_ranks: dict[tuple[int, ...], Any] = field(default_factory=dict)
    symbolic: Any = None
    linear: bool = True


@lru_cache(maxsize=_MOST)
def _walks(*key: Any) -> _Walks:
    return _Walks()


@lru_cache(maxsize=_MOST)
def _without_experts(*key: Any) -> dict[Any, Any]:
    """What was walked of layers without experts, however these are divided elsewhere."""
    return {}


def _key(
    job: Job, what: tuple[Any, ...], of: tuple[int, ...] | None
) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The ranks of a job, and everything else that a walk of it depends on but for the micro-batch; of matrices
    outside of the layers (`of`) neither other matrices' pairs nor what changes layers alone."""
    shape: tuple[Any, ...]
    shape, ranks = job.shape
    choices: tuple[Any, ...] = _choices(job.setup)
    if of is not None:
        shape = len(ranks), tuple(item for item in shape if item[0] in of)
        choices = tuple(value for place, value in enumerate(choices) if place not in _IN_LAYERS)
    whole = (
        tuple(job.whole.matrices.items()),
        job.whole.embedding,
        tuple(job.whole.biases.items()),
        job.norm_biases,
    )
    return ranks, (job.arch, choices, job.merges, shape, whole, what)


@dataclass(frozen=True)
class _Kind:
    """A kind of walk: how a job is walked, `at` values of symbols; `either` parts a walk for `Job.either` into that
    with gradients that wait and that with such that go, None where each is walked by itself."""

    walk: Callable[[Job], Any]
    at: Callable[[Any, Values], Any]
    either: Callable[[Any], tuple[Any, Any]] | None


def remembered(
    job: Job, what: tuple[Any, ...], walk: Callable[[Job], Found], at: Callable[[Found, Values], Found],
    of: tuple[int, ...] | None = None, either: Callable[[Found], tuple[Found, Found]] | None = None,
) -> Found:  # fmt: skip
    """`walk(job)`, made anew only where it has to be. `what` says which walk of the job it is; `at` evaluates one
    that was made with symbols; `of` are the matrices that it meets where they are no layer's; `either`
    parts a walk of gradients that wait and go."""
    kind = _Kind(walk, at, either)
    if job.points is not None:
        alike: dict[int, tuple[Any, list[AtPoints]]] = {}  # points of one walk
        for own, points in job.points.parts:
            for some, once in _at_points(own, points, what, kind, of):
                alike.setdefault(id(once), (once, []))[1].append(some)
        each = [(once, some.beside(others)) for once, (some, *others) in alike.values()]
        made = [at(once, some) for once, some in each]
        together: Found = joined(job.points, [some.places for _, some in each], made)
        return together
    ranks, key = _key(job, what, of)
    walks = _walks(job.setup.micro_batch, *key)
    values = *ranks, *scales(job.setup)
    if values in walks.by_ranks:
        found: Found = walks.by_ranks[values]
        return found
    few = 0 if job.ranks_follow else _FEW
    if ranks and walks.linear and walks.symbolic is None and len(walks.by_ranks) >= few:
        walks.symbolic = _of_any_batch(job, ranks, key, kind)
        walks.linear = walks.symbolic is not None
    if walks.symbolic is not None:
        return at(walks.symbolic, values)
    if len(walks.by_ranks) > _FEW:
        walks.by_ranks.pop(next(iter(walks.by_ranks)))
    walks.by_ranks[values] = walk(job)
    found = walks.by_ranks[values]
    return found


def _of_any_batch(job: Job, ranks: Sequence[int], key: tuple[Any, ...], kind: _Kind) -> Any:
    """The walk with symbols for ranks; where these will change, from one with a symbol for micro-batches too. None
    where sizes are not linear."""
    for least in LEAST if job.ranks_follow else ():
        more = More(job.setup.micro_batch - least + 1)
        if more > 0 and (found := _walked(job, ranks, key, kind, least)) is not None:
            return kind.at(found, more)
    return _symbolic(job, ranks, kind.walk)


def _walked(job: Job, ranks: Sequence[int], key: tuple[Any, ...], kind: _Kind, least: int) -> Any:
    """The walk with symbols for ranks and micro-batches of so many sequences and more; None where there is none."""
    return _made_once((least,), job, ranks, key, kind, least)


def _made_once(
    of: Any, job: Job, ranks: Sequence[int], key: tuple[Any, ...], kind: _Kind, least: int = 0
) -> Any:
    """The walk with symbols of some micro-batches, of gradients that wait and of such that go made together."""
    goes = False
    if kind.either is not None:
        (arch, (*choices, goes), *more) = key
        plain = _without_experts(of, arch, (*choices[:_EXPERTS], *choices[_EXPERTS + 1 :]), *more)
        key, job = (arch, tuple(choices), *more), replace(job, either=True, plain=plain)
    walks = _walks(of, *key)
    if walks.linear and walks.symbolic is None:
        found = _symbolic(job, ranks, kind.walk, least)
        walks.linear = found is not None
        walks.symbolic = kind.either(found) if kind.either and walks.linear else found
    return walks.symbolic[goes] if kind.either and walks.linear else walks.symbolic


def _at_points(
    job: Job, points: Points, what: tuple[Any, ...], kind: _Kind, of: tuple[int, ...] | None
) -> Iterator[tuple[AtPoints, Any]]:
    """All points of a job with the walk that is to be evaluated there: of all micro-batches at once, or where that
    compares them with something, of those of more sequences, the others each alone. Raises NotLinearError where sizes
    are not linear in ranks."""
    ranks, key = _key(job, what, of)
    left = points.batches
    for least in LEAST:
        more = tuple(size for size in left if size >= least)
        found = _walked(job, ranks, key, kind, least) if more else None
        if found is not None:
            yield points.of(more, least), found
            left = tuple(size for size in left if size < least)
            break
    for size in left:
        found = _made_once(size, replace(job, setup=with_batch(job.setup, size)), ranks, key, kind)
        if found is None:
            raise NotLinearError
        yield points.of((size,), 0), found


def joined(points: Joined, places: Sequence[Any], each: Sequence[Any]) -> Any:
    """Walks at places of many points as one: their stretches joined, all else alike. Raises NotLinearError."""
    first = each[0]
    if len(each) == 1:
        return first
    if isinstance(first, Stretch) and all(isinstance(one, Stretch) for one in each):
        return points.stretch(places, each)
    if isinstance(first, tuple) and all(isinstance(one, tuple) and len(one) == len(first) for one in each):
        made = [joined(points, places, one) for one in zip(*each, strict=True)]
        return type(first)(*made) if hasattr(first, "_fields") else tuple(made)
    if hasattr(first, "kinds"):
        if any(one.order != first.order for one in each):
            raise NotLinearError
        return replace(first, kinds=joined(points, places, [one.kinds for one in each]))
    if any(type(one) is not type(first) or one != first for one in each):
        raise NotLinearError
    return first


def _symbolic(job: Job, ranks: Sequence[int], walk: Callable[[Job], Found], least: int = 0) -> Found | None:
    try:
        return walk(_with_symbols(job, ranks, least))
    except NotLinearError:
        return None


def maybe_at(part: Stretch | None, values: Values) -> Stretch | None:
    """A stretch at these values of its symbols, where there is one."""
    return None if part is None else at_values(part, values)
