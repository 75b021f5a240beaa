"""Jobs of several kinds of GPU as one: memory and work that are the same, counted once.

The rules of planner/memory tell the two apart in three places alone (`half` and `widens` of `memory.passes.Pass`,
`memory.states.kept_wide`): clamps in a block's code, eager attention's softmax, and matrices that the library keeps
wide among float16 ones. Those of planner/speed take the type by its width and hand its name on to the rates.
Workspaces, which kinds of GPU have of other sizes, stand through a step and no walk sees them.
"""

from __future__ import annotations

from typing import Any

from ..dataclass import replace
from ..memory.peak import WORKSPACES
from ..memory.traits import traits_of
from ..schema import Architecture
from ..setup import Setup
from ..speed.work import Work
from .mixed import Mixed
from .space import Job, Space, setup_of
from .tables import Table

NARROW, OTHER = "bfloat16", "float16"
# `gpu_bytes` is a share of a vLLM, which no walk sees.
_ASIDE = ("precision", "gpu_bytes", "workspace_bytes")


def twin_of(job: Job, base: Job, space: Space) -> Job:
    """The job (`base`) whose memory but for workspaces, and work, are those of one in float16 or on GPUs with other
    workspaces; the job itself where they may differ, in a layout of the space or by a rule."""
    types = (base.setup.precision, job.setup.precision)
    if job.setup == base.setup or job.calibration.peaks:
        return job
    if types[0] != types[1] and (types != ("bf16", "fp16") or not _alike(base.arch, base.setup)):
        return job
    key = ("twin", base.setup, space.layouts, space.quantize, space.checkpointing)
    if key not in job.made:
        each = (
            (quantize, checkpointing, layout, 1, 1)
            for quantize in space.quantize
            for checkpointing in space.checkpointing
            for layout in space.layouts
        )
        job.made[key] = all(_same(setup_of(job, *own), setup_of(base, *own)) for own in each)
    return base if job.made[key] else job


def _alike(arch: Architecture, setup: Setup) -> bool:
    """Whether no rule tells the two types apart: of a model, and of an adapter that is in neither by its own name."""
    told = any(block.clamps != "none" for block in arch.blocks) or any(m.wide for m in arch.matrices)
    traits = traits_of(arch)
    eager = setup.attention_kernel == "eager" or traits.eager or traits.floored
    named = setup.adapter_dtype not in (None, "float32") or setup.base_dtype is not None
    return not (told or eager or named or arch.images is not None or arch.is_encoder_decoder)


def _same(one: Setup, other: Setup) -> bool:
    """Whether two set-ups differ in the type and in workspaces alone."""
    if one.precision != other.precision and (one.precision, other.precision) != ("fp16", "bf16"):
        return False
    if one.masters != other.masters:
        return False
    return all(vars(one)[name] == value for name, value in vars(other).items() if name not in _ASIDE)


def workspaces_beyond(job: Job, counted: Job) -> int:
    """Bytes of workspaces that a GPU of the job has beyond those of the one that is counted."""
    return WORKSPACES * (job.setup.workspace_bytes - counted.setup.workspace_bytes)


def in_float16(found: tuple[Table, ...]) -> tuple[Table, ...]:
    """Tables that were made in bfloat16, in float16; works that several share stay shared."""
    made: dict[int, Work] = {}

    def named(work: Work) -> Work:
        if id(work) not in made:
            gemms = (replace(g, dtype=OTHER) if g.dtype == NARROW else g for g in work.gemms)
            made[id(work)] = replace(work, gemms=tuple(gemms))
        return made[id(work)]

    def renamed(own: Any) -> Any:
        return own and Mixed(tuple((weight, named(work)) for weight, work in own.parts))

    return tuple(replace(table, work=renamed(table.work), padded=renamed(table.padded)) for table in found)
