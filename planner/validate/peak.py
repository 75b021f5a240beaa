"""The highest memory of a run: of the accelerator by torch's count, on a CPU of the process by the system's."""

from __future__ import annotations

import gc
from pathlib import Path

from .require import require

# Linux: writing 5 sets the highest resident size back to what it is now.
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget(device: str) -> None:
    """Begin anew: what was held before this run is not its peak."""
    torch = require()
    if device.startswith("cuda"):
        gc.collect()  # a model of transformers is part of a cycle: the last run's would still lie on the GPU
        torch.cuda.init()  # the reset does not
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif device == "cpu":
        try:
            _RESET.write_text("5")
        except OSError:
            return


def peak_bytes(device: str) -> int | None:
    """Bytes at the highest point since `forget`: torch's allocations on a GPU, the process's resident size on a CPU
    (interpreter and libraries included); None where the system does not tell."""
    torch = require()
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device))
    if device != "cpu":
        return None
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")] or ["0"]
    return 1024 * int(kilobytes) or None
