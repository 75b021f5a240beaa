"""The layers' way back, last to first."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .course import Course, Passed
from .kinds import Walked
from .rounds import Round
from .stretch import Held


def back_through(
    going: Course, stretches: Sequence[Sequence[Round]], kinds: Sequence[Walked], ahead: int, added: Held,
    adders: Collection[str] = (),
) -> None:  # fmt: skip
    """The backward pass of the layers; nothing is gathered ahead of the first. What several of them add to is there
    once the last of these `adders` (of all layers where none is named) has `added` its part."""
    passed: list[list[list[Passed]]] = []
    for rounds in stretches:
        each = [
            [(where, part) for where, kind in one if (part := kinds[kind][1]) is not None] for one in rounds
        ]
        if each[0]:
            passed.append([one[::-1] for one in each[::-1]])
    while added:
        one = passed[-1].pop(0) if sum(map(len, passed)) > 1 else []
        passed = [each for each in passed if each]
        for where, part in one:
            going.go("backward", where, part, ahead)
            if added and (not adders or where in adders):
                going.hold(added)
                added = {}
        if not one:
            going.hold(added)
            break
    for rounds_back in passed[:0:-1]:
        going.go_through("backward", rounds_back, ahead)
    for *others, last in passed[:1]:
        going.go_through("backward", others, ahead)
        for where, part in last[:-1]:
            going.go("backward", where, part, ahead)
        going.go("backward", *last[-1], 1)
