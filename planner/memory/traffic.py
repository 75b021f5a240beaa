"""What GPUs send each other in an optimizer step, by collective: bytes, calls and the size of the group."""

from __future__ import annotations

from collections.abc import Iterator

from ..choices import DTYPE_BYTES
from ..moments import Collective, Traffic
from ..schema import Apply, Architecture, Attend
from ..setup import Setup
from .passes import FLOAT32, fsdp_mixed
from .sharding import DEEPSPEED_LIVE, by_module, ends_apart, flat_gradients, in_one, reduced_by_layer, units

ON_MEGATRON = (
    "megatron",
    "megatron-lm",
    "ms-swift-megatron",
    "nemo-1",
    "nemo-2",
)  # by their names in trainers.toml


def traffic(arch: Architecture, setup: Setup, trained: int, experts: int = 0) -> tuple[Traffic, ...]:
    """Every collective of an optimizer step; `trained` is the number of trained parameters on one GPU, `experts` that
    of those beside them which belong to experts that other GPUs do not hold."""
    return tuple(
        entry
        for entry in (
            *_states(arch, setup, trained),
            *_apart(setup, experts),
            *_tensor(arch, setup),
            *_pipeline(arch, setup),
            *_experts(arch, setup),
            *_sequence(arch, setup),
            *_host(arch, setup, trained + experts),
        )
        if entry.bytes and entry.group_size > 1
    )


def _layers(arch: Architecture) -> int:
    """Layers of the text."""
    return sum(len(b.layers) for b in arch.blocks if b.stack in ("decoder", "encoder"))


def _units(arch: Architecture, setup: Setup) -> int:
    """Units that are gathered and reduced: layers, or the one that the whole model is."""
    return 1 if in_one(setup) else _layers(arch)


def _states(arch: Architecture, setup: Setup, trained: int) -> Iterator[Traffic]:
    """Gradients are summed over all GPUs that hold the same layers, those that share a sequence among them, as often
    as `reductions` says; sharded parameters are gathered for the passes of every micro-step, frozen ones too."""
    width = DTYPE_BYTES[setup.trained_dtype]
    n, layers = setup.shards, _units(arch, setup)
    spread = setup.data_parallel * setup.sequence_parallel
    if setup.sharding in ("none", "ddp"):
        yield Traffic("gradients", "all_reduce", "data", spread, trained * width, 1)
    times = reductions(setup)
    frozen = flat_gradients(arch, setup)
    if setup.states_sharded:
        size = trained * (FLOAT32 if setup.reduced_wide else width) + frozen
        yield Traffic("gradients", reduced_by(setup), "shard", n, size * times, layers * times)
    if setup.sharding in ("zero1", "zero2"):
        yield Traffic("updated parameters", "all_gather", "shard", n, trained * width, 1)
    if setup.parameters_sharded:
        beside = 0 if setup.method == "full" else trained
        size = (_base_gathered(arch, setup) + beside * _pair_gathers(arch, setup)) * setup.accumulation
        yield Traffic("parameters", "all_gather", "shard", n, size, 2 * layers * setup.accumulation)
    if setup.sharding == "fsdp-hybrid":
        size = -(-(trained * width + frozen) // n)
        yield Traffic("gradients", "all_reduce", "replica", spread // n, size * times, layers * times)


def _base_gathered(arch: Architecture, setup: Setup) -> int:
    """Bytes of the base that a micro-step gathers: for the forward and again for the backward pass, but what FSDP's
    root holds once, and what ZeRO-3 keeps. That gathers an embedding that is not trained for the forward pass
    alone."""
    found = units(arch, setup)
    if setup.sharding != "zero3":
        root = found.total if in_one(setup) else found.outside
        if ends_apart(
            arch, setup
        ):  # the unembedding stays for the way back; torchtune gathers it again, neglected
            root = found.end
        return 2 * found.total - (0 if by_module(setup) else root)
    again = _again_under_zero3(arch, setup)
    return found.total + again - min(_kept_under_zero3(setup), again)


def _again_under_zero3(arch: Architecture, setup: Setup) -> int:
    """Bytes of the base that the backward pass reads."""
    found = units(arch, setup)
    return found.total - (found.end if setup.method != "full" and not arch.tied_embeddings else 0)


def _kept_under_zero3(setup: Setup) -> int:
    """Bytes that ZeRO-3 keeps from the forward to the backward pass: what is used again before a billion parameters
    have been, which the last half of a billion are (deepspeed/runtime/zero/partitioned_param_coordinator.py,
    __params_to_release; neglected: what it gathers ahead)."""
    return DEEPSPEED_LIVE // 2 * DTYPE_BYTES[setup.compute_dtype]


def _pair_gathers(arch: Architecture, setup: Setup) -> int:
    """Bytes that a micro-step gathers of each value of a pair: for both passes, and where factors are units of their
    own once more for a layer that is run again.

    Neglected, for which it is too high: that a layer that is run again stops before its last factor where that is not
    reentrant, that FSDP's root gathers pairs on the ends once, and that ZeRO-3 gathers factors of at most 100,000
    values once a step (param_persistence_threshold).
    """
    width = DTYPE_BYTES[setup.compute_dtype if fsdp_mixed(setup) else setup.trained_dtype]
    if setup.sharding == "zero3":
        return width * (1 if _kept_under_zero3(setup) >= _again_under_zero3(arch, setup) else 2)
    if in_one(setup):
        return width
    apart = setup.fsdp_units in ("pairs", "modules")
    return width * (3 if apart and setup.checkpointing != "none" else 2)


def reductions(setup: Setup) -> int:
    """How often sharded gradients are reduced in a step: in every micro-step by DeepSpeed's ZeRO-2 and 3, since no
    GPU holds all of them (deepspeed/runtime/zero/stage_1_and_2.py, partition_gradients), and by FSDP unless it
    exchanges none before the last (torch.distributed.fsdp, no_sync; set_requires_gradient_sync of FSDP 2)."""
    each = setup.sharding in ("zero2", "zero3") or reduced_by_layer(setup)
    return setup.accumulation if each else 1


def reduced_by(setup: Setup) -> Collective:
    """How gradients of sharded states are summed: DeepSpeed's ZeRO-1 and 2 all-reduce whole buckets; each GPU
    keeps its part (deepspeed/runtime/zero/stage_1_and_2.py, allreduce_and_scatter, by the default
    use_multi_rank_bucket_allreduce); ZeRO-3, FSDP and Megatron's distributed optimizer reduce and scatter."""
    deepspeed = setup.sharding in ("zero1", "zero2") and setup.trainer not in ON_MEGATRON
    return "all_reduce" if deepspeed else "reduce_scatter"


def _apart(setup: Setup, experts: int) -> Iterator[Traffic]:
    """Gradients of experts under expert parallelism, reduced among the GPUs that hold the same ones."""
    width = DTYPE_BYTES[setup.trained_dtype]
    if setup.sharding in ("none", "ddp"):
        same = setup.expert_shards(setup.data_parallel * setup.sequence_parallel)
        yield Traffic("gradients of experts", "all_reduce", "data", same, experts * width, 1)
    elif setup.states_sharded:
        same = setup.expert_shards(setup.shards)
        times = reductions(setup)
        yield Traffic(
            "gradients of experts", reduced_by(setup), "shard", same, experts * width * times, times
        )
        if setup.sharding in ("zero1", "zero2"):
            yield Traffic("updated experts", "all_gather", "shard", same, experts * width, 1)


def passes(setup: Setup) -> int:
    """How often activations cross between GPUs in a micro-step: forward, backward, and again where layers are run
    again."""
    return 2 if setup.checkpointing == "none" else 3


def _tensor(arch: Architecture, setup: Setup) -> Iterator[Traffic]:
    """Two sums a layer in each pass, over the tokens' hidden states."""
    if setup.tensor_parallel == 1:
        return
    layers = -(-_layers(arch) // setup.pipeline_parallel)
    calls = 2 * layers * passes(setup) * setup.accumulation
    size = setup.tokens * arch.hidden_size * DTYPE_BYTES[setup.compute_dtype]
    yield Traffic("hidden states", "all_reduce", "tensor", setup.tensor_parallel, size * calls, calls)


def _pipeline(arch: Architecture, setup: Setup) -> Iterator[Traffic]:
    """Hidden states to the next stage, their gradients back."""
    if setup.pipeline_parallel == 1:
        return
    size = setup.tokens * arch.hidden_size * DTYPE_BYTES[setup.compute_dtype]
    calls = 2 * setup.accumulation
    yield Traffic("hidden states", "send", "pipeline", setup.pipeline_parallel, size * calls, calls)


def _experts(arch: Architecture, setup: Setup) -> Iterator[Traffic]:
    """Each token to its experts and back, in each pass."""
    if setup.expert_parallel == 1:
        return
    size = calls = 0
    for block in arch.blocks:
        for op in block.operations:
            if isinstance(op, Apply) and arch.matrices[op.matrix].kind == "experts":
                matrix = arch.matrices[op.matrix]
                if matrix.outer == "out":
                    sent = (
                        setup.tokens * matrix.experts_active * matrix.d_out * DTYPE_BYTES[setup.compute_dtype]
                    )
                    times = 2 * passes(setup) * len(block.layers) * setup.accumulation
                    size, calls = size + sent * times, calls + times
    yield Traffic("tokens to experts", "all_to_all", "expert", setup.expert_parallel, size, calls)


def _sequence(arch: Architecture, setup: Setup) -> Iterator[Traffic]:
    """Queries, keys, values and results between a split of positions and a split of heads, in each pass."""
    if setup.sequence_parallel == 1:
        return
    size = calls = 0
    for block in arch.blocks:
        for op in block.operations:
            if isinstance(op, Attend):
                widths = op.n_heads * (op.d_qk + op.d_v) + op.n_kv_heads * (op.d_qk + op.d_v)
                times = passes(setup) * len(block.layers) * setup.accumulation
                size += setup.tokens * widths * DTYPE_BYTES[setup.compute_dtype] * times
                calls += 4 * times
    yield Traffic("heads", "all_to_all", "sequence", setup.sequence_parallel, size, calls)


def _host(arch: Architecture, setup: Setup, trained: int) -> Iterator[Traffic]:
    """Over the host's bus: offloaded parameters in for each pass, gradients out and updated parameters back."""
    width = DTYPE_BYTES[setup.trained_dtype]
    if setup.offload in ("optimizer", "all"):
        share = -(-trained // (setup.shards if setup.states_sharded else 1)) * width
        yield Traffic("gradients and updated parameters", "host_copy", "host", 2, 2 * share, 2)
    if setup.offload in ("parameters", "all"):
        size = -(-units(arch, setup).total // (setup.shards if setup.parameters_sharded else 1))
        yield Traffic(
            "parameters", "host_copy", "host", 2, 2 * size * setup.accumulation, 2 * _units(arch, setup)
        )
