"""Rows out of Parquet and Arrow files and out of folders that Hugging Face's `datasets` saved. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependencyError
from .formats import COLUMNS
from .records import Row

BATCH_ROWS = 256


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingDependencyError(
            "Parquet and Arrow files need an extra: pip install 'lora-plan[data]'."
        ) from None
    return pyarrow


def plain(value: Any) -> Any:
    """Times, decimals and bytes as text; the rest as it is."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _known(names: Sequence[str], more: Collection[str]) -> list[str] | None:
    """The columns worth reading (other ones, as images, embeddings and scores, stay on disk), with `more` that are
    renamed; None for all where none is known."""
    found = [name for name in names if name in COLUMNS or name in more]
    return found or None


def _rows(batches: Iterator[Any], first: int = 0) -> Iterator[Row]:
    number = first
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for row in batch.slice(start, BATCH_ROWS).to_pylist():
                number += 1
                yield number, plain(row), None


def _reason(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def parquet_rows(path: Path, more: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a Parquet file; numbers count rows. What cannot be read ends it."""
    _arrow()
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            columns = _known(file.schema_arrow.names, more)
            batches = file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False)
            for number, row, error in _rows(batches):
                yield number, row, error
    except (OSError, ValueError, RuntimeError) as error:  # pyarrow's own are among these
        yield number + 1, None, f"cannot be read: {_reason(error)}"


def _record_batches(path: Path, more: Collection[str] = ()) -> Iterator[Any]:
    """The record batches of an Arrow file or stream, known columns only."""
    pyarrow = _arrow()
    with pyarrow.OSFile(str(path)) as file:
        if file.read(6) == b"ARROW1":
            file.seek(0)
            reader = pyarrow.ipc.open_file(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            file.seek(0)
            reader = pyarrow.ipc.open_stream(file)
            batches = iter(reader)
        names = _known(reader.schema.names, more)
        for batch in batches:
            yield batch.select(names) if names else batch


def arrow_rows(path: Path, more: Collection[str] = (), first: int = 0) -> Iterator[Row]:
    """The rows of an Arrow file or stream, numbered from `first` + 1."""
    number = first
    try:
        for number, row, error in _rows(_record_batches(path, more), first):
            yield number, row, error
    except (OSError, ValueError) as error:
        yield number + 1, None, f"cannot be read: {_reason(error)}"


def saved_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The Arrow files of a folder that `save_to_disk` wrote, and those of its indices (a selection or an order)."""
    state_file = folder / "state.json"
    if not state_file.is_file():
        return sorted(folder.glob("*.arrow")), []
    try:
        state = json.loads(state_file.read_text(encoding="utf-8"))
        data = [folder / entry["filename"] for entry in state.get("_data_files") or []]
        indices = [folder / entry["filename"] for entry in state.get("_indices_data_files") or []]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError("data", str(state_file), "the state of a saved data set", f"{error}.") from error
    missing = [path.name for path in (*data, *indices) if not path.is_file()]
    if missing:
        raise InputError("data", str(folder), "a complete saved data set", f"It lacks {', '.join(missing)}.")
    return data, indices


def saved_rows(folder: Path, more: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a folder that `save_to_disk` wrote, in its order."""
    data, indices = saved_files(folder)
    if not indices:
        first = 0
        for path in data:
            for row in arrow_rows(path, more, first):
                first = row[0]
                yield row
        return
    yield from _selected(data, indices, more)


def _selected(data: Sequence[Path], indices: Sequence[Path], more: Collection[str]) -> Iterator[Row]:
    """Rows by their indices, from mapped files, so that a selection need not be held."""
    pyarrow = _arrow()
    number = 0
    try:
        tables = [pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all() for path in data]
        table = pyarrow.concat_tables(tables)
        names = _known(table.schema.names, more)
        table = table.select(names) if names else table
        for path in indices:
            for batch in _record_batches(path):
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    chosen = batch.column(0).slice(start, BATCH_ROWS)
                    for row in table.take(chosen).to_pylist():
                        number += 1
                        yield number, plain(row), None
    except (OSError, ValueError) as error:
        yield number + 1, None, f"cannot be read: {_reason(error)}"
