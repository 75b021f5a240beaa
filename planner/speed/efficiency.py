"""The constants of the roofline, from data/speed.toml: what programs reach of the peaks, and how far off that is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Literal

from ..dataclass import dataclass
from ..errors import FactError
from ..facts import read_data, source_from
from ..schema import Basis, Source
from .kinds import KINDS, MEASURED, Grounds

# Whether constants were fitted on steps of an accelerator.
Evidence = Literal["known", "unseen"]


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peaks that programs reach, and times that no peak explains.

    `matmul` is of what single large products reach (`Constants.reached`), `wave` how much of its last wave of tiles a
    product leaves idle (half where sizes fall anywhere), `matmul_cards` of the peak of RTX cards,
    which is stated at a clock that they exceed. `attention` is of the peak, or of what an
    A100's multiprocessor would do at the chip's clock, whichever is less; `attention_native` of the peak where
    kernels use the matrix instructions that came with the H100. `dequantise` is bytes moved in a clock of a
    multiprocessor, whose integer units (64 in each from the V100 to the H100) unpack and look up the values; a clock
    that power holds down counts as it does for products. `link` is what rings reach of links between GPUs, `staged`
    of a PCIe link where cards have no access to each other's memory, so that NCCL uses the host's. `host_s` is the
    host's time to launch a kernel, `start_s` the GPU's to start it; `unit_s` the host's for gathering one FSDP unit,
    `module_s` of one module under DeepSpeed's ZeRO-3, `iteration_s` what a loop of LitGPT does between micro-steps
    (waits for the loss, prints, validates at times).
    """

    matmul: float
    wave: float
    matmul_cards: float
    attention: float
    attention_native: float
    scan: float
    memory: float
    dequantise: float
    link: float
    staged: float
    overlap: float
    host_s: float
    start_s: float
    unit_s: float
    module_s: float
    iteration_s: float


@dataclass(frozen=True)
class Spread:
    """How far measured step times of a kind lie from the formula, as standard deviations of the logarithm.

    `below` where steps are faster than predicted, `above` where they are slower, which is commoner: what nobody
    thought of takes time. They are ends of an interval, from first predictions of sources that nobody had looked at,
    and say nothing of what lies within it. What a source has of its own lies about the formula by `between`, its
    set-ups by `within`; `thin` is added (in squares) times the share of the step that is host time and communication;
    these three are those of sources that a fit had not seen. `staged_spread`, that of measured rings through hosts'
    memories, is added times the share of the step that goes through one. After a measured step the interval is
    `measured` times as wide as these say. `coverage` is that of the interval, `z` its half-width in deviations.
    """

    below: float
    above: float
    between: float
    within: float
    thin: float
    staged_spread: float
    measured: float
    coverage: float
    z: float

    def noise(self, thin_share: float, staged_share: float = 0.0) -> float:
        """Variance of one set-up about its runner and machine; `staged_share` of it goes through a host's memory."""
        return self.within**2 + (self.thin * thin_share) ** 2 + (self.staged_spread * staged_share) ** 2


@dataclass(frozen=True)
class Constants:
    """Everything that data/speed.toml holds. `spreads` and `grounds` are by kind of set-up (`KINDS`), `grounds` of
    what is measured too. `reached`: the share of an accelerator's 16-bit peak that single large products reach,
    measured, or from the power that it may draw; `reached_float32`: of float32's, where that was measured too and is
    another. `clocks`: a laptop's products against the peak at its listed clock."""

    efficiency: Efficiency
    spreads: Mapping[str, Spread]
    grounds: Mapping[str, Grounds]
    fitted_on: tuple[str, ...]
    reached: Mapping[str, float]
    reached_float32: Mapping[str, float]
    clocks: Mapping[str, float]
    basis: Mapping[str, Basis]
    sources: tuple[tuple[str, Source], ...]

    @property
    def any_spread(self) -> Spread:
        """The widest: what all kinds share is the same in each."""
        return max(self.spreads.values(), key=lambda spread: spread.above)


ENDS = ("below", "above")


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
    known = [field.name for kind in (Efficiency, Spread) for field in fields(kind) if field.name not in ENDS]
    odd = sorted(set(known) ^ set(values))
    if odd:
        raise FactError(f"speed.toml: {', '.join(odd)} missing or not known.")
    efficiency = Efficiency(**{field.name: values[field.name] for field in fields(Efficiency)})
    shared = {field.name: values[field.name] for field in fields(Spread) if field.name not in ENDS}
    spreads, grounds = _intervals(table, shared)
    reached: dict[str, dict[str, float]] = {"": {}, "float32": {}, "clock": {}}
    for entry in table.get("reached", ()):
        name, value, form = str(entry.get("accelerator")), entry.get("share"), entry.get("format", "")
        if form not in reached:
            raise FactError(f"speed.toml: {name} reaches a share of {form!r}, expected float32 or clock.")
        most = 2 if form == "clock" else 1
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
            raise FactError(
                f"speed.toml: the share that {name} reaches is {value!r}, expected a number up to {most}."
            )
        reached[form][name] = float(value)
        sources.append((name, source_from(entry.get("source"), f"speed.toml: {name}")))
    sources += [
        (each["kind"], source_from(each.get("source"), f"speed.toml: {each['kind']}"))
        for each in table["interval"]
    ]
    fitted_on = tuple(table.get("fitted_on", {}).get("accelerators", ()))
    return Constants(
        efficiency,
        spreads,
        grounds,
        fitted_on,
        reached[""],
        reached["float32"],
        reached["clock"],
        basis,
        tuple(sources),
    )


def _intervals(
    table: Mapping[str, Any], shared: Mapping[str, float]
) -> tuple[dict[str, Spread], dict[str, Grounds]]:
    """The deviations of every kind with what they rest on; a table that lacks a kind is refused."""
    spreads, grounds = {}, {}
    for entry in table.get("interval", ()):
        names = [field.name for field in fields(Grounds)]
        ends = ENDS if entry.get("kind") in KINDS else ()
        if sorted({*entry} - {"source"}) != sorted((*names, *ends)):
            raise FactError(
                f"speed.toml: interval {entry.get('kind')}: expected {', '.join((*names, *ends))}."
            )
        found = Grounds(**{name: entry[name] for name in names})
        if not 0 <= (found.held or 0) <= 1 or not 1 <= found.judged <= found.sources:
            raise FactError(
                f"speed.toml: interval {found.kind}: {found.held} of {found.judged} sources held."
            )
        grounds[found.kind] = found
        if ends:
            if not 0 < entry["below"] < 10 or not 0 < entry["above"] < 10:
                raise FactError(f"speed.toml: interval {found.kind}: expected deviations above 0.")
            spreads[found.kind] = Spread(**{name: entry[name] for name in ENDS}, **shared)
    if sorted(grounds) != sorted((*KINDS, MEASURED)):
        raise FactError(f"speed.toml: expected one interval of each kind: {', '.join((*KINDS, MEASURED))}.")
    return spreads, grounds


# Names under which the same die is sold with other links or memory: GA100 and GH100.
SAME_CHIP = {"A800": "A100", "H800": "H100", "H200": "H100"}


def family_of(accelerator: str) -> str:
    """A chip without its board and memory: "A100" of "A100 SXM 80GB" and of "A800 SXM 80GB"."""
    name = re.split(r" (?:SXM|PCIe|NVL)\d?\b", accelerator)[0]
    return SAME_CHIP.get(name, name)


def evidence_of(accelerator: str) -> Evidence:
    """Whether the constants know an accelerator."""
    return "known" if family_of(accelerator) in constants().fitted_on else "unseen"


def clock_of(accelerator: str) -> float:
    """How much faster than at its listed clock a laptop's card runs, by what its products reach; 1 for others."""
    return constants().clocks.get(accelerator, 1.0)


def reach_of(accelerator: str, product_format: str = "") -> float:
    """The share of its peak that an accelerator's best products reach: of 16 bits, taken for other formats too but
    where those of float32 were measured; where nobody measured it, the median of those that were. A T4's power holds
    its products in float16 down, those in float32 far less."""
    own = constants().reached_float32
    if product_format == "float32" and accelerator in own:
        return own[accelerator]
    known = constants().reached
    return known[accelerator] if accelerator in known else known["others"]


@cache
def constants() -> Constants:
    """The constants that ship."""
    try:
        table = json.loads(read_data("compiled", "speed.json"))
    except ValueError as error:
        raise FactError(f"data/compiled/speed.json cannot be read: {error}.") from error
    return parse(table)
