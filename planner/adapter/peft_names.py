"""How PEFT reads names: which modules and parameters a list, a regular expression or a pattern means (peft 0.21).

Everything works on full paths: a matrix of an inventory stands for one path a layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from ..errors import InputError
from ..schema import Matrix

Number = TypeVar("Number", int, float)

_LAYER = re.compile(r".*?\.[^.]*\.(?P<idx>\d+)\.")


@lru_cache(maxsize=4096)
def compiled(field: str, pattern: str) -> re.Pattern[str]:
    """The pattern compiled; a malformed one is an InputError that names the field."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(field, pattern, f"a regular expression ({error})") from error


def path(matrix: Matrix, layer: int) -> str:
    """The module's path (the parameter's own path for bare expert tensors) in one layer."""
    return matrix.name.replace("{}", str(layer))


def is_bare(matrix: Matrix) -> bool:
    """Whether the name is that of the parameter itself, not of a module that holds it as `weight`."""
    named = matrix.kind == "parameter" and matrix.name.endswith(("_weight", "_hc.fn", ".hc_fn"))
    return matrix.kind == "experts" or named


def parameter(matrix: Matrix, layer: int) -> str:
    """The path of the weight itself."""
    own = path(matrix, layer)
    return own if is_bare(matrix) else f"{own}.weight"


def module(matrix: Matrix, layer: int) -> str:
    """The path of the module that holds the weight."""
    own = path(matrix, layer)
    return own.rpartition(".")[0] if is_bare(matrix) else own


def ends_with(key: str, names: Iterable[str]) -> bool:
    """Whether one of the names is this path or its end after a dot."""
    return any(key == name or key.endswith(f".{name}") for name in names)


def saved(key: str, modules_to_save: Sequence[str]) -> bool:
    """Whether a path lies in a module that is trained in full: PEFT puts no adapter there."""
    return any(compiled("modules-to-save", rf"(^|.*\.){name}($|\..*)").match(key) for name in modules_to_save)


def excluded(key: str, names: Sequence[str], regex: str | None) -> bool:
    """Whether `exclude_modules` (a list, or a regular expression) leaves this path out."""
    if regex is not None and compiled("exclude-modules", regex).fullmatch(key):
        return True
    return ends_with(key, names)


def layer_number(key: str, patterns: Sequence[str] = ()) -> int | None:
    """The layer that PEFT reads out of a path: its first numbered segment, or the one after `layers_pattern`."""
    found = None
    for pattern in patterns:
        found = compiled("layers-pattern", rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.").match(key)
        if found:
            break
    if not patterns:
        found = _LAYER.match(key)
    return int(found["idx"]) if found else None


def pattern_value(patterns: Mapping[str, Number], key: str) -> Number | None:
    """What `rank_pattern` says of a path: its first entry that matches the path's end, or None."""
    for pattern, value in patterns.items():
        if compiled("rank-pattern", rf"(.*\.)?({pattern})$").match(key):
            return value
    return None


def paths(matrices: Iterable[Matrix]) -> Iterator[str]:
    """Every path that the matrices stand for."""
    for matrix in matrices:
        for layer in matrix.layers:
            yield path(matrix, layer)
