"""Calibration: what measured steps say about one's own trainer and machine.

The logarithm of measured over predicted time is taken as b + e: b ~ N(0, between^2) belongs to a trainer on a
machine, e ~ N(0, noise) to one set-up. Of n measurements y_i with noises v_i, let p = sum 1 / v_i and
w = sum y_i / v_i. The posterior's mean is

    w / (p + 1 / between^2)

and a new set-up of the same trainer and machine deviates by `measured` sqrt(1 / (p + 1 / between^2) + its noise),
`measured` being what first predictions need (tools/speed_calibrated.py), but by no more than where nothing was
measured. `between` is that of all sources' runs, not of the ends of intervals, which are those of the furthest ones:
taken for a prior, they believed a slow step whole and a fast one by half (a median error of 9.5% on sources left out
where this has 8.4%).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ..dataclass import dataclass
from ..errors import InputError
from ..memory.calibration import Peak, peak_from
from ..schema import Notice
from .efficiency import Spread

FORMAT = 1


@dataclass(frozen=True)
class Measurement:
    """One measured step: what it took over what was predicted (as a logarithm), and the share of host time and
    communication in it."""

    gpu: str
    trainer: str
    log_ratio: float
    thin_share: float
    measured_s: float
    predicted_s: float
    description: str = ""


@dataclass(frozen=True)
class Calibration:
    """Measurements of one's own, of steps and of peaks of memory; empty, nothing changes."""

    measurements: tuple[Measurement, ...] = ()
    peaks: tuple[Peak, ...] = ()

    def of(self, gpu: str, trainer: str) -> tuple[Measurement, ...]:
        """Those of this accelerator and trainer."""
        return tuple(m for m in self.measurements if m.gpu == gpu and m.trainer == trainer)

    def correction(
        self, gpu: str, trainer: str, thin_share: float, spread: Spread, staged_share: float = 0.0
    ) -> tuple[float, float, float]:
        """What to add to the logarithm of a predicted time, and its standard deviations below and above. A measured
        step tells what a machine's path through its host's memory reaches."""
        mine = self.of(gpu, trainer)
        noise = spread.noise(thin_share, 0.0 if mine else staged_share)
        below, above = (math.sqrt(side**2 + noise) for side in (spread.below, spread.above))
        if not mine:
            return 0.0, below, above
        noises = [spread.noise(measurement.thin_share) for measurement in mine]
        left = 1 / (sum(1 / each for each in noises) + 1 / spread.between**2)
        shift = left * sum(one.log_ratio / each for one, each in zip(mine, noises, strict=True))
        most = spread.measured * math.sqrt(left + noise)
        return shift, min(below, most), min(above, most)

    def notices(self, gpu: str, trainer: str) -> tuple[Notice, ...]:
        """What to say where measurements do not apply or lie far off."""
        if not self.measurements:
            return ()
        mine = self.of(gpu, trainer)
        if not mine:
            measured = sorted({f"{m.trainer} on {m.gpu}" for m in self.measurements})
            return (
                Notice(
                    "calibration-elsewhere",
                    f"The calibration measured {', '.join(measured)}: it is not used for {trainer} on {gpu}.",
                ),
            )
        worst = max(mine, key=lambda m: abs(m.log_ratio))
        if abs(worst.log_ratio) > math.log(2):
            return (
                Notice(
                    "calibration-far",
                    f"A measured step took {math.exp(worst.log_ratio):.2g} times what was predicted: check that its "
                    "model, batch and length are as stated.",
                ),
            )
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The calibration file."""
        found = {"lora_plan_calibration": FORMAT, "measurements": [dict(vars(m)) for m in self.measurements]}
        return {**found, "peaks": [dict(vars(peak)) for peak in self.peaks]} if self.peaks else found


NOTHING_MEASURED = Calibration()


def _measurement(raw: object, path: str) -> Measurement:
    if not isinstance(raw, Mapping):
        raise InputError("calibration", path, "a list of measurements, each an object")
    values: dict[str, Any] = {}
    for name, kind in Measurement.__annotations__.items():
        value = raw.get(name, "" if name == "description" else None)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if (kind == "float" and not number) or (kind == "str" and not isinstance(value, str)):
            what = "a number" if kind == "float" else "a string"
            raise InputError("calibration", value, f"{what} as {name} of a measurement in {path}")
        values[name] = value
    if values["measured_s"] <= 0 or values["predicted_s"] <= 0 or not 0 <= values["thin_share"] <= 1:
        raise InputError("calibration", path, "times above 0 and a thin_share from 0 to 1")
    return Measurement(**values)


def read(path: str | os.PathLike[str]) -> Calibration:
    """The calibration of a file that `lora-plan calibrate` wrote. Raises InputError."""
    shown = os.fspath(path)
    try:
        with open(shown, encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(
            "calibration", shown, "a file written by `lora-plan calibrate`", f"{error}."
        ) from None
    if not isinstance(raw, Mapping) or raw.get("lora_plan_calibration") != FORMAT:
        raise InputError("calibration", shown, "a file written by `lora-plan calibrate`")
    entries, peaks = raw.get("measurements"), raw.get("peaks", [])  # files of before have no peaks
    if not isinstance(entries, list) or not isinstance(peaks, list):
        raise InputError("calibration", shown, "a list of measurements, and one of peaks where there are any")
    measured = tuple(_measurement(entry, shown) for entry in entries)
    return Calibration(measured, tuple(peak_from(entry, shown) for entry in peaks))
