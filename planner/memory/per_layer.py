"""Embeddings for each layer (Gemma 4's small models): made before the layers, read by all of them; and a copy of the
embedding's result that some layers read beside their input (Zamba's).

Source: transformers 5.23, models/gemma4/modeling_gemma4.py (Gemma4TextModel.project_per_layer_inputs),
models/zamba2/modeling_zamba2.py (Zamba2Model.forward).
"""

from __future__ import annotations

from ..dataclass import dataclass
from ..schema import Architecture
from .kinds import KEPT, STREAM, Job
from .layout import reads_copy
from .passes import FLOAT32
from .stretch import Held

PROJECTION = "per_layer_model_projection"


@dataclass(frozen=True)
class PerLayer:
    """Embeddings for all layers at once: what is `held` while layers run forward and what is `kept` of it until the
    last of them has run backward, with the `gradient` that all layers add to."""

    held: Held
    kept: Held
    gradient: Held


NOTHING = PerLayer({}, {}, {})


def per_layer(job: Job, grad: bool) -> PerLayer:
    """tokens x layers x width: the sum of rows and a normed projection of the embedding. Its norm keeps what it reads
    in float32, and with a trained weight what it makes. `grad`: the embedding's result needs a gradient."""
    if copied(job.arch):
        return _copied(job, grad)
    index = next((i for i, m in enumerate(job.arch.matrices) if m.leaf == PROJECTION), None)
    if index is None:
        return NOTHING
    run, values = job.run(), job.run().rows * job.arch.matrices[index].d_out
    made = values * run.stream
    needs = grad or job.trained.of(index, 0) is not None or index in job.whole.matrices
    reads = job.setup.checkpointing != "none" or needs or bool(job.adapted) or bool(job.whole.matrices)
    kept = made if reads else made * 0
    if not needs:
        return PerLayer({STREAM: made - kept}, {KEPT: kept}, {})
    normed = values * (FLOAT32 * (2 if run.full else 1))
    return PerLayer({}, {KEPT: kept + normed}, {STREAM: made})


def copied(arch: Architecture) -> bool:
    """Whether layers read the embedding's result beside their input."""
    return not arch.is_encoder_decoder and any(map(reads_copy, arch.blocks))


def _copied(job: Job, grad: bool) -> PerLayer:
    """A copy, which checkpointed layers keep; its gradient is a view of that of both that the last layer joins."""
    run, setup = job.run(), job.setup
    one = run.rows * (job.arch.hidden_size * run.stream)
    gradient: Held = {STREAM: 2 * one} if grad else {}
    if setup.checkpointing in ("layer", "selective") and (grad or not setup.reentrant):
        return PerLayer({}, {KEPT: one}, gradient)
    return PerLayer({"temporary": one}, {}, gradient)
