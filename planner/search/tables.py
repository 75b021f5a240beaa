"""The adapters and bases of a space, each with the work of its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import product
from typing import Any

from .. import adapter as adapters
from ..adapter import Adapted
from ..adapter.whole import Whole, trained_whole
from ..choices import Checkpointing, Quantize
from ..dataclass import dataclass, replace
from ..errors import InputError
from ..memory.layout import shapes_of
from ..speed import held, trained_params
from ..speed.step import work_of
from ..speed.styles import takes_mask
from .mixed import Mixed, mixed, weights
from .space import Job, Space, alone_of

Own = tuple[int, tuple[Adapted, ...], Whole, dict[Any, Any]]  # an adapter, and what is made of it


@dataclass(frozen=True, eq=False)
class Table:
    """An adapter on a base, with its work, equal to itself alone; `apart` is the share of what it trains that belongs
    to experts, `padded` the work of several sequences where these take another kernel than one does. What was
    `made` of its adapter is of every base."""

    rank: int
    layers: str
    quantize: Quantize
    checkpointing: Checkpointing
    pairs: tuple[Adapted, ...]
    whole: Whole
    params: int
    work: Mixed
    apart: float
    padded: Mixed | None = None
    made: dict[Any, Any] = field(default_factory=dict, repr=False)


def tables(job: Job, space: Space) -> Iterator[Table]:
    """The adapters and bases of a space whose layouts compute alike; layer sets that a model lacks and ranks larger
    than every matrix are passed over, unless nothing is left."""
    missed: InputError | None = None
    some = False
    for layers in space.layers:
        own: list[Own] = []
        for rank in space.ranks:
            spec = replace(job.spec, rank=rank, layers=(layers,), targets=None)
            try:
                pairs = adapters.adapt(job.arch, spec)
            except InputError as error:
                if error.field not in ("rank", "layers"):
                    raise
                missed = error
                continue
            own.append((rank, pairs, trained_whole(job.arch, spec, pairs), {}))
        if own:
            some = True
            adapters_ = [pairs for _, pairs, _, _ in own]
            shares = weights(adapters_)
            for (_, _, _, made), shape in zip(own, shapes_of(adapters_), strict=True):
                made["shape"] = shape
            for quantize, checkpointing in product(space.quantize, space.checkpointing):
                yield from _of_base(job, space, layers, own, shares, quantize, checkpointing)
    if missed is not None and not some:
        raise missed


def _of_base(
    job: Job, space: Space, layers: str, own: Sequence[Own], shares: Any,
    quantize: Quantize, checkpointing: Checkpointing,
) -> Iterator[Table]:  # fmt: skip
    """Adapters of one layer set on one base."""
    setup, more = (alone_of(job, quantize, checkpointing, space.layouts[0], size) for size in (1, 2))
    works = mixed(shares, lambda number: work_of(job.arch, setup, *own[number][1:3]))
    padded: list[Mixed] | list[None] = [None] * len(own)
    if takes_mask(more) and not takes_mask(setup):
        padded = mixed(shares, lambda number: work_of(job.arch, more, *own[number][1:3]))
    divided = replace(
        setup, gpus=2 * setup.gpus, sharding="ddp", expert_parallel=2, generation="transformers"
    )
    for (rank, pairs, whole, made), work, several in zip(own, works, padded, strict=True):
        params = trained_params(job.arch, setup, pairs, whole)
        split = held(job.arch, divided, pairs, whole)
        apart = 2 * setup.tensor_parallel * split.experts / params
        yield Table(rank, layers, quantize, checkpointing, pairs, whole, params, work, apart, several, made)
