"""What GPUs send each other in an optimizer step, with frozen weights done right: only what is trained has gradients,
and only sharded weights are gathered."""

from __future__ import annotations

from collections.abc import Iterator

from ..moments import Traffic
from ..schema import Architecture
from ..setup import Setup
from .walk import STORED, WIDTH

WIDE_ROLES = ("embedding", "unembedding")


def frozen_bytes(arch: Architecture, setup: Setup) -> float:
    """Bytes of the base model as it is gathered: frozen weights in their stored form."""
    if setup.method == "full":
        return 0.0
    width = WIDTH[setup.weight_dtype]
    wide = sum(matrix.params for matrix in arch.matrices if matrix.role in WIDE_ROLES)
    if setup.quantize == "none":
        return float(arch.params * width)
    return (arch.params - wide) * STORED[setup.quantize] + wide * width


def traffic_of(arch: Architecture, setup: Setup, trained_params: int) -> tuple[Traffic, ...]:
    """Every collective of an optimizer step of one GPU."""
    return (*_data_parallel(arch, setup, trained_params), *_model_parallel(arch, setup))


def _data_parallel(arch: Architecture, setup: Setup, trained_params: int) -> Iterator[Traffic]:
    split = setup.tensor_parallel * setup.pipeline_parallel
    width = WIDTH[setup.compute_dtype if setup.method == "full" else setup.trained_dtype]
    trained = trained_params * width / split
    micro_steps, n, sharding = setup.accumulation, setup.data_parallel, setup.sharding
    if setup.parameters_sharded and setup.shards > 1:
        moved = (frozen_bytes(arch, setup) / split + trained) * 2 * micro_steps
        calls = micro_steps * arch.n_layers
        yield Traffic("weights", "all_gather", "shard", setup.shards, round(moved), 2 * calls)
        yield Traffic(
            "gradients", "reduce_scatter", "shard", setup.shards, round(trained * micro_steps), calls
        )
        if setup.offload in ("parameters", "all"):
            yield Traffic("weights", "host_copy", "host", 1, round(moved / setup.shards), 2 * calls)
        n = n * setup.sequence_parallel // setup.shards
        if n > 1:
            yield Traffic("gradients", "all_reduce", "replica", n, round(trained / setup.shards), 1)
        return
    if n < 2:
        return
    buckets = 1 + round(trained / 25e6)
    if sharding == "zero2":
        yield Traffic(
            "gradients", "reduce_scatter", "data", n, round(trained * micro_steps), buckets * micro_steps
        )
    else:
        yield Traffic("gradients", "all_reduce", "data", n, round(trained), buckets)
    if sharding in ("zero1", "zero2"):
        yield Traffic("updated parameters", "all_gather", "data", n, round(trained), buckets)


def _model_parallel(arch: Architecture, setup: Setup) -> Iterator[Traffic]:
    """Activations between GPUs: two all-reduces a layer and pass under tensor parallelism, a send a stage under
    pipelines, four all-to-alls a layer under expert parallelism, and what sequence parallelism exchanges."""
    again = setup.checkpointing != "none"
    passes = 3 if again else 2
    stream = setup.tokens * arch.hidden_size * WIDTH[setup.compute_dtype] * setup.accumulation
    layers = arch.n_layers / setup.pipeline_parallel
    calls = round(passes * 2 * layers * setup.accumulation)
    if setup.tensor_parallel > 1:
        yield Traffic(
            "activations",
            "all_reduce",
            "tensor",
            setup.tensor_parallel,
            round(passes * 2 * layers * stream),
            calls,
        )
    if setup.pipeline_parallel > 1:
        yield Traffic(
            "activations", "send", "pipeline", setup.pipeline_parallel, 2 * stream, 2 * setup.accumulation
        )
    if setup.expert_parallel > 1:
        moved = sum(
            m.copies * m.experts_active for m in arch.matrices if m.kind == "experts" and m.outer == "in"
        )
        yield Traffic(
            "tokens to experts", "all_to_all", "expert", setup.expert_parallel,
            round(passes * 2 * moved * stream / setup.pipeline_parallel), calls,
        )  # fmt: skip
    if setup.sequence_parallel > 1:
        yield Traffic(
            "heads for positions", "all_to_all", "sequence", setup.sequence_parallel,
            round(passes * 4 * layers * stream), 2 * calls,
        )  # fmt: skip
