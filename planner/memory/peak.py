"""The estimate of one set-up: what is held, the course of a step over it, the optimizer's step, and the interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass, replace
from ..errors import InputError, UnsupportedArchitectureError
from ..moments import MemoryEstimate
from ..schema import Architecture, Notice
from ..setup import Setup
from .cached_experts import quantised_experts
from .caching import apart_bytes, left_by_another_batch, pools_of, streams_bytes, varied_bytes
from .engine import beside, engine
from .evaluation import evaluated
from .highest import as_moment, highest
from .kinds import Job
from .loading import before_steps, loading_notices
from .overhead import beyond_peak, bounds_of, cached, overhead, stated_bytes
from .passed_over import passed_over
from .passes import FLOAT32, shares_copy
from .sampling import before_step
from .scans import UNRULED_SCANS
from .sharding import (
    buckets,
    deferred_gradients,
    flat_gradients,
    gathered,
    gradients_leave,
    kept_whole,
    one_stream,
    pairs_gathered,
    pairs_in_one,
    stepped_at_once,
    widened_gradients,
)
from .states import (
    Weights,
    base_weights,
    is_quantised,
    leaves_towers,
    seen_by_tensors,
    share,
    trained_tensors,
)
from .step import Seen, Stage, course, stages
from .stretch import Held
from .totals import Totals, seen_by_totals, totals
from .traffic import traffic
from .traits import UNRULED
from .two_stacks import course_of_two, is_known

# torch's cuBLAS workspace where nobody names a GPU: 2 x 4 MiB and 8 x 16 KiB.
WORKSPACE_BYTES = Setup.workspace_bytes
WORKSPACES = 2  # one for the forward pass's thread, one for the backward's
ID_BYTES = 8
SHARED = ("states", "gradients", "parameters")
# What a walk meets where a model that was read from its library's code joins values as no rule has it.
UNRULED_VALUES = (KeyError, IndexError, StopIteration, ZeroDivisionError, AssertionError)


def memory_gap(arch: Architecture) -> str | None:
    """Why the memory of a step is not known, where it is not."""
    if not arch.blocks:
        return "the order of its operations is not known"
    if arch.is_encoder_decoder:
        return None if is_known(arch) else "no rules for its encoder and decoder yet"
    if any(block.features or block.fixed_length for block in arch.blocks):
        return "what comes in is not text"
    return None


def memory_is_ruled(arch: Architecture) -> bool:
    """Whether no kind of layer of it is known to have no rule."""
    return arch.model_type not in UNRULED and arch.model_type not in UNRULED_SCANS


def estimate_memory(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None = None, whole: Whole = NOTHING_WHOLE, *,
    stored_bytes: int | None = None, merges: bool = False, ranks_follow: bool = False,
) -> MemoryEstimate:  # fmt: skip
    """Peak bytes of one GPU for `setup`; `adapted` are the adapter's matrices, left out for full fine-tuning.

    `stored_bytes` are those of a base that is quantised as it was published, where the set-up quantises none.
    `merges` counts gradients that meet as summed into a new tensor, as they are under a dispatch mode;
    `ranks_follow` says that other ranks will be asked for. Raises
    UnsupportedArchitectureError where a layer joins its values in a way that no rule covers.
    """
    if setup.method == "full" and whole is NOTHING_WHOLE:
        return _of_full(arch, setup, stored_bytes, merges)
    return _estimate(arch, setup, tuple(adapted or ()), whole, stored_bytes, merges, ranks_follow)


def estimate_stages(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None = None, whole: Whole = NOTHING_WHOLE
) -> tuple[MemoryEstimate, ...]:
    """Of a GPU of each stage of a pipeline that can hold most; `estimate_memory` is that of the one which does. It is
    made for other ranks to follow."""
    return _stages(arch, setup, tuple(adapted or ()), whole, None, False, ranks_follow=True)


@lru_cache(maxsize=256)
def _of_full(arch: Architecture, setup: Setup, stored_bytes: int | None, merges: bool) -> MemoryEstimate:
    """Of full fine-tuning, which no choice of an adapter changes."""
    return _estimate(arch, setup, (), NOTHING_WHOLE, stored_bytes, merges)


def _estimate(
    arch: Architecture, setup: Setup, adapted: tuple[Adapted, ...], whole: Whole, stored_bytes: int | None,
    merges: bool, ranks_follow: bool = False,
) -> MemoryEstimate:  # fmt: skip
    found = _stages(arch, setup, adapted, whole, stored_bytes, merges, ranks_follow=ranks_follow)
    return max(found, key=lambda each: each.per_gpu_bytes)


def _stages(
    arch: Architecture, setup: Setup, adapted: tuple[Adapted, ...], whole: Whole, stored_bytes: int | None,
    merges: bool, *, ranks_follow: bool = False,
) -> tuple[MemoryEstimate, ...]:  # fmt: skip
    pairs = None if setup.method == "full" else adapted
    aside: tuple[Notice, ...] = ()
    if arch.is_encoder_decoder and setup.loss != "full":
        text = (
            f"An encoder with a decoder computes its own loss, which is counted: {setup.loss} is left aside."
        )
        setup, aside = replace(setup, loss="full"), (Notice("own-loss", text),)
    if setup.eval_batch and (setup.objective != "sft" or arch.is_encoder_decoder):
        raise InputError(
            "eval-batch", setup.eval_batch, "0 but for supervised training of a decoder or encoder"
        )
    if setup.objective != "sft" and arch.is_encoder_decoder:
        raise InputError("objective", setup.objective, "sft for an encoder with a decoder")
    if arch.model_type in UNRULED_SCANS:
        raise UnsupportedArchitectureError(
            f"the memory of {arch.model_type} is not known: no rule covers the kernel of its scan."
        )
    if arch.model_type in UNRULED:
        raise UnsupportedArchitectureError(
            f"the memory of {arch.model_type} is not known: no rule covers {UNRULED[arch.model_type]}."
        )
    arch = as_run(arch, setup)
    weights = base_weights(arch, setup, stored_bytes)
    try:
        found = [
            _stage(arch, setup, pairs, whole, weights, stage, merges=merges, ranks_follow=ranks_follow)
            for stage in stages(arch, setup)
        ]
    except UNRULED_VALUES as error:
        if arch.built_by is None:  # a builder lays down nothing without a rule: this is a fault of ours
            raise
        raise UnsupportedArchitectureError(
            f"the memory of {arch.model_type} is not known: its layers join values in a way that no rule covers."
        ) from error
    return tuple(replace(each, notices=(*aside, *each.notices)) if aside else each for each in found)


def as_run(arch: Architecture, setup: Setup) -> Architecture:
    """A model as its trainer lays it out: litgpt and the stages of a pipeline tie nothing."""
    return untied(arch) if setup.kernels == "litgpt" or setup.pipeline_parallel > 1 else arch


@lru_cache(maxsize=64)
def untied(arch: Architecture) -> Architecture:
    """A model whose unembedding stands beside its embedding though they are one elsewhere: litgpt's conversion writes
    the tied tensor twice (litgpt/scripts/convert_hf_checkpoint.py), and its model ties nothing. Of a pipeline the
    first stage and the last each hold the tied tensor, with gradients that they add up and states of their own
    (Megatron-LM d98e8a64dd, megatron/core/models/common/language_module/language_module.py,
    setup_embeddings_and_output_layer; DeepSpeed edaa72212, deepspeed/runtime/pipe/module.py, TiedLayerSpec)."""
    if not arch.tied_embeddings:
        return arch
    matrices = tuple(
        replace(matrix, tied=False) if matrix.tied and not matrix.shared else matrix
        for matrix in arch.matrices
    )  # those that layers share stay one
    return replace(arch, matrices=matrices, tied_embeddings=False)


@dataclass(frozen=True)
class Throughout:
    """What a GPU of a stage holds throughout a step (`base`), and what is gathered around that: a `unit`, `outside`
    of the layers, in the passes (`passing`, `live`). `own` are the adapter's bytes, `update` and `gradients` what the
    optimizer's step takes, `trained` parameters, `apart` those of experts that others do not hold, `host` bytes in
    the host's memory."""

    base: Held
    unit: int
    outside: int
    passing: Held
    live: int
    own: int
    update: int
    gradients: int
    trained: int
    apart: int
    host: int
    paged: int

    @property
    def last(self) -> Held:
        """What is held as the optimizer steps."""
        return {**self.base, "gathered": 0, "gradients": self.gradients, "temporary": self.update}


def throughout(
    arch: Architecture, setup: Setup, pairs: tuple[Adapted, ...] | None, whole: Whole, weights: Weights, stage: Stage,
    *, known: dict[Any, Any] | None = None,
) -> Throughout:  # fmt: skip
    """What a GPU of a stage holds, whatever passes; gradients among it where they stay between micro-steps. `known`
    has totals of the same adapter."""
    made: dict[Any, dict[int, Totals]] = {} if known is None else known
    mine = made.setdefault((seen_by_tensors(setup), seen_by_totals(setup), stage), {})

    def sums(over: int) -> Totals:
        over = over if setup.expert_parallel > 1 else 1
        if over not in mine:
            mine[over] = totals(trained_tensors(arch, setup, pairs, whole, stage, over), setup)
        return mine[over]

    trained, size = sums(1).count, sums(1).bytes
    of, states = {what: _over(setup, what) for what in SHARED}, sums(_over(setup, "states"))
    frozen = flat_gradients(arch, setup)
    left = share(sums(of["gradients"]).bytes + frozen, of["gradients"])
    gradients, gone = _gradients(setup, left, trained)
    own = 0 if setup.method == "full" else share(sums(of["parameters"]).bytes, of["parameters"])
    held = share(states.states, of["states"])
    copies = 2 if setup.copies_base else 1
    base, host = _held(setup, copies * share(weights.of(stage), of["parameters"]), own, held)
    if setup.accumulation > 1 or setup.main_grads or setup.gradients_kept or setup.gradients_late:
        base["gradients"] = max(gradients, deferred_gradients(trained, setup, frozen))
    unit, outside = gathered(arch, setup)
    unit += pairs_gathered(setup, pairs) if unit else 0
    base["gathered"] = outside + pairs_in_one(trained, setup)
    base["buckets"] = buckets(size, setup)
    base["fixed"], base["pixels"] = fixed_bytes(setup), 0
    if shares_copy(setup):
        base["copies"] = max(weights.unpacked.values(), default=0)
    if vllm := beside(engine(arch, setup)):
        base["vllm"] = vllm
    kept = kept_whole(arch, setup)
    passing, live = ({**base, "gathered": kept}, 0) if kept else (base, unit)
    update = stepped_at_once(share(states.update, of["states"]), setup) + widened_gradients(trained, setup)
    return Throughout(
        base, unit, outside, passing, live, own, update, gradients, trained, sums(1).apart, host + gone,
        held if is_paged(setup) else 0,
    )  # fmt: skip


def _stage(
    arch: Architecture, setup: Setup, pairs: tuple[Adapted, ...] | None, whole: Whole, weights: Weights,
    stage: Stage, *, merges: bool, ranks_follow: bool = False,
) -> MemoryEstimate:  # fmt: skip
    """The estimate of a GPU of one stage of the pipeline."""
    job = Job(arch, setup, pairs, whole, merges=merges, unpacked=weights.unpacked, ranks_follow=ranks_follow)
    held = throughout(arch, setup, pairs, whole, weights, stage)
    tower, pixels = _seen(job)
    base, passing = {**held.base, "pixels": pixels}, {**held.passing, "pixels": pixels}
    if arch.is_encoder_decoder:
        going = course_of_two(job, passing, stage, held.live)
    else:
        going = course(job, passing, stage, held.live, tower)
    first = before_steps(arch, setup, weights, stage, held.own)
    going.places[:0] = [*first.places, *before_step(job, base, held.unit), *evaluated(job, base)]
    moments = highest(going.places)
    moments.append(as_moment("optimizer", "step", {**held.last, "pixels": pixels}))
    apart = apart_bytes(going, held.update) + left_by_another_batch(moments, setup)
    varied = varied_bytes(moments, setup)
    streamed = 0 if one_stream(setup) else held.unit + held.outside
    beyond = overhead(setup)
    pools = pools_of(arch, setup, held.gradients, held.unit, held.outside)
    streams = streams_bytes(moments, pools)
    more = beyond_peak(moments, cached(setup, apart, streamed, varied) + streams, first.reserved)
    top = max(moments, key=lambda moment: moment.bytes)
    needed = top.bytes + sum(item.bytes for item in beyond)
    low, high, within = bounds_of(needed, more, setup, stated=stated_bytes(top))
    found = MemoryEstimate(
        setup=setup, moments=tuple(moments), overhead=beyond, low=low, high=high, within=within, cached_bytes=more,
        apart_bytes=apart, gathered_bytes=streamed, varied_bytes=varied, streams_bytes=streams,
        before_bytes=first.reserved,
        traffic=traffic(arch, setup, held.trained - held.apart, held.apart),
        host_bytes=held.host, paged_bytes=held.paged, notices=tuple(_notices(arch, setup, pairs)),
    )  # fmt: skip
    return replace(found, notices=(*found.notices, *loading_notices(found)))


def fixed_bytes(setup: Setup) -> int:
    """Bytes of a micro-step's tokens and of workspaces."""
    return token_bytes(setup) + WORKSPACES * setup.workspace_bytes


def token_bytes(setup: Setup) -> int:
    """Bytes of a micro-step's tokens as they come in: their numbers, the mask and the labels."""
    return 3 * ID_BYTES * setup.tokens


def _seen(job: Job) -> tuple[Seen | None, int]:
    """The tower that images pass, walked, and the bytes of their pixels."""
    if job.arch.images is None:
        return None, 0
    from .images import pixel_bytes, tower_of  # loaded where there are images

    return tower_of(job, job.arch.images), pixel_bytes(job.arch.images, job.setup)


def _notices(arch: Architecture, setup: Setup, pairs: tuple[Adapted, ...] | None) -> Iterator[Notice]:
    """What a reader of the figures should know."""
    yield from passed_over(setup, pairs)
    yield from quantised_experts(arch, setup)
    if left := sum(len(m.whole_in) for m in arch.matrices if is_quantised(m, setup)):
        yield Notice(
            "left-whole",
            f"The model's config leaves {left} matrices of its layers in 16 bits, and so do the weights here; "
            "products and time have them as the others.",
        )
    if leaves_towers(setup) and arch.tower_params:
        yield Notice(
            "towers-left",
            f"Towers of images and sounds and projectors, {arch.tower_params / 1e6:,.0f} M parameters, are not "
            "trained: neither gradients nor states of them are held. FLOPs and time have them trained.",
        )
    if setup.method == "full" and deferred_gradients(1, setup):
        yield Notice(
            "gradients-wait-whole",
            "In full fine-tuning FSDP exchanges gradients in the last micro-step alone, and each GPU holds them "
            "whole: one micro-step (--accumulation 1) needs less, as does an exchange in each (accelerate's "
            "sync_each_batch)",
        )


def _over(setup: Setup, what: str) -> int:
    """Over how many GPUs something is sharded."""
    sharded = {
        "states": setup.states_sharded,
        "gradients": setup.gradients_sharded,
        "parameters": setup.parameters_sharded,
    }[what]
    return setup.shards if sharded else 1


def _gradients(setup: Setup, made: int, trained: int) -> tuple[int, int]:
    """Bytes of the gradients of `trained` parameters that the GPU holds at the end of the backward pass, `made` where
    they stay as they are, and those that the host's memory holds."""
    if setup.main_grads:
        return FLOAT32 * trained, 0
    if setup.optimizer_in_backward:
        return 0, 0
    return (0, made) if gradients_leave(setup) else (made, 0)


def is_paged(setup: Setup) -> bool:
    """Whether states are in managed memory (bitsandbytes' paged optimizers), which the driver moves to the host where
    the GPU is full."""
    return setup.optimizer.startswith("paged") and setup.offload not in ("optimizer", "all")


def _held(setup: Setup, base: int, own: int, states: int) -> tuple[Held, int]:
    """What is held throughout on the GPU (base weights, the adapter, states), and the bytes of it that lie in host
    memory instead."""
    host = 0
    if setup.offload in ("parameters", "all"):
        base, host = 0, base
    if setup.offload in ("optimizer", "all") or is_paged(setup):
        states, host = 0, host + states
    return {"weights": base, "adapter": own, "optimizer": states}, host
