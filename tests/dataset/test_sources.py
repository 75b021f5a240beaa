"""The same rows out of every kind of file, plain and compressed, and out of folders."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from planner import dataset
from planner.errors import HubError, InputError
from tests.dataset import corpora

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}  # fmt: skip


def figures(path: Path, **options: Any) -> tuple[int, ...]:
    """What reading the same rows must agree in."""
    found = dataset(path, **options)
    assert found.broken == 0 and not [n for n in found.warnings if n.code == "named-otherwise"]
    return (found.examples, found.text_bytes, found.loss_bytes, found.duplicates_exact)


def table(rows: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found, _ = corpora.corpus("alpaca", 60, seed=4)
    return [*found, found[0]]


@pytest.fixture(scope="module")
def expected(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[int, ...]:
    """By hand: an instruction and its input are one message, the output what is learned."""
    learned = sum(len(row["output"].encode()) for row in rows)
    text = 0
    for row in rows:
        asked = f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]
        text += len(f"{asked}\n{row['output']}\n".encode())
    return (61, text, learned, 1)


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("kind", ["jsonl", "json", "object", "columns", "csv", "tsv"])
def test_text_files(
    kind: str, packed: str, rows: list[dict[str, Any]], expected: tuple[int, ...], tmp_path: Path
) -> None:
    data = {
        "jsonl": lambda: corpora.lines(rows),
        "json": lambda: json.dumps(rows, indent=2).encode(),
        "object": lambda: json.dumps({"version": "1", "data": rows}).encode(),
        "columns": lambda: json.dumps({key: [row[key] for row in rows] for key in rows[0]}).encode(),
        "csv": lambda: table(rows),
        "tsv": lambda: tabbed(rows),
    }[kind]()
    suffix = {"object": "json", "columns": "json"}.get(kind, kind)
    path = tmp_path / f"rows.{suffix}{packed}"
    path.write_bytes(PACKED[packed](data))
    found = figures(path)
    if kind in ("csv", "tsv"):  # a reader of CSV takes \r\n and \r inside quotes as they stand, and so do we
        assert found[0] == expected[0] and found[3] == expected[3]
    assert found == expected


def tabbed(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@pytest.mark.parametrize("kind", ["snappy", "zstd", "file", "stream"])
def test_columnar_files(
    kind: str, rows: list[dict[str, Any]], expected: tuple[int, ...], tmp_path: Path
) -> None:
    columns = pa.Table.from_pylist(rows)
    path = tmp_path / ("rows.arrow" if kind in ("file", "stream") else "rows.parquet")
    if kind in ("file", "stream"):
        make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as sink, make(sink, columns.schema) as writer:
            writer.write_table(columns, max_chunksize=7)
    else:
        parquet.write_table(columns, path, compression=kind, row_group_size=13)
    assert figures(path) == expected


def test_conversations_in_parquet(tmp_path: Path) -> None:
    """Nested columns, in which every message has every key that any of them has."""
    found, _ = corpora.corpus("messages", 40, seed=8)
    found[3]["messages"][0]["name"] = "Ann"
    plain, columnar = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    plain.write_bytes(corpora.lines(found))
    parquet.write_table(pa.Table.from_pylist(found), columnar)
    assert figures(columnar) == figures(plain)


def test_folders_that_datasets_saved(
    rows: list[dict[str, Any]], expected: tuple[int, ...], tmp_path: Path
) -> None:
    import datasets

    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(tmp_path / "one")
    assert figures(tmp_path / "one") == expected
    datasets.DatasetDict({"train": whole, "test": whole.select(range(5))}).save_to_disk(tmp_path / "two")
    assert figures(tmp_path / "two") == expected
    assert figures(tmp_path / "two", split="test")[0] == 5
    # An order and a selection are kept as indices beside the data.
    whole.shuffle(seed=1).select(range(20)).save_to_disk(tmp_path / "three")
    assert figures(tmp_path / "three")[0] == 20
    with pytest.raises(InputError, match="It has train, test"):
        dataset(tmp_path / "two", split="tets")


def test_a_folder_of_files_with_splits(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("# About")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "data" / "train-00000-of-00002.jsonl").write_bytes(corpora.lines(rows[:20]))
    (tmp_path / "data" / "train-00001-of-00002.jsonl.gz").write_bytes(
        gzip.compress(corpora.lines(rows[20:30]))
    )
    parquet.write_table(pa.Table.from_pylist(rows[30:35]), tmp_path / "data" / "test-00000-of-00001.parquet")
    found = dataset(tmp_path)
    assert found.examples == 30 and {file.split for file in found.files} == {"train"}
    assert [n.message for n in found.warnings if n.code == "splits-left-out"] == [
        "Read: train. Left out: test."
    ]
    assert dataset(tmp_path, split="test").examples == 5
    with pytest.raises(InputError, match="It has test, train"):
        dataset(tmp_path, split="dev")


def test_data_sets_of_the_hub_are_streamed(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]
) -> None:
    """The library's own iterable data set, made here instead of on the hub."""
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, *, split: str | None, streaming: bool) -> Any:
        asked.append((name, config, split, streaming))

        def generate() -> Iterator[dict[str, Any]]:
            yield from rows

        made = datasets.IterableDataset.from_generator(generate)
        return made if split else datasets.IterableDatasetDict({"test": made, "train": made})

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("planner.architecture.hub._reachable", lambda endpoint: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = dataset("someone/alpaca", config="en")
    assert (found.examples, found.duplicates_exact, found.broken) == (61, 1, 0)
    assert dataset("someone/alpaca", split="test").examples == 61
    assert asked == [("someone/alpaca", "en", None, True), ("someone/alpaca", None, "test", True)]


def test_without_a_network_the_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.architecture.hub._reachable", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match="cannot be reached"):
        dataset("someone/no-such-data")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-named", "latin-1-named"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    """Marks are read; others are named."""
    path = tmp_path / "rows.jsonl"
    name = encoding.removesuffix("-named")
    path.write_bytes('{"text": "größer"}\n{"text": "Übung"}\n'.encode(name))
    found = dataset(path, encoding=name if encoding.endswith("-named") else None)
    assert (found.examples, found.broken, found.text_bytes) == (2, 0, len("größerÜbung".encode()))
