"""Work shared among processes gives what one process gives, and what it raises is raised."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from planner import workers
from planner.errors import InputError
from planner.search.api import accelerators
from planner.search.layout import layouts
from planner.search.screen import screen
from planner.search.space import Space

from .small import job_of

forked = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@forked
def test_tasks_are_done_in_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 3)
    found = workers.done(
        lambda number: (number * number, os.getpid()), [number % 5 for number in range(40)], enough=10
    )
    assert [square for square, _ in found] == [number * number for number in range(40)]
    assert len({process for _, process in found}) == 3


@forked
def test_what_a_task_raises_in_another_process_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)

    def task(number: int) -> int:
        if number == 3:
            raise InputError("batch", number, "something else")
        return number

    for kinds in ([0, 0, 0, 1], [1, 1, 1, 0, 0, 0, 0]):  # in the other process, and in this one
        with pytest.raises(InputError, match="batch"):
            workers.done(task, kinds, enough=2)


def test_beside_threads_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert workers.cores() == 1
        assert workers.done(lambda number: os.getpid(), [0] * 8, enough=1) == [os.getpid()] * 8
    finally:
        waiting.set()
        thread.join()


@forked
def test_what_a_process_that_was_ended_leaves_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)
    here = os.getpid()

    def task(number: int) -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert workers.done(task, [0, 1] * 10, enough=10) == list(range(20))


@forked
def test_where_no_process_can_be_had_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 2)

    def refused() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert workers.done(lambda number: os.getpid(), [0, 1] * 4, enough=2) == [os.getpid()] * 8


def _in_a_pool(number: int) -> tuple[int, list[int]]:
    return workers.cores(), workers.done(lambda each: each * number, [0, 1] * 4, enough=1)


@forked
def test_a_process_of_a_pool_starts_none() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_in_a_pool, (3,)) == (1, [3 * each for each in range(8)])


def test_parts_keep_kinds_together_and_hold_about_as_much_each() -> None:
    kinds = [number % 7 for number in range(700)]
    parts = workers.parts_of(kinds, 2)
    assert sorted(number for part in parts for number in part) == list(range(700))
    assert not {kinds[number] for number in parts[0]} & {kinds[number] for number in parts[1]}
    assert max(map(len, parts)) - min(map(len, parts)) <= 100


@forked
@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"])
def test_a_screen_is_the_same_on_one_core_and_on_several(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space(
        accelerators("h100,t4", None), layouts((1, 2)), ranks=(1, 4, 8, 16, 32), micro_batches=(1, 4, 8)
    )
    monkeypatch.setattr(workers, "cores", lambda: 1)
    alone = screen(job_of(model), space)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(
        workers, "done", lambda task, kinds, enough=0, real=workers.done: real(task, kinds, enough=4)
    )
    monkeypatch.setattr("planner.search.peaks.done", workers.done)
    together = screen(job_of(model), space)
    for name in ("seconds", "usd", "over", "over_high", "regret"):
        assert np.array_equal(getattr(alone, name), getattr(together, name), equal_nan=True), name


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        (("150000 100000",), 1),
        (("50000 100000",), 1),
        (("400000 100000",), 4),
        (("max 100000",), workers.MOST),
        (("300000", "100000"), 3),
        (("-1", "100000"), workers.MOST),
        ((), workers.MOST),
    ],
)
def test_a_containers_quota_counts(
    files: tuple[str, ...], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(tmp_path / str(number)) for number in range(max(1, len(files)))]
    for name, text in zip(names, files, strict=False):
        Path(name).write_text(f"{text}\n", encoding="ascii")
    monkeypatch.setattr(workers, "QUOTAS", (("nowhere",), tuple(names)))
    workers._quota.cache_clear()
    try:
        assert workers._quota() == cpus
    finally:
        workers._quota.cache_clear()
