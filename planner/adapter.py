"""Which matrices an adapter covers, and what it holds: AdapterSpec x Architecture -> adapted matrices.

Every count is exact: a low-rank pair of rank r on a d_in x d_out matrix has r(d_in + d_out) parameters; what
differs between tools is which matrices get a pair and how experts share them, so both are always named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from .errors import InputError, hint
from .peft_rules import all_linear, check_targets, expert_targets, matches
from .schema import Architecture, Matrix, Role

ExpertConvention = Literal["scaled", "per-expert", "shared-outer", "peft", "none"]
Layout = Literal["modules", "tinker"]
Variant = Literal["lora", "dora"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

LAYER_SETS: dict[str, tuple[Role, ...]] = {
    "attention": ("attention", "state_space"),
    "mlp": ("mlp", "expert", "shared_expert"),
    "unembedding": ("unembedding",),
    "embedding": ("embedding",),
    "router": ("router",),
    "vision": ("vision",),
    "audio": ("audio",),
    "projector": ("projector",),
}
PRESETS: dict[str, tuple[str, ...]] = {"all": ("attention", "mlp", "unembedding")}
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSpec:
    """What the user asks for. Exactly one of `layers` (names of layer sets) and `targets` (module names)."""

    rank: int = 32
    alpha: float = 32.0
    layers: tuple[str, ...] | None = ("all",)
    targets: tuple[str, ...] | None = None
    experts: ExpertConvention = "scaled"
    layout: Layout = "modules"
    variant: Variant = "lora"
    dtype: str = "float32"


@dataclass(frozen=True)
class Pair:
    """One low-rank pair as it stands in a layer: `n_in` factors on the input side and `n_out` on the output
    side are stored (one an expert, or one shared), a token passes `uses_in` and `uses_out` of them.
    `materialised` marks PEFT's bare parameters (experts, routers): the product is added to them in every step."""

    d_in: int
    d_out: int
    rank: int
    n_in: int = 1
    n_out: int = 1
    uses_in: int = 1
    uses_out: int = 1
    magnitudes: int = 0
    materialised: bool = False

    @property
    def params(self) -> int:
        """Parameters a layer: rank * (n_in d_in + n_out d_out), and DoRA's magnitudes."""
        return self.rank * (self.n_in * self.d_in + self.n_out * self.d_out) + self.magnitudes


@dataclass(frozen=True)
class Adapted:
    """A matrix with its pairs, in the layers where it is adapted."""

    index: int
    matrix: Matrix
    layers: tuple[int, ...]
    pairs: tuple[Pair, ...]

    @property
    def params(self) -> int:
        """Trainable parameters over all its layers."""
        return sum(pair.params for pair in self.pairs) * len(self.layers)


def expert_rank(spec: AdapterSpec, matrix: Matrix) -> int:
    """The rank of one expert's pair: rank / top_k, at least 1, under `scaled`; the full rank otherwise."""
    if spec.experts == "scaled" and matrix.kind == "experts":
        return max(1, spec.rank // matrix.experts_active)
    return spec.rank


def pairs_of(matrix: Matrix, spec: AdapterSpec, peft_factor: int = 1) -> tuple[Pair, ...]:
    """The low-rank pairs that this spec puts on one matrix, empty where it puts none.

    `peft_factor` is the number of projections fused in an expert tensor: PEFT multiplies the rank by it.
    """
    dora = spec.variant == "dora"
    if matrix.kind == "parameter" and spec.experts == "peft":
        return (Pair(matrix.d_in, matrix.d_out, spec.rank, materialised=True),)
    if matrix.kind != "experts":
        parts = matrix.logical if spec.layout == "tinker" else ()
        if parts:
            return tuple(
                Pair(p.d_in, p.d_out, spec.rank, magnitudes=p.d_out * dora) for p in parts if p.tinker
            )
        return (Pair(matrix.d_in, matrix.d_out, spec.rank, magnitudes=matrix.d_out * dora),)
    n, k = matrix.experts, matrix.experts_active
    if spec.experts == "none":
        return ()
    if spec.experts == "peft":
        rank = spec.rank * peft_factor
        return (Pair(matrix.d_in, matrix.d_out, rank, n, n, k, k, materialised=True),)
    if spec.experts == "shared-outer":
        n_in, n_out, k_in, k_out = (1, n, 1, k) if matrix.outer == "in" else (n, 1, k, 1)
    else:
        n_in, n_out, k_in, k_out = n, n, k, k
    rank = expert_rank(spec, matrix)
    return tuple(
        Pair(p.d_in, p.d_out, rank, n_in, n_out, k_in, k_out, magnitudes=p.d_out * n * dora)
        for p in matrix.logical
        if p.tinker or spec.layout != "tinker"
    )


def expand_layers(names: Iterable[str]) -> frozenset[str]:
    """Layer set names with presets resolved; an unknown name is an error with the nearest valid ones."""
    known = [*LAYER_SETS, *PRESETS, ALL_LINEAR]
    found: set[str] = set()
    for name in names:
        if name in PRESETS:
            found.update(PRESETS[name])
        elif name in LAYER_SETS or name == ALL_LINEAR:
            found.add(name)
        else:
            raise InputError("layers", name, f"a comma list of {', '.join(known)}", hint(name, known).strip())
    if not found:
        raise InputError("layers", "", f"a comma list of {', '.join(known)}")
    return frozenset(found)


def _adaptable(matrix: Matrix) -> bool:
    return matrix.kind != "convolution"


Choice = tuple[int, tuple[int, ...], int]


def _by_layers(arch: Architecture, names: tuple[str, ...], experts: str) -> list[Choice]:
    sets = expand_layers(names)
    roles = {role for name in sets if name != ALL_LINEAR for role in LAYER_SETS[name]}
    linear = all_linear(arch, experts) if ALL_LINEAR in sets else {}
    reachable = expert_targets(arch)
    chosen = []
    for index, matrix in enumerate(arch.matrices):
        in_set = matrix.role in roles and _adaptable(matrix)
        if in_set and matrix.kind == "experts" and experts == "peft":
            in_set = index in reachable
        if in_set or index in linear:
            chosen.append((index, matrix.layers, linear.get(index, reachable.get(index, 1))))
    return chosen


def _by_targets(arch: Architecture, targets: tuple[str, ...], experts: str) -> list[Choice]:
    check_targets(arch, targets, experts)
    chosen: list[Choice] = []
    hit: set[str] = set()
    for index, matrix in enumerate(arch.matrices):
        if not _adaptable(matrix):
            continue
        layers: set[int] = set()
        factor = 1
        for target in targets:
            found, factor_of_target = matches(arch, matrix, target, experts)
            if found:
                hit.add(target)
                layers.update(found)
                factor = max(factor, factor_of_target)
        if layers:
            chosen.append((index, tuple(sorted(layers)), factor))
    missed = [target for target in targets if target not in hit]
    if missed:
        names = sorted({m.leaf for m in arch.matrices if _adaptable(m)})
        expected = f"a module of {arch.model_type}: {', '.join(names)}"
        raise InputError("targets", missed[0], expected, hint(missed[0], names).strip())
    return chosen


def select(arch: Architecture, spec: AdapterSpec) -> tuple[Adapted, ...]:
    """The adapted matrices, whatever the rank. Raises InputError for unknown sets or targets."""
    if spec.targets:
        choices = _by_targets(arch, spec.targets, spec.experts)
    else:
        choices = _by_layers(arch, spec.layers or (), spec.experts)
    found = []
    for index, layers, factor in choices:
        pairs = pairs_of(arch.matrices[index], spec, factor)
        if pairs:
            found.append(Adapted(index, arch.matrices[index], layers, pairs))
    return tuple(found)


def _nothing_chosen(arch: Architecture, spec: AdapterSpec) -> InputError:
    field, found = ("targets", spec.targets) if spec.targets else ("layers", spec.layers or ())
    roles = {m.role for m in arch.matrices if _adaptable(m) and m.kind != "experts"}
    have = [name for name, wanted in LAYER_SETS.items() if roles.intersection(wanted)]
    remedy = ""
    if any(m.kind == "experts" for m in arch.matrices) and spec.experts in ("none", "peft"):
        remedy = f"With experts {spec.experts} its experts are not adapted."
    return InputError(
        field,
        ",".join(found),
        f"something that {arch.model_type} has outside experts: {', '.join(have)}",
        remedy,
    )


def adapt(arch: Architecture, spec: AdapterSpec) -> tuple[Adapted, ...]:
    """The adapted matrices. Raises InputError also where the choice is empty or the rank exceeds every matrix."""
    chosen = select(arch, spec)
    if not chosen:
        raise _nothing_chosen(arch, spec)
    largest = max(min(pair.d_in, pair.d_out) for item in chosen for pair in item.pairs)
    if spec.rank > largest:
        raise InputError(
            "rank", spec.rank, f"at most {largest}, the smaller side of the largest adapted matrix"
        )
    return chosen


def params(adapted: Iterable[Adapted]) -> int:
    """Trainable parameters of an adapter."""
    return sum(item.params for item in adapted)


@dataclass(frozen=True)
class Slope:
    """An adapter's parameters as a function of its rank: `dense` a unit of rank, `experts` (top_k, parameters a
    unit of expert rank), `fixed` (DoRA's magnitudes) at any rank."""

    dense: int
    experts: tuple[tuple[int, int], ...]
    fixed: int

    def params(self, rank: int) -> int:
        """Trainable parameters at this rank; an expert's rank is rank // top_k, at least 1."""
        total = self.fixed + self.dense * rank
        for top_k, slope in self.experts:
            total += slope * max(1, rank // top_k)
        return total

    @property
    def per_rank(self) -> int:
        """Parameters that a unit of rank adds, an expert's rank taken as rank / top_k (rounded)."""
        return self.dense + round(sum(slope / top_k for top_k, slope in self.experts))


@lru_cache(maxsize=2048)
def _slope(
    arch: Architecture, layers: tuple[str, ...] | None, targets: tuple[str, ...] | None,
    experts: ExpertConvention, layout: Layout, variant: Variant,
) -> Slope:  # fmt: skip
    dense = fixed = 0
    scaled: dict[int, int] = {}
    unit = AdapterSpec(
        rank=1, layers=layers, targets=targets, experts=experts, layout=layout, variant=variant
    )
    for item in select(arch, unit):
        copies = len(item.layers)
        for pair in item.pairs:
            fixed += pair.magnitudes * copies
            slope = (pair.params - pair.magnitudes) * copies
            if experts == "scaled" and item.matrix.kind == "experts":
                top_k = item.matrix.experts_active
                scaled[top_k] = scaled.get(top_k, 0) + slope
            else:
                dense += slope
    return Slope(dense, tuple(scaled.items()), fixed)


def slope(arch: Architecture, spec: AdapterSpec, layers: tuple[str, ...] | None = None) -> Slope:
    """How this spec's parameters (or those of the layer sets in `layers` instead) grow with the rank."""
    if layers is None:
        return _slope(arch, spec.layers, spec.targets, spec.experts, spec.layout, spec.variant)
    layout: Layout = "modules" if ALL_LINEAR in layers else spec.layout
    return _slope(arch, layers, None, spec.experts, layout, spec.variant)


def check_spec(spec: AdapterSpec) -> None:
    """Raise InputError where a field of the spec is outside its choices."""
    for name, value, choices in (
        ("experts", spec.experts, get_args(ExpertConvention)),
        ("layout", spec.layout, get_args(Layout)),
        ("variant", spec.variant, get_args(Variant)),
        ("adapter dtype", spec.dtype, tuple(DTYPE_BYTES)),
    ):
        if value not in choices:
            raise InputError(name, value, f"one of {', '.join(choices)}", hint(str(value), choices).strip())
    if isinstance(spec.rank, bool) or not isinstance(spec.rank, int) or spec.rank < 1:
        raise InputError("rank", spec.rank, "a whole number of at least 1")
    if not 0 < spec.alpha < math.inf:
        raise InputError("alpha", spec.alpha, "a number above 0")
    if spec.variant == "dora" and spec.experts == "peft":
        raise InputError(
            "variant", "dora", "lora: PEFT has no DoRA for expert parameters", "Use --experts none."
        )
