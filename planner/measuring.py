"""`planner.calibrate`: a measured step or peak of one's own against the formula, kept in a small file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .errors import InputError
from .measured_peak import Run, described, outside_notices
from .measured_peak import peak_of as measured_peak_of
from .memory.calibration import Peak
from .moments import MemoryEstimate
from .notices import beyond_context
from .pictured import OPTIONS as PICTURED
from .running import SPEC_DEFAULTS, Running, calibration_of, running
from .schema import Notice
from .speed import Calibration, Measurement, StepTime
from .speed.roofline import THIN
from .trainers import SETUP_FIELDS
from .version import __version__
from .whole_files import put

SPELLINGS = {
    "precision": {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"},
    "optimizer": {"adam": "adamw", "adamw_torch": "adamw"},
    "variant": dict.fromkeys(
        ("plain", "loraplus", "rslora", "pissa"), "lora"
    ),  # of `validate`: a step is the same
}
# What a record of a run may call the options of a calibration, at its top or in one of these parts.
PARTS = ("config", "configuration", "setup", "hardware", "measured")
NAMES = {
    "model": ("model",),
    "gpu": ("gpu", "accelerator", "gpu_type"),
    "step_time": ("step_time_s", "step_s", "step_time"),
    "tokens_per_s": ("tokens_per_s",),
}
PEAKS = {"max_memory_allocated": "allocated", "max_memory_reserved": "reserved"}
OPTIONS = tuple(dict.fromkeys((*SPEC_DEFAULTS, *PICTURED, "batch", "gpus_per_node", *SETUP_FIELDS)))


@dataclass(frozen=True)
class Calibrated:
    """The calibration with its newest measurements: of a step, which is predicted before and after, and of a peak, of
    whose set-up the memory is; None of what was not measured."""

    calibration: Calibration
    measurement: Measurement | None
    before: StepTime | None
    after: StepTime | None
    path: str | None = None
    peak: Peak | None = None
    memory_before: MemoryEstimate | None = None
    memory_after: MemoryEstimate | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def factor(self) -> float | None:
        """Seconds after over seconds before."""
        return self.after.seconds / self.before.seconds if self.before and self.after else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `calibrate`."""
        return {
            "schema": 1,
            "version": __version__,
            "measurement": dict(vars(self.measurement)) if self.measurement else None,
            "before": _step(self.before),
            "after": _step(self.after),
            "factor": self.factor,
            "measurements": len(self.calibration.measurements),
            "peak": dict(vars(self.peak)) if self.peak else None,
            "memory_before": _memory(self.memory_before),
            "memory_after": _memory(self.memory_after),
            "peaks": len(self.calibration.peaks),
            "path": self.path,
            "warnings": [dict(vars(notice)) for notice in self.notices],
        }


def _step(time: StepTime | None) -> dict[str, Any] | None:
    if time is None:
        return None
    return {"seconds": time.seconds, "low": time.low, "high": time.high, "interval": time.interval()}


def _memory(found: MemoryEstimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    said = found.to_dict()
    return {name: said[name] for name in ("per_gpu_bytes", "low", "high", "interval", "corrected")}


def _seconds(asked: Running, step_time: Any, tokens_per_s: Any) -> float:
    """The measured seconds of a step, given as such or as tokens a second over all GPUs."""
    given = {"step-time": step_time, "tokens-per-s": tokens_per_s}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        raise InputError("step-time", None, "one of step-time (seconds) and tokens-per-s")
    if len(named) > 1:
        raise InputError(named[1], given[named[1]], f"nothing beside {named[0]}", "Give one of them.")
    value = given[named[0]]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InputError(named[0], value, "a number above 0")
    if step_time is not None:
        return float(value)
    return asked.setup.global_batch * asked.setup.seq_len / float(value)


def _of_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options in a record of a run, a JSON object. Raises InputError."""
    shown = os.fspath(path)
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("record", shown, "a run record in JSON", f"{error}.") from None
    if not isinstance(raw, Mapping):
        raise InputError("record", shown, "a run record: a JSON object")
    places = [raw, *(raw[part] for part in PARTS if isinstance(raw.get(part), Mapping))]
    found: dict[str, Any] = {}
    for name, spellings in {**NAMES, **{option: (option,) for option in OPTIONS}}.items():
        for place in places:
            for spelling in spellings:
                if place.get(spelling) is not None:
                    found.setdefault(name, place[spelling])
    if "step_time" in found:
        found.pop("tokens_per_s", None)
    found |= _peak_of_record(places)
    for name, others in SPELLINGS.items():
        if isinstance(found.get(name), str):
            found[name] = others.get(found[name], found[name])
    return found


def _peak_of_record(places: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The peak in a record, with what was measured: torch's figures by their names, and `peak_memory_bytes` of
    `lora-plan validate`, which is what torch allocated where an accelerator ran (on a CPU the process's size)."""
    on_gpu = any(place.get("accelerator") for place in places)
    for name, of in (*PEAKS.items(), *([("peak_memory_bytes", "allocated")] if on_gpu else [])):
        for place in places:
            if place.get(name) is not None:
                return {"peak": place[name], "peak_of": of}
    return {}


def write(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration file, whole or not at all. Raises InputError."""
    try:
        put(path, json.dumps(calibration.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise InputError("out", os.fspath(path), "a file that can be written", f"{error.strerror}.") from None


def _measured(
    recorded: dict[str, Any], step_time: Any, tokens_per_s: Any, peak: Any, peak_of: Any
) -> tuple[Any, Any, Any, Any]:
    """What was measured, taken out of a record where it was not typed: of a step its time or its rate, of a peak its
    size and what it is of, which alone says of a recorded size what that is."""
    seconds, rate, size, of = (
        recorded.pop(name, None) for name in ("step_time", "tokens_per_s", "peak", "peak_of")
    )
    if step_time is not None or tokens_per_s is not None:
        seconds, rate = step_time, tokens_per_s
    if peak is not None or peak_of is not None:
        size, of = size if peak is None else peak, peak_of
    if size is None and of is not None:
        raise InputError("peak", None, "the peak that was measured, beside peak-of")
    return seconds, rate, size, of


def calibrate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, gpu: str | None = None,
    step_time: float | None = None, tokens_per_s: float | None = None,
    record: str | os.PathLike[str] | None = None, add_to: str | os.PathLike[str] | Calibration | None = None,
    out: str | os.PathLike[str] | None = None, peak: int | float | str | None = None, peak_of: str | None = None,
    **options: Any,
) -> Calibrated:  # fmt: skip
    """Learn from a measured step how fast one's trainer and machine are, and from a measured peak what of its memory
    was not predicted.

    `step_time` is an optimizer step's seconds, accumulation included; `tokens_per_s` those of all GPUs. `peak` is
    that of one GPU, in bytes or such as 21.4GiB, `peak_of` what was measured. `record` is a run's record, whose
    fields the other options override. `options` are those of an estimate and the fields of Setup. `add_to` is an
    earlier calibration, `out` where to write the new one. Raises InputError.
    """
    values = _of_record(record) if record is not None else {}
    seconds, rate, size, of = _measured(values, step_time, tokens_per_s, peak, peak_of)
    values |= options | {name: value for name, value in (("model", model), ("gpu", gpu)) if value is not None}
    named = values.pop("model", None)
    if named is None:
        raise InputError("model", None, "the model that was trained")
    asked = running(named, values)
    if asked.setup.objective == "grpo":
        raise InputError(
            "objective", "grpo", "another objective", "Only the training in its step is calibrated."
        )
    place = None if out is None else os.fspath(out)
    first = beyond_context(asked.arch, asked.setup.seq_len)
    found = Calibrated(_earlier(add_to), None, None, None, place, notices=first)
    if size is None or seconds is not None or rate is not None:
        found = _with_step(found, asked, seconds, rate)
    if size is not None:
        found = _with_peak(found, asked, size, of, lambda changes: running(named, {**values, **changes}))
    if out is not None:
        write(out, found.calibration)
    return found


def _earlier(add_to: str | os.PathLike[str] | Calibration | None) -> Calibration:
    """The calibration that is added to."""
    try:
        return calibration_of(add_to)
    except InputError as error:
        raise InputError("add-to", *error.args_after_field) from None


def _with_step(found: Calibrated, asked: Running, seconds: Any, rate: Any) -> Calibrated:
    """The calibration with a measured step."""
    machine = asked.machine
    if machine is None:
        raise InputError("gpu", None, "the GPU on which the step was measured")
    before = asked.time()
    if before is None:
        raise InputError("model", asked.model, "a model whose step time is estimated")
    measured = _seconds(asked, seconds, rate)
    new = Measurement(
        gpu=machine.accelerator.name, trainer=asked.setup.trainer, log_ratio=math.log(measured / before.seconds),
        thin_share=sum(before.parts[name] for name in THIN) / before.seconds, measured_s=measured,
        predicted_s=before.seconds, description=described(asked),
    )  # fmt: skip
    mine = replace(found.calibration, measurements=(*found.calibration.measurements, new))
    after = asked.time(mine) or before
    return replace(
        found,
        calibration=mine,
        measurement=new,
        before=before,
        after=after,
        notices=(*found.notices, *after.notices),
    )


def _with_peak(found: Calibrated, asked: Running, size: Any, what: Any, run_of: Run) -> Calibrated:
    """The calibration with a measured peak."""
    before = asked.memory()
    new = measured_peak_of(asked, before, size, what)
    mine = replace(found.calibration, peaks=(*found.calibration.peaks, new))
    after = replace(asked, peaks=mine.peaks).memory()
    notices = (*found.notices, *outside_notices(new, asked, run_of))
    return replace(
        found, calibration=mine, peak=new, memory_before=before, memory_after=after, notices=notices
    )
