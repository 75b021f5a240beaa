"""Calibration of memory: what a measured peak says of other set-ups of its model and trainer.

Of a step, base weights, the adapter, states of the optimizer and a vLLM's share (`FIXED`) follow from the set-up.
With `fixed` for these, a peak tells of the rest (gradients, activations, logits, buffers) and of what the allocator
keeps of it the ratio

    r = (measured - fixed) / (predicted - fixed)

and other steps have this rest times exp(share x mean ln r), `share` and the interval being what first predictions
give (tools/memory_calibrated.py). What comes before the first step stays as it is. Of another model,
trainer, method, sharding or loss, or of one GPU where it was measured on several, a peak tells nothing that published
figures bear out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..choices import PEAK_OF
from ..dataclass import dataclass
from ..errors import InputError
from ..moments import BEFORE, Corrected, MemoryEstimate, MemoryPart, Moment
from ..schema import Architecture, Notice
from ..setup import Setup
from .constants import constants
from .interval_kinds import MEASURED
from .loading import LOADING_CODES, loading_notices
from .overhead import beyond_peak, bounds_of, cached, stated_bytes

FIXED: tuple[MemoryPart, ...] = ("weights", "adapter", "optimizer", "vllm")
ALIKE = ("trainer", "method", "objective", "sharding", "loss")  # fields of a set-up that a peak is of
LEAST = 0.05  # of what was predicted beside what is fixed, and of all that was: no ratio rests on less


@dataclass(frozen=True)
class Peak:
    """One measured peak of a GPU: of which model (by its type and number of parameters) and set-up, what was measured
    (`of`, one of `PEAK_OF`), what of it was predicted, and the bytes of that which follow from the set-up
    (`fixed_bytes`). `low_bytes` and `high_bytes` are the ends of the interval that it had before, of what a GPU must
    have, less what lies outside of torch where that was not measured."""

    model: str
    model_type: str
    params: int
    trainer: str
    method: str
    objective: str
    sharding: str
    loss: str
    split: str
    gpus: int
    of: str
    measured_bytes: int
    predicted_bytes: int
    fixed_bytes: int
    low_bytes: int
    high_bytes: int
    description: str = ""

    @property
    def log_ratio(self) -> float:
        """ln r."""
        return log_ratio(self.measured_bytes, self.predicted_bytes, self.fixed_bytes)

    @property
    def outside(self) -> bool:
        """Whether it lies outside of the interval that it had."""
        return not self.low_bytes <= self.measured_bytes <= self.high_bytes

    def tells_of(self, arch: Architecture, setup: Setup) -> bool:
        """Whether it is of this model and of such a set-up."""
        if (self.model_type, self.params) != (arch.model_type, arch.params) or setup.offload != "none":
            return False
        alike = all(getattr(self, name) == getattr(setup, name) for name in ALIKE)
        return alike and self.split == split_of(setup) and (self.gpus > 1) == (setup.gpus > 1)


def split_of(setup: Setup) -> str:
    """By what matrices, layers, experts and sequences are split over GPUs, in words; "" where nothing is."""
    ways = {name: getattr(setup, f"{name}_parallel") for name in ("tensor", "pipeline", "expert", "sequence")}
    return ", ".join(f"{name} {ways[name]}" for name in ways if ways[name] > 1)


def log_ratio(measured: float, predicted: float, fixed: float) -> float:
    """ln r, with both its parts at least `LEAST` of what was predicted: a rest that is little beside what is fixed
    tells little."""
    fixed = min(fixed, (1 - LEAST) * predicted)
    return math.log(max(measured - fixed, LEAST * (predicted - fixed)) / (predicted - fixed))


def factor_of(logs: Sequence[float], share: float) -> float:
    """What the rest of a step is multiplied by: exp(share x mean of ln r)."""
    return math.exp(share * sum(logs) / len(logs))


def fixed_of(moment: Moment) -> int:
    """Bytes of a moment that follow from the set-up."""
    return sum(item.bytes for item in moment.items if item.part in FIXED)


def kept_of_step(found: MemoryEstimate) -> int:
    """What the allocator keeps of a step where there is room."""
    kept = cached(found.setup, found.apart_bytes, found.gathered_bytes, found.varied_bytes)
    return kept + found.streams_bytes


def figures(found: MemoryEstimate, of: str, room: int | None) -> tuple[int, int]:
    """What an estimate predicts of a peak that was measured so on a GPU of `room` bytes (None: not known), and what
    of it is fixed. Raises InputError where it predicts that a step does not decide the peak."""
    step = max((m for m in found.moments if m.phase not in BEFORE), key=lambda moment: moment.bytes)
    beyond = sum(item.bytes for item in found.overhead)
    early = found.loading_peak.bytes if found.loading_peak else 0
    predicted = step.bytes
    if of != "allocated":
        early = max(early, found.before_bytes)
        predicted += kept_of_step(found)
    if early > predicted:
        raise InputError(
            "peak-of", of, "a peak that a step decides",
            "By the estimate it comes before the first step, and tells nothing of one: take that of a larger batch "
            "or longer sequences.",
        )  # fmt: skip
    if of != "allocated" and room is not None:
        predicted = max(step.bytes, min(predicted, room - beyond))
    more = beyond if of == "device" else 0
    return predicted + more, fixed_of(step) + more


def ends_of(found: MemoryEstimate, of: str) -> tuple[int, int]:
    """The ends of an estimate's interval as what was measured has them, none below nothing."""
    beyond = 0 if of == "device" else sum(item.bytes for item in found.overhead)
    return max(0, found.low - beyond), found.high - beyond


def _scaled(moment: Moment, factor: float) -> Moment:
    if moment.phase in BEFORE:
        return moment
    items = (
        item if item.part in FIXED else replace(item, bytes=round(item.bytes * factor))
        for item in moment.items
    )
    return replace(moment, items=tuple(items))


def scaled(found: MemoryEstimate, factor: float, telling: int = 1) -> MemoryEstimate:
    """An estimate with the rest of its step times `factor`, by so many peaks (`telling`), within the interval after a
    measured one, whose ends lie no further out than those of its kind would."""
    moments = tuple(_scaled(moment, factor) for moment in found.moments)
    sizes = {
        name: round(getattr(found, name) * factor)
        for name in ("apart_bytes", "gathered_bytes", "varied_bytes", "streams_bytes")
    }
    made = replace(found, moments=moments, basis="fitted", corrected=Corrected(factor, telling), **sizes)
    more = beyond_peak(moments, kept_of_step(made), found.before_bytes)
    needed, stated = made.per_gpu_bytes, stated_bytes(made.peak)
    low, high, within = bounds_of(needed, more, found.setup, kind=MEASURED, stated=stated)
    own = found.within.kind if found.within else ""
    least, most, _ = bounds_of(needed, more, found.setup, kind=own, stated=stated)
    made = replace(made, cached_bytes=more, low=max(low, least), high=min(high, most), within=within)
    others = (notice for notice in found.notices if notice.code not in LOADING_CODES)
    return replace(made, notices=(*others, *loading_notices(made)))


def telling(peaks: Iterable[Peak], arch: Architecture, setup: Setup) -> tuple[Peak, ...]:
    """The peaks that tell of a set-up."""
    return tuple(peak for peak in peaks if peak.tells_of(arch, setup))


def corrected(found: MemoryEstimate, arch: Architecture, peaks: Iterable[Peak]) -> MemoryEstimate:
    """An estimate as measured peaks correct it; as it is where none of them tells of its set-up."""
    mine = telling(peaks, arch, found.setup)
    if not mine:
        return found
    factor = factor_of([peak.log_ratio for peak in mine], constants().measured_share)
    return scaled(found, factor, len(mine))


def peak_notices(peaks: Sequence[Peak], arch: Architecture, setup: Setup) -> tuple[Notice, ...]:
    """What to say where measured peaks do not tell of a set-up, or lay far off."""
    if not peaks:
        return ()
    mine = telling(peaks, arch, setup)
    if not mine:
        measured = "; ".join(dict.fromkeys(peak.description or peak.model for peak in peaks))
        return (
            Notice(
                "peak-elsewhere",
                f"No measured peak corrects this memory: measured was {measured}. A peak tells of the same model, "
                "trainer, method, sharding, split and loss, on one GPU or on several, without offloading.",
            ),
        )
    if any(peak.outside for peak in mine):
        return (
            Notice(
                "peak-outside",
                "A measured peak lies outside of the interval that it had: check that its options are what ran.",
            ),
        )
    return ()


def peak_from(raw: object, path: str) -> Peak:
    """A peak of a calibration file. Raises InputError."""
    if not isinstance(raw, Mapping):
        raise InputError("calibration", path, "a list of peaks, each an object")
    values: dict[str, Any] = {}
    for name, kind in Peak.__annotations__.items():
        value = raw.get(name, "" if name == "description" else None)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole if kind == "int" else isinstance(value, str)):
            what = "a whole number" if kind == "int" else "a string"
            raise InputError("calibration", value, f"{what} as {name} of a peak in {path}")
        values[name] = value
    if values["of"] not in PEAK_OF:
        raise InputError("calibration", values["of"], f"one of {', '.join(PEAK_OF)} for a peak in {path}")
    if (
        min(values["measured_bytes"], values["predicted_bytes"], values["gpus"]) <= 0
        or values["fixed_bytes"] < 0
    ):
        raise InputError("calibration", path, "peaks and numbers of GPUs above 0")
    return Peak(**values)
