"""`planner.calibrate`: one measured step of one's own against the formula, kept in a small file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .running import Running, calibration_of, running
from .speed import Calibration, Measurement, StepTime
from .speed.roofline import THIN
from .version import __version__
from .whole_files import put

SPELLINGS = {
    "precision": {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"},
    "optimizer": {"adam": "adamw", "adamw_torch": "adamw"},
}
# What a record of a run may call the options of a calibration, at its top or in one of these parts.
PARTS = ("config", "configuration", "setup", "hardware", "measured")
NAMES = {
    "model": ("model",),
    "gpu": ("gpu", "accelerator", "gpu_type"),
    "step_time": ("step_time_s", "step_s", "step_time"),
    "tokens_per_s": ("tokens_per_s",),
}
OPTIONS = (
    "rank", "alpha", "layers", "targets", "experts", "batch", "seq_len", "accumulation", "gpus", "method",
    "precision", "quantize", "checkpointing", "optimizer", "attention_kernel", "kernels", "loss", "packing",
    "sharding", "trainer", "tensor_parallel", "lora_dropout", "autocast", "adapter_dtype",
)  # fmt: skip


@dataclass(frozen=True)
class Calibrated:
    """The calibration with its newest measurement, and the step that was measured as predicted before and after."""

    calibration: Calibration
    measurement: Measurement
    before: StepTime
    after: StepTime
    path: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `calibrate`."""

        def step(time: StepTime) -> dict[str, Any]:
            return {
                "seconds": time.seconds,
                "low": time.low,
                "high": time.high,
                "interval": time.interval(),
            }

        return {
            "schema": 1,
            "version": __version__,
            "measurement": dict(vars(self.measurement)),
            "before": step(self.before),
            "after": step(self.after),
            "factor": self.after.seconds / self.before.seconds,
            "measurements": len(self.calibration.measurements),
            "path": self.path,
            "warnings": [dict(vars(notice)) for notice in self.after.notices],
        }


def _seconds(asked: Running, step_time: Any, tokens_per_s: Any) -> float:
    """The measured seconds of a step, given as such or as tokens a second over all GPUs."""
    given = {"step-time": step_time, "tokens-per-s": tokens_per_s}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            named[-1] if named else "step-time", step_time, "one of step-time (seconds) and tokens-per-s"
        )
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
    for name, others in SPELLINGS.items():
        if isinstance(found.get(name), str):
            found[name] = others.get(found[name], found[name])
    return found


def write(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """Write a calibration file, whole or not at all. Raises InputError."""
    try:
        put(path, json.dumps(calibration.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise InputError("out", os.fspath(path), "a file that can be written", f"{error.strerror}.") from None


def calibrate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, gpu: str | None = None,
    step_time: float | None = None, tokens_per_s: float | None = None,
    record: str | os.PathLike[str] | None = None, add_to: str | os.PathLike[str] | Calibration | None = None,
    out: str | os.PathLike[str] | None = None, **options: Any,
) -> Calibrated:  # fmt: skip
    """Learn from a measured step how fast one's trainer and machine are.

    `step_time` is an optimizer step's seconds, accumulation included; `tokens_per_s` those of all GPUs. `record` is a
    run's record, whose fields the other options override. `options` are those of an estimate and the fields of Setup.
    `add_to` is an earlier calibration, `out` where to write the new one. Raises InputError.
    """
    given = {"model": model, "gpu": gpu, "step_time": step_time, "tokens_per_s": tokens_per_s}
    values = {**(_of_record(record) if record is not None else {}), **options}
    values |= {name: value for name, value in given.items() if value is not None}
    if step_time is not None or tokens_per_s is not None:
        values |= {"step_time": step_time, "tokens_per_s": tokens_per_s}
    seconds, rate = values.pop("step_time", None), values.pop("tokens_per_s", None)
    named = values.pop("model", None)
    if named is None:
        raise InputError("model", None, "the model that was trained")
    if values.get("gpu") is None:
        raise InputError("gpu", None, "the GPU on which the step was measured")
    asked = running(named, values)
    if asked.setup.objective == "grpo":
        raise InputError(
            "objective", "grpo", "another objective", "Only the training in its step is calibrated."
        )
    before = asked.time()
    machine = asked.machine
    if before is None or machine is None:
        raise InputError("gpu", values["gpu"], "the GPU on which the step was measured")
    measured = _seconds(asked, seconds, rate)
    setup = asked.setup
    new = Measurement(
        gpu=machine.accelerator.name, trainer=setup.trainer, log_ratio=math.log(measured / before.seconds),
        thin_share=sum(before.parts[name] for name in THIN) / before.seconds, measured_s=measured,
        predicted_s=before.seconds,
        description=f"{asked.model}, {setup.method}, {setup.gpus} x {setup.accumulation} x {setup.micro_batch} x "
        f"{setup.seq_len} tokens",
    )  # fmt: skip
    calibration = Calibration((*calibration_of(add_to).measurements, new))
    after = asked.time(calibration) or before
    if out is not None:
        write(out, calibration)
    return Calibrated(calibration, new, before, after, None if out is None else os.fspath(out))
