"""What is held throughout a step: weights as they are stored, the adapter, gradients that accumulate, optimizer states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..adapter import Adapted
from ..adapter.whole import Whole
from ..schema import Architecture, Matrix
from ..setup import Quantize, Setup
from .passes import FLOAT32, WIDTHS

QUANTILE_BLOCK = 256  # values that share a scale in an 8-bit optimizer's states (bitsandbytes 0.45 and later)
SMALLEST_8BIT = 4096  # bitsandbytes keeps the states of smaller tensors in float32
NF4_BLOCK = 64
NESTED_BLOCK = 256


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def nf4_bytes(parameters: int, *, double: bool) -> int:
    """bitsandbytes NF4: n/2 bytes, an absmax for each 64 weights in float32, or doubly quantised in a byte with a float32
    one for each 256 of them, and the tables of code values."""
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
    else:
        one = int8_bytes(matrix.d_in, matrix.d_out)
    return one * matrix.experts


def is_quantised(matrix: Matrix) -> bool:
    """Whether a quantising loader takes the matrix: Linear modules inside the layers (and experts); embeddings, the
    unembedding and what is no Linear stay."""
    return matrix.kind in ("linear", "conv1d", "experts") and matrix.role not in ("embedding", "unembedding")


@dataclass(frozen=True)
class Weights:
    """Base weights: bytes of all, and of those of one layer's matrices by index (`unpacked`: what the quantised
    matrix takes while it is multiplied, 0 where it is not quantised)."""

    bytes: int
    quantised_bytes: int
    unpacked: Mapping[int, int]


def base_weights(arch: Architecture, setup: Setup) -> Weights:
    """The base model in memory. Tied matrices once; with `upcast_small` what is not quantised in float32."""
    width = WIDTHS[setup.weight_dtype]
    rest = FLOAT32 if setup.upcast_small else width
    total = packed = 0
    unpacked: dict[int, int] = {}
    compute = WIDTHS[setup.compute_dtype]
    for index, matrix in enumerate(arch.matrices):
        bias = matrix.d_out * matrix.experts * matrix.copies * rest if matrix.bias else 0
        total += bias
        if matrix.tied:
            continue
        if setup.quantize != "none" and is_quantised(matrix):
            size = quantised_bytes(matrix, setup.quantize) * matrix.copies
            packed += size
            total += size
            unpacked[index] = _unpacked(matrix, setup.quantize, compute)
        else:
            total += (
                matrix.params - (matrix.d_out * matrix.experts * matrix.copies if matrix.bias else 0)
            ) * rest
    total += sum(vector.params for vector in arch.vectors) * rest
    return Weights(total, packed, unpacked)


def _unpacked(matrix: Matrix, kind: Quantize, compute: int) -> int:
    """Bytes of a matrix made whole for a product, with the scales of doubly quantised ones. Of experts, one at a time."""
    n = matrix.d_in * matrix.d_out
    if kind == "int8":
        return 0
    return n * compute + (4 * ceil_div(n, NF4_BLOCK) if kind == "nf4-double" else 0)


# What is trained


@dataclass(frozen=True)
class Tensor:
    """A trained tensor's shape, and how often it stands in the model."""

    rows: int
    columns: int
    copies: int
    embedding: bool = False

    @property
    def size(self) -> int:
        """Its number of values."""
        return self.rows * self.columns


def trained_tensors(
    arch: Architecture, adapted: Iterable[Adapted] | None, whole: Whole
) -> tuple[Tensor, ...]:
    """Every trained tensor: the whole model where `adapted` is None, else factors of pairs and what is trained in full."""
    if adapted is None:
        return tuple(_all(arch))
    found = []
    for item in adapted:
        n = len(item.layers)
        for pair in item.pairs:
            found.append(Tensor(pair.rank * pair.n_in, pair.d_in, n))
            found.append(Tensor(pair.d_out, pair.rank * pair.n_out, n))
            if pair.magnitudes:
                found.append(Tensor(1, pair.magnitudes, n))
    for index, layers in whole.matrices.items():
        matrix = arch.matrices[index]
        found.append(
            Tensor(
                matrix.d_out,
                matrix.d_in * matrix.experts,
                len(layers),
                matrix.role in ("embedding", "unembedding"),
            )
        )
    rest = whole.params - sum(
        arch.matrices[i].d_in * arch.matrices[i].d_out * arch.matrices[i].experts * len(layers)
        for i, layers in whole.matrices.items()
    )
    if rest > 0:
        found.append(Tensor(1, rest, 1))
    return tuple(found)


def _all(arch: Architecture) -> Iterable[Tensor]:
    for matrix in arch.matrices:
        if not matrix.tied:
            yield Tensor(
                matrix.d_out,
                matrix.d_in * matrix.experts,
                matrix.copies,
                matrix.role in ("embedding", "unembedding"),
            )
        if matrix.bias:
            yield Tensor(1, matrix.d_out * matrix.experts, matrix.copies)
    for vector in arch.vectors:
        yield Tensor(1, vector.size, len(vector.layers))


# Optimizer states: bytes that one tensor's take, from its shape and the width of its parameters


def _eight_bit(states: int) -> Callable[[Tensor, int], int]:
    def rule(tensor: Tensor, width: int) -> int:
        if tensor.size < SMALLEST_8BIT:
            return states * FLOAT32 * tensor.size
        return states * (tensor.size + FLOAT32 * ceil_div(tensor.size, QUANTILE_BLOCK))

    return rule


def _adafactor(tensor: Tensor, width: int) -> int:
    """A row and a column of the second moment; a vector's is kept whole."""
    if tensor.rows == 1:
        return tensor.size * width
    return (tensor.rows + tensor.columns) * width


def _muon(tensor: Tensor, width: int) -> int:
    """One momentum for matrices, AdamW's two states for the rest."""
    return tensor.size * width * (1 if tensor.rows > 1 and not tensor.embedding else 2)


def _full_states(states: int) -> Callable[[Tensor, int], int]:
    def rule(tensor: Tensor, width: int) -> int:
        return states * width * tensor.size

    return rule


STATES: dict[str, Callable[[Tensor, int], int]] = {
    "adamw": _full_states(2),
    "paged-adamw": _full_states(2),
    "adamw-8bit": _eight_bit(2),
    "paged-adamw-8bit": _eight_bit(2),
    "sgd": _full_states(0),
    "sgd-momentum": _full_states(1),
    "adafactor": _adafactor,
    "lion": _full_states(1),
    "lion-8bit": _eight_bit(1),
    "muon": _muon,
}


def optimizer_bytes(tensors: Iterable[Tensor], setup: Setup) -> int:
    """Bytes of the optimizer's states, and of float32 masters under "bf16-master" (their states then are float32)."""
    masters = setup.precision == "bf16-master"
    width = FLOAT32 if masters else WIDTHS[setup.trained_dtype]
    rule = STATES[setup.optimizer]
    return sum((rule(t, width) + (FLOAT32 * t.size if masters else 0)) * t.copies for t in tensors)


def update_bytes(tensors: tuple[Tensor, ...], setup: Setup) -> int:
    """Temporary bytes of the optimizer's step.

    A fused kernel takes none. AdamW over lists of tensors ("foreach", torch's default on CUDA) holds the root of every
    second moment at once; a loop over tensors holds a few copies of the largest.
    """
    width = FLOAT32 if setup.precision == "bf16-master" else WIDTHS[setup.trained_dtype]
    largest = max((t.size for t in tensors), default=0)
    total = sum(t.size * t.copies for t in tensors)
    if setup.optimizer in ("adamw", "paged-adamw"):
        return {"fused": 0, "foreach": total * width, "loop": 2 * largest * width}[setup.optimizer_kernel]
    if setup.optimizer in ("adafactor", "muon", "lion"):
        return {"adafactor": 3, "muon": 4, "lion": 1}[setup.optimizer] * largest * width
    return 0
