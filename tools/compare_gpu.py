"""Hold memory and step times measured on a real GPU beside what is predicted, and write docs/gpu.md.

    python -m tools.compare_gpu              write the page from the record
    python -m tools.compare_gpu --predict    write what is predicted of every case of tools/gpu_cases.py

The record, data/runs/gpu.jsonl, comes from `python -m tools.gpu_steps` on the GPU. What was predicted before the
first run is kept as it was in data/measured/gpu_blind.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.running import Running, running

from .gpu_cases import Case, first

ROOT = Path(__file__).resolve().parent.parent
BLIND = ROOT / "data" / "measured" / "gpu_blind.csv"
MODELS = ROOT / "data" / "models"
GPU = "h200"
FIELDS = (
    "model",
    "options",
    "changes",
    "allocated_bytes",
    "reserved_bytes",
    "device_bytes",
    "step_s",
    "low_s",
    "high_s",
)


@contextmanager
def model_of(case: Case) -> Iterator[str]:
    """The model's name, or a file with the changed config."""
    if not case.changes:
        yield case.model
        return
    config = json.loads((MODELS / f"{case.model.replace('/', '__')}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({**config, **case.changes}), encoding="utf-8")
        yield str(file)


def running_of(case: Case) -> Running:
    """The case as `lora-plan estimate` has it."""
    with model_of(case) as model:
        return running(model, {**case.options, "gpu": GPU})


def predicted(case: Case) -> dict[str, Any]:
    """Peaks and the time of a step."""
    asked = running_of(case)
    memory, time = asked.memory(), asked.time()
    found: dict[str, Any] = {
        "model": case.model, "options": json.dumps(case.options), "changes": json.dumps(case.changes),
        "allocated_bytes": memory.allocated_bytes, "reserved_bytes": memory.reserved_bytes,
        "device_bytes": memory.device_bytes,
    }  # fmt: skip
    if time is not None:
        found |= {
            "step_s": round(time.seconds, 6),
            "low_s": round(time.low, 6),
            "high_s": round(time.high, 6),
        }
    return found


def write_predictions() -> None:
    """What is predicted of every case, by the planner as it is."""
    with BLIND.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        rows.writeheader()
        for case in first():
            try:
                rows.writerow(predicted(case))
            except PlannerError as error:
                print(f"{case.name}: {error}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--predict", action="store_true", help="write what is predicted of every case")
    parser.parse_args(arguments)
    write_predictions()
    return 0


if __name__ == "__main__":
    sys.exit(main())
