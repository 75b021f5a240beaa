"""Hold memory and step times measured on a real GPU beside what is predicted, and write docs/gpu.md.

    python -m tools.compare_gpu              write the page from the record
    python -m tools.compare_gpu --predict    write what is predicted of every case of tools/gpu_cases.py

The record, data/runs/gpu.jsonl, comes from `python -m tools.gpu_steps` on the GPU. What was predicted before the
first run is kept as it was in data/measured/gpu_blind.csv. Without a record there is no page.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.running import Running, running

from .gpu_cases import Case, first

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "runs" / "gpu.jsonl"
BLIND = ROOT / "data" / "measured" / "gpu_blind.csv"
PAGE = ROOT / "docs" / "gpu.md"
MODELS = ROOT / "data" / "models"
GPU = "h200"  # of the predictions made before the first run
NUMBERS = ("allocated_bytes", "reserved_bytes", "device_bytes")
TIMES = ("step_s", "low_s", "high_s")
NAMES = ("model", "options", "changes")
MOST = 0.03  # what is aimed at, of allocated bytes
HEAD = """# Measured on a GPU

Written by `python -m tools.compare_gpu` from [gpu.jsonl](../data/runs/gpu.jsonl), the record of
`python -m tools.gpu_steps` on {gpus} ({versions}). Each row is a training step with transformers', PEFT's, TRL's and
bitsandbytes' own code on random weights: torch.cuda.max_memory_allocated of a step that finds the optimizer's states,
and the median time of later ones. *Before* is what was predicted before the first run
([gpu_blind.csv](../data/measured/gpu_blind.csv)), *now* what is predicted today.

"""


@dataclass(frozen=True)
class Row:
    """A case that ran: measured bytes and seconds, and what is predicted by name."""

    case: Case
    peak_bytes: int
    reserved_bytes: int
    step_s: float
    now: Mapping[str, float]
    before: Mapping[str, float]

    def error(self, of: str, name: str) -> float | None:
        """Predicted over measured, less 1: `of` is now or before, `name` what."""
        measured = {
            "allocated_bytes": self.peak_bytes,
            "reserved_bytes": self.reserved_bytes,
            "step_s": self.step_s,
        }
        predicted = (self.now if of == "now" else self.before).get(name)
        return None if predicted is None or not measured[name] else predicted / measured[name] - 1


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


def running_of(case: Case, gpu: str = GPU) -> Running:
    """The case as `lora-plan estimate` has it."""
    with model_of(case) as model:
        return running(model, {**case.options, "gpu": gpu})


def predicted(case: Case, gpu: str = GPU) -> dict[str, float]:
    """Peaks and the time of a step."""
    asked = running_of(case, gpu)
    memory, time = asked.memory(), asked.time()
    found: dict[str, float] = {
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


def named(case: Case) -> dict[str, str]:
    """What a case is found by in the table of predictions."""
    return {"model": case.model, "options": json.dumps(case.options), "changes": json.dumps(case.changes)}


def write_predictions() -> None:
    """What is predicted of every case, by the planner as it is."""
    with BLIND.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, (*NAMES, *NUMBERS, *TIMES), lineterminator="\n")
        rows.writeheader()
        for case in first():
            try:
                rows.writerow({**named(case), **predicted(case)})
            except PlannerError as error:
                print(f"{case.name}: {error}", file=sys.stderr)


def blind() -> dict[tuple[str, ...], dict[str, float]]:
    """What was predicted before the first run, by a case's names."""
    with BLIND.open(encoding="utf-8", newline="") as file:
        return {
            tuple(row[name] for name in NAMES): {n: float(row[n]) for n in (*NUMBERS, *TIMES) if row[n]}
            for row in csv.DictReader(file)
        }


def rows_of(lines: Iterable[Mapping[str, Any]], gpu: str = GPU) -> tuple[list[Row], list[str]]:
    """The record's rows that ran, and what the others say."""
    earlier = blind()
    rows, left = [], []
    for line in lines:
        if "about" in line:
            continue
        case = Case(line["model"], line["options"], line["changes"])
        if line["status"] != "ok":
            left.append(f"{case.name}: {line['reason']}")
            continue
        before = earlier.get(tuple(named(case).values()), {})
        rows.append(
            Row(
                case, line["peak_bytes"], line["reserved_bytes"], line["step_s"], predicted(case, gpu), before
            )
        )
    return rows, left


def summary(rows: Sequence[Row], of: str, name: str) -> str:
    """A line of a table: how many, the median and the 90th percentile of errors, and how many lie within 3%."""
    errors = sorted(abs(error) for row in rows if (error := row.error(of, name)) is not None)
    if not errors:
        return "0 | | | "
    ninth = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    within = sum(error <= MOST for error in errors)
    return f"{len(errors)} | {statistics.median(errors):.2%} | {ninth:.2%} | {within}"


def inside(rows: Sequence[Row], of: str) -> str:
    """How many steps took as long as the interval says."""
    told = [
        (row.step_s, values) for row in rows if "low_s" in (values := row.now if of == "now" else row.before)
    ]
    held = sum(values["low_s"] <= measured <= values["high_s"] for measured, values in told)
    return f"{held} of {len(told)}"


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    about = [line["about"] for line in lines if "about" in line]
    rows, left = rows_of(lines)
    text = HEAD.format(
        gpus=", ".join(sorted({a["gpu"] for a in about})),
        versions=", ".join(f"{name} {number}" for name, number in about[-1]["versions"].items()),
    )
    text += "| what | predicted | rows | median error | 90th percentile | within 3% |\n|---|---|---|---|---|---|\n"
    for name, title in (
        ("allocated_bytes", "allocated"),
        ("reserved_bytes", "reserved"),
        ("step_s", "step time"),
    ):
        for of in ("before", "now"):
            text += f"| {title} | {of} | {summary(rows, of, name)} |\n"
    text += (
        f"\nStep times inside their interval: before {inside(rows, 'before')}, now {inside(rows, 'now')}.\n\n"
    )
    text += "| model | options | measured, GB | before | now | step, s | before | now |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for row in rows:
        said = row.case.name.removeprefix(row.case.model).strip()
        text += (
            f"| {row.case.model} | {said} | {row.peak_bytes / 1e9:.3f} | {_cells(row, 'allocated_bytes')} | "
        )
        text += f"{row.step_s:.4f} | {_cells(row, 'step_s')} |\n"
    if left:
        text += "\nDid not run:\n\n" + "".join(f"- {words}\n" for words in left)
    return text


def _cells(row: Row, name: str) -> str:
    errors = (row.error(of, name) for of in ("before", "now"))
    return " | ".join("" if error is None else f"{error:+.2%}" for error in errors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--predict", action="store_true", help="write what is predicted of every case")
    if parser.parse_args(arguments).predict:
        write_predictions()
        return 0
    if not RECORD.exists():
        print(f"no record: {RECORD.relative_to(ROOT)} is written on a GPU, by python -m tools.gpu_steps")
        return 1
    lines = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    PAGE.write_text(page(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
