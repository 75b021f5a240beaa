"""What a GPU holds while completions are made, without the rest of a step, for a search that asks at many batches."""

from __future__ import annotations

from typing import Any

from ..adapter import Adapted
from ..adapter.whole import Whole
from ..moments import Moment
from ..schema import Architecture
from ..setup import Setup
from .highest import highest
from .kinds import Job
from .peak import as_run, throughout
from .sampling import generation
from .stages import whole_model
from .states import base_weights


def making_moment(
    arch: Architecture,
    setup: Setup,
    adapted: tuple[Adapted, ...],
    whole: Whole,
    known: dict[Any, Any] | None = None,
) -> Moment | None:
    """The moment `generation` of `estimate_memory`, for other ranks and batches to follow; None where it has to be
    taken of the whole estimate: of images, a pipeline, an encoder with a decoder. `known` is `throughout`'s."""
    if arch.images is not None or arch.is_encoder_decoder or setup.pipeline_parallel > 1:
        return None
    arch = as_run(arch, setup)
    weights = base_weights(arch, setup)
    job = Job(arch, setup, adapted, whole, unpacked=weights.unpacked, ranks_follow=True)
    base = throughout(arch, setup, adapted, whole, weights, whole_model(arch), known=known).base
    return highest(generation(job, base))[0]
