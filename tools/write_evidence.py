"""Write docs/evidence.md and data/runs/records.jsonl from a folder of run records.

    python tools/write_evidence.py [FOLDER] [--seeds 3] [--check]

With FOLDER its records are first packed into data/runs/records.jsonl, one a line, ordered by id. The page is then
made from that file alone: every claim judged by its rule on the records that are there. Claims whose runs are missing
are named as not run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.validate.api import judge
from planner.validate.claims import IDS, Setting, claim
from planner.validate.records import RunConfig, RunRecord, from_dict, read_all
from planner.validate.report import Found

ROOT = Path(__file__).resolve().parent.parent
PACKED = ROOT / "data" / "runs" / "records.jsonl"
PAGE = ROOT / "docs" / "evidence.md"
KEPT_OF_CURVE = 12


class Packed:
    """Records in memory, behind the sweep's look-up."""

    def __init__(self, records: Mapping[str, RunRecord]) -> None:
        self.records = records

    def record(self, config: RunConfig) -> RunRecord | None:
        """The record of a configuration."""
        return self.records.get(config.id)


def pack(folder: Path) -> None:
    """All records of a folder, one a line. Curves of runs that finished keep every tenth loss and the last; the exact
    claims need whole ones and are short."""
    lines = []
    for record in read_all(folder):
        data = record.to_dict()
        if len(record.curve) > 40:
            data["curve"] = data["curve"][::10]
        lines.append(json.dumps(_rounded(data), allow_nan=False, separators=(",", ":")))
    PACKED.parent.mkdir(parents=True, exist_ok=True)
    PACKED.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rounded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Norms and thinned curves to six digits."""
    found = dict(data)
    found["norms"] = {
        name: {key: float(f"{value:.6g}") for key, value in pair.items()}
        for name, pair in data["norms"].items()
    }
    if len(data["curve"]) != 30:
        found["curve"] = [None if loss is None else float(f"{loss:.6g}") for loss in data["curve"]]
    return found


def unpack() -> dict[str, RunRecord]:
    """The packed records by id."""
    lines = PACKED.read_text(encoding="utf-8").splitlines()
    found = [from_dict(json.loads(line), f"{PACKED.name} line {n}") for n, line in enumerate(lines, 1)]
    return {record.id: record for record in found}


def _figure(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3g}"


def _row(found: Found) -> str:
    measured = found.judgement.measured
    span = f" ({_figure(measured.low)} to {_figure(measured.high)})" if measured.low is not None else ""
    value = f"{_figure(measured.value)}{span}"
    cells = (found.claim.id, found.claim.statement, _figure(found.predicted), value, found.judgement.verdict)
    return "| " + " | ".join((*cells, str(len(found.runs)))) + " |"


def page(records: Mapping[str, RunRecord], seeds: int) -> str:
    """docs/evidence.md."""
    setting, packed = Setting(seeds=seeds), Packed(records)
    found = [judge(claim(name), setting, packed) for name in IDS]  # type: ignore[arg-type]
    missing = [item for item in found if math.isnan(item.judgement.measured.value)]
    judged = [item for item in found if item not in missing]
    hardware = Counter(
        f"{r.hardware.get('processor', 'unknown')}, {r.hardware.get('threads')} thread"
        for r in records.values()
    )
    versions = Counter(f"torch {r.versions['torch']}, peft {r.versions['peft']}" for r in records.values())
    lines = [
        "# Evidence of our own", "",
        "Written by `python tools/write_evidence.py` from the records in `data/runs/records.jsonl`. Rules were",
        "fixed before the runs ([how](methods.md)). Everything ran on a model of our own of 0.1 M parameters",
        "(`tiny`: width 64, 2 layers, 64 characters) on a CPU: a verdict here is about that set-up, not about models",
        "of billions. Verdicts rest on 120 steps unless a claim says otherwise; runs that no verdict rests on",
        "yet are kept among the records.",
        "",
        f"{len(records)} runs, {seeds} seeds; {'; '.join(hardware)}; {'; '.join(versions)}.", "",
        "| claim | statement | predicted | measured (95%) | verdict | runs |", "|---|---|---|---|---|---|",
        *(_row(item) for item in judged), "", "## Why", "",
    ]  # fmt: skip
    for item in judged:
        lines.append(
            f"- **{item.claim.id}**, {item.claim.unit}: {item.judgement.reason}. Rule: {item.claim.rule}."
        )
        if item.judgement.details:
            lines.append(f"  Details: `{json.dumps(_short(item.to_dict()['details']))}`")
    lines += ["", "## Not run, or not enough", ""]
    lines += [f"- **{item.claim.id}** {item.claim.statement} {_reason(item)}" for item in missing]
    return "\n".join(lines).rstrip() + "\n"


def _reason(item: Found) -> str:
    reason = item.judgement.reason
    return "Runs are missing." if reason.startswith("the budget") else f"{reason[0].upper()}{reason[1:]}."


def _short(value: Any) -> Any:
    """Figures to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


def main() -> int:
    """Pack, write, or with --check say whether the page is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where the page is out of date"
    )
    given = parser.parse_args()
    if given.folder is not None:
        pack(given.folder)
    text = page(unpack(), given.seeds)
    if given.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
