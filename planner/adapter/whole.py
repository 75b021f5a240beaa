"""What an adapter trains in full beside its pairs: PEFT's `modules_to_save` and `bias`.

PEFT trains a copy of every module whose path ends with one of the names (no dot is asked for: "norm" is also
"input_layernorm"), its tied weights untied; the model then holds both. Biases are trained in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Architecture, Matrix, Role
from .pairs import Adapted
from .peft_names import module as module_of
from .spec import AdapterSpec

Layers = Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class Whole:
    """Matrices and biases (by index, with their layers) trained in full. `saved` are parameters of copied modules,
    by role, `bias` those of biases in place. `gap` says why the FLOPs of a step are not known with them."""

    matrices: Layers = field(default_factory=dict)
    biases: Layers = field(default_factory=dict)
    saved: tuple[tuple[Role, int], ...] = ()
    bias: int = 0
    embedding: bool = False
    gap: str | None = None
    modules: tuple[str, ...] = ()

    @property
    def saved_params(self) -> int:
        """Parameters of the copies."""
        return sum(number for _, number in self.saved)

    @property
    def params(self) -> int:
        """Everything that is trained in full."""
        return self.saved_params + self.bias


NOTHING_WHOLE = Whole()


def _owners(key: str) -> Iterator[str]:
    """A module's path and those of the modules that hold it."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _saved_by(key: str, names: Sequence[str]) -> str | None:
    """The outermost module that PEFT copies and that holds this one (or is it)."""
    found = [owner for owner in _owners(key) if owner.endswith(tuple(names))]
    return found[-1] if found else None


def _size(arch: Architecture, matrix: Matrix, module: str, owner: str) -> int:
    bias = matrix.d_out if matrix.bias else 0
    if matrix.role == "unembedding" and module == owner and not matrix.bias:
        # A head whose bias the library shares with its parent's (BERT): the copy has its own.
        shared = f"{module.rpartition('.')[0]}.bias"
        bias = next((v.size for v in arch.vectors if v.name == shared), 0)
    return (matrix.d_in * matrix.d_out + bias) * matrix.experts


def _saved_modules(
    arch: Architecture, names: Sequence[str]
) -> tuple[dict[int, frozenset[int]], dict[Role, int], int, set[str]]:
    """Matrices in copied modules, their parameters by role, parameters of vectors, and the modules."""
    matrices: dict[int, frozenset[int]] = {}
    roles: dict[Role, int] = {}
    modules: set[str] = set()
    for index, matrix in enumerate(arch.matrices):
        layers = set()
        for layer in matrix.layers:
            module = module_of(matrix, layer)
            owner = _saved_by(module, names)
            if owner is not None:
                modules.add(owner)
                layers.add(layer)
                roles[matrix.role] = roles.get(matrix.role, 0) + _size(arch, matrix, module, owner)
        if layers:
            matrices[index] = frozenset(layers)
    rest = 0
    for vector in arch.vectors:
        for layer in vector.layers:
            owner = _saved_by(vector.name.replace("{}", str(layer)).rpartition(".")[0], names)
            if owner is not None:
                modules.add(owner)
                rest += vector.size
    return matrices, roles, rest, modules


def _check_names(arch: Architecture, spec: AdapterSpec, modules: Iterable[str]) -> None:
    found = tuple(modules)
    for name in spec.modules_to_save:
        if spec.strict and not any(module.endswith(name) or f"{name}." in f"{module}." for module in found):
            names = sorted(
                {m.leaf for m in arch.matrices}
                | {v.name.split(".")[-2] for v in arch.vectors if "." in v.name}
            )
            raise InputError(
                "modules-to-save", name, f"a module of {arch.model_type} that has parameters",
                hint(name, names).strip(),
            )  # fmt: skip


def _biases(
    arch: Architecture, spec: AdapterSpec, adapted: Mapping[int, frozenset[int]], saved: Layers
) -> tuple[dict[int, frozenset[int]], int, bool]:
    """Biases trained in place: matrices with their layers, parameters, and whether vectors are among them."""
    found: dict[int, frozenset[int]] = {}
    total = 0
    for index, matrix in enumerate(arch.matrices):
        if not matrix.bias or matrix.kind == "experts":
            continue
        layers = frozenset(matrix.layers) if spec.bias == "all" else adapted.get(index, frozenset())
        layers -= saved.get(index, frozenset())
        if layers:
            found[index] = layers
            total += matrix.d_out * len(layers)
    if spec.bias == "lora_only":
        return found, total, False
    names = spec.modules_to_save
    frozen = {
        f"{matrix.name.rpartition('.')[0]}.bias"
        for index, matrix in enumerate(arch.matrices)
        if index in saved and matrix.role == "unembedding"
    }  # a head's bias shared with its parent (BERT): PEFT freezes the original with the head
    vectors = sum(
        vector.size
        for vector in arch.vectors
        if (vector.name == "bias" or vector.name.endswith(".bias")) and vector.name not in frozen
        for layer in vector.layers
        if not (names and _saved_by(vector.name.replace("{}", str(layer)).rpartition(".")[0], names))
    )
    return found, total + vectors, vectors > 0


def _check_overlap(arch: Architecture, adapted: Layers, saved: Layers) -> None:
    for index, layers in saved.items():
        if layers & adapted.get(index, frozenset()):
            leaf = arch.matrices[index].leaf
            raise InputError(
                "modules-to-save",
                leaf,
                "modules without an adapter",
                f"{leaf} is also a target: name its whole path.",
            )


def trained_whole(arch: Architecture, spec: AdapterSpec, pairs: Iterable[Adapted]) -> Whole:
    """What the spec trains in full beside the pairs. Raises InputError for names that match nothing."""
    if not spec.modules_to_save and spec.bias == "none":
        return NOTHING_WHOLE
    adapted: dict[int, frozenset[int]] = {}
    for item in pairs:
        adapted[item.index] = adapted.get(item.index, frozenset()).union(item.layers)
    matrices, roles, rest, modules = (
        _saved_modules(arch, spec.modules_to_save) if spec.modules_to_save else ({}, {}, 0, set[str]())
    )
    _check_names(arch, spec, modules)
    _check_overlap(arch, adapted, matrices)
    biases, bias, vectors = _biases(arch, spec, adapted, matrices) if spec.bias != "none" else ({}, 0, False)
    tables = [arch.matrices[i] for i in matrices if arch.matrices[i].kind == "embedding"]
    gap = None
    if rest or vectors or any(table.role != "embedding" for table in tables):
        gap = "With norms or positions trained in full the FLOPs of a step are not counted."
    saved = tuple(roles.items()) + ((("other", rest),) if rest else ())
    return Whole(
        matrices,
        biases,
        saved,
        bias,
        any(table.role == "embedding" for table in tables),
        gap,
        tuple(sorted(modules)),
    )
