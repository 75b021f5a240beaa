"""The adapters and bases of a space, each with the work of its step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from .. import adapter as adapters
from ..adapter import Adapted
from ..adapter.whole import Whole, trained_whole
from ..choices import Checkpointing, Quantize
from ..dataclass import dataclass
from ..errors import InputError
from ..speed import held, trained_params
from ..speed.step import work_of
from ..speed.walk import takes_mask
from ..speed.work import Work
from .space import Job, Space, alone, setup_of


@dataclass(frozen=True)
class Table:
    """An adapter on a base, with its work; `apart` is the share of what it trains that belongs to experts, `padded`
    the work of several sequences where these take another kernel than one does."""

    rank: int
    layers: str
    quantize: Quantize
    checkpointing: Checkpointing
    pairs: tuple[Adapted, ...]
    whole: Whole
    params: int
    work: Work
    apart: float
    padded: Work | None = None


def tables(job: Job, space: Space) -> Iterator[Table]:
    """The adapters and bases of a space whose layouts compute alike; layer sets that a model lacks and ranks larger
    than every matrix are passed over, unless nothing is left."""
    missed: InputError | None = None
    some = False
    for layers, rank in product(space.layers, space.ranks):
        spec = replace(job.spec, rank=rank, layers=(layers,), targets=None)
        try:
            pairs = adapters.adapt(job.arch, spec)
        except InputError as error:
            if error.field not in ("rank", "layers"):
                raise
            missed = error
            continue
        some = True
        whole = trained_whole(job.arch, spec, pairs)
        for quantize, checkpointing in product(space.quantize, space.checkpointing):
            setup, more = (
                alone(setup_of(job, quantize, checkpointing, space.layouts[0], size, 1)) for size in (1, 2)
            )
            params = trained_params(job.arch, setup, pairs, whole)
            split = held(
                job.arch,
                replace(
                    setup, gpus=2 * setup.gpus, sharding="ddp", expert_parallel=2, generation="transformers"
                ),
                pairs,
                whole,
            )
            yield Table(
                rank, layers, quantize, checkpointing, pairs, whole, params,
                work_of(job.arch, setup, pairs, whole), 2 * setup.tensor_parallel * split.experts / params,
                work_of(job.arch, more, pairs, whole) if takes_mask(more) and not takes_mask(setup) else None,
            )  # fmt: skip
    if missed is not None and not some:
        raise missed
