"""Work that is shared among the cores of this machine: processes that are forked, each with a part of it.

Forked processes have everything that is loaded and computed, so that a part costs some hundredths of a second
beside its work. Where a system has no safe fork (Windows, macOS), one core, or threads run besides (a web server's),
the work is done here, one part after another; so it is in a process of a pool, and where no process can be had or
one is ended from outside. The results are the same.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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
    if sys.platform != "linux" or threading.active_count() > 1:
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
            told = _told(own[1]) if own else None
            found.update(zip(part, [task(number) for number in part] if told is None else told, strict=True))
    finally:
        for process, here in (own for _, own in running if own):
            here.close()
            process.terminate()
            process.join()
    return [found[number] for number in range(len(kinds))]


def _started(task: Callable[[int], Any], part: Sequence[int]) -> tuple[Any, Connection] | None:
    """A process that does a part, and where it tells of it; None where the system refuses one."""
    from multiprocessing import get_context  # loaded where there is work for several

    context = get_context("fork")
    try:
        here, there = context.Pipe(duplex=False)
    except OSError:  # too many files are open
        return None
    process = context.Process(target=_answer, args=(there, task, part), daemon=True)
    try:
        with warnings.catch_warnings():  # threads of numpy's BLAS, which is ready for a fork
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except OSError:  # a limit of processes or of memory
        here.close()
        return None
    finally:
        there.close()
    return process, here


def _answer(there: Connection, task: Callable[[int], Any], part: Sequence[int]) -> None:
    """In a process of its own: do a part and send what came of it."""
    try:
        told: Any = [task(number) for number in part]
    except Exception as error:
        told = error
    there.send(told)
    there.close()


def _told(here: Connection) -> list[Any] | None:
    """What a process sends; what it raised is raised. None where it was ended before it had sent all."""
    try:
        told = here.recv()
    except (EOFError, OSError):
        return None
    if isinstance(told, Exception):
        raise told
    return list(told)
