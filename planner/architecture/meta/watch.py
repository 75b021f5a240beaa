"""Bounds on what transformers may spend on a config: some loop for ever, or fill memory, on a number out of place."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ... import process

# Processor time that a build may take beside imports, as a share of what this process took before it, which was for
# the most part the import of torch and transformers, so that a slow machine has longer; and its bounds. Of the models
# that transformers builds from its own defaults the slowest takes 0.09 s, a twelfth of that import. One of many
# modules takes longer, but makes them one after the other: without a new one a loop has half of the time.
SHARE_OF_BEFORE, LEAST_S, MOST_S = 0.4, 0.4, 1.5
SHARE_WITHOUT_PROGRESS = 0.5
MOST_MEMORY_BYTES = 2**30
# Beyond the address space in use at the start: what a list made at once in C would take.
MOST_ADDRESSES_BYTES = 3 * 2**30
EVERY_S = 0.02


class TooMuchError(BaseException):
    """Raised in the thread that builds. No `except Exception` of a model's code stops it."""


class Progress:
    """How much of a model there is: `made` counts its modules."""

    made = 0


@contextmanager
def watched() -> Iterator[None]:
    """Raise TooMuchError where what is done inside takes too long or too much memory."""
    before = process.spent_before_s + time.process_time()
    allowed = min(max(SHARE_OF_BEFORE * before, LEAST_S), MOST_S)
    done, builder = threading.Event(), threading.get_ident()
    watcher = threading.Thread(target=_watch, args=(done, builder, allowed), daemon=True)
    watcher.start()
    try:
        with _bounded_addresses():
            yield
    except MemoryError:
        raise TooMuchError from None
    finally:
        done.set()
        watcher.join()
        _raise_in(builder, None)


def _watch(done: threading.Event, builder: int, allowed: float) -> None:
    used, still, last, memory = 0.0, 0.0, _spent_s(builder), resident_bytes()
    made = Progress.made
    while not done.wait(EVERY_S):
        now = _spent_s(builder)
        spent, last = 0.0 if _imports(builder) else now - last, now
        used, still = used + spent, still + spent if Progress.made == made else 0.0
        made = Progress.made
        slow = used > allowed or still > SHARE_WITHOUT_PROGRESS * allowed
        if slow or resident_bytes() - memory > MOST_MEMORY_BYTES:
            _raise_in(builder, TooMuchError)
            return


def _spent_s(thread: int) -> float:
    """Processor time of a thread, where the system tells it, else of the process."""
    if sys.platform.startswith("linux"):
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.process_time()


def _imports(thread: int) -> bool:
    """Whether a thread is importing a module, which takes the same whatever the config says."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise the error in a thread of this process at its next step; None takes back one that was not raised yet."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


def resident_bytes() -> int:
    """Memory that this process holds, where the system says so; else 0."""
    return _pages()[1]


def _pages() -> tuple[int, int]:
    """Address space and memory of this process."""
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        import resource

        size, resident, *_ = map(int, file.read().split())
        return size * resource.getpagesize(), resident * resource.getpagesize()
    return 0, 0


@contextmanager
def _bounded_addresses() -> Iterator[None]:
    """No more addresses than MOST_ADDRESSES_BYTES for a command of its own process, on Linux: other threads of a
    longer-lived one must not run out of them."""
    if not process.ends_soon or not sys.platform.startswith("linux"):
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    bound = _pages()[0] + MOST_ADDRESSES_BYTES
    if before[0] != resource.RLIM_INFINITY:
        bound = min(bound, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (bound, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
