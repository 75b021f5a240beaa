"""The loss of a first pass over data, from a record that a training run left."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import InputError


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _curve(record: dict[str, Any], path: Path) -> list[float]:
    """The training losses of the steps of the first epoch."""
    curve = record.get("curve")
    if not isinstance(curve, list) or not curve:
        raise InputError("run", str(path), "a run record with a curve, the training loss of each step")
    config = record.get("config")
    config = config if isinstance(config, dict) else {}
    examples, batch = config.get("examples", 0), config.get("batch", 0)
    steps = len(curve)
    if _number(examples) and _number(batch) and examples > 0 and batch > 0:
        ran = config.get("steps", 0)
        every = max(1, round(ran / steps)) if _number(ran) else 1  # a packed record keeps some steps' losses
        steps = min(steps, max(1, int(examples) // int(batch) // every))
    first = curve[:steps]
    if not all(_number(loss) and loss >= 0 for loss in first):
        raise InputError(
            "run", str(path), "a finite loss at each step of the first epoch", "The run diverged."
        )
    return [float(loss) for loss in first]


def first_epoch_loss(source: str | os.PathLike[str]) -> float:
    """Mean training loss, nats a token, of the first epoch of a run: of the steps that saw each example for the first
    time, before each step's update. Steps count alike, whatever tokens they hold. Raises InputError."""
    path = Path(source).expanduser()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("run", str(path), "a run record, a JSON file", f"{reason}.") from error
    if not isinstance(record, dict):
        raise InputError("run", str(path), "a run record, a JSON object")
    config = record.get("config")
    kind = config.get("kind", "sft") if isinstance(config, dict) else "sft"
    if kind != "sft":
        raise InputError(
            "run", str(path), "a run that learned from tokens (kind sft)", f"It is one of {kind}."
        )
    measured = record.get("measured")
    stated = measured.get("first_epoch_loss") if isinstance(measured, dict) else None
    if stated is not None and _number(stated) and stated >= 0:
        return float(stated)
    return fmean(_curve(record, path))
