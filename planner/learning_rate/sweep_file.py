"""A sweep's CSV file as a raw frame: header, separator, decimal sign. What is wrong is named by its line.

Columns are separated by commas; by semicolons or tabs where the header has these and no comma, and then a decimal
comma is read as one (the CSV of spreadsheets in much of Europe).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError

# Tables of others that are read as they are: their word for the loss -> (their words for ours, what is understood).
DIALECTS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "test_nll_nats_per_token": ({"test_nll_nats_per_token": "loss"}, {"method": "lora"}),
}
NUMBERS = ("hidden_size", "rank", "lr", "loss")
COUNTS = ("hidden_size", "rank", "steps", "batch")  # a comma in one of these is no decimal sign
READABLE = "a readable CSV file in UTF-8"


def check_header(names: list[str], label: str) -> None:
    """Each column stands once, in whatever case."""
    seen: dict[str, str] = {}
    for column in names:
        if (before := seen.get(column.lower())) is not None:
            also = "" if before == column else f"There is {before} as well."
            raise InputError(f"{label} line 1, column {column}", column, "each column once", also)
        seen[column.lower()] = column


def _header(path: Path) -> tuple[list[str], str]:
    """The names in the first line and what separates them; refuses a second line that has more fields."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.readline()
            separator = "," if "," in text else ";" if ";" in text else "\t" if "\t" in text else ","
            file.seek(0)
            rows = csv.reader(file, delimiter=separator)
            names = [name.strip() for name in next(rows, [])]
            first = next(rows, None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("sweep", str(path), READABLE, f"{reason}.") from error
    if not any(names):
        reason = "Its first line is blank." if first is not None else "The file is empty."
        raise InputError("sweep", str(path), "a header line and runs", reason)
    check_header(names, path.name)
    if first and len(first) > len(names):
        raise InputError(
            f"{path.name} line 2", f"{len(first)} fields", f"{len(names)}, as in the header",
            "Numbers with a decimal comma need semicolons between the columns." if separator == "," else "",
        )  # fmt: skip
    return names, separator


def read_csv(path: Path) -> pd.DataFrame:
    """The file as a frame with `line`: texts as categories, numbers as numbers where a column holds nothing else."""
    header, separator = _header(path)
    ours = [next((new[c] for new, _ in DIALECTS.values() if c in new), c.lower()) for c in header]
    options: dict[str, Any] = {
        "names": header, "header": 0, "skip_blank_lines": False, "encoding": "utf-8-sig", "skipinitialspace": True,
        "keep_default_na": False, "na_values": [""], "sep": separator,
    }  # fmt: skip
    frame = None
    try:
        for decimal in (".", ",") if separator != "," else (".",):
            numeric = [name for name in NUMBERS if decimal == "." or name not in COUNTS]
            dtypes = {c: "float64" if o in numeric else "category" for c, o in zip(header, ours, strict=True)}
            try:
                frame = pd.read_csv(path, dtype=dtypes, decimal=decimal, **options)
                break
            except (ValueError, TypeError) as error:
                if isinstance(error, pd.errors.ParserError):
                    raise
        if frame is None:
            frame = pd.read_csv(path, dtype=dict.fromkeys(header, "category"), **options)
    except (OSError, ValueError) as error:  # ParserError and UnicodeDecodeError are ValueErrors
        raise _unreadable(path, error) from error
    if separator != ",":
        _with_points(frame)
    frame["line"] = range(2, len(frame) + 2)
    return frame.dropna(how="all", subset=header)


def _with_points(frame: pd.DataFrame) -> None:
    """Decimal commas as points in the columns that were read as texts."""
    number = re.compile(r"(-?\d+),(\d+(e[-+]?\d+)?)", re.IGNORECASE)
    for column in frame.columns:
        values = frame[column]
        if column.lower() in COUNTS or not isinstance(values.dtype, pd.CategoricalDtype):
            continue
        texts = {old: old for old in values.cat.categories if isinstance(old, str)}
        new = {old: number.sub(r"\1.\2", old) if number.fullmatch(old) else old for old in texts}
        if len(set(new.values())) == len(values.cat.categories):
            frame[column] = values.cat.rename_categories(new)


def _unreadable(path: Path, error: Exception) -> InputError:
    """What the reader stumbled over, by its line where that is known."""
    text = str(error).strip().removeprefix("Error tokenizing data. C error: ")
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        wanted, line, seen = found.groups()
        return InputError(f"{path.name} line {line}", f"{seen} fields", f"{wanted}, as in the header")
    if "EOF inside string" in text:
        return InputError(path.name, "a quotation mark that is not closed", "an even number of them")
    return InputError(path.name, text, READABLE)
