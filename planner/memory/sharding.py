"""How states are spread over GPUs, and what is gathered while a layer runs.

Frozen weights are sharded and gathered like trained ones under ZeRO-3 and FSDP; gradients and optimizer states exist
for what is trained alone, and are sharded from ZeRO-2 and ZeRO-1 on. A unit is a layer; what stands outside of
the layers (embedding, unembedding, norms) is a unit of its own that stays gathered through the step, as FSDP's
root does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ..adapter import Adapted
from ..choices import DTYPE_BYTES
from ..dataclass import dataclass
from ..schema import Architecture
from ..setup import Setup
from .once import once
from .passes import FLOAT32, fsdp_mixed
from .states import is_quantised, on_one, pair_sides, quantised_bytes
from .tape import EXPERT_GRADIENTS

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


def _read_of_units(arch: Architecture, setup: Setup) -> tuple[Hashable, ...]:
    apart = setup.expert_parallel >= setup.shards
    split = setup.tensor_parallel, setup.expert_parallel
    return arch, setup.compute_dtype, setup.quantize, setup.quantize_experts, *split, apart


@once(_read_of_units)
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

    Where every matrix is a unit, FSDP's root holds norms alone (neglected), and the ends are gathered for their use;
    where the model is one unit, all of it is the root's.
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
    if ends_apart(arch, setup):
        return found.layer, 0
    return (0, found.total) if in_one(setup) else (found.layer, found.outside)


def in_one(setup: Setup) -> bool:
    """Whether the whole model is one flat parameter of FSDP 1, as it is without a policy: its root, which stays
    gathered through both passes (torch 2.13, fsdp/_runtime_utils.py, _post_forward_reshard)."""
    return setup.sharding.startswith("fsdp") and setup.fsdp_units == "whole"


def by_module(setup: Setup) -> bool:
    """Whether every matrix is a unit of FSDP."""
    return setup.sharding.startswith("fsdp") and setup.fsdp_units == "modules"


def ends_apart(arch: Architecture, setup: Setup) -> bool:
    """Whether embedding and unembedding are units of FSDP 2 beside the layers, so that its root holds next to nothing
    (torchtune 0.3, custom_sharded_layers; torchtitan 83e694105, apply_fsdp). Tied ones are one unit, as the root."""
    return _by_ends(setup) and not arch.tied_embeddings


def _by_ends(setup: Setup) -> bool:
    return setup.sharding.startswith("fsdp") and setup.fsdp_units == "layers-ends"


def end_unit(arch: Architecture, setup: Setup) -> int:
    """Bytes of the unembedding gathered for the loss alone; 0 where a root holds it throughout. Neglected: the
    embedding, whose forward pass is small."""
    apart = by_module(setup) or ends_apart(arch, setup)
    return units(arch, setup).end if apart and any(gathered(arch, setup)) else 0


def end_buffer(arch: Architecture, setup: Setup) -> int:
    """Bytes in which FSDP 2 reduces the gradients of an embedding or unembedding that is a unit of its own, in full
    fine-tuning. Neglected: pairs on these."""
    if not ends_apart(arch, setup) or not reduced_by_layer(setup) or setup.method != "full":
        return 0
    return units(arch, setup).end // DTYPE_BYTES[setup.compute_dtype] * _reduced_width(setup)


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


def handed_over(setup: Setup) -> bool:
    """Whether no layer is gathered while another runs back, but for a moment between the two: where pairs are units
    of their own, FSDP 1 gathers ahead of each unit the one that ran before it, so the layer before only ahead of this
    layer's first pair, which is the last to run back (torch 2.13, fsdp/_runtime_utils.py, _pre_backward_hook)."""
    return setup.method != "full" and setup.fsdp_units == "pairs"


def one_stream(setup: Setup) -> bool:
    """Whether gathered units leave nothing behind on a stream of their own: FSDP 2 frees them without recordStream
    (torch.distributed.fsdp.fully_shard's documentation: lower and deterministic memory)."""
    return setup.sharding.startswith("fsdp") and setup.fsdp_units in ("layers", "layers-ends")


def in_flat_units(setup: Setup) -> bool:
    """Whether frozen weights stand in one flat parameter of FSDP 1 with trained ones. Its views all need gradients,
    so that a layer keeps what frozen weights' gradients take, and makes them (torch 2.13,
    distributed/fsdp/_flat_param.py, _use_unsharded_views)."""
    flat = setup.sharding.startswith("fsdp") and setup.fsdp_units in ("flat", "whole")
    return flat and setup.method != "full" and setup.shards > 1


def flat_gradients(arch: Architecture, setup: Setup) -> int:
    """Bytes of gradients that FSDP 1 makes for frozen weights in one flat parameter with trained ones, whole. None
    for the root, in which nothing is trained (neglected: pairs on the unembedding), unless it is the whole model."""
    if not in_flat_units(setup):
        return 0
    found = units(arch, setup)
    return found.total - (0 if in_one(setup) else found.outside)


def exchange_waits(setup: Setup) -> bool:
    """Whether FSDP exchanges no gradients before the last micro-step."""
    waits = setup.deferred_gradients != "none" and setup.accumulation > 1
    return waits and setup.sharding.startswith("fsdp") and setup.shards > 1


def deferred_gradients(trained: int, setup: Setup, frozen: int = 0) -> int:
    """Bytes of the gradients of `trained` parameters, and `frozen` bytes of those of others, where FSDP exchanges
    none before the last micro-step: whole, in the type that is computed in (torch.distributed.fsdp, no_sync: more
    memory, as gradients are not sharded) or that they are reduced in (_fully_shard/_fsdp_param.py,
    to_accumulated_grad_if_needed). Where they are offloaded that is after the exchange (no_sync: inside it they are
    not)."""
    if not exchange_waits(setup):
        return 0
    width = FLOAT32 if setup.deferred_gradients == "float32" else DTYPE_BYTES[setup.compute_dtype]
    return trained * width + frozen


def gradients_leave(setup: Setup) -> bool:
    """Whether gradients go to the host's memory as they are reduced: FSDP's where parameters are offloaded
    (torch/distributed/fsdp: _runtime_utils.py, _cpu_grad; _fully_shard/_fsdp_collectives.py, offload_to_cpu), ZeRO's
    where states are (deepspeed/runtime/zero: stage3.py and stage_1_and_2.py, offload_optimizer)."""
    if setup.sharding.startswith("fsdp"):
        return setup.offload in ("parameters", "all")
    return setup.sharding.startswith("zero") and setup.offload in ("optimizer", "all")


def reduced_by_layer(setup: Setup) -> bool:
    """Whether FSDP reduces a layer's gradients when the layer has ended, up to where they are whole, in every
    micro-step that it exchanges any."""
    return setup.sharding.startswith("fsdp") and setup.shards > 1 and not exchange_waits(setup)


def _whole_by_layer(setup: Setup) -> bool:
    """Whether a layer's gradients are whole up to where the layer has ended: to be reduced then, or joined to one."""
    return reduced_by_layer(setup) or joined_gradients(setup)


def _gradients_used(setup: Setup) -> bool:
    """Whether gradients are added to what is held, used, or offloaded, as soon as that can be."""
    added = setup.accumulation > 1 or setup.main_grads or setup.gradients_kept
    return added or setup.optimizer_in_backward or gradients_leave(setup)


def gradients_go(setup: Setup) -> bool:
    """Whether a gradient goes as soon as it is made."""
    return _gradients_used(setup) and not _whole_by_layer(setup)


def gradients_leave_layer(setup: Setup) -> bool:
    """Whether a layer's gradients are gone when its backward pass has ended: those that go at once, and FSDP's, which
    are whole up to there."""
    return setup.optimizer_in_backward or (_gradients_used(setup) and _whole_by_layer(setup))


def spread(setup: Setup) -> dict[str, float]:
    """Over how many GPUs the gradients that the backward pass leaves are spread, in the width in which it
    makes them, by their label."""
    if not setup.gradients_sharded:
        return {"gradients": 1, EXPERT_GRADIENTS: 1}
    wider = 2 if fsdp_mixed(setup) and setup.method == "full" else 1
    return {
        "gradients": setup.shards / wider,
        EXPERT_GRADIENTS: setup.expert_shards(setup.shards) / wider,
    }


def copied_out(setup: Setup) -> bool:
    """Whether three layers' weights are held for a moment in the forward pass: FSDP 2 copies what it has gathered to
    where the parameters are, while what the layer before was gathered in is still referred to (torch 2.13,
    _fully_shard/_fsdp_param_group.py, wait_for_unshard: by `prev_all_gather_state`)."""
    return one_stream(setup)


def joined_gradients(setup: Setup) -> bool:
    """Whether a unit's gradients are copied into one: FSDP 1's flat parameter, of which all others are views (torch's
    split, whose gradient concatenates those of its pieces). Neglected: units of single matrices."""
    whole = setup.method == "full" or setup.fsdp_units in ("flat", "whole")
    return (
        setup.sharding.startswith("fsdp")
        and setup.fsdp_units in ("pairs", "flat", "whole")
        and setup.shards > 1
        and whole
    )


def root_waits(arch: Architecture, setup: Setup) -> bool:
    """Whether the gradients of what stands outside of the layers are whole to the end of the backward pass: FSDP
    reduces or joins a unit's when all of them are there, and the embedding is the last. Where the model is one unit
    so are those of all layers."""
    apart = by_module(setup) or ends_apart(arch, setup)
    return _whole_by_layer(setup) and not apart and not setup.optimizer_in_backward


def reduce_buffer(arch: Architecture, setup: Setup, pairs: Sequence[Adapted] | None) -> int:
    """Bytes in which FSDP 2 reduces a layer's gradients, which are held until the next layer's are (torch 2.13,
    _fully_shard/_fsdp_param_group.py, post_backward: reduce_scatter_max_input_buffers)."""
    if not one_stream(setup) or not reduced_by_layer(setup):
        return 0
    if setup.method == "full":
        values = units(arch, setup).layer // DTYPE_BYTES[setup.compute_dtype]
    else:
        values = pairs_of_layer(setup, pairs or ())
    return values * _reduced_width(setup)


def _reduced_width(setup: Setup) -> int:
    """Bytes of a value as FSDP 2 reduces it: as it was made, or in float32 (its policy's reduce_dtype)."""
    if setup.reduced_wide or setup.deferred_gradients == "float32":
        return FLOAT32
    mixed = setup.method == "full" and fsdp_mixed(setup)
    return DTYPE_BYTES[setup.compute_dtype if mixed else setup.trained_dtype]


def pairs_of_layer(setup: Setup, pairs: Sequence[Adapted]) -> int:
    """Parameters of the pairs of the layer that has most, as tensor parallelism leaves them."""
    layers: dict[int, int] = {}
    for item in pairs:
        if "{}" in item.matrix.name:
            own = 0
            for pair in item.pairs:
                d_in, d_out = pair_sides(pair, item.matrix, setup)
                own += pair.rank * (pair.n_in * d_in + pair.n_out * d_out)
            for layer in item.layers:
                layers[layer] = layers.get(layer, 0) + own
    return max(layers.values(), default=0)


def pairs_gathered(setup: Setup, pairs: Sequence[Adapted] | None) -> int:
    """Bytes of a layer's pairs in its unit, beside the weights: nothing where each factor is a unit of its own."""
    inside = setup.sharding.startswith("fsdp") and setup.fsdp_units in ("layers", "layers-ends", "flat")
    if not inside or setup.shards == 1 or setup.method == "full":
        return 0
    width = DTYPE_BYTES[setup.compute_dtype if fsdp_mixed(setup) else setup.trained_dtype]
    return pairs_of_layer(setup, pairs or ()) * width


def pairs_in_one(trained: int, setup: Setup) -> int:
    """Bytes of all `trained` parameters of pairs in the unit that the whole model is."""
    if not in_one(setup) or setup.shards == 1 or setup.method == "full":
        return 0
    return trained * DTYPE_BYTES[setup.compute_dtype if fsdp_mixed(setup) else setup.trained_dtype]


def widened_gradients(trained: int, setup: Setup) -> int:
    """Bytes of the float32 gradients that an optimizer with float32 masters makes of a GPU's share of `trained`
    parameters for its step: ZeRO-1 and 2 of the whole share (deepspeed/runtime/zero/stage_1_and_2.py,
    single_grad_partition), ZeRO-3 of a sub-group of at most a billion parameters (stage3.py, sub_group_size), FSDP's
    and those of tensor parallelism alone of all (InternEvo's fsdp_optimizer.py and hybrid_zero_optim.py, step). A
    single GPU's fused kernel reads 16-bit ones."""
    if setup.gpus == 1 or not setup.masters or setup.main_grads or gradients_leave(setup):
        return 0
    own = -(-trained // (setup.shards if setup.states_sharded else 1))
    return FLOAT32 * (min(own, DEEPSPEED_SUB_GROUP) if setup.sharding == "zero3" else own)


def stepped_at_once(update: int, setup: Setup) -> int:
    """Of bytes that an optimizer's step takes beside its states those that it takes at a time: ZeRO-3 steps one
    sub-group of at most a billion float32 parameters after another (deepspeed/runtime/zero/stage3.py,
    _optimizer_step). Neglected: of DeepSpeed's flat sub-groups a loop over tensors holds a whole one."""
    at_once = FLOAT32 * DEEPSPEED_SUB_GROUP
    return min(update, at_once) if setup.sharding == "zero3" else update


def buckets(trained_bytes: int, setup: Setup) -> int:
    """Buffers through which gradients are reduced: DDP keeps them beside the gradients, as large as all of these;
    ZeRO reduces through one of half a billion values (DeepSpeed's default reduce_bucket_size; on a single GPU too:
    deepspeed/runtime/zero/stage_1_and_2.py, setup_buckets), two of ZeRO-1 and 2 by overlap_comm, or, where a trainer
    asks for less, one of at most that. A buffer of gradients is reduced in place."""
    if setup.main_grads:
        return 0
    several = setup.data_parallel * setup.sequence_parallel > 1
    if setup.sharding == "ddp" and several:
        return trained_bytes
    whole, made = DEEPSPEED_BUCKET * DTYPE_BYTES[setup.compute_dtype], setup.reduce_buckets != "fitted"
    if setup.sharding in ("zero1", "zero2", "zero3") and (several or made):
        twice = setup.reduce_buckets == "two" and setup.sharding != "zero3"
        return whole * (1 + twice) if made else min(trained_bytes, whole)
    return 0
