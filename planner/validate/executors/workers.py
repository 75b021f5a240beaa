"""Drivers on this machine: this process and, with --workers, further ones that work through the same list in the same
folder, one a GPU in turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..records import RunConfig, config_from, write_whole
from ..sweep import Clock, Sweep


class LocalExecutor:
    """This process and `count` - 1 others."""

    def __init__(self, count: int, device: str, threads: int) -> None:
        self.count, self.device, self.threads = count, device, threads
        self.wide = count > 1

    def run(self, configs: Sequence[RunConfig], sweep: Sweep) -> bool:
        """Work through configurations; False where the budget ended first."""
        helpers = start_workers(self.count - 1, configs, sweep, self.device, self.threads)
        try:
            return sweep.run(configs)
        finally:
            stop_workers(helpers)

    def close(self) -> None:
        """Nothing is kept."""


def start_workers(
    count: int, configs: Sequence[RunConfig], sweep: Sweep, device: str, threads: int
) -> list[subprocess.Popen[bytes]]:
    """`count` further drivers, on the following GPUs where the device is cuda. Several on one CPU share its cores."""
    if count < 1 or len(configs) < 2:
        return []
    job = sweep.folder / ".locks" / f"job-{os.getpid()}.json"
    write_whole(job, json.dumps([config.to_dict() for config in configs]))
    found = []
    for number in range(min(count, len(configs) - 1)):
        place = _device(device, number + 1)
        left = sweep.clock.left_s
        arguments = [str(job), str(sweep.folder), place, str(threads), "" if left is None else str(left)]
        command = [sys.executable, "-m", "planner.validate.executors.workers", *arguments]
        found.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return found


def _device(device: str, number: int) -> str:
    """`cuda` spreads drivers over this machine's GPUs; a numbered one is meant."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{number % torch.cuda.device_count()}"


def stop_workers(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End them; a run that one was at is taken up again by whoever goes on."""
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(10)


def configs_from(path: Path) -> list[RunConfig]:
    """A job file's configurations."""
    return [config_from(raw) for raw in json.loads(path.read_text(encoding="utf-8"))]


def main(arguments: Sequence[str]) -> None:
    """One driver: JOB FOLDER DEVICE THREADS SECONDS. It starts at the list's end, to meet the first half-way."""
    job, folder, device, threads, left = arguments
    import torch

    torch.set_num_threads(int(threads))
    clock = Clock(float(left) if left else None)
    Sweep(folder, device, clock).run(reversed(configs_from(Path(job))))


if __name__ == "__main__":
    main(sys.argv[1:])
