"""Intervals of step times as time went: how often those of then held each set's first predictions, and how wide
intervals made of first predictions alone would be.

    python -m tools.speed_chain

Widths rested on sources left out of the fit, by the formula of the day, which these sources had mended. First
predictions are those of somebody whose source nobody has looked at: the widths that ship rest on them
(tools/speed_widths.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.interval_fit import conformal, quantile
from tools.speed_later import GATHERED, UNSEEN, Later, Said, blind, later

SETS = (*GATHERED, UNSEEN)
First = tuple[Later, Said]


@dataclass(frozen=True)
class Held:
    """A set: its steps and sources; the share that intervals of then held, sources counting the same; the factor of
    an interval of 90% made of the sets before it, and the share that this one holds (None of the first)."""

    name: str
    runs: int
    sources: int
    then: float
    factor: float | None
    before: float | None


def first(name: str, stated: bool) -> list[First]:
    """The first predictions of a set, of those that state their set-up or of all."""
    said = blind(name)
    return [
        (case, said[case.number])
        for case in later(name)
        if not said[case.number].problem and (case.stated or not stated)
    ]


def _weights(found: Sequence[First]) -> list[float]:
    counts = Counter(case.source for case, _ in found)
    return [1 / counts[case.source] for case, _ in found]


def _off(found: Sequence[First]) -> list[float]:
    return [abs(math.log(said.measured / said.seconds)) for _, said in found]


def _share(found: Sequence[First], held: Sequence[bool]) -> float:
    return float(np.average(held, weights=_weights(found)))


def chain(stated: bool) -> list[Held]:
    """Every set, and all of them together."""
    known: list[First] = []
    result = []
    for name in SETS:
        found = first(name, stated)
        factor = before = None
        if known:
            number = len({case.source for case, _ in known})
            width = quantile(_off(known), _weights(known), conformal(number))
            factor, before = math.exp(width), _share(found, [off <= width for off in _off(found)])
        result.append(_held(name, found, factor, before))
        known += found
    return [*result, _held("all", known, None, None)]


def _held(name: str, found: Sequence[First], factor: float | None, before: float | None) -> Held:
    then = _share(found, [said.inside for _, said in found])
    return Held(name, len(found), len({case.source for case, _ in found}), then, factor, before)


def main() -> None:
    """Show both."""
    for stated in (True, False):
        print("set-up stated" if stated else "all")
        for each in chain(stated):
            line = f"  {each.name}: {each.runs} steps of {each.sources} sources, {each.then:.0%} held then"
            if each.factor is not None and each.before is not None:
                line += f"; of the sets before {each.factor:.2f} times or over, {each.before:.0%} held"
            print(line)


if __name__ == "__main__":
    main()
