"""Models of so many experts, each a module of its own, that building them whole takes too long: a Switch Transformer
of 2,048 experts has 300,000 modules. All experts of such a model are alike, so that models of few are read instead,
and continued to as many as the config says.

Two models of few experts say how the inventory goes on with their number: another expert adds the matrices that the
last one has, and every other size stays or grows by the same for each. A third must be what the two foretell, matrix
by matrix; where it is not, nothing is continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ...errors import ConfigError
from ...schema import Architecture, Matrix, Vector
from .inventory import read
from .model import TooManyModulesError, build_model

NUMBER_OF_EXPERTS = re.compile(r"(?:moe_)?n(?:um)?_(?:local_|routed_)?experts")
EXPERT = re.compile(r"(?P<before>(?:^|\.)experts?\.[a-z_]*)(?P<number>\d+)(?=\.|$)")
# More than any way of choosing experts that transformers has, and divided by the usual numbers of groups.
FEW = (8, 16, 24)
# With no more experts than this a model is built whole.
MOST_BUILT = FEW[-1]
# The largest that was published, Switch-C, has 8,192 of its 2,048 experts.
MOST_MATRICES = 10_000
# What must be as foretold: all that is read but the operations.
ALL_BUT_WORK = tuple(
    field.name for field in fields(Architecture) if field.name not in ("blocks", "flops_gap")
)

Item = Matrix | Vector | str


class _NotAlikeError(Exception):
    """The experts are not alike, or their number is not what the config's field says."""


def read_any(config: Mapping[str, Any], built_by: str) -> Architecture:
    """The inventory of a config's model, built whole or continued from few experts."""
    paths = _many(config)
    try:
        return read(build_model(config, MOST_BUILT if paths else None), config, built_by)
    except TooManyModulesError:
        if not paths:
            raise
    try:
        return _continued(config, paths, built_by)
    except _NotAlikeError:
        return read(build_model(config), config, built_by)


@dataclass(frozen=True)
class _Experts:
    """The parts of numbered experts that stand one after the other: each one's, the first expert's first."""

    parts: tuple[tuple[Any, ...], ...]

    def of(self, number: int) -> tuple[Any, ...]:
        """The parts of an expert; one beyond those that were built has what the last has."""
        if number < len(self.parts):
            return self.parts[number]
        return tuple(_renamed(part, number) for part in self.parts[-1])


def _many(config: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    """Fields that give a number of experts beyond MOST_BUILT, with it; none where they do not agree."""
    found: dict[tuple[str, ...], int] = {}
    for key, value in config.items():
        inside = value.items() if isinstance(value, Mapping) else ()
        found |= {(key, inner): count for inner, count in inside if _counts_many(inner, count)}
        if _counts_many(key, value):
            found[key,] = value
    return found if len(set(found.values())) == 1 else {}


def _counts_many(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and type(value) is int
        and value > MOST_BUILT
        and bool(NUMBER_OF_EXPERTS.fullmatch(key))
    )


def _continued(
    config: Mapping[str, Any], paths: Mapping[tuple[str, ...], int], built_by: str
) -> Architecture:
    wanted = next(iter(paths.values()))

    def built(n: int) -> Any:
        return build_model(_with_experts(config, paths, n))

    def of(model: Any, *, flops: bool = False) -> Architecture:
        return read(model, config, built_by, flops=flops)

    few = built(FEW[0])
    first = of(few)
    _check_size(first, wanted)
    second = of(built(FEW[1]))
    foretold, third = _at(FEW[2], first, second), of(built(FEW[2]))
    if any(getattr(foretold, name) != getattr(third, name) for name in ALL_BUT_WORK):
        raise _NotAlikeError
    found = _at(wanted, first, second)
    gap = of(few, flops=True).flops_gap or "No exact FLOP count: its experts were counted from fewer."
    numbers = f"{FEW[0]}, {FEW[1]} and {FEW[2]}"
    note = f"Its {wanted:,} experts, modules of their own, were counted from models of {numbers} experts."
    return replace(found, notes=(*found.notes, note), flops_gap=gap)


def _with_experts(config: Mapping[str, Any], paths: Mapping[tuple[str, ...], int], n: int) -> dict[str, Any]:
    made = dict(config)
    for *outer, key in paths:
        if outer:
            made[outer[0]] = {**made[outer[0]], key: n}
        else:
            made[key] = n
    return made


def _check_size(few: Architecture, n: int) -> None:
    """Raise where n experts would be more matrices than an inventory should hold."""
    runs = [item for item in _grouped(few.matrices) if isinstance(item, _Experts)]
    if not runs:
        raise _NotAlikeError
    matrices = sum(n * len(run.parts[-1]) for run in runs)
    if matrices > MOST_MATRICES:
        raise ConfigError(
            f"the config describes {n:,} experts as modules of their own with {matrices:,} matrices of different "
            f"names, more than {MOST_MATRICES:,}."
        )


def _at(n: int, first: Architecture, second: Architecture) -> Architecture:
    """The inventory with n experts, from those with FEW[0] and FEW[1]."""
    return replace(
        first,
        matrices=_sequence(n, first.matrices, second.matrices),
        vectors=_sequence(n, first.vectors, second.vectors),
        bystanders=_sequence(n, first.bystanders, second.bystanders),
    )


def _sequence(n: int, few: Sequence[Any], more: Sequence[Any]) -> tuple[Any, ...]:
    """Matrices, vectors or names at n experts."""
    made: list[Any] = []
    first, second = list(_grouped(few)), list(_grouped(more))
    if len(first) != len(second):
        raise _NotAlikeError
    for one, other in zip(first, second, strict=True):
        if isinstance(one, _Experts):
            made += [part for number in range(n) for part in one.of(number)]
        else:
            made.append(_line(n, one, other))
    return tuple(made)


def _line(n: int, one: Any, other: Any) -> Any:
    """A matrix, vector or name that is no expert's: each size stays, or grows by the same for each expert."""
    if one == other:
        return one
    if type(one) is not type(other) or isinstance(one, str):
        raise _NotAlikeError
    changed: dict[str, int] = {}
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a == b:
            continue
        if type(a) is not int or type(b) is not int or (b - a) % (FEW[1] - FEW[0]):
            raise _NotAlikeError
        changed[field.name] = a + (b - a) // (FEW[1] - FEW[0]) * (n - FEW[0])
    return replace(one, **changed)


def _grouped(items: Sequence[Any]) -> Iterator[Any]:
    """The items, with those of numbered experts that stand together as one."""
    position = 0
    while position < len(items):
        before, _ = _place(items[position])
        if before is None:
            yield items[position]
            position += 1
            continue
        parts: dict[int, list[Any]] = {}
        while position < len(items) and _place(items[position])[0] == before:
            parts.setdefault(_place(items[position])[1], []).append(items[position])
            position += 1
        yield _alike(parts)


def _alike(parts: Mapping[int, Sequence[Any]]) -> _Experts:
    """Experts numbered from 0 whose parts are the same but for the number, and for whether a token sees them."""
    found = _Experts(tuple(tuple(each) for each in parts.values()))
    first = [_same(part) for part in found.parts[0]]
    if list(parts) != list(range(len(parts))) or any(
        [_same(p) for p in each] != first for each in found.parts
    ):
        raise _NotAlikeError
    return found


def _same(part: Any) -> Any:
    return _renamed(replace(part, experts_active=1) if isinstance(part, Matrix) else part, 0)


def _place(item: Item) -> tuple[str | None, int]:
    """The path before an expert's number, and the number; None for what is no expert's."""
    name = item if isinstance(item, str) else item.name
    found = EXPERT.search(name)
    return (name[: found.end("before")], int(found["number"])) if found else (None, 0)


def _renamed(item: Any, number: int) -> Any:
    name = item if isinstance(item, str) else item.name
    named = EXPERT.sub(lambda found: f"{found['before']}{number}", name, count=1)
    return named if isinstance(item, str) else replace(item, name=named)
