"""torch's largest library, read from the disk and linked by the system beside the imports that do without torch.

Python holds its lock while it loads a library, for a third of a second, and for one to three where the system has not
the file in memory. A thread that calls the system's loader itself does not.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import util

from ... import process
from .lighter import compared

# As torch loads them, one for all to see and then the other.
GLOBAL, LARGEST = "libtorch_global_deps.so", "libtorch_cpu.so"


class Loading:
    """The thread, once there is one."""

    thread: threading.Thread | None = None


def begin() -> None:
    """Load it in a thread, in a process of the command line on Linux, for versions of torch that were tried."""
    spec = None if "torch" in sys.modules else util.find_spec("torch")
    if not process.ends_soon or sys.platform != "linux" or spec is None or not spec.origin or not compared():
        return
    folder = os.path.join(os.path.dirname(spec.origin), "lib")
    process.leaves_at_once = True
    Loading.thread = threading.Thread(target=_load, args=(folder,), daemon=True)
    Loading.thread.start()


def wait() -> None:
    """Until it is loaded, or could not be."""
    if Loading.thread is not None:
        Loading.thread.join()


def _load(folder: str) -> None:
    """What cannot be loaded here torch will say when it is imported."""
    import ctypes

    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    for name, mode in ((GLOBAL, os.RTLD_GLOBAL), (LARGEST, os.RTLD_LOCAL)):
        if os.path.exists(path := os.path.join(folder, name)):
            load(os.fsencode(path), os.RTLD_NOW | mode)
