"""Write docs/evidence.md and data/runs/records.jsonl from a folder of run records.

    python tools/write_evidence.py [FOLDER] [--check]

With FOLDER its records are first packed into data/runs/records.jsonl, one a line, ordered by id; records that are
there already are kept. The page is then made from that file alone: every claim judged by its rule
on every model whose runs are all there. Claims whose runs are missing are named as not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.validate.kept import Kept, load
from planner.validate.records import RunRecord, read_all

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.evidence_page import page

ROOT = Path(__file__).resolve().parent.parent
PACKED = ROOT / "data" / "runs" / "records.jsonl"
PAGE = ROOT / "docs" / "evidence.md"
LONG_CURVE, KEPT_EVERY = 40, 10


def packed_line(record: RunRecord) -> str:
    """A record on one line. Long curves keep every tenth loss; the exact claims need whole ones, which are short."""
    data = record.to_dict()
    if len(record.curve) > LONG_CURVE:
        data["curve"] = data["curve"][::KEPT_EVERY]
    return json.dumps(_rounded(data), allow_nan=False, separators=(",", ":"))


def pack(folder: Path) -> None:
    """All records of a folder and those packed before, by id."""
    lines = {}
    if PACKED.exists():
        lines = {json.loads(line)["id"]: line for line in PACKED.read_text(encoding="utf-8").splitlines()}
    for record in read_all(folder):
        lines.setdefault(record.id, packed_line(record))
    PACKED.parent.mkdir(parents=True, exist_ok=True)
    PACKED.write_text("\n".join(lines[name] for name in sorted(lines)) + "\n", encoding="utf-8")


def _rounded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Thinned curves to six digits; of the norms, which are many with experts, the spectral ones to five."""
    found = dict(data)
    found["norms"] = {
        name: {key: float(f"{value:.5g}") for key, value in pair.items() if key in ("a", "b", "change")}
        for name, pair in data["norms"].items()
    }
    if len(data["curve"]) != 30:
        found["curve"] = [None if loss is None else float(f"{loss:.6g}") for loss in data["curve"]]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, write, or with --check say whether the page is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where the page is out of date"
    )
    given = parser.parse_args(arguments)
    if given.folder is not None:
        pack(given.folder)
    text = page(Kept(load(PACKED)))
    if given.check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
