"""Read tinker-cookbook's page of sweep results into the two tables that ship.

    python tools/import_sweep.py sft_sweep.md [--check]

`sft_sweep.md` is the page as its repository has it (data/sweeps/SOURCES.csv). The models of tinker_sft.csv, on which
laws are fitted, must come out as they are there; all others go into tinker_sft_blind.csv, on which nothing is fitted
and nothing chosen. Widths come from the catalogue. Rates of a model's grid that its table lacks are written as
`diverged_or_missing`, since the page does not say which of the two they are."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from pathlib import Path

from planner import estimate, facts

FIELDS = ("model", "hidden_size", "lr", "rank", "test_nll_nats_per_token", "train_nll", "wall_min", "status")
FOLDER = facts.data_dir() / "sweeps"
ROW = re.compile(r"^\| ([\d.e-]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
Row = dict[str, str]


def section_rows(model: str, text: str, width: int) -> list[Row]:
    """The runs of a model's section, and its grid's rates that are not among them."""
    grids = [
        json.loads(found)
        for found in re.findall(r"^- (?:Learning rates|LoRA ranks): (\[.*\])$", text, re.MULTILINE)
    ]
    rates, ranks = grids
    rows = []
    for lr, rank, *measured in ROW.findall(text):
        numbers = [str(float(one)) for one in measured]
        values = (model, str(width), str(float(lr)), rank, *numbers, "ok")
        rows.append(dict(zip(FIELDS, values, strict=True)))
    done = {(float(row["lr"]), int(row["rank"])) for row in rows}
    for rank in ranks:
        for lr in rates:
            if (lr, rank) not in done:
                values = (model, str(width), str(lr), str(rank), "", "", "", "diverged_or_missing")
                rows.append(dict(zip(FIELDS, values, strict=True)))
    return rows


def sections(page: str) -> dict[str, str]:
    """The text of each model's section."""
    parts = re.split(r"^## (\S+/\S+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def as_csv(rows: list[Row]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def key(row: Row) -> tuple[str, ...]:
    """A run apart from its place in the file and from how numbers are spelled."""
    return tuple(
        str(float(row[name])) if row[name] and name not in ("model", "status") else row[name]
        for name in FIELDS
    )


def main() -> int:
    """Compare the shipped table with the page, and write the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table differs")
    options = parser.parse_args()
    found = sections(options.page.read_text(encoding="utf-8"))
    with (FOLDER / "tinker_sft.csv").open(encoding="utf-8", newline="") as file:
        shipped = list(csv.DictReader(file))
    widths = {row["model"]: int(row["hidden_size"]) for row in shipped}
    blind, same = [], True
    for model, text in found.items():
        width = widths.get(model) or estimate(model=model).model.hidden_size
        rows = section_rows(model, text, int(width))
        if model not in widths:
            blind += rows
        elif sorted(map(key, rows)) != sorted(key(row) for row in shipped if row["model"] == model):
            print(f"{model} differs from tinker_sft.csv")
            same = False
    target = FOLDER / "tinker_sft_blind.csv"
    made = as_csv(blind)
    if options.check:
        same &= target.is_file() and target.read_text(encoding="utf-8") == made
    else:
        target.write_text(made, encoding="utf-8")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
