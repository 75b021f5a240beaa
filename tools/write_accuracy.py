"""Write data/measured/accuracy.csv: what the planner predicts beside what others counted or measured.

    python -m tools.write_accuracy

Parameters against transformers' builds (data/models/SOURCES.csv), FLOPs of a step against torch's counter (the run
records), memory and step times against published measurements. `fitted` says that a constant was fitted on the row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from planner import facts
from planner.errors import PlannerError
from planner.estimator import load
from planner.memory import constants as memory_constants
from planner.speed import efficiency as speed_constants
from planner.validate.adapters import planned
from planner.validate.kept import load as load_records
from planner.validate.models import shape
from tools.compare_published_memory import estimates, predicted, with_constants
from tools.published_memory import cases
from tools.speed_fit import predicted as predicted_s
from tools.speed_runs import runs

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "data" / "measured" / "accuracy.csv"
RECORDS = ROOT / "data" / "runs" / "records.jsonl"
COLUMNS = ("quantity", "unit", "source", "name", "predicted", "measured", "fitted")
Line = tuple[str, str, str, str, float, float, str]


def parameters() -> Iterator[Line]:
    """Each model of the catalogue that transformers builds."""
    for row in csv.DictReader(io.StringIO(facts.read_data("models", "SOURCES.csv"))):
        if row["built_params"]:
            try:
                arch = load(row["model"])[1]
            except PlannerError:
                continue
            yield (
                "parameters",
                "parameters",
                "transformers",
                row["model"],
                arch.params,
                int(row["built_params"]),
                "no",
            )


def flops() -> Iterator[Line]:
    """Each step that torch's counter counted."""
    for record in load_records(RECORDS).values():
        if record.config.kind != "flops" or not record.flops:
            continue
        config = record.config.but(seq_len=record.measured["length"])
        plan = planned(config, shape(config.model))
        if plan.flops is None:
            continue
        counted = plan.flops.counted_lora if config.method == "lora" else plan.flops.counted_full
        yield "flops", "FLOP", "torch", f"{config.model}, rank {config.rank}", counted, record.flops, "no"


def memory() -> Iterator[Line]:
    """Each published measurement of memory that a set-up can say."""
    known = memory_constants.constants()
    for case, found in estimates(cases()[0])[0]:
        fitted = "yes" if case.fitted and case.metric != "allocated" else "no"
        value = predicted(case, with_constants(found, known))
        yield "memory", "bytes", case.source, f"{case.model}, row {case.row}", value, case.measured, fitted


def times() -> Iterator[Line]:
    """Each published step time."""
    found = runs()
    seconds, _ = predicted_s(found, speed_constants.constants().efficiency)
    for run, value in zip(found, seconds, strict=True):
        yield (
            "time",
            "seconds",
            run.source,
            run.model,
            float(value),
            run.measured_s,
            "yes" if run.fitted else "no",
        )


def main() -> None:
    """Write the table."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for lines in (parameters(), flops(), memory(), times()):
        writer.writerows([*line[:4], f"{line[4]:.8g}", f"{line[5]:.8g}", line[6]] for line in lines)
    TARGET.write_text(stream.getvalue(), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {stream.getvalue().count(chr(10)) - 1} rows")


if __name__ == "__main__":
    main()
