"""A sweep's CSV file as a raw frame: encoding, header, separator, decimal sign. What is wrong is named by its line.

Columns are separated by commas; by semicolons or tabs where the header has these and no comma, and then a decimal
comma is read as one (the CSV of spreadsheets in much of Europe). UTF-16 is read where a byte-order mark says so, as
spreadsheets save "Unicode text". A column without a name is not used, and not spoken of where it is empty.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from .text_file import EXPECTED, BadBytesError, decode

# Tables of others that are read as they are: their word for the loss -> (their words for ours, what is understood).
DIALECTS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "test_nll_nats_per_token": ({"test_nll_nats_per_token": "loss"}, {"method": "lora"}),
}
NUMBERS = ("hidden_size", "rank", "lr", "loss")
COUNTS = ("hidden_size", "rank", "steps", "batch")  # a comma in one of these is no decimal sign
READABLE = "a readable CSV file in UTF-8"
MOST_CHARACTERS = 100_000  # of a field in the first two lines
NO_NAME = re.compile(r"column \d+ \(no name\)")


def check_header(names: list[str], label: str) -> None:
    """Each column stands once, in whatever case."""
    seen: dict[str, str] = {}
    for column in names:
        if column and (before := seen.get(column.lower())) is not None:
            also = "" if before == column else f"There is {before} as well."
            raise InputError(f"{label} line 1, column {column}", column, "each column once", also)
        seen[column.lower()] = column


def _separator(header: str) -> str:
    return "," if "," in header else ";" if ";" in header else "\t" if "\t" in header else ","


def _text(path: Path) -> tuple[str, str]:
    """The file's text and its encoding; refuses what is no text by its line and column."""
    try:
        return decode(path.read_bytes())
    except BadBytesError as error:
        header = (error.before.splitlines() or [""])[0]
        separator = _separator(header or error.in_line)
        names, number = header.split(separator), error.in_line.count(separator)
        named = error.line > 1 and number < len(names) and names[number].strip()
        column = names[number].strip() if named else str(number + 1)
        where = f"{path.name} line {error.line}, column {column[:80]}"
        raise InputError(where, error.found, EXPECTED, error.remedy) from error
    except OSError as error:
        raise InputError("sweep", str(path), READABLE, f"{error.strerror}.") from error


def _first_rows(path: Path, text: str, separator: str) -> tuple[list[str], list[str] | None]:
    """The fields of the header and of the line after it."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names, first = next(rows, []), next(rows, None)
    except csv.Error as error:
        found = f"a field of over {MOST_CHARACTERS:,} characters"
        if "field larger" not in str(error):
            raise InputError(f"{path.name} line {rows.line_num}", str(error), READABLE) from error
        raise InputError(f"{path.name} line {rows.line_num}", found, "shorter fields") from error
    for line, fields in enumerate((names, first or ()), 1):  # the module's own limit is the whole process's
        if any(len(field) > MOST_CHARACTERS for field in fields):
            raise InputError(
                f"{path.name} line {line}",
                f"a field of over {MOST_CHARACTERS:,} characters",
                "shorter fields",
            )
    return [name.strip() for name in names], first


def _header(path: Path, text: str) -> tuple[list[str], str]:
    """The names in the first line and what separates them; refuses a second line that has more fields."""
    line = text[: 4 * MOST_CHARACTERS].split("\n", 1)[0].strip()
    if re.fullmatch("sep=.", line):
        raise InputError(f"{path.name} line 1", line, "the names of the columns", "Delete this line.")
    separator = _separator(line)
    names, first = _first_rows(path, text, separator)
    if not any(names):
        reason = "Its first line is blank." if first is not None else "The file is empty."
        raise InputError("sweep", str(path), "a header line and runs", reason)
    check_header(names, path.name)
    if first and len(first) > len(names):
        raise InputError(
            f"{path.name} line 2", f"{len(first)} fields", f"{len(names)}, as in the header",
            "Numbers with a decimal comma need semicolons between the columns." if separator == "," else "",
        )  # fmt: skip
    return [name or f"column {i} (no name)" for i, name in enumerate(names, start=1)], separator


def read_csv(path: Path) -> pd.DataFrame:
    """The file as a frame with `line`: texts as categories, numbers as numbers where a column holds nothing else."""
    text, encoding = _text(path)
    header, separator = _header(path, text)
    del text  # of a million runs some 60 MB, which pandas reads again
    ours = [next((new[c] for new, _ in DIALECTS.values() if c in new), c.lower()) for c in header]
    options: dict[str, Any] = {
        "names": header, "header": 0, "skip_blank_lines": False,
        "encoding": "utf-8-sig" if encoding == "utf-8" else encoding, "skipinitialspace": True,
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
    blank = [name for name in header if NO_NAME.fullmatch(name) and frame[name].isna().all()]
    frame = frame.drop(columns=blank)
    header = [name for name in header if name not in blank]
    frame["line"] = range(2, len(frame) + 2)
    return frame.dropna(how="all", subset=header)


def _with_points(frame: pd.DataFrame) -> None:
    """Decimal commas as points in the columns that were read as texts."""
    number = re.compile(r"(-?\d+),(\d+(e[-+]?\d+)?)", re.IGNORECASE)
    for column in frame.columns:
        values = frame[column]
        if column.lower() in COUNTS or not isinstance(values.dtype, pd.CategoricalDtype):
            continue
        texts = [old for old in values.cat.categories if isinstance(old, str)]
        new = {old: number.sub(r"\1.\2", old) for old in texts if number.fullmatch(old)}
        if new:
            frame[column] = values.astype(object).replace(new).astype("category")


def _unreadable(path: Path, error: Exception) -> InputError:
    """What the reader stumbled over, by its line where that is known."""
    text = str(error).strip().removeprefix("Error tokenizing data. C error: ")
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        wanted, line, seen = found.groups()
        return InputError(f"{path.name} line {line}", f"{seen} fields", f"{wanted}, as in the header")
    if "EOF inside string" in text:
        return InputError(path.name, "a quotation mark that is not closed", "an even number of them")
    return InputError(path.name, text, READABLE)
