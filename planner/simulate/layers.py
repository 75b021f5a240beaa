"""Which layers of a model run, and which others each of them stands for.

Layers of one kind do the same: same modules, shapes, types, trained weights, flags and entries in the config's
lists. What is not seen to be the same counts as another kind, so that a doubt costs time and never exactness. A
layer also depends on its neighbours (the first has no gradient to pass on, the last feeds the head), so a layer
stands for another only where the kinds around both are the same, `REACH` to each side.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from ..dataclass import dataclass

REACH = 2
LONGEST_CUT = 24
# Attributes that number a layer, whatever it is: they make no kind of their own.
NUMBERS = frozenset("layer_idx layer_id layer_index layer_number block_idx layer_num _layer_idx".split())


@dataclass(frozen=True)
class Stack:
    """A list of layers: its path in the model, its length, and the layers chosen to run.

    `model_of` maps every layer to the chosen one that shows what it does, `same` every chosen one to that which was
    taken of those with equal surroundings among the chosen: itself, mostly.
    """

    path: str
    length: int
    chosen: tuple[int, ...]
    model_of: Mapping[int, int]
    same: Mapping[int, int]

    @property
    def whole(self) -> bool:
        """Whether every layer runs."""
        return len(self.chosen) == self.length

    @property
    def times(self) -> dict[int, int]:
        """How many layers each that runs stands for."""
        found = dict.fromkeys(self.chosen, 0)
        for ran in self.model_of.values():
            found[ran] += 1
        return found


def everyone(path: str, length: int) -> Stack:
    """A stack of which every layer runs."""
    itself = {index: index for index in range(length)}
    return Stack(path, length, tuple(itself), itself, itself)


def stacks(model: Any, fewest: int = 3) -> list[Stack]:
    """The lists of layers of a model, outermost only, with the choice of layers to run."""
    found: list[Stack] = []
    for path, modules in _lists(model):
        if len(modules) < fewest:
            continue
        fields = _listed(model.config, len(modules))
        names: dict[Hashable, int] = {}
        kinds = [
            names.setdefault((_kind(module), tuple(f[i] for f in fields)), len(names))
            for i, module in enumerate(modules)
        ]
        chosen = choose(kinds)
        found.append(Stack(path, len(kinds), chosen, *represent(kinds, chosen)))
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
    """Layers to run: the first, the last, and as few as show every layer of the stack in its surroundings.

    Stretches of up to LONGEST_CUT layers are left out, late ones first, as long as every context stays.
    """
    wanted = {_context(kinds, i, reach) for i in range(len(kinds))}
    kept = list(range(len(kinds)))
    for length in range(min(LONGEST_CUT, len(kinds)), 0, -1):
        start = len(kept) - length - 1
        while start > 0:
            trial = kept[:start] + kept[start + length :]
            short = [kinds[i] for i in trial]
            if {_context(short, i, reach) for i in range(len(short))} == wanted:
                kept = trial
            start = min(start - 1, len(kept) - length - 1)
    return tuple(kept)


def represent(
    kinds: Sequence[Hashable], chosen: Sequence[int], reach: int = REACH
) -> tuple[dict[int, int], dict[int, int]]:
    """For every layer, and for every chosen one among the chosen, a chosen one with the same surroundings."""
    short = [kinds[i] for i in chosen]
    around = [_context(short, i, reach) for i in range(len(short))]
    by_context = dict(zip(around, chosen, strict=True))
    model_of = {i: by_context[_context(kinds, i, reach)] for i in range(len(kinds))}
    return model_of, {layer: by_context[context] for layer, context in zip(chosen, around, strict=True)}
