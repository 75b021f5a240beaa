"""Whether GPUs can share a model as a set-up says: counts that its heads, widths, layers and experts go with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

from .adapter import Adapted
from .errors import InputError
from .memory.stages import count_layers
from .schema import Architecture, Attend
from .selective import check_selective
from .setup import Setup

PERCEPTRON = ("mlp", "expert", "shared_expert")


class Shares(Protocol):
    """What says how many GPUs share what: a set-up, or a layout of a search."""

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share every matrix."""

    @property
    def pipeline_parallel(self) -> int:
        """GPUs that share the layers."""

    @property
    def sequence_parallel(self) -> int:
        """GPUs that share every sequence."""

    @property
    def expert_parallel(self) -> int:
        """GPUs that share the experts."""


def check_model(arch: Architecture, shares: Shares) -> None:
    """Raise InputError for counts of GPUs that a model does not go with, naming the nearest that it does.

    By heads attention is split over the GPUs that share matrices (Megatron-LM, megatron/core/transformer/
    transformer_config.py) and over those that share a sequence, which are counted as Ulysses exchanges them
    (deepspeed/runtime/sequence_parallel/ulysses_sp.py, __init__). Of keys' and values' heads both want a multiple
    or a divisor: fewer heads than GPUs are there several times. Megatron divides what is between the two products of
    a perceptron evenly (tensor_parallel/layers.py, `divide`); the hidden states are whole on each GPU. GPUs have
    equally many experts (megatron/core/transformer/moe/moe_layer.py, BaseMoELayer). Stages of a pipeline may differ
    by a layer (deepspeed/runtime/utils.py, partition_uniform; Megatron wants options for it), but each has one. What
    stages hold of two stacks, or of a matrix that several layers share, is not modelled.
    """
    for name, count in (("tensor", shares.tensor_parallel), ("sequence", shares.sequence_parallel)):
        if count > 1:
            _check(f"{name}-parallel", count, _heads(arch, name == "tensor"))
    if shares.pipeline_parallel > 1 and (unlike := _not_in_stages(arch)):
        raise InputError(
            "pipeline-parallel", shares.pipeline_parallel, f"1 for {unlike}", "It is not modelled."
        )
    if shares.pipeline_parallel > (layers := max(1, count_layers(arch))):
        raise InputError(
            "pipeline-parallel",
            shares.pipeline_parallel,
            f"at most the {layers} layers",
            f"The nearest is {layers}.",
        )
    if shares.expert_parallel > 1:
        if not arch.has_experts:
            raise InputError(
                "expert-parallel", shares.expert_parallel, "1 for a model without stacked experts"
            )
        _check("expert-parallel", shares.expert_parallel, iter([(arch.n_experts, "experts", False)]))


def _not_in_stages(arch: Architecture) -> str:
    """What a model is of which the stages of a pipeline are not modelled; empty for all else."""
    if arch.is_encoder_decoder:
        return "an encoder with a decoder"
    return "a model whose layers share matrices" if any(m.shared for m in arch.matrices) else ""


def check_equal_stages(arch: Architecture, count: int) -> None:
    """Raise InputError for stages that would not all have as many layers: a search keeps to those that have."""
    _check("pipeline-parallel", count, iter([(count_layers(arch), "layers", False)]))


def check_engine(arch: Architecture, together: int) -> None:
    """Raise InputError where a model does not go with the GPUs that run one vLLM together: it divides heads and what
    is between the products of a perceptron, and copies heads of keys and values where there are fewer than GPUs
    (vllm/config/model.py, verify_with_parallel_config; vllm/model_executor/layers/linear.py, QKVParallelLinear)."""
    if together > 1:
        _check("vllm-tensor-parallel", together, _heads(arch, True))


def check_shares(arch: Architecture, setup: Setup, pairs: Iterable[Adapted] = ()) -> None:
    """Raise InputError for counts of a set-up that a model does not go with, those of GRPO's vLLM too, and where
    selective checkpointing goes with neither."""
    check_model(arch, setup)
    check_selective(arch, setup, pairs)
    if setup.objective == "grpo" and setup.generation != "transformers":
        check_engine(arch, setup.vllm_tensor_parallel)


def most_sequence(arch: Architecture, gpus: int, seq_len: int) -> int:
    """As many of these GPUs as can share every sequence of so many tokens."""
    found = math.gcd(gpus, seq_len)
    return max(n for n in range(1, found + 1) if found % n == 0 and _goes(n, _heads(arch, False)))


Parts = Iterator[tuple[int, str, bool]]  # how many of what, and whether fewer of them are there several times


def _heads(arch: Architecture, matrices: bool) -> Parts:
    """What has to be divided: heads, and where `matrices` are shared what is between a perceptron's products."""
    attends = [op for block in arch.blocks for op in block.operations if isinstance(op, Attend)]
    for heads in sorted({op.n_heads for op in attends}):
        yield heads, "attention heads", False
    for groups in sorted({op.n_kv_heads for op in attends} - {op.n_heads for op in attends}):
        yield groups, "key and value heads", True
    if matrices:
        inner = {m.d_in for m in arch.matrices if m.role in PERCEPTRON and m.d_out == arch.hidden_size}
        for width in sorted(inner):
            yield width, "intermediate values of a token", False


def _fits(number: int, count: int, several: bool) -> bool:
    return number % count == 0 or (several and count % number == 0)


def _goes(count: int, parts: Parts) -> bool:
    return all(_fits(number, count, several) for number, _, several in parts)


def _check(field: str, count: int, parts: Parts) -> None:
    """Raise InputError where a count does not go with all parts, naming the part and the nearest that go with all."""
    known = list(parts)
    for number, what, several in known:
        if not _fits(number, count, several):
            expected = f"a {'multiple or ' if several else ''}divisor of the {number} {what}"
            most = max(each for each, _, _ in known)
            good = [n for n in range(1, most + 1) if _goes(n, iter(known))]
            below = max((n for n in good if n < count), default=None)
            above = min((n for n in good if n > count), default=None)
            near = " and ".join(str(n) for n in (below, above) if n is not None)
            raise InputError(field, count, expected, f"The nearest {'are' if ' ' in near else 'is'} {near}.")
