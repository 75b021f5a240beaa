"""What a path holds: data files with their kinds and splits, by content first and by name second."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..schema import Notice
from .formats import RowError, recognise
from .records import Row, csv_rows, json_document, json_lines, parse_json, text_lines
from .streams import Stream, compression, head

FileKind = Literal["jsonl", "json", "csv", "text", "parquet", "arrow", "saved"]
SUFFIXES: dict[str, FileKind] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text",
    ".text": "text", ".md": "text", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow",
}  # fmt: skip
PACKED = (".gz", ".gzip", ".zst", ".zstd", ".xz", ".bz2")
FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it first", b"%PDF": "a PDF", b"SQLite format": "an SQLite database",
    b"\x89HDF": "an HDF5 file", b"\x80\x04": "a pickle, which may run code when read", b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture", b"7z\xbc\xaf": "a 7z archive: unpack it first",
}  # fmt: skip
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "metadata.json")
SPLIT = re.compile(r"(?:^|[-_./\\])(train(?:ing)?|valid(?:ation)?|val|dev|eval|test(?:ing)?)(?=$|[-_./\\\d])")
SPLIT_NAMES = {
    "training": "train", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class DataFile:
    """A file to read (or, for "saved", a folder). `label` names it in messages."""

    path: Path
    label: str
    kind: FileKind
    split: str | None = None
    suffix: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        if self.kind == "saved":
            return sum(path.stat().st_size for path in self.path.glob("*.arrow"))
        return self.path.stat().st_size


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in front of one that says how it is packed."""
    names = [suffix.lower() for suffix in path.suffixes]
    if names and names[-1] in PACKED:
        names.pop()
    return names[-1] if names else ""


def _json_kind(start: bytes, by_name: FileKind | None) -> FileKind:
    """Lines or one document, for content that begins with a brace."""
    first = start.split(b"\n", 1)[0]
    value, error = parse_json(first)
    if error is None:
        others = start[len(first) :].strip()
        if others or by_name == "jsonl":
            return "jsonl"
        if by_name == "json":
            return "json"
        try:
            recognise(value)
            return "jsonl"
        except RowError:
            return "json"
    return by_name if by_name in ("json", "jsonl") else "json"


def _by_content(path: Path, by_name: FileKind | None, encoding: str | None) -> FileKind | None:
    """What the first bytes say, or None where they say nothing. Raises InputError for what is no data file."""
    with path.open("rb") as file:
        raw = file.read(16)
    for magic, what in FOREIGN.items():
        if raw.startswith(magic):
            raise InputError(
                "data", str(path), "JSON lines, JSON, Parquet, Arrow, CSV or text", f"It is {what}."
            )
    start = head(path, encoding)
    if start[:4] in (b"PAR1", b"ARRO") or start[:4] == b"\xff\xff\xff\xff":
        if compression(raw):
            raise InputError("data", str(path), "Parquet or Arrow as it is", "Decompress it first.")
        return "parquet" if start[:4] == b"PAR1" else "arrow"
    text = start.lstrip()
    if text.startswith(b"{"):
        return _json_kind(text, by_name)
    if text.startswith(b"[") and by_name != "csv":
        first = text.split(b"\n", 1)[0]
        return (
            "jsonl"
            if by_name == "jsonl" and parse_json(first)[1] is None and b"\n" in text.rstrip()
            else "json"
        )
    if by_name in ("jsonl", "json", "parquet", "arrow") and text:
        names = re.split(rb"[,;\t|]", text.split(b"\n", 1)[0].strip())
        words = {name.strip().strip(b'"').decode("utf-8", "replace") for name in names}
        try:
            recognise(dict.fromkeys(words, ""))
            return "csv"
        except RowError:
            return None
    return None


def data_file(path: Path, label: str, encoding: str | None = None) -> tuple[DataFile, Notice | None]:
    """One file with its kind, and a notice where its name says another."""
    suffix = suffix_of(path)
    by_name = SUFFIXES.get(suffix)
    found = _by_content(path, by_name, encoding)
    kind = found or by_name or "text"
    notice = None
    if found is not None and found != by_name and not (by_name == "json" and found == "jsonl"):
        what = {"jsonl": "JSON lines", "json": "a JSON document", "csv": "CSV", "parquet": "Parquet"}
        shown = suffix or "without a suffix"
        notice = Notice(
            "named-otherwise", f"{label} is named {shown} and holds {what.get(kind, kind)}: read so."
        )
    elif kind in ("parquet", "arrow") and found is None:
        if not path.stat().st_size:
            return DataFile(path, label, "text", None, suffix), None
        raise InputError("data", str(path), f"a file of {kind}", "Its content is something else.")
    return DataFile(path, label, kind, None, suffix), notice


def _split_of(label: str) -> str | None:
    found = SPLIT.findall(label.lower())
    return SPLIT_NAMES.get(found[-1], found[-1]) if found else None


def _saved(path: Path) -> list[DataFile] | None:
    """The splits of a folder that `datasets` saved, or None where it is none."""
    description = path / "dataset_dict.json"
    if description.is_file():
        try:
            names = json.loads(description.read_text(encoding="utf-8"))["splits"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError("data", str(description), "a list of splits", f"{error}.") from error
        return [DataFile(path / name, f"{name}/", "saved", str(name)) for name in names]
    if (path / "state.json").is_file():
        return [DataFile(path, f"{path.name}/", "saved")]
    return None


def _candidates(path: Path) -> list[Path]:
    found = []
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if any(part.startswith((".", "_")) for part in parts) or not file.is_file():
            continue
        if file.name not in DESCRIPTIONS and not file.name.lower().startswith(("readme", "license")):
            found.append(file)
    return found


def _folder(path: Path, encoding: str | None) -> tuple[list[DataFile], list[Notice]]:
    files, notices, others = [], [], []
    for file in _candidates(path):
        if suffix_of(file) not in SUFFIXES:
            others.append(file.name)
            continue
        found, notice = data_file(file, str(file.relative_to(path)), encoding)
        files.append(replace(found, split=_split_of(found.label)))
        notices += [notice] if notice else []
    if not files:
        held = f"It holds {', '.join(others[:3])}." if others else "It is empty."
        raise InputError("data", str(path), "a folder with data files", held)
    if others:
        notices.append(
            Notice("files-left-out", f"{len(others)} files are no data and are left out, as {others[0]}.")
        )
    return files, notices


def _chosen(files: Sequence[DataFile], split: str | None, path: Path) -> tuple[list[DataFile], list[Notice]]:
    """The files of one split: the one asked for, train where there are several, or all."""
    names = list(dict.fromkeys(file.split for file in files if file.split))
    if split is None:
        if len(names) < 2:
            return list(files), []
        split = "train" if "train" in names else names[0]
    elif split not in names:
        listed = f"It has {', '.join(names)}." if names else "It has no splits."
        raise InputError("split", split, "a split of the data", listed)
    kept = [file for file in files if file.split == split]
    left = [name for name in names if name != split] + (
        ["files of no split"] if None in {f.split for f in files} else []
    )
    notices = [Notice("splits-left-out", f"Read: {split}. Left out: {', '.join(left)}.")] if left else []
    return kept, notices


def find(
    path: Path, split: str | None = None, encoding: str | None = None
) -> tuple[list[DataFile], list[Notice]]:
    """The data files of a file or folder, those of one split where there are several. Raises InputError."""
    if path.is_dir():
        saved = _saved(path)
        files, notices = (saved, []) if saved is not None else _folder(path, encoding)
        kept, more = _chosen(files, split, path)
        return kept, [*notices, *more]
    if not path.is_file():
        raise InputError("data", str(path), "a file, a folder or the name of a data set on the hub")
    file, notice = data_file(path, path.name, encoding)
    if split is not None:
        raise InputError("split", split, "no split: this is one file")
    return [file], [notice] if notice else []


def rows(file: DataFile, stream: Stream | None, more: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a file; `stream` is its open stream where it is read as bytes, `more` names columns that a table
    is read with beside those that are known."""
    if file.kind in ("parquet", "arrow", "saved") or stream is None:
        from . import tables

        reader = {"parquet": tables.parquet_rows, "arrow": tables.arrow_rows, "saved": tables.saved_rows}
        return reader[file.kind](file.path, more)
    if file.kind == "csv":
        return csv_rows(stream, file.suffix)
    return {"jsonl": json_lines, "json": json_document, "text": text_lines}[file.kind](stream)
