"""Writing a model down: its weights and the order in which activations pass through them.

A builder reads like the forward pass of the model it describes. Values are small integers; `Layer.stream` is
the residual stream. Equal matrices of different layers become one `Matrix` with several layer numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from ..errors import ConfigError
from ..schema import (
    MEMORY,
    STREAM,
    Apply,
    Architecture,
    Attend,
    Block,
    Chunks,
    Join,
    Keep,
    Kind,
    Length,
    Matrix,
    Operation,
    Part,
    Product,
    Recall,
    Role,
    Scan,
    Vector,
)


class Trace:
    """Collects matrices, vectors and blocks of one model."""

    def __init__(self) -> None:
        self._matrices: dict[Matrix, tuple[int, list[int]]] = {}
        self._vectors: dict[tuple[str, int], list[int]] = {}
        self._blocks: list[Block] = []

    def matrix(self, layers: Iterable[int], matrix: Matrix) -> int:
        """Note a matrix (without its layers) for these layers and return its index."""
        index, known = self._matrices.setdefault(matrix, (len(self._matrices), []))
        known.extend(layers)
        return index

    def vector(self, name: str, size: int, layers: Iterable[int] = (0,)) -> None:
        """Note parameters that are no matrix, `size` in each of the layers."""
        self._vectors.setdefault((name, size), []).extend(layers)

    def embedding(self, name: str, n: int, d: int, role: Role = "embedding", tied: bool = False) -> None:
        """A look-up table of n rows: it costs no FLOPs, so it stands outside the blocks."""
        self.matrix((0,), Matrix(name, role, "embedding", n, d, tied=tied))

    def weight(
        self, name: str, role: Role, d_in: int, d_out: int, *, kind: Kind = "linear", bias: bool = False,
        layers: Iterable[int] = (0,), parts: tuple[Part, ...] = (),
    ) -> None:  # fmt: skip
        """A matrix that a text-only step does not run (a vision tower): it counts, without FLOPs."""
        self.matrix(layers, Matrix(name, role, kind, d_in, d_out, bias=bias, parts=parts))

    def layer(
        self, stack: str, layers: Iterable[int], prefix: str = "", fixed_length: int | None = None,
        held: tuple[int, ...] | None = None,
    ) -> Layer:  # fmt: skip
        """Start a layer that stands at each of the numbers in `layers`; `prefix` goes before its names. Where it runs
        more often than its weights are stored, `held` are the numbers of these."""
        return Layer(self, stack, tuple(layers), prefix, fixed_length, held)

    def close(self, block: Block) -> None:
        """Take a finished layer."""
        if block.layers:
            self._blocks.append(block)

    def architecture(self, **fields: Any) -> Architecture:
        """The finished inventory; `fields` are Architecture's remaining ones."""
        shared = {m.name for m in self._matrices if m.tied and "{}" in m.name}
        matrices = [
            replace(matrix, layers=tuple(sorted(layers)), shared=matrix.name in shared)
            for matrix, (_, layers) in self._matrices.items()
        ]
        vectors = tuple(Vector(n, size, tuple(sorted(ids))) for (n, size), ids in self._vectors.items())
        return Architecture(matrices=tuple(matrices), vectors=vectors, blocks=tuple(self._blocks), **fields)


class Layer:
    """One layer under construction. Use as a context manager: leaving it hands the layer to the trace.

    Set `open_end` to False where something that keeps its input follows the layer's last matrix product, and
    `features` to True where data come in instead of embeddings.
    """

    def __init__(
        self, trace: Trace, stack: str, layers: tuple[int, ...], prefix: str, fixed_length: int | None,
        held: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        self.trace = trace
        self.layers = layers
        self._held = layers if held is None else held
        self.stream = STREAM
        self.memory = MEMORY
        self.open_end = True
        self.features = False
        self.clamps: Literal["none", "end", "sums"] = "none"
        self._stack = stack
        self._prefix = prefix
        self._fixed_length = fixed_length
        self._operations: list[Operation] = []
        self._values = MEMORY + 1

    def __enter__(self) -> Layer:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.trace.close(
                Block(
                    self._stack, self.layers, tuple(self._operations), self.stream, self._fixed_length,
                    self.open_end, self.features, self.clamps,
                )
            )  # fmt: skip

    def _value(self) -> int:
        self._values += 1
        return self._values - 1

    def linear(
        self, name: str, role: Role, d_in: int, d_out: int, source: int, *, bias: bool = False,
        kind: Kind = "linear", parts: tuple[Part, ...] = (), tied: bool = False, length: Length = "sequence",
        experts: int = 1, active: int = 1, outer: Literal["in", "out"] = "in", extra: int = 0, per: int = 1,
        forward_only: bool = False, groups: int = 1, at_least: int = 0, bypassed: bool = False,
        all_experts: bool = False, gradient_from: int = 0, times: int = 1,
    ) -> int:  # fmt: skip
        """Apply a matrix to `source`; returns the value that comes out."""
        if not 1 <= active <= experts:
            raise ConfigError(f"the config gives {name} {experts} experts of which {active} are active.")
        matrix = Matrix(
            self._prefix + name, role, kind, d_in, d_out, (0,), experts, active, bias, tied, parts, outer
        )
        index = self.trace.matrix(self._held, matrix)
        out = self._value()
        self._operations.append(
            Apply(
                index, source, out, length, extra, per, forward_only, groups, at_least, bypassed, all_experts,
                gradient_from, times,
            )
        )  # fmt: skip
        return out

    def idle(self, name: str, role: Role, d_in: int, d_out: int, *, tied: bool = False) -> None:
        """A matrix of this layer that no step runs: it counts, and may be adapted, without FLOPs."""
        self.trace.matrix(self._held, Matrix(self._prefix + name, role, "linear", d_in, d_out, tied=tied))

    def vector(self, name: str, size: int) -> None:
        """Parameters of this layer that are no matrix."""
        self.trace.vector(self._prefix + name, size, self._held)

    def norm(self, name: str, size: int, bias: bool = False) -> None:
        """A norm's weight, and its bias where it has one."""
        self.vector(f"{name}.weight", size)
        if bias:
            self.vector(f"{name}.bias", size)

    def attend(
        self, q: int, k: int, v: int, *, n_heads: int, n_kv_heads: int, d_qk: int, d_v: int,
        window: int | None = None, causal: bool = True, memory: bool = False, chunked: bool = False,
        compress: int = 1, bias: int | None = None, pairs: int | None = None, chosen: int | None = None,
    ) -> int:  # fmt: skip
        """Scores and values; with `memory` the keys come from the encoder's output."""
        out = self._value()
        self._operations.append(
            Attend(
                q, k, v, out, n_heads, n_kv_heads, d_qk, d_v, window, causal, memory, chunked, compress, bias,
                pairs, chosen,
            )
        )  # fmt: skip
        return out

    def product(self, left: int, right: int, macs_per_position: int, *, one_sided: bool = False) -> int:
        """A product of two activations, as in a state-space or linear-attention core."""
        out = self._value()
        self._operations.append(Product(left, right, out, macs_per_position, one_sided))
        return out

    def scan(
        self, left: int, right: int, macs: int, chunk: int, *, power: int = 1, ragged: bool = False,
        forward: Chunks = "each", left_grad: Chunks = "each", right_grad: Chunks = "each", apart: int = 1,
    ) -> int:  # fmt: skip
        """A product of two activations, chunk by chunk (see Scan)."""
        out = self._value()
        self._operations.append(
            Scan(left, right, out, chunk, macs, power, ragged, forward, left_grad, right_grad, apart)
        )
        return out

    def join(self, *sources: int) -> int:
        """Anything elementwise over these values."""
        out = self._value()
        self._operations.append(Join(sources, out))
        return out

    def keep(self, name: str, source: int) -> None:
        """Keep a value for later layers."""
        self._operations.append(Keep(source, name, self._value()))

    def recall(self, name: str) -> int:
        """The value that an earlier layer kept."""
        out = self._value()
        self._operations.append(Recall(name, out))
        return out

    def add(self, *values: int) -> None:
        """Add values to the residual stream."""
        self.stream = self.join(self.stream, *values)
