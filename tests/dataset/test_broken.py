"""Broken input: counted, reported by line, no traceback, nothing dropped in silence."""

from __future__ import annotations

import bz2
import functools
import gzip
import json
import lzma
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from planner import dataset
from planner.cli.main import cli
from planner.dataset.result import BrokenRow, DatasetReport
from planner.errors import InputError, PlannerError
from tests.dataset import corpora

ROOT = Path(__file__).resolve().parents[2]
GOOD = '{"text": "good"}'


def read(path: Path, data: bytes | str, **options: Any) -> DatasetReport:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return dataset(path, **options)


def places(report: DatasetReport) -> dict[int, str]:
    return {row.line: row.reason for row in report.broken_rows}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut', "is no JSON"),
        ("not json", "is no JSON"),
        ('"a string"', "expected an object"),
        ("[1, 2]", "expected an object"),
        ("null", "null, expected an object"),
        ("{}", "is empty"),
        ('{"labels": [1], "id": 3}', "no known format: its columns are labels, id"),
        ('{"text": null}', "null"),
        ('{"text": 3}', "text is a int"),
        ('{"text": "  "}', "is empty"),
        ('{"messages": []}', "messages is empty"),
        ('{"messages": "hello"}', "expected a list of messages"),
        ('{"messages": [{"content": "x"}]}', "messages[0] has no role"),
        ('{"messages": [{"role": "user"}]}', "messages[0] has no content"),
        ('{"messages": [{"role": 5, "content": "x"}]}', "role is a int"),
        ('{"messages": [{"role": "user", "content": 5}]}', "content is a int"),
        ('{"messages": [3]}', "messages[0] is a int"),
        ('{"conversations": [{"from": "human"}]}', "has no value"),
        ('{"prompt": "x", "completion": null}', "completion is null"),
        ('{"prompt": ["x"], "completion": "y"}', "prompt is a list"),
        ('{"instruction": "x", "output": null}', "output is null"),
        ('{"chosen": "x", "rejected": null}', "has no rejected"),
        ('{"problem": "x", "answer": "y", "pass_rate": 3}', "pass_rate is 3"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ('{"text": ' + "[" * 100_000, "is"),
    ],
)  # fmt: skip
def test_a_broken_row_is_counted_with_its_line(line: str, reason: str, tmp_path: Path) -> None:
    report = read(tmp_path / "rows.jsonl", f"{GOOD}\n{line}\n\n{GOOD}\n")
    assert (report.examples, report.broken, report.blank_lines) == (2, 1, 1)
    assert list(places(report)) == [2] and reason in places(report)[2]


def test_rows_of_another_encoding(tmp_path: Path) -> None:
    data = f"{GOOD}\n".encode() + '{"text": "größer"}\n'.encode("latin-1") + '{"text": "größer"}\n'.encode()
    report = read(tmp_path / "rows.jsonl", data)
    assert (report.examples, report.broken) == (2, 1)
    assert "is not UTF-8 (byte 0xf6" in places(report)[2]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}  # fmt: skip


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_data_that_end_early_or_are_corrupt(suffix: str, tmp_path: Path) -> None:
    rows, _ = corpora.corpus("text", 1500, seed=1)
    packed = PACKERS[suffix](corpora.lines(rows))
    cut = read(tmp_path / f"cut.jsonl.{suffix}", packed[: len(packed) * 3 // 4])
    assert 0 <= cut.examples < 1500 and cut.broken >= 1
    last = cut.broken_rows[-1]
    assert "cut off" in last.reason or "corrupt" in last.reason
    assert last.line == cut.examples + cut.blank_lines + cut.broken
    turned = bytearray(packed)
    turned[len(packed) // 2] ^= 0x55
    report = read(tmp_path / f"bad.jsonl.{suffix}", bytes(turned))
    assert report.broken >= 1


def test_a_gzip_of_several_members_is_read_to_its_end(tmp_path: Path) -> None:
    members = gzip.compress(f"{GOOD}\n".encode()) + gzip.compress(f"{GOOD}\n".encode())
    assert read(tmp_path / "rows.jsonl.gz", members).examples == 2
    frames = b"".join(zstandard.ZstdCompressor().compress(f"{GOOD}\n".encode()) for _ in range(3))
    assert read(tmp_path / "rows.jsonl.zst", frames).examples == 3


# The kernel counts what a process held before it became another program: a small one stands between.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""


def run(path: Path, *more: str) -> tuple[int, str, str, float]:
    """The command in a process of its own: exit code, both outputs, peak MB."""
    peak = path.with_name("peak")
    command = [sys.executable, "-m", "planner", "dataset", str(path), *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(peak), *command],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    return (
        done.returncode,
        done.stdout,
        done.stderr,
        int(peak.read_text()) / (1e6 if sys.platform == "darwin" else 1e3),
    )


@pytest.mark.timeout(1200)  # reads 500 MB, on a machine that may be busy
def test_a_line_of_500_mb_is_passed_over_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(f"{GOOD}\n".encode() + b'{"text": "')
        file.seek(500_000_000, os.SEEK_CUR)  # a hole of zeros
        file.write(b'"}\n' + f"{GOOD}\n".encode())
    code, out, err, peak = run(path, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["examples"], found["broken"]) == (2, 1)
    assert found["broken_rows"][0]["line"] == 2 and "500,000,0" in found["broken_rows"][0]["reason"]
    assert peak < 500


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt", "rows.parquet", "rows.arrow"]
)
@pytest.mark.parametrize("data", [b"", b"\n\n", b"  "], ids=["empty", "newlines", "spaces"])
def test_an_empty_file_is_one_sentence(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match="^data: found"):
        dataset(path)


def test_what_is_named_wrongly_is_read_by_its_content(tmp_path: Path) -> None:
    lines = f"{GOOD}\n{GOOD}\n"
    for name in ("rows.csv", "rows.txt", "rows.dat", "rows.parquet", "rows.json"):
        report = read(tmp_path / name, lines)
        assert (report.examples, report.broken) == (2, 0), name
        assert bool([n for n in report.warnings if n.code == "named-otherwise"]) == (name != "rows.json"), (
            name
        )
    parquet.write_table(pa.table({"text": ["good", "good"]}), tmp_path / "rows.jsonl")
    assert dataset(tmp_path / "rows.jsonl").examples == 2
    assert read(tmp_path / "table.jsonl", "text,id\ngood,1\n").examples == 1
    assert read(tmp_path / "packed.jsonl", gzip.compress(lines.encode())).examples == 2


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04", "zip"),
        (b"%PDF-1.7", "PDF"),
        (b"\x80\x04\x95", "pickle"),
        (b"SQLite format 3", "SQLite"),
    ],
)
def test_what_holds_no_rows_is_named(start: bytes, what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=what):
        read(tmp_path / "rows.jsonl", start + b"\0" * 100)


@pytest.mark.parametrize(
    ("text", "examples", "line"),
    [
        ('[{"text": "a"}, {"text": "b"}, {"text": ', 2, 1),
        ('[\n{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', 2, 4),
        ('[\n{"text": "a"},\n{"text": nope}]', 1, 3),
        ('[{"text": "a"}] trailing', 1, 1),
        ("3", 0, 1),
        ('{"text": ["a", "b"], "id": [1]}', 0, 1),
    ],
)
def test_a_broken_document_says_where(text: str, examples: int, line: int, tmp_path: Path) -> None:
    report = read(tmp_path / "rows.json", text)
    assert (report.examples, report.broken) == (examples, 1)
    assert list(places(report)) == [line]


def test_rows_of_csv_with_too_few_fields(tmp_path: Path) -> None:
    report = read(tmp_path / "rows.csv", 'text,id\ngood,1\nlonely\n"two\nlines",3\na,b,c\ngood,9\n')
    assert (report.examples, report.broken) == (3, 2)
    assert places(report) == {3: "has 1 fields, the header 2", 6: "has 3 fields, the header 2"}


def test_parquet_that_is_cut_off(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    parquet.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), whole)
    report = read(tmp_path / "cut.parquet", whole.read_bytes()[:-50])
    assert (report.examples, report.broken) == (0, 1)
    assert "cannot be read" in report.broken_rows[0].reason


def test_every_broken_row_is_told_though_a_hundred_are_kept(tmp_path: Path) -> None:
    told: list[BrokenRow] = []
    report = read(tmp_path / "rows.jsonl", "nope\n" * 250 + GOOD, on_broken=told.append)
    assert (report.broken, len(report.broken_rows), len(told)) == (250, 100, 250)
    out = tmp_path / "broken.jsonl"
    result = CliRunner().invoke(cli, ["dataset", str(tmp_path / "rows.jsonl"), "--broken-out", str(out)])
    assert result.exit_code == 0 and "and 240 more" in result.output
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["line"] for row in written] == list(range(1, 251))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".lora-plan")] == []


@pytest.mark.timeout(1200)
def test_an_interruption_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Interrupted when the first broken rows have reached the file beside it, and so in the middle of the reading."""
    data = tmp_path / "rows.jsonl"
    rows, _ = corpora.corpus("text", 3000, seed=1)
    data.write_bytes(b"nope\n" * 2000 + corpora.lines(rows) * 200)
    out = tmp_path / "broken.jsonl"
    out.write_text("before")
    command = [sys.executable, "-m", "planner", "dataset", str(data), "--broken-out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # A shell's background jobs ignore interruptions, and so would what they start.
    listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=listens
    ) as process:
        while process.poll() is None and not any(
            path.stat().st_size for path in tmp_path.glob(".lora-plan*")
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        shown, err = process.communicate()
    assert process.returncode == 130 and shown == ""
    assert err.strip() == "Interrupted; nothing was written."
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "rows.jsonl"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["jsonl", "json", "csv", "txt", "jsonl.gz"]))
def test_damaged_files_never_end_in_a_traceback(seed: int, suffix: str) -> None:
    """Every line of JSON lines is an example, a broken row or blank; nothing but a PlannerError is raised."""
    import tempfile

    chance = random.Random(seed)
    rows, _ = corpora.corpus(chance.choice(list(corpora.FORMATS)), 8, seed % 50)
    data = json.dumps(rows).encode() if suffix == "json" else corpora.lines(rows)
    if suffix == "csv":
        data = b"text,id\n" + b"".join(b'"a ""b""",%d\n' % i for i in range(8))
    packed = bytearray(gzip.compress(data) if suffix.endswith("gz") else data)
    for _ in range(chance.choice((0, 1, 3, 10))):
        at = chance.randrange(len(packed))
        if chance.random() < 0.5:
            packed[at] = chance.randrange(256)
        else:
            del packed[at : at + chance.randint(1, 40)]
            packed = packed or bytearray(b"x")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{suffix}"
        path.write_bytes(packed)
        try:
            report = dataset(path, compress=False)
        except PlannerError:
            return
    assert report.examples + report.broken >= 1
    if (
        suffix == "jsonl"
        and report.files[0].kind == "jsonl"
        and not packed.startswith((b"\xff\xfe", b"\xfe\xff"))
    ):
        count = bytes(packed).count(b"\n") + (not packed.endswith(b"\n"))
        assert report.examples + report.broken + report.blank_lines == count


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    code, out, err, _ = run(tmp_path / "rows.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("Error: data: found") and err.count("\n") == 1
