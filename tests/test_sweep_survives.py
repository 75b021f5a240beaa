"""Sweeps that survive: killed at random moments, two drivers on one folder, a full disk, a spent budget."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from planner.learning_rate.sweep import read_sweep
from planner.validate import records
from planner.validate.records import RecordError, RunConfig, RunRecord
from planner.validate.sweep import Clock, Sweep
from planner.validate.tables import sweep_csv, write_sweep

from .pretended import CONFIGS, drive, pretend

# Drivers of a sweep are forked from a process that has imported what they run, and nothing else.
APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(["tests.pretended"])


def start(folder: Path, log: Path) -> ForkServerProcess:
    """A driver in a process of its own."""
    driver = APART.Process(target=drive, args=(str(folder), str(log)))
    driver.start()
    return driver


def results(folder: Path) -> dict[str, Any]:
    """Everything that the records of a folder say."""
    return {record.id: record.result for record in records.read_all(folder)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a sweep left alone."""
    folder = tmp_path_factory.mktemp("alone")
    assert Sweep(folder, run=pretend).run(CONFIGS)
    return results(folder)


def test_killed_ten_times_it_ends_with_the_same_records(tmp_path: Path, alone: dict[str, Any]) -> None:
    folder, log = tmp_path / "runs", tmp_path / "log"
    rng = random.Random(5)
    killed = 0
    while killed < 10:
        driver = start(folder, log)
        lines = len(log.read_text().splitlines()) if log.exists() else 0
        while driver.is_alive() and (len(log.read_text().splitlines()) if log.exists() else 0) <= lines:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.04)
        if driver.is_alive():
            driver.kill()
            killed += 1
        driver.join()
        if driver.exitcode == 0:
            break
    assert killed >= 5
    last = start(folder, log)
    last.join()
    assert last.exitcode == 0
    assert results(folder) == alone
    # Nothing finished is run twice: at most one start more a kill.
    assert len(log.read_text().splitlines()) <= len(CONFIGS) + killed


def test_two_drivers_share_a_folder(tmp_path: Path, alone: dict[str, Any]) -> None:
    folder, log = tmp_path / "runs", tmp_path / "log"
    drivers = [start(folder, log) for _ in range(2)]
    for driver in drivers:
        driver.join()
    assert [driver.exitcode for driver in drivers] == [0, 0]
    assert results(folder) == alone
    started = [line.split()[1] for line in log.read_text().splitlines()]
    assert sorted(started) == sorted(config.id for config in CONFIGS)


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    Sweep(tmp_path, run=pretend).run(CONFIGS[:3])
    before = results(tmp_path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch("os.fsync", full), pytest.raises(RecordError, match="No space left"):
        Sweep(tmp_path, run=pretend).run(CONFIGS)
    assert results(tmp_path) == before
    assert not list(tmp_path.glob(".*.tmp"))
    assert Sweep(tmp_path, run=pretend).run(CONFIGS) and len(results(tmp_path)) == len(CONFIGS)


# A real file system of 64 KiB in a mount namespace of its own: filled, refused, given room again.
FULL = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from pretended import CONFIGS, pretend
from planner.validate import records
from planner.validate.sweep import Sweep

disk, folder = Path({disk!r}), Path({disk!r}) / "runs"
folder.mkdir()
(disk / "other").write_bytes(bytes(24 * 1024))
try:
    Sweep(folder, run=pretend).run(CONFIGS)
except records.RecordError as error:
    print(error)
kept = [record.id for record in records.read_all(folder)]
assert 0 < len(kept) < len(CONFIGS) and not list(folder.glob(".*.tmp")), kept
assert len(kept) == len(list(folder.glob("*.json")))
(disk / "other").unlink()
assert Sweep(folder, run=lambda config, *rest: pretend(config, *rest) if config.id not in kept else 1 / 0).run(
    CONFIGS[:8]
)
print("kept", len(kept))
"""


def test_a_really_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    mount = f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(tmp_path))}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system")
    code = FULL.format(tests=str(Path(__file__).parent), disk=str(tmp_path))
    command = f"{mount} && exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space left on device. Runs finished before are kept" in done.stdout


def test_a_budget_is_kept_and_leaves_no_half_record(tmp_path: Path) -> None:
    clock = Clock(0.15)
    assert not Sweep(tmp_path, clock=clock, run=pretend).run(CONFIGS)
    assert 0 < len(results(tmp_path)) < len(CONFIGS)

    def endless(config: RunConfig, device: str, beat: Callable[[int], None]) -> RunRecord:
        while True:
            time.sleep(0.01)
            beat(0)

    started = time.monotonic()
    assert not Sweep(tmp_path / "other", clock=Clock(0.2), run=endless).run(CONFIGS[:1])
    assert time.monotonic() - started < 5 and not results(tmp_path / "other")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="out"):
        Sweep(tmp_path / "file", run=pretend)


def test_the_table_of_a_sweep(tmp_path: Path) -> None:
    Sweep(tmp_path, run=pretend).run([config.but(evaluate_at=(4,)) for config in CONFIGS[:2]])
    diverged = CONFIGS[0].but(lr=9.0, evaluate_at=(4,))
    records.write(tmp_path, RunRecord(diverged, "diverged", curve=(3.0, float("nan"))))
    header, *rows = sweep_csv(tmp_path).splitlines()
    assert header == "model,family,hidden_size,method,rank,lr,loss,seed,steps,batch,alpha,dataset,status"
    assert sum(row.endswith(",dialect,ok") for row in rows) == 2
    [last] = [row for row in rows if row.endswith("diverged")]
    assert last.startswith("tiny,llama,64,lora,1,9.0,,0,")
    write_sweep(tmp_path, tmp_path / "sweep.csv")
    read = read_sweep(tmp_path / "sweep.csv").runs
    assert sorted(read["status"]) == ["diverged", "ok", "ok"] and set(read["hidden_size"]) == {64}
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["schema"] == 1
