"""Which layers of a model run, and which others each of them stands for.

Layers of one kind do the same: same modules, shapes, types, trained weights, flags and entries in the config's
lists. What is not seen to be the same counts as another kind, so that a doubt costs time and never exactness. A
layer also depends on its neighbours (the first has no gradient to pass on, the last feeds the head), so a layer
stands for another only where the kinds around both are the same, `REACH` to each side.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

REACH = 2
LONGEST_CUT = 24
# Attributes that number a layer, whatever it is: they make no kind of their own.
NUMBERS = frozenset("layer_idx layer_id layer_index layer_number block_idx layer_num _layer_idx".split())


@dataclass(frozen=True)
class Stack:
    """A list of layers: its path in the model, the kind of each, and the layers chosen to run, each standing for
    those that `stands_for` maps to it."""

    path: str
    kinds: tuple[Hashable, ...]
    chosen: tuple[int, ...]
    stands_for: dict[int, int]


def stacks(model: Any, fewest: int = 3) -> list[Stack]:
    """The lists of layers of a model, outermost only, with the choice of layers to run."""
    found: list[Stack] = []
    for path, modules in _lists(model):
        if len(modules) < fewest:
            continue
        fields = _listed(model.config, len(modules))
        kinds = tuple((_kind(module), tuple(f[i] for f in fields)) for i, module in enumerate(modules))
        chosen = choose(kinds)
        found.append(Stack(path, kinds, chosen, represent(kinds, chosen)))
    return found


def _lists(model: Any) -> Iterator[tuple[str, Any]]:
    """Lists of modules that stand in no other list."""
    inside: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(outer) for outer in inside):
            continue
        if type(module).__name__ == "ModuleList":
            inside.append(f"{path}.")
            yield path, module


def _listed(config: Any, length: int) -> list[tuple[Any, ...]]:
    """The lists of a config, and of those inside it, that have an entry for each layer."""
    found = []
    for value in vars(config).values():
        if isinstance(value, (list, tuple)) and len(value) == length:
            found.append(tuple(repr(item) for item in value))
        elif type(value).__name__.endswith("Config"):
            found += _listed(value, length)
    return found


def _kind(layer: Any) -> Hashable:
    """What tells layers apart: classes, parameters, buffers and plain attributes of every module inside."""
    found: list[Hashable] = []
    for path, module in layer.named_modules():
        plain = tuple(
            (name, value) for name, value in vars(module).items()
            if isinstance(value, (bool, int, float, str, type(None))) and name not in NUMBERS
        )  # fmt: skip
        held = tuple(
            (name, tuple(tensor.shape), str(tensor.dtype), tensor.requires_grad)
            for name, tensor in (*module._parameters.items(), *module._buffers.items()) if tensor is not None
        )  # fmt: skip
        found.append((path, type(module).__qualname__, plain, held))
    return tuple(found)


def _context(kinds: Sequence[Hashable], index: int, reach: int = REACH) -> tuple[Hashable, ...]:
    """The kinds around a layer; past an end there is None."""
    return tuple(kinds[i] if 0 <= i < len(kinds) else None for i in range(index - reach, index + reach + 1))


def choose(kinds: Sequence[Hashable], reach: int = REACH) -> tuple[int, ...]:
    """Layers to run: as few as show every layer of the stack in its surroundings.

    Stretches of up to LONGEST_CUT layers are left out as long as every context stays.
    """
    names: dict[Hashable, int] = {}
    numbered: Sequence[Hashable] = [names.setdefault(kind, len(names)) for kind in kinds]
    wanted = {_context(numbered, i, reach) for i in range(len(kinds))}
    kept = list(range(len(kinds)))
    for length in range(min(LONGEST_CUT, len(kinds)), 0, -1):
        start = 0
        while start + length <= len(kept):
            trial = kept[:start] + kept[start + length :]
            short = [numbered[i] for i in trial]
            if {_context(short, i, reach) for i in range(len(short))} == wanted:
                kept = trial
            else:
                start += 1
    return tuple(kept)


def represent(kinds: Sequence[Hashable], chosen: Sequence[int], reach: int = REACH) -> dict[int, int]:
    """For every layer, the chosen one with the same surroundings."""
    short = [kinds[i] for i in chosen]
    by_context = {_context(short, i, reach): layer for i, layer in enumerate(chosen)}
    return {i: by_context[_context(kinds, i, reach)] for i in range(len(kinds))}
