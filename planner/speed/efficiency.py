"""The constants of the roofline, from data/speed.toml: what programs reach of the peaks, and how far off that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from ..dataclass import dataclass
from ..errors import FactError
from ..facts import read_data, source_from
from ..schema import Basis, Source


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peaks that programs reach, and times that no peak explains.

    `matmul_cards` is for RTX cards, whose peaks are stated at a clock that they exceed. `attention_hopper` replaces
    `attention` on chips since the H100 where kernels do not use their new matrix instructions (flash attention 2),
    `attention_native` where they do. `host_s` is the host's time to launch a kernel, `start_s` the GPU's to start it;
    `unit_s` that of gathering one FSDP unit beside the bytes, `module_s` of one module under DeepSpeed's ZeRO-3.
    """

    matmul: float
    matmul_cards: float
    attention: float
    attention_hopper: float
    attention_native: float
    scan: float
    memory: float
    dequantise: float
    link: float
    overlap: float
    host_s: float
    start_s: float
    unit_s: float
    module_s: float


@dataclass(frozen=True)
class Spread:
    """How far measured step times lie from the formula, as standard deviations of the logarithm.

    `between`: one trainer on one machine against another; `within`: set-ups of one trainer and machine; `thin` is
    added (in squares) times the share of the step that is host time and communication. `coverage` is that of the
    interval, `z` its half-width in standard deviations.
    """

    between: float
    within: float
    thin: float
    coverage: float
    z: float

    def noise(self, thin_share: float) -> float:
        """Variance of one set-up about its trainer and machine."""
        return self.within**2 + (self.thin * thin_share) ** 2


@dataclass(frozen=True)
class Constants:
    """Everything that data/speed.toml holds."""

    efficiency: Efficiency
    spread: Spread
    basis: Mapping[str, Basis]
    sources: tuple[tuple[str, Source], ...]


def parse(table: Mapping[str, Any]) -> Constants:
    """The constants of a table; one that is missing, unknown, not positive or without a source is refused."""
    values: dict[str, float] = {}
    basis: dict[str, Basis] = {}
    sources: list[tuple[str, Source]] = []
    for entry in table.get("constant", ()):
        name = str(entry.get("name"))
        value = entry.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 100:
            raise FactError(f"speed.toml: {name} is {value!r}, expected a number from 0.")
        values[name], basis[name] = float(value), entry.get("basis")
        sources.append((name, source_from(entry.get("source"), f"speed.toml: {name}")))
    known = [field.name for kind in (Efficiency, Spread) for field in fields(kind)]
    odd = sorted(set(known) ^ set(values))
    if odd:
        raise FactError(f"speed.toml: {', '.join(odd)} missing or not known.")
    made = (
        kind(**{field.name: values[field.name] for field in fields(kind)}) for kind in (Efficiency, Spread)
    )
    efficiency, spread = made
    return Constants(efficiency, spread, basis, tuple(sources))  # type: ignore[arg-type]


@cache
def constants() -> Constants:
    """The constants that ship."""
    try:
        table = json.loads(read_data("compiled", "speed.json"))
    except ValueError as error:
        raise FactError(f"data/compiled/speed.json cannot be read: {error}.") from error
    return parse(table)
