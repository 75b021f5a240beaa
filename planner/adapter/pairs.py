"""What an adapter holds: AdapterSpec x Architecture -> adapted matrices.

Every count is exact: a low-rank pair of rank r on a d_in x d_out matrix has r(d_in + d_out) parameters; what
differs between tools is which matrices get a pair and how experts share them, so both are always named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Architecture, Matrix
from .peft_names import parameter, path, pattern_value
from .selection import Choice, adaptable, choices
from .spec import ALL_LINEAR, LAYER_SETS, AdapterSpec, ExpertConvention, Layout, Variant


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
    """A matrix with its pairs, in the layers where it is adapted with these ranks. `pinned` says that a pattern names
    the rank, so that it does not follow the spec's."""

    index: int
    matrix: Matrix
    layers: tuple[int, ...]
    pairs: tuple[Pair, ...]
    pinned: bool = False

    @property
    def as_peft(self) -> bool:
        """Whether PEFT can train it: one pair on the whole matrix, or on the whole tensor of experts."""
        if len(self.pairs) != 1:
            return False
        pair, matrix = self.pairs[0], self.matrix
        same = (pair.d_in, pair.d_out) == (matrix.d_in, matrix.d_out)
        return (
            same
            and pair.n_in == pair.n_out == matrix.experts
            and not (matrix.experts > 1 and pair.magnitudes)
        )

    @property
    def params(self) -> int:
        """Trainable parameters over all its layers."""
        return sum(pair.params for pair in self.pairs) * len(self.layers)


def by_matrix(adapted: Iterable[Adapted]) -> dict[int, tuple[Adapted, ...]]:
    """Adapted matrices by their index in the architecture: several of one where ranks differ between layers."""
    found: dict[int, tuple[Adapted, ...]] = {}
    for item in adapted:
        found[item.index] = (*found.get(item.index, ()), item)
    return found


# The ranks that patterns name: of the whole matrix first, then of each of its logical parts.
Ranks = tuple["int | None", ...]


def expert_rank(spec: AdapterSpec, matrix: Matrix) -> int:
    """The rank of one expert's pair: rank / top_k, at least 1, under `scaled`; the full rank otherwise."""
    if spec.experts == "scaled" and matrix.kind == "experts":
        return max(1, spec.rank // matrix.experts_active)
    return spec.rank


def _bare_pair(matrix: Matrix, spec: AdapterSpec, factor: int, rank: int | None) -> tuple[Pair, ...]:
    """PEFT's pair on a bare parameter: one for a whole tensor of experts, its rank multiplied by `factor`."""
    if spec.variant == "dora":
        raise InputError(
            "variant",
            "dora",
            "lora: PEFT has no DoRA for bare parameters such as experts",
            "Use --experts none.",
        )
    n, k = matrix.experts, matrix.experts_active
    return (Pair(matrix.d_in, matrix.d_out, rank or spec.rank * factor, n, n, k, k, materialised=True),)


def pairs_of(matrix: Matrix, spec: AdapterSpec, choice: Choice, ranks: Ranks = ()) -> tuple[Pair, ...]:
    """The low-rank pairs that this spec puts on one matrix, empty where it puts none."""
    dora = spec.variant == "dora"
    whole, *parts_ranks = ranks or (None,)
    if choice.parameter:
        return _bare_pair(matrix, spec, choice.factor, whole)
    if matrix.kind == "experts" and spec.experts == "none":
        return ()
    parts = matrix.logical if spec.layout == "tinker" or matrix.kind == "experts" else ()
    own = dict(zip((part.name for part in matrix.logical), parts_ranks, strict=False))
    if not parts:
        rank = whole or spec.rank
        return (Pair(matrix.d_in, matrix.d_out, rank, magnitudes=matrix.d_out * dora),)
    n, k = matrix.experts, matrix.experts_active
    n_in, n_out, k_in, k_out = n, n, k, k
    if spec.experts == "shared-outer":
        n_in, n_out, k_in, k_out = (1, n, 1, k) if matrix.outer == "in" else (n, 1, k, 1)
    rank = whole or expert_rank(spec, matrix)
    return tuple(
        Pair(
            p.d_in, p.d_out, own.get(p.name) or rank, n_in, n_out, k_in, k_out, magnitudes=p.d_out * n * dora
        )
        for p in parts
        if p.tinker or spec.layout != "tinker"
    )


def _ranks(matrix: Matrix, layer: int, choice: Choice, patterns: Mapping[str, int]) -> Ranks:
    own = path(matrix, layer)
    if choice.parameter:
        return (pattern_value(patterns, parameter(matrix, layer)),)
    container = own.rpartition(".")[0]
    parts = (pattern_value(patterns, f"{container}.{part.name}") for part in matrix.parts)
    return (pattern_value(patterns, own), *parts)


def _by_rank(matrix: Matrix, choice: Choice, spec: AdapterSpec) -> dict[Ranks, tuple[int, ...]]:
    """The layers of a choice, those with the same ranks together."""
    if not spec.rank_pattern:
        return {(None,): choice.layers}
    patterns = dict(spec.rank_pattern)
    found: dict[Ranks, tuple[int, ...]] = {}
    for layer in choice.layers:
        ranks = _ranks(matrix, layer, choice, patterns)
        found[ranks] = (*found.get(ranks, ()), layer)
    return found


def select(arch: Architecture, spec: AdapterSpec) -> tuple[Adapted, ...]:
    """The adapted matrices, whatever the rank. Raises InputError for unknown sets or targets."""
    found = []
    for choice in choices(arch, spec):
        matrix = arch.matrices[choice.index]
        for ranks, layers in _by_rank(matrix, choice, spec).items():
            pairs = pairs_of(matrix, spec, choice, ranks)
            if pairs:
                found.append(Adapted(choice.index, matrix, layers, pairs, any(ranks)))
    return tuple(found)


def _nothing_chosen(arch: Architecture, spec: AdapterSpec) -> InputError:
    field, found = ("targets", spec.targets) if spec.targets else ("layers", spec.layers or ())
    if spec.target_regex is not None:
        field, found = "target-regex", (spec.target_regex,)
    roles = {m.role for m in arch.matrices if adaptable(m) and m.kind != "experts"}
    have = [name for name, wanted in LAYER_SETS.items() if roles.intersection(wanted)]
    outside = " outside experts" if arch.has_experts else ""
    remedy, has = "", f"something that {arch.model_type} has{outside}"
    if arch.has_experts and spec.experts in ("none", "peft"):
        remedy = f"With experts {spec.experts} its experts are not adapted."
    if (
        spec.exclude_modules
        or spec.exclude_regex
        or spec.modules_to_save
        or spec.layers_to_transform is not None
    ):
        remedy = "What is excluded, trained in full or in other layers gets no adapter."
        if field == "layers":
            have = [name for name in have if select(arch, replace(spec, layers=(name,)))]
            has = f"something of {arch.model_type} that is left"
    return InputError(field, ",".join(found), f"{has}: {', '.join(have) or 'nothing is'}", remedy)


def _keys(item: Adapted) -> Iterator[str]:
    """Paths that a pattern may match: the weight's, or the module's and those of its parts."""
    for layer in item.layers:
        own = path(item.matrix, layer)
        if item.pairs[0].materialised:
            yield parameter(item.matrix, layer)
            continue
        yield own
        yield from (f"{own.rpartition('.')[0]}.{part.name}" for part in item.matrix.parts)


def _check_patterns(adapted: Iterable[Adapted], spec: AdapterSpec) -> None:
    if not spec.rank_pattern and not spec.alpha_pattern:
        return
    keys = [key for item in adapted for key in _keys(item)]
    for field, patterns in (("rank-pattern", spec.rank_pattern), ("alpha-pattern", spec.alpha_pattern)):
        for pattern, _ in patterns:
            if not any(pattern_value({pattern: 1}, key) for key in keys):
                leaves = sorted({key.removesuffix(".weight").rsplit(".", 1)[-1] for key in keys})
                raise InputError(
                    field,
                    pattern,
                    f"the name of something adapted: {', '.join(leaves)}",
                    hint(pattern, leaves).strip(),
                )


@lru_cache(maxsize=256)
def adapt(arch: Architecture, spec: AdapterSpec) -> tuple[Adapted, ...]:
    """The adapted matrices. Raises InputError also where the choice is empty or the rank exceeds every matrix."""
    chosen = select(arch, spec)
    if not chosen:
        raise _nothing_chosen(arch, spec)
    free = [min(pair.d_in, pair.d_out) for item in chosen if not item.pinned for pair in item.pairs]
    largest = max(free, default=spec.rank)
    if spec.rank > largest:
        raise InputError(
            "rank", spec.rank, f"at most {largest}, the smaller side of the largest adapted matrix"
        )
    if spec.strict:
        _check_patterns(chosen, spec)
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


# Every field of a spec but its rank and alpha, which stand first.
_BESIDE_RANK = attrgetter(
    *(name for name in AdapterSpec.__dataclass_fields__ if name not in ("rank", "alpha"))
)


@lru_cache(maxsize=2048)
def _slope_of_sets(
    arch: Architecture, layers: tuple[str, ...], experts: ExpertConvention, layout: Layout, variant: Variant
) -> Slope:
    spec = AdapterSpec(1, 1.0, layers, experts=experts, layout=layout, variant=variant)
    return _slope(arch, _BESIDE_RANK(spec))


@lru_cache(maxsize=2048)
def _slope(arch: Architecture, beside_rank: tuple[Any, ...]) -> Slope:
    unit = AdapterSpec(1, 1.0, *beside_rank)
    dense = fixed = 0
    scaled: dict[int, int] = {}
    for item in select(arch, unit):
        copies = len(item.layers)
        if item.pinned:
            fixed += item.params
            continue
        for pair in item.pairs:
            fixed += pair.magnitudes * copies
            slope = (pair.params - pair.magnitudes) * copies
            if unit.experts == "scaled" and item.matrix.kind == "experts" and not pair.materialised:
                top_k = item.matrix.experts_active
                scaled[top_k] = scaled.get(top_k, 0) + slope
            else:
                dense += slope
    return Slope(dense, tuple(scaled.items()), fixed)


def slope(arch: Architecture, spec: AdapterSpec, layers: tuple[str, ...] | None = None) -> Slope:
    """How this spec's pairs (or those of the bare layer sets in `layers` instead) grow with the rank."""
    if layers is None:
        return _slope(arch, _BESIDE_RANK(spec))
    layout: Layout = "modules" if ALL_LINEAR in layers else spec.layout
    return _slope_of_sets(arch, layers, spec.experts, layout, spec.variant)
