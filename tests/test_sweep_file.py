"""The bytes of a sweep's file: encodings, foreign bytes, separators, names of columns. Each fault has its place."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.cli import main
from planner.errors import InputError
from planner.learning_rate.law_file import read_law
from planner.learning_rate.sweep import Sweep, read_sweep
from planner.learning_rate.text_file import BadBytesError, decode

HEADER = "model,family,hidden_size,method,rank,lr,loss"
ROWS = [f"{m},llama,{w},lora,8,{lr},{0.7 + lr * 100}" for m, w in (("a", 2048), ("b", 4096))
        for lr in (1e-4, 3e-4, 1e-3)]  # fmt: skip
GOOD = "\n".join([HEADER, *ROWS]) + "\n"
SEMICOLONS = GOOD.replace(",", ";").replace(".", ",")


def read(folder: Path, data: str | bytes) -> Sweep:
    path = folder / "sweep.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_sweep(path)


MARKED = {
    "UTF-8 with a mark": GOOD.encode("utf-8-sig"),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16, the other order": b"\xfe\xff" + GOOD.encode("utf-16-be"),
    "UTF-32": GOOD.encode("utf-32"),
    "tabs in UTF-16, as Excel's Unicode text": GOOD.replace(",", "\t").encode("utf-16"),
    "semicolons and decimal commas in UTF-16": SEMICOLONS.encode("utf-16"),
    "semicolons, one decimal comma among points": GOOD.replace(",", ";").replace("0.71", "0,71").encode(),
    "lines that end in CR": GOOD.replace("\n", "\r").encode(),
    "an empty column at the end": GOOD.replace("\n", ",\n").encode(),
    "two empty columns at the end": GOOD.replace("\n", ",,\n").encode(),
}


@pytest.mark.parametrize("case", MARKED)
def test_what_is_plain_is_read(case: str, tmp_path: Path) -> None:
    plain, other = read(tmp_path, GOOD).runs, read(tmp_path, MARKED[case])
    for column in ("model", "family", "hidden_size", "rank", "lr", "loss", "line"):
        assert plain[column].tolist() == other.runs[column].tolist()
    assert not other.warnings


LATIN = GOOD.replace("b,llama", "b,ll\xe4ma", 1).encode("latin-1")
CUT = GOOD.encode("utf-16")[:-1]
FAULTS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "Latin-1": (LATIN, ("line 5, column family", "0xe4", "it is ä", "as UTF-8")),
    "Latin-1 in the header": (GOOD.replace("rank", "r\xe4nk").encode("latin-1"), ("line 1, column 5", "0xe4")),
    "a NUL byte": (GOOD.replace("0.71", "0.7\x001", 1).encode(), ("line 2, column loss", "NUL")),
    "NUL bytes after a crash": (GOOD.encode() + b"\0" * 512, ("line 8", "NUL", "cut short")),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), ("line 1", "NUL", "without a byte-order mark")),
    "UTF-16 cut short": (CUT, ("line 7, column loss", "UTF-16", "cut short")),
    "UTF-32 without a mark": (GOOD.encode("utf-32-be"), ("line 1", "NUL", "without a byte-order mark")),
    "a workbook": (b"PK\x03\x04\x14\0\6\0" + b"x" * 40, ("line 1", "xlsx", "CSV")),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\xff" * 40, ("line 1", "gzip")),
    "a bell in a name": (GOOD.replace("b,", "b\7,", 1).encode(), ("line 5, column model", "visible")),
    "a second mark in the middle": (GOOD.replace("b,", "\ufeffb,", 1).encode(), ("line 5, column model",)),
    "a name of 200,000 letters": (GOOD.replace("b,", "b" * 200_000 + ",", 1).encode(),
                                  ("line 5, column model", "1,000")),
    "a header of 200,000 letters": (GOOD.replace("loss", "l" * 200_000, 1).encode(), ("line 1", "shorter")),
    "a rate of 400 digits": (GOOD.replace("0.0001", "9" * 400, 1).encode(), ("line 2, column lr", "inf")),
    "the header again": (GOOD.replace("\nb,", f"\n{HEADER}\nb,", 1).encode(), ("line 5, column", "header stands")),
    "no name where rank is": (GOOD.replace("rank", "", 1).encode(), ("no column rank", "column 5 (no name)")),
    "bars": (GOOD.replace(",", "|").encode(), ("line 1", "commas, semicolons or tabs")),
    "a spreadsheet's mark": (b"sep=;\n" + SEMICOLONS.encode(), ("line 1", "sep=;", "Delete")),
    "decimal commas between commas": (GOOD.replace("0.7", "0,7").encode(), ("line 2", "8 fields", "semicolons")),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_by_its_place(case: str, tmp_path: Path) -> None:
    data, words = FAULTS[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path, data)
    message = str(caught.value)
    assert len(message) < 500 and "\0" not in message
    for word in words:
        assert word in message, message


def test_a_column_without_a_name_that_holds_something_is_spoken_of(tmp_path: Path) -> None:
    lines = GOOD.splitlines()
    sweep = read(tmp_path, "\n".join([lines[0] + ",", *(line + ",x" for line in lines[1:])]))
    assert [one.message for one in sweep.warnings] == ["Columns not used: column 8 (no name)."]


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says of a bad file, before it leaves with 2."""
    with pytest.raises(SystemExit) as left:
        main(args)
    out, err = capsys.readouterr()
    assert left.value.code == 2 and not out and "Traceback" not in err
    return " ".join(err.split())


def test_every_command_that_reads_a_sweep_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.csv").write_bytes(LATIN)
    for command in (["fit", "bad.csv"], ["report", "--sweep", "bad.csv", "-o", "out.pdf"]):
        args = [str(tmp_path / part) if "." in part else part for part in command]
        assert "line 5, column family" in refused(args, capsys)
        assert not (tmp_path / "out.pdf").exists()


LAWS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "NUL": (b'{"schema": 1,\n "kind": "\0"}', ("law.json line 2, character 11", "NUL")),
    "Latin-1": ('{"kind": "\xe9"}'.encode("latin-1"), ("line 1, character 11", "it is é")),
    "a UTF-16 text that is no law": (json.dumps({"kind": "x"}).encode("utf-16"), ("It holds no law",)),
    "brackets without end": (b"[" * 200_000, ("It is no JSON",)),
}


@pytest.mark.parametrize("case", LAWS)
def test_a_bad_law_file_is_named(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, words = LAWS[case]
    (tmp_path / "law.json").write_bytes(data)
    said = refused(
        ["lr", "--family", "llama", "--hidden-size", "4096", "--law", str(tmp_path / "law.json")], capsys
    )
    for word in words:
        assert word in said, said


def fault_of(data: bytes) -> BadBytesError | None:
    try:
        decode(data)
    except BadBytesError as fault:
        return fault
    return None


@given(st.binary(max_size=200))
def test_bytes_become_text_or_a_fault_with_a_place(data: bytes) -> None:
    if (fault := fault_of(data)) is not None:
        assert fault.line >= 1 and len(fault.in_line) <= len(data) and fault.remedy
        return
    text, encoding = decode(data)
    assert text == data.decode(encoding) and "\0" not in text


@given(st.binary(max_size=120), st.integers(0, len(GOOD)))
def test_any_bytes_in_a_sweep_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int
) -> None:
    with contextlib.suppress(InputError):
        read(tmp_path_factory.mktemp("bytes"), GOOD.encode()[:at] + data + GOOD.encode()[at:])


@given(st.binary(max_size=200))
def test_any_bytes_as_a_law_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("law") / "law.json"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_law(path)
