"""Which matrices a spec chooses, and in which layers: layer sets, names, expressions, parameters, less what is
excluded. What PEFT does with its own names is done here in the same order."""

from __future__ import annotations

from dataclasses import replace

from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Apply, Architecture, Matrix
from .peft_names import compiled, ends_with, excluded, layer_number, parameter, path, saved
from .peft_rules import BARE, all_linear, check_targets, converted_names, expert_targets, matches, old_names
from .spec import ALL_LINEAR, LAYER_SETS, AdapterSpec, expand_layers


@dataclass(frozen=True)
class Choice:
    """A matrix in some of its layers. PEFT multiplies its rank by `factor`; `parameter` says that PEFT adapts the
    bare weight and not the module."""

    index: int
    layers: tuple[int, ...]
    factor: int = 1
    parameter: bool = False


def adaptable(matrix: Matrix) -> bool:
    """Whether a layer set includes this kind of matrix: all but convolutions."""
    return matrix.kind != "convolution"


def _bare(arch: Architecture, matrix: Matrix) -> bool:
    """Whether PEFT adapts the matrix as a parameter and not as a module."""
    return matrix.kind in BARE or bool(old_names(arch, matrix))


def _by_layers(arch: Architecture, names: tuple[str, ...], experts: str) -> list[Choice]:
    sets = expand_layers(names)
    roles = {role for name in sets if name != ALL_LINEAR for role in LAYER_SETS[name]}
    linear = all_linear(arch, experts) if ALL_LINEAR in sets else {}
    reachable = expert_targets(arch)
    chosen = []
    for index, matrix in enumerate(arch.matrices):
        in_set = matrix.role in roles and adaptable(matrix)
        if in_set and matrix.kind == "experts" and experts == "peft":
            in_set = index in reachable
        if in_set or index in linear:
            factor = linear.get(index, reachable.get(index, 1))
            chosen.append(Choice(index, matrix.layers, factor, experts == "peft" and _bare(arch, matrix)))
    return chosen


def _missed(arch: Architecture, field: str, name: str) -> InputError:
    names = sorted({m.leaf for m in arch.matrices})
    return InputError(
        field, name, f"a module of {arch.model_type}: {', '.join(names)}", hint(name, names).strip()
    )


def _by_targets(arch: Architecture, targets: tuple[str, ...], spec: AdapterSpec) -> list[Choice]:
    check_targets(arch, targets, spec.experts)
    chosen: list[Choice] = []
    hit: set[str] = set()
    for index, matrix in enumerate(arch.matrices):
        layers: set[int] = set()
        factor = 1
        for target in targets:
            found, factor_of_target = matches(arch, matrix, target, spec.experts)
            if found:
                hit.add(target)
                layers.update(found)
                factor = max(factor, factor_of_target)
        if layers:
            bare = spec.experts == "peft" and _bare(arch, matrix)
            chosen.append(Choice(index, tuple(sorted(layers)), factor, bare))
    if spec.strict or not hit:
        for target in targets:
            if target not in hit:
                raise _missed(arch, "targets", target)
    return chosen


def _keys(arch: Architecture, matrix: Matrix, layer: int, experts: str) -> tuple[str, ...]:
    """Paths under which an expression finds a matrix in a layer: its own; for an expert tensor also those of its
    parts and of the modules that stood there before the library fused them."""
    own = path(matrix, layer)
    if matrix.kind != "experts":
        return (own,)
    if experts in ("none", "peft"):
        return ()
    container = own.rpartition(".")[0]
    parts = tuple(f"{container}.{part.name}" for part in matrix.logical)
    return own, *parts, *(f"{container}.0.{name}" for name in old_names(arch, matrix))


def _converted_leaves(arch: Architecture, spec: AdapterSpec) -> tuple[str, ...]:
    """The names that PEFT makes of a regular expression on a model whose experts it converts: the last components of
    whatever it matches, in all layers."""
    regex = compiled("target-regex", spec.target_regex or "")

    def hit(key: str) -> bool:
        out = excluded(key, spec.exclude_modules, spec.exclude_regex) or saved(key, spec.modules_to_save)
        return not out and bool(regex.fullmatch(key))

    leaves: dict[str, None] = {}
    for matrix in arch.matrices:
        for layer in matrix.layers:
            if hit(path(matrix, layer)):
                leaves[matrix.leaf] = None
            container = path(matrix, layer).rpartition(".")[0]
            if matrix.kind == "experts":
                leaves.update((name, None) for name in old_names(arch, matrix) if hit(f"{container}.{name}"))
    return tuple(leaves)


def _by_regex(arch: Architecture, spec: AdapterSpec) -> list[Choice]:
    if spec.experts == "peft" and converted_names(arch):
        leaves = _converted_leaves(arch, spec)
        if leaves:
            return _by_targets(arch, leaves, replace(spec, strict=False))
    regex = compiled("target-regex", spec.target_regex or "")
    chosen = []
    for index, matrix in enumerate(arch.matrices):
        if matrix.kind in BARE and spec.experts == "peft":
            continue
        layers = tuple(
            layer
            for layer in matrix.layers
            if any(regex.fullmatch(key) for key in _keys(arch, matrix, layer, spec.experts))
        )
        if layers:
            chosen.append(Choice(index, layers))
    if not chosen:
        example = next(path(m, m.layers[0]) for m in arch.matrices)
        raise InputError(
            "target-regex", spec.target_regex, f"an expression that matches whole module paths of {arch.model_type}, "
            f"like {example}",
        )  # fmt: skip
    return chosen


def _parameters(arch: Architecture, spec: AdapterSpec) -> list[Choice]:
    """Matrices that `target_parameters` names: the whole path of a parameter, or its end after a dot."""
    chosen = []
    hit: set[str] = set()
    for index, matrix in enumerate(arch.matrices):
        layers = set()
        for layer in matrix.layers:
            key = parameter(matrix, layer)
            found = [name for name in spec.target_parameters if ends_with(key, (name,))]
            if found and not matrix.tied:
                layers.add(layer)
            hit.update(found)
        if layers:
            chosen.append(Choice(index, tuple(sorted(layers)), parameter=True))
    for name in spec.target_parameters:
        if name not in hit and (spec.strict or not hit):
            names = sorted({parameter(m, m.layers[0]).split(".", 1)[-1] for m in arch.matrices})
            raise InputError(
                "target-parameters", name, "a parameter's path or its end, as mlp.experts.down_proj",
                hint(name, names).strip(),
            )  # fmt: skip
    return chosen


def _kept(arch: Architecture, choice: Choice, spec: AdapterSpec) -> Choice:
    """The choice in the layers that the spec leaves: PEFT asks this of modules, never of bare parameters."""
    matrix = arch.matrices[choice.index]
    wanted = spec.layers_to_transform
    layers = []
    for layer in choice.layers:
        key = path(matrix, layer)
        if excluded(key, spec.exclude_modules, spec.exclude_regex) or saved(key, spec.modules_to_save):
            continue
        if wanted is not None and key not in (spec.targets or ()):
            number = layer_number(key, spec.layers_pattern)
            if number is None or number not in wanted:
                continue
        layers.append(layer)
    return replace(choice, layers=tuple(layers))


def _check_convolutions(arch: Architecture, choices: list[Choice]) -> None:
    """PEFT adapts a convolution that is named; of a grouped one the pair has another shape, which is refused."""
    for choice in choices:
        matrix = arch.matrices[choice.index]
        if matrix.kind != "convolution":
            continue
        groups = max(
            (op.groups for block in arch.blocks for op in block.operations
             if isinstance(op, Apply) and op.matrix == choice.index),
            default=1 + ("depthwise" in matrix.name),
        )  # fmt: skip
        if groups > 1:
            raise InputError(
                "targets", matrix.leaf, "no grouped convolution", "Exclude it with --exclude-modules."
            )


def _with_parameters(arch: Architecture, choices: list[Choice], added: list[Choice]) -> list[Choice]:
    """Both lists, where a matrix may be chosen as a module or as a parameter, but not as both in one layer."""
    found = {choice.index: choice for choice in choices}
    for choice in added:
        other = found.get(choice.index)
        if other is None:
            found[choice.index] = choice
            continue
        if not other.parameter:
            leaf = arch.matrices[choice.index].leaf
            raise InputError(
                "target-parameters", leaf, "a weight that no target or layer set covers already",
                "Leave it out of the targets; for experts add --experts none or peft.",
            )  # fmt: skip
        found[choice.index] = replace(other, layers=tuple(sorted({*other.layers, *choice.layers})))
    return sorted(found.values(), key=lambda choice: choice.index)


def choices(arch: Architecture, spec: AdapterSpec) -> list[Choice]:
    """The matrices that the spec adapts, each once. Raises InputError for names that match nothing."""
    if spec.target_regex is not None:
        found = _by_regex(arch, spec)
    elif spec.targets:
        found = _by_targets(arch, spec.targets, spec)
    else:
        found = _by_layers(arch, spec.layers, spec.experts) if spec.layers else []
    if spec.experts == "none":
        found = [choice for choice in found if arch.matrices[choice.index].kind != "experts"]
    if (
        spec.exclude_modules
        or spec.exclude_regex
        or spec.modules_to_save
        or spec.layers_to_transform is not None
    ):
        found = [c if c.parameter else _kept(arch, c, spec) for c in found]
        found = [c for c in found if c.layers]
    _check_convolutions(arch, found)
    if spec.target_parameters:
        found = _with_parameters(arch, found, _parameters(arch, spec))
    return found
