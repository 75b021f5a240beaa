"""Work that is shared among the cores of this machine: processes that are forked, each with a part of it.

Forked processes have everything that is loaded and computed, so that a part costs some hundredths of a second
beside its work. Where a system has no safe fork (Windows, macOS), one core, or threads run besides (a web server's),
the work is done here, one part after another; so it is in a process of a pool, and where no process can be had or
one is ended from outside. The results are the same.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from . import process

Result = TypeVar("Result")
GROUP = "/sys/fs/cgroup"
QUOTAS = (
    (f"{GROUP}/cpu.max",),
    (f"{GROUP}/cpu/cpu.cfs_quota_us", f"{GROUP}/cpu/cpu.cfs_period_us"),
)
ENOUGH = 150  # tasks of some milliseconds each that are worth a process
MOST = 8


def cores() -> int:
    """Processes that work side by side here."""
    if sys.platform != "linux" or threading.active_count() > 1 or process.works_for_another:
        return 1
    among = sys.modules.get("multiprocessing.process")  # loaded in any process that it started
    if among and among.current_process().daemon:  # a pool's, which may have no processes of its own
        return 1
    return min(MOST, len(os.sched_getaffinity(0)), _quota())


@cache
def _quota() -> int:
    """Whole CPUs that a container may use at a time, at least one; MOST where nothing limits it.

    cgroup v2 has "quota period" or "max period" in cpu.max, cgroup v1 each in a file of its own, -1 for no quota
    (kernel.org, admin-guide/cgroup-v2: cpu.max; scheduler/sched-bwc). Neglected: limits of groups above the one that
    is mounted here.
    """
    for names in QUOTAS:
        try:
            words = " ".join(Path(name).read_text(encoding="ascii") for name in names).split()
        except OSError:  # another version's, or none
            continue
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
            return max(1, int(words[0]) // int(words[1]))
    return MOST


def parts_of(kinds: Sequence[Hashable], count: int) -> list[list[int]]:
    """The numbers of tasks in so many parts of about as many each; those of one kind, which share what they compute,
    stay together."""
    by_kind: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(number)
    parts: list[list[int]] = [[] for _ in range(count)]
    for own in sorted(by_kind.values(), key=len, reverse=True):
        min(parts, key=len).extend(own)
    return [part for part in parts if part]


def done(task: Callable[[int], Result], kinds: Sequence[Hashable], *, enough: int = ENOUGH) -> list[Result]:
    """`task(number)` for each number below len(kinds). What a task raises is raised here."""
    count = min(cores(), len(kinds) // enough)
    if count < 2:
        return [task(number) for number in range(len(kinds))]
    mine, *others = parts_of(kinds, count)
    running = [(part, _started(task, part)) for part in others]
    found: dict[int, Result] = {}
    try:
        found.update((number, task(number)) for number in mine)
        for part, own in running:
            told = own.told() if own else None
            found.update(zip(part, [task(number) for number in part] if told is None else told, strict=True))
    finally:
        for _, own in running:
            if own:
                own.end()
    return [found[number] for number in range(len(kinds))]


class _Process:
    """A forked process, by its id, and the end of a pipe at which it is heard."""

    def __init__(self, pid: int, here: int) -> None:
        self.pid, self.here = pid, here
        self.ended = False

    def told(self) -> list[Any] | None:
        """What it sends; what it raised is raised. None where it was ended before it had sent all."""
        with open(self.here, "rb", closefd=False) as pipe:
            sent = pipe.read()
        self.ended = True
        if os.waitpid(self.pid, 0)[1]:
            return None
        told = pickle.loads(sent)
        if isinstance(told, Exception):
            raise told
        return list(told)

    def end(self) -> None:
        """See to it that nothing is left of it."""
        os.close(self.here)
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _started(task: Callable[[int], Any], part: Sequence[int]) -> _Process | None:
    """A process that does a part; None where the system refuses one."""
    try:
        here, there = os.pipe()
    except OSError:  # too many files are open
        return None
    try:
        with warnings.catch_warnings():  # threads of numpy's BLAS, which is ready for a fork
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError:  # a limit of processes or of memory
        os.close(here)
        os.close(there)
        return None
    if pid:
        os.close(there)
        return _Process(pid, here)
    failed = True
    try:
        process.works_for_another = True
        _answer(there, task, part)
        failed = False
    finally:
        os._exit(failed)  # past what the process that it was forked from does when it ends


def _answer(there: int, task: Callable[[int], Any], part: Sequence[int]) -> None:
    """In a process of its own: do a part and send what came of it."""
    try:
        told: Any = [task(number) for number in part]
    except Exception as error:
        told = error
    with open(there, "wb") as pipe:
        pickle.dump(told, pipe, pickle.HIGHEST_PROTOCOL)
