"""The plan's matrices by their last names, for trainers that know a fixed list of them."""

from __future__ import annotations

from ..adapter import Adapted
from ..errors import InputError
from .training import Training


def uniform(t: Training, trainer: str, *, experts: bool = False) -> list[str]:
    """The last names of what is adapted, where each name means all of its matrices at one rank.

    Raises InputError where only some layers or ranks are meant, or something is trained beside LoRA.
    """
    spec = t.spec
    for name, usual in (("modules_to_save", ()), ("bias", "none"), ("rank_pattern", ()), ("alpha_pattern", ()),
                        ("layers_to_transform", None), ("variant", "lora")):  # fmt: skip
        if getattr(spec, name) != usual and not (experts and name == "rank_pattern"):
            raise InputError(
                name.replace("_", "-"), getattr(spec, name), f"{usual}: {trainer} has no option for it",
                "The nearest leaves it out.",
            )  # fmt: skip
    items = [item for item in t.adapted if experts is False or item.matrix.kind != "experts"]
    chosen: dict[str, set[tuple[str, int]]] = {}
    for item in items:
        if any(pair.rank != spec.rank for pair in item.pairs):
            raise InputError(
                "rank", item.pairs[0].rank, f"one rank for all in {trainer}", f"The nearest is {spec.rank}."
            )
        chosen.setdefault(item.matrix.leaf, set()).update((item.matrix.name, layer) for layer in item.layers)
    for leaf, found in chosen.items():
        every = {
            (m.name, n) for m in t.arch.matrices if m.leaf == leaf and m.kind != "experts" for n in m.layers
        }
        if found != every:
            raise InputError(
                "targets", f"{leaf} in {len(found)} places", f"{leaf} in all {len(every)}: {trainer} knows no layers",
                f"The nearest adapts every {leaf}.",
            )  # fmt: skip
    return list(chosen)


def expert_items(t: Training) -> list[Adapted]:
    """What is adapted of routed experts."""
    return [item for item in t.adapted if item.matrix.kind == "experts"]
