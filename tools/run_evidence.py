"""Run what docs/evidence.md rests on, then pack the records and write the page.

    python tools/run_evidence.py FOLDER [--budget 2h] [--executor ray --address auto]

The runs of PLAN go into FOLDER in its order. Finished ones are never run again, so that the same command goes on
after it was stopped; what a budget leaves out stays out of the page. Records that data/runs holds already are put
into FOLDER first.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from planner.validate import records, validate
from planner.validate.api import seconds_of
from planner.validate.kept import load
from tools import write_evidence

# Models, claims, seeds: the claims about width first, then one model for each other claim. What needs long runs is
# tried on the narrowest models. The last lines give more seeds to what three left undecided, where they are cheapest.
PLAN = (
    ("tiny", "C12 C15 C16 C17 C19 C20 C4 C5 C14 C1 C7", 3),
    ("pico,micro,tiny,mini,small", "C3 C18", 3),
    ("micro", "C11", 3),
    ("tiny", "V1 C9 C10", 3),
    ("pico", "C13 C2 C6", 3),
    ("tiny", "C8", 3),
    ("micro", "C4 C5 C14 C1 C7", 3),
    ("micro", "C1 C5", 16),
    ("tiny", "C10", 4),
    ("pico", "C11", 3),
    ("micro", "C2", 3),
    ("micro", "V1", 8),
    ("pico", "C13", 12),
    ("pico", "C1 C5", 16),
)


def main() -> int:
    """Run, pack, write; exit code 1 where the budget ended first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget")
    parser.add_argument("--executor", default="local")
    parser.add_argument("--address")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for record in load(write_evidence.PACKED).values():
        if records.read(given.folder, record.id) is None:
            records.write(given.folder, record)
    ends = time.monotonic() + (seconds_of(given.budget) or float("inf"))
    complete = True
    for models, claims, seeds in PLAN:
        left = ends - time.monotonic()
        if left <= 0:
            complete = False
            break
        report = validate(
            claims, model=models, seeds=seeds, out=given.folder, executor=given.executor, address=given.address,
            budget=None if left == float("inf") else left,
        )  # fmt: skip
        complete = complete and report.complete
        for found in report.claims:
            print(
                f"{models}: {found.claim.id} {found.judgement.verdict}, {found.judgement.reason}", flush=True
            )
    write_evidence.main([str(given.folder)])
    return int(not complete)


if __name__ == "__main__":
    sys.exit(main())
