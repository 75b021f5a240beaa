"""How states are spread over GPUs, and what is gathered while a layer runs.

Frozen weights are sharded and gathered like trained ones under ZeRO-3 and FSDP; gradients and optimizer states exist
for what is trained alone, and are sharded from ZeRO-2 and ZeRO-1 on. A unit is a layer; what stands outside of
the layers (embedding, unembedding, norms) is a unit of its own that stays gathered through the step, as FSDP's
root does.
"""

from __future__ import annotations

from functools import lru_cache

from ..choices import DTYPE_BYTES
from ..dataclass import dataclass
from ..schema import Architecture
from ..setup import Setup
from .passes import FLOAT32
from .states import is_quantised, on_one, quantised_bytes

DEEPSPEED_LIVE = 1_000_000_000  # parameters that stay gathered, DeepSpeed's stage3_max_live_parameters
DEEPSPEED_SUB_GROUP = 1_000_000_000  # parameters that ZeRO-3 updates at a time, sub_group_size
DEEPSPEED_BUCKET = 500_000_000  # elements, DeepSpeed's default reduce and all-gather buckets


@dataclass(frozen=True)
class Units:
    """Bytes of the weights as they are gathered: of the largest layer, of its largest matrix, of what stands outside
    of the layers and of the largest of that."""

    layer: int
    module: int
    outside: int
    end: int
    total: int


@lru_cache(maxsize=256)
def units(arch: Architecture, setup: Setup) -> Units:
    """The units of a model in the type that they are gathered in: quantised as they are, the rest in the
    compute type.

    Experts count 1 / expert_parallel (nothing where no two GPUs hold the same ones), matrices 1 / tensor_parallel.
    """
    width = DTYPE_BYTES[setup.compute_dtype]
    layers: dict[int, int] = {}
    module = outside = end = 0
    for matrix in arch.matrices:
        if matrix.tied:
            continue
        quantised = is_quantised(matrix, setup)
        size = (
            quantised_bytes(matrix, setup.quantize)
            if quantised
            else matrix.d_in * matrix.d_out * matrix.experts * width
        )
        expert = matrix.kind == "experts"
        if expert and 1 < setup.expert_parallel >= setup.shards:
            continue
        size = on_one(size, matrix, setup)
        if expert:
            size = -(-size // setup.expert_parallel)
        if "{}" in matrix.name:
            module = max(module, size)
            for layer in matrix.layers:
                layers[layer] = layers.get(layer, 0) + size
        else:
            outside, end = outside + size, max(end, size)
    return Units(max(layers.values(), default=0), module, outside, end, sum(layers.values()) + outside)


def gathered(arch: Architecture, setup: Setup) -> tuple[int, int]:
    """Bytes of whole units beside the shards: of one layer, and of what stays whole throughout the step.

    Where every matrix is a unit, FSDP's root holds norms alone (neglected), and the ends are gathered for their use.
    ZeRO-3 has no root: it gathers module by module, and keeps up to a billion parameters, of which half is counted as
    a layer here, since two are held at a time.
    """
    if not (setup.parameters_sharded and setup.shards > 1) and setup.offload not in ("parameters", "all"):
        return 0, 0
    found = units(arch, setup)
    if setup.sharding == "zero3":
        return max(found.layer, min(found.total, DEEPSPEED_LIVE * DTYPE_BYTES[setup.compute_dtype]) // 2), 0
    if by_module(setup):
        return found.module, 0
    return found.layer, found.outside


def by_module(setup: Setup) -> bool:
    """Whether every matrix is a unit of FSDP."""
    return setup.sharding.startswith("fsdp") and setup.fsdp_units == "modules"


def end_unit(arch: Architecture, setup: Setup) -> int:
    """Bytes of the unembedding gathered for the loss alone; 0 where a root holds it throughout. Neglected: the
    embedding, whose passes are small."""
    return units(arch, setup).end if by_module(setup) and any(gathered(arch, setup)) else 0


def kept_whole(arch: Architecture, setup: Setup) -> int:
    """Bytes of gathered weights that stay from the forward to the backward pass under ZeRO-3 without checkpointing: a
    product's backward node refers to the gathered weight itself (torch's linear saves its transpose), so that freeing
    the parameter's data frees nothing. DeepSpeed puts a function of its own in place of torch's within zero.Init
    (partition_parameters.py, mem_efficient_linear; zero/linear.py); a model that is built without, or with
    mem_efficient_linear off, keeps all but the embedding. Neglected: the forward pass, in which they pile up."""
    if not setup.gathered_kept or setup.sharding != "zero3" or setup.checkpointing != "none":
        return 0
    found = units(arch, setup)
    return found.total - (found.end if not arch.tied_embeddings else 0) if any(gathered(arch, setup)) else 0


def one_stream(setup: Setup) -> bool:
    """Whether gathered units leave nothing behind on a stream of their own: FSDP 2 frees them without recordStream
    (torch.distributed.fsdp.fully_shard's documentation: lower and deterministic memory)."""
    return setup.sharding.startswith("fsdp") and setup.fsdp_units == "layers"


def flat_gradients(arch: Architecture, setup: Setup) -> int:
    """Bytes of gradients that FSDP 1 makes for frozen weights in one flat parameter with trained ones: sharded, or
    whole while micro-steps accumulate where nothing is reduced before the last (no_sync)."""
    flat = setup.sharding.startswith("fsdp") and setup.fsdp_units == "flat" and setup.method != "full"
    if not flat or setup.shards == 1:
        return 0
    total = units(arch, setup).total
    whole = setup.accumulation > 1 and setup.deferred_gradients != "none"
    return total if whole else -(-total // setup.shards)


def deferred_gradients(trained: int, setup: Setup) -> int:
    """Bytes of the gradients of `trained` parameters where FSDP exchanges none before the last micro-step: whole, in
    the type that is computed in (torch.distributed.fsdp, no_sync: more memory, as gradients are not sharded) or that
    they are reduced in (_fully_shard/_fsdp_param.py, to_accumulated_grad_if_needed). None where they are offloaded,
    with which FSDP 1 refuses it."""
    deferred = setup.deferred_gradients != "none" and setup.accumulation > 1 and not gradients_leave(setup)
    if not deferred or not setup.sharding.startswith("fsdp") or setup.shards == 1:
        return 0
    return trained * (FLOAT32 if setup.deferred_gradients == "float32" else DTYPE_BYTES[setup.compute_dtype])


def gradients_leave(setup: Setup) -> bool:
    """Whether gradients go to the host's memory as they are reduced: FSDP's where parameters are offloaded
    (torch/distributed/fsdp: _runtime_utils.py, _cpu_grad; _fully_shard/_fsdp_collectives.py, offload_to_cpu), ZeRO's
    where states are (deepspeed/runtime/zero: stage3.py and stage_1_and_2.py, offload_optimizer)."""
    if setup.sharding.startswith("fsdp"):
        return setup.offload in ("parameters", "all")
    return setup.sharding.startswith("zero") and setup.offload in ("optimizer", "all")


def gradients_go(setup: Setup) -> bool:
    """Whether a gradient goes as soon as it is made: added to what is held, used, or offloaded."""
    added = setup.accumulation > 1 or setup.main_grads or setup.gradients_kept
    return added or setup.optimizer_in_backward or gradients_leave(setup)


def widened_gradients(trained: int, setup: Setup) -> int:
    """Bytes of the float32 gradients that an optimizer with float32 masters makes of a GPU's share of `trained`
    parameters for its step: ZeRO-1 and 2 of the whole share (deepspeed/runtime/zero/stage_1_and_2.py,
    single_grad_partition), ZeRO-3 of a sub-group of at most a billion parameters (stage3.py, sub_group_size), FSDP's
    and those of tensor parallelism alone of all (InternEvo's fsdp_optimizer.py and hybrid_zero_optim.py, step). A
    single GPU's fused kernel reads 16-bit ones."""
    if setup.gpus == 1 or setup.precision != "bf16-master" or setup.main_grads or gradients_leave(setup):
        return 0
    own = -(-trained // (setup.shards if setup.states_sharded else 1))
    return FLOAT32 * (min(own, DEEPSPEED_SUB_GROUP) if setup.sharding == "zero3" else own)


def buckets(trained_bytes: int, setup: Setup) -> int:
    """Buffers through which gradients are reduced: DDP keeps them beside the gradients, as large as all of these;
    ZeRO reduces through one of at most half a billion values. A buffer of gradients is reduced in place."""
    if setup.main_grads:
        return 0
    several = setup.data_parallel * setup.sequence_parallel > 1
    if setup.sharding == "ddp" and several:
        return trained_bytes
    if setup.sharding in ("zero1", "zero2", "zero3") and several:
        return min(trained_bytes, DEEPSPEED_BUCKET * DTYPE_BYTES[setup.compute_dtype])
    return 0
