"""What is held throughout a step: weights as they are stored, the adapter, gradients that accumulate,
optimizer states."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..adapter import Adapted
from ..adapter.pairs import Pair
from ..adapter.whole import Whole
from ..choices import DTYPE_BYTES, Quantize
from ..dataclass import dataclass
from ..schema import Architecture, Matrix
from ..setup import Setup
from .buffers import buffer_bytes, table_bytes
from .layout import split_sides
from .once import once
from .passes import FLOAT32
from .stages import Stage, count_layers

NF4_BLOCK = 64
NESTED_BLOCK = 256
FP8_BLOCK = 128  # inputs, and outputs, of an expert that share a scale
BOTH_FACTORS = ("megatron", "nemo-1")  # trainers that divide both factors of a pair over tensor-parallel GPUs


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def share(size: int, n: int) -> int:
    """A shard of n, rounded up."""
    return ceil_div(size, n)


def nf4_bytes(parameters: int, *, double: bool) -> int:
    """bitsandbytes NF4: n/2 bytes, an absmax for each 64 weights in float32, or doubly quantised in a byte with a
    float32 one for each 256 of them, and the tables of code values."""
    blocks = ceil_div(parameters, NF4_BLOCK)
    if double:
        return ceil_div(parameters, 2) + blocks + 4 * ceil_div(blocks, NESTED_BLOCK) + 4 * 256 + 64
    return ceil_div(parameters, 2) + 4 * blocks + 64


def int8_bytes(d_in: int, d_out: int) -> int:
    """LLM.int8: a byte a weight and a float32 absmax for each output."""
    return d_in * d_out + 4 * d_out


def quantised_bytes(matrix: Matrix, kind: Quantize) -> int:
    """Bytes of one of a matrix's copies in a quantised format, bias left out; each expert by itself."""
    n = matrix.d_in * matrix.d_out
    if kind.startswith("nf4"):
        one = nf4_bytes(n, double=kind == "nf4-double")
    elif kind == "fp8" and matrix.kind == "experts":  # transformers' FP8Experts
        one = n + FLOAT32 * ceil_div(matrix.d_in, FP8_BLOCK) * ceil_div(matrix.d_out, FP8_BLOCK)
    else:
        one = int8_bytes(matrix.d_in, matrix.d_out)
    return one * matrix.experts


def is_quantised(matrix: Matrix, setup: Setup) -> bool:
    """Whether a quantising loader takes the matrix: Linear modules inside the layers, and tensors of experts where
    the set-up says so; embeddings, the unembedding, what is no Linear, what layers share and what the library keeps
    wide stay."""
    if matrix.wide or matrix.shared:
        return False
    kinds = ("linear", "conv1d", "experts") if setup.quantize_experts else ("linear", "conv1d")
    return (
        setup.quantize != "none" and matrix.kind in kinds and matrix.role not in ("embedding", "unembedding")
    )


def kept_wide(matrix: Matrix, setup: Setup) -> bool:
    """Whether a matrix is held in float32 among float16 ones."""
    return matrix.wide and setup.weight_dtype == "float16"


def leaves_towers(setup: Setup) -> bool:
    """Whether full fine-tuning trains no tower of images or sounds."""
    return setup.method == "full" and setup.frozen_towers


@dataclass(frozen=True)
class Weights:
    """Base weights on one GPU: bytes of the layers, by number, and of what stands before and behind them.
    `unpacked`: what
    a quantised matrix takes while it is multiplied, by its index."""

    layers: tuple[int, ...]
    before: int
    behind: int
    unpacked: Mapping[int, int]

    def of(self, stage: Stage) -> int:
        """Those of a stage."""
        ends = (self.before if stage.stem else 0) + (self.behind if stage.head else 0)
        return sum(self.layers[stage.first : stage.end]) + ends


def _read_of_base(arch: Architecture, setup: Setup, stored: int | None = None) -> tuple[Hashable, ...]:
    over = setup.shards if setup.parameters_sharded and setup.expert_parallel > 1 else 1
    held = setup.weight_dtype, setup.compute_dtype, setup.upcast_small, setup.quantize, setup.quantize_experts
    return arch, stored, leaves_towers(setup), *held, setup.tensor_parallel, setup.expert_parallel, over


@once(_read_of_base)
def base_weights(arch: Architecture, setup: Setup, stored_bytes: int | None = None) -> Weights:
    """The base model in memory, before it is sharded. Tied matrices once; with `upcast_small` what is not quantised
    in float32. Where the set-up quantises none, `stored_bytes` of a base that was published quantised replace the
    sum."""
    width = DTYPE_BYTES[setup.weight_dtype]
    rest = FLOAT32 if setup.upcast_small else width
    low = DTYPE_BYTES[setup.compute_dtype] if leaves_towers(setup) else rest  # the rest is widened
    layers = dict.fromkeys(range(max(1, count_layers(arch))), buffer_bytes(arch, setup))
    over = setup.shards if setup.parameters_sharded else 1
    before, behind, undivided = table_bytes(arch, setup), 0, 0
    unpacked: dict[int, int] = {}
    for index, matrix in enumerate(arch.matrices):
        size = _matrix_bytes(matrix, setup, low if arch.in_towers(matrix) else rest)
        if is_quantised(matrix, setup) and not matrix.tied:
            unpacked[index] = _unpacked(matrix, setup.quantize, DTYPE_BYTES[setup.compute_dtype])
        undivided += size * matrix.copies
        size = on_one(size, matrix, setup)
        if matrix.kind == "experts":
            size = of_experts(size, setup, over)
        if "{}" in matrix.name:
            for layer in matrix.layers:
                layers[layer] = layers.get(layer, 0) + size
            if matrix.whole_in and is_quantised(matrix, setup):
                more = matrix.d_in * matrix.d_out * rest - quantised_bytes(matrix, setup.quantize)
                for layer in matrix.whole_in:
                    layers[layer] += on_one(more, matrix, setup)
        elif matrix.role == "unembedding":
            behind += size
        else:
            before += size * matrix.copies
    for vector in arch.vectors:
        one = low if arch.in_towers(vector) else rest
        undivided += vector.params * one
        if "{}" in vector.name:
            for layer in vector.layers:
                layers[layer] = layers.get(layer, 0) + vector.size * one
        else:
            behind += vector.params * one
    last = max(1, count_layers(arch))  # beyond it: a tower's layers, which stand before the text model's
    sizes = tuple(layers[number] for number in range(last))
    before += sum(size for number, size in layers.items() if number >= last)
    if (
        stored_bytes is not None
        and setup.quantize == "none"
        and stored_bytes < arch.params * DTYPE_BYTES[setup.weight_dtype]
    ):
        factor = stored_bytes / undivided
        sizes = tuple(round(size * factor) for size in sizes)
        before, behind = round(before * factor), round(behind * factor)
    return Weights(sizes, before, behind, unpacked)


def on_one(size: int, matrix: Matrix, setup: Setup) -> int:
    """What a tensor-parallel GPU has of a matrix that takes `size`: all of a router, and of what makes a latent."""
    if (
        setup.tensor_parallel == 1 or not matrix.d_in * matrix.d_out
    ):  # of a matrix of nothing no share is defined
        return size
    d_in, d_out = split_sides(matrix, setup.tensor_parallel)
    return ceil_div(size * d_in * d_out, matrix.d_in * matrix.d_out)


def _matrix_bytes(matrix: Matrix, setup: Setup, rest: int) -> int:
    """Bytes of one copy of a matrix with its bias."""
    bias = matrix.d_out * matrix.experts * rest if matrix.bias else 0
    if matrix.tied:
        return bias
    if is_quantised(matrix, setup):
        return quantised_bytes(matrix, setup.quantize) + bias
    if kept_wide(matrix, setup):
        rest = FLOAT32
    return matrix.d_in * matrix.d_out * matrix.experts * rest + bias


def _unpacked(matrix: Matrix, kind: Quantize, compute: int) -> int:
    """Bytes of a matrix made whole for a product, with the scales of doubly quantised ones. Of experts, one at
    a time."""
    return matrix.d_in * matrix.d_out * compute + (scale_bytes(matrix) if kind == "nf4-double" else 0)


def scale_bytes(matrix: Matrix) -> int:
    """Bytes of a doubly quantised matrix's scales in float32."""
    return 4 * ceil_div(matrix.d_in * matrix.d_out, NF4_BLOCK)


def of_experts(size: int, setup: Setup, over: int) -> int:
    """What a GPU holds of experts of a `size`, times `over`, by which everything is then divided: 1 / expert_parallel
    of it, which is sharded among the GPUs that hold the same experts."""
    return ceil_div(size * over, setup.expert_parallel * setup.expert_shards(over))


# What is trained


@dataclass(frozen=True)
class Tensor:
    """A trained tensor's shape, and how often it stands in the model; where it stands once, before or behind
    the layers. `stacked`: it has a third dimension, of experts. `width`: bytes a value, the base's for what PEFT
    trains in full beside the pairs. `apart`: of experts that other GPUs do not hold."""

    rows: int
    columns: int
    copies: int
    embedding: bool = False
    stacked: bool = False
    place: str = "before"
    width: int = FLOAT32
    apart: bool = False

    @property
    def size(self) -> int:
        """Its number of values."""
        return self.rows * self.columns

    @property
    def table(self) -> bool:
        """Whether it is an embedding, before the layers; the unembedding may share it."""
        return self.embedding and self.place == "before"


def trained_tensors(
    arch: Architecture,
    setup: Setup,
    adapted: Iterable[Adapted] | None,
    whole: Whole,
    stage: Stage,
    over: int = 1,
) -> tuple[Tensor, ...]:
    """Every trained tensor of a stage on one GPU: the whole model where `adapted` is None, else factors of pairs
    and what is trained in full. Experts are divided by expert parallelism, matrices by tensor parallelism (of a
    pair, the factor on the side that is split). `over`: by how many GPUs everything is to be divided."""
    found = _all(arch, setup, over) if adapted is None else _chosen(arch, setup, adapted, whole, over)
    return tuple(_in_stage(found, stage, count_layers(arch)))


def seen_by_tensors(setup: Setup) -> tuple[Any, ...]:
    """Everything of a set-up that the `trained_tensors` of an adapter depend on, beside over how many GPUs they are
    divided."""
    split = setup.tensor_parallel, setup.expert_parallel
    return *split, setup.trained_dtype, saved_width(setup), setup.trainer


def trained_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of trained parameters, and of their gradients."""
    return sum(t.size * t.copies * t.width for t in tensors)


def saved_width(setup: Setup) -> int:
    """Bytes a value of what is trained in full: beside an adapter PEFT copies the base's modules as they are."""
    if setup.method == "full":
        return DTYPE_BYTES[setup.trained_dtype]
    return FLOAT32 if setup.upcast_small else DTYPE_BYTES[setup.weight_dtype]


def _in_stage(found: Iterable[Tensor], stage: Stage, layers: int) -> Iterable[Tensor]:
    if stage.stem and stage.head:
        return found
    share_of = (stage.end - stage.first) / max(1, layers)
    return (
        replace(t, copies=max(1, round(t.copies * share_of)))
        for t in found
        if t.copies > 1 or (stage.stem and t.place == "before") or (stage.head and t.place == "behind")
    )


def _chosen(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted], whole: Whole, over: int
) -> Iterator[Tensor]:
    width, own = DTYPE_BYTES[setup.trained_dtype], saved_width(setup)
    for item in adapted:
        copies, tp = len(item.layers), setup.tensor_parallel
        place = "behind" if item.matrix.role == "unembedding" else "before"
        experts = item.matrix.kind == "experts"
        for pair in item.pairs:
            a, b = (  # a factor that all experts share stands on every GPU
                pair.rank * (of_experts(n, setup, over) if experts and n > 1 else n)
                for n in (pair.n_in, pair.n_out)
            )
            d_in, d_out = pair_sides(pair, item.matrix, setup)
            stacked, split = experts and not pair.materialised, experts and setup.expert_parallel > 1
            yield Tensor(
                a, d_in, copies, stacked=stacked, place=place, width=width, apart=split and pair.n_in > 1
            )  # fmt: skip
            yield Tensor(
                d_out, b, copies, stacked=stacked, place=place, width=width,
                apart=split and pair.n_out > 1,
            )  # fmt: skip
            if pair.magnitudes:
                size = ceil_div(pair.magnitudes * split_sides(item.matrix, tp)[1], item.matrix.d_out)
                yield Tensor(1, size, copies, place=place, width=width)
    counted = 0
    for index, layers in whole.matrices.items():
        matrix = arch.matrices[index]
        ends = matrix.role in ("embedding", "unembedding")
        place = "behind" if matrix.role == "unembedding" else "before"
        stacked = matrix.kind == "experts"
        yield Tensor(matrix.d_out, matrix.d_in * matrix.experts, len(layers), ends, stacked, place, own)
        counted += matrix.d_in * matrix.d_out * matrix.experts * len(layers)
    if whole.params > counted:
        yield Tensor(1, whole.params - counted, 1, width=own)


def pair_sides(pair: Pair, matrix: Matrix, setup: Setup) -> tuple[int, int]:
    """The inputs and outputs of a pair's factors on one tensor-parallel GPU: A is divided with a matrix that is
    divided by inputs, B with one that is divided by outputs, and the other factor is whole (peft 0.21,
    tuners/lora/model.py, add_lora_tp_hooks_dtensor; tp_layer.py, LoraParallelLinear). Megatron-Bridge and NeMo divide
    both, the other one by its rank or its outputs (067f987df, src/megatron/bridge/peft/utils.py,
    ParallelLinearAdapter)."""
    tp = setup.tensor_parallel
    if setup.trainer in BOTH_FACTORS:
        return ceil_div(pair.d_in, tp), ceil_div(pair.d_out, tp)
    d_in, d_out = split_sides(matrix, tp)
    return ceil_div(pair.d_in * d_in, matrix.d_in), ceil_div(pair.d_out * d_out, matrix.d_out)


def _all(arch: Architecture, setup: Setup, over: int) -> Iterator[Tensor]:
    width, left = DTYPE_BYTES[setup.trained_dtype], leaves_towers(setup)
    for matrix in arch.matrices:
        if left and arch.in_towers(matrix):
            continue
        experts = of_experts(matrix.experts, setup, over) if matrix.kind == "experts" else 1
        place = "behind" if matrix.role == "unembedding" else "before"
        if not matrix.tied:
            ends = matrix.role in ("embedding", "unembedding")
            columns, stacked = on_one(matrix.d_in * experts, matrix, setup), matrix.kind == "experts"
            own, apart = FLOAT32 if kept_wide(matrix, setup) else width, stacked and setup.expert_parallel > 1
            yield Tensor(matrix.d_out, columns, matrix.copies, ends, stacked, place, own, apart)
        if matrix.bias:
            yield Tensor(1, matrix.d_out * matrix.experts, matrix.copies, place=place, width=width)
    for vector in arch.vectors:
        if not (left and arch.in_towers(vector)):
            yield Tensor(1, vector.size, len(vector.layers), place="behind", width=width)
