"""Data files that a browser sent: counted at once, and forgotten but for what was counted.

A file is read as `lora-plan dataset` reads it, without a tokenizer (the page calls no hub): tokens are bytes over a
usual number of bytes a token, with an interval. What is kept is the report, under a key that nobody can guess, for as
long as the server runs, and the newest 64 of them.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..dataset.result import DatasetReport

MOST_BYTES = 32 << 20
MOST_KEPT = 64
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
_KEPT: OrderedDict[str, DatasetReport] = OrderedDict()
_LOCK = threading.Lock()


def plain_name(name: str) -> str:
    """A file's own name, of letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", os.path.basename(name.replace("\\", "/")))[-80:] or "data"


def take(path: str | os.PathLike[str], name: str) -> str:
    """Read a data file, keep its report and return the report's key. Raises a PlannerError."""
    from ..dataset import dataset
    from ..dataset.streams import compression

    shown, place = plain_name(name), Path(path)
    if place.stat().st_size > MOST_BYTES:
        raise InputError("data", shown, f"at most {MOST_BYTES >> 20} MiB; lora-plan dataset reads any size")
    with place.open("rb") as stream:
        packed = compression(stream.read(16))
    if not shown.lower().endswith(ENDINGS) or packed:
        raise InputError("data", shown, f"a file of {', '.join(ENDINGS)}, not compressed")
    try:
        report = dataset(place)
    except InputError as error:
        raise InputError(error.field, shown, error.expected) from None
    if not report.examples:
        first = f"The first: {report.broken_rows[0].reason}." if report.broken_rows else ""
        raise InputError("data", shown, "at least one row that can be used", first)
    shape = replace(report.shape, data=shown, files=(shown,)) if report.shape else None
    key = secrets.token_urlsafe(9)
    with _LOCK:
        _KEPT[key] = replace(report, data=shown, shape=shape)
        while len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return key


def report_of(key: str) -> DatasetReport:
    """What was read under a key. Raises InputError where it is not kept (any more)."""
    with _LOCK:
        found = _KEPT.get(key)
    if found is None:
        raise InputError("data", key[:20], "a file that was read on this page", "Choose the file again.")
    return found
