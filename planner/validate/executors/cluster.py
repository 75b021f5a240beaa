"""Runs on a Ray cluster: one task a run, resources by the planner's own memory estimate, retries when a node dies.

The driver gives out configurations and writes the records that come back into its own folder; nodes share no disk.
Zoo models travel with the first task that needs them, so that every node starts from the same weights. A run under
way is locked like any other, so that several drivers, local ones too, share one folder.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import InputError, MissingDependencyError, PlannerError
from ...version import __version__
from .. import zoo
from ..records import RunConfig, config_from, from_dict
from ..require import require
from ..runs import command, perform
from ..sweep import POLL_S, Clock, Progress, Sweep, held
from ..train import OutOfTimeError
from .need import need

RETRIES = 5
AHEAD = 4  # runs given to Ray beyond what it has cores for, so that no core waits for the driver
MOST_IN_FLIGHT = 256


class ClusterError(PlannerError):
    """Runs that the cluster could not carry out; what was finished is kept."""


def ray_library() -> Any:
    """The ray package. Raises MissingDependencyError."""
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # an address that is not there is told once, by us
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            f"--executor ray needs the `ray` extra: pip install 'lora-plan[validate,ray]'. ({error})"
        ) from error
    return ray


def perform_task(
    raw: Mapping[str, Any], device: str, threads: int, left_s: float | None, version: str,
    models: Mapping[str, Mapping[str, bytes]],
) -> dict[str, Any]:  # fmt: skip
    """One run on a node: {"record": ..}, {"late": True} where the budget ended, or {"error": ..} in a sentence."""
    if version != __version__:
        return {
            "error": f"a node has lora-plan {__version__}, the driver {version}: install the same on both"
        }
    clock = Clock(left_s)

    def beat(step: int) -> None:
        if clock.over:
            raise OutOfTimeError

    try:
        require().set_num_threads(threads)
        for name, files in models.items():
            zoo.unpack(name, files)
        return {"record": perform(config_from(raw), device, beat).to_dict()}
    except OutOfTimeError:
        return {"late": True}
    except PlannerError as error:
        return {"error": str(error)}


class RayExecutor:
    """A driver of a cluster at `address` (auto: the one that this machine belongs to)."""

    wide = True

    def __init__(self, address: str, device: str, threads: int) -> None:
        self.ray, self.threads = ray_library(), threads
        self.ours = not self.ray.is_initialized()
        if self.ours:
            try:
                self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    "address", address, "a running Ray cluster's",
                    f"`ray start --head` starts one here. Ray says: {str(error).splitlines()[0][:200]}",
                ) from error  # fmt: skip
        has_gpus = self.ray.cluster_resources().get("GPU", 0) > 0
        self.device = ("cuda" if has_gpus else "cpu") if device == "auto" else device
        if self.device != "cpu" and not has_gpus:
            raise InputError("device", device, "cpu, as this cluster has no GPU")
        self.models: dict[str, Any] = {}

    def close(self) -> None:
        """Leave the cluster, unless the caller was in it before."""
        if self.ours:
            self.ray.shutdown()

    def run(self, configs: Sequence[RunConfig], sweep: Sweep) -> bool:
        """Work through configurations; False where the budget ended first. Raises ClusterError in the end for runs
        that could not be carried out, when all others are done."""
        with _Flight(self, sweep, configs) as flight:
            while flight.waiting or flight.flying:
                flight.start()
                if sweep.clock.over or (flight.waiting and not flight.flying and not flight.may_wait()):
                    return False
                flight.collect()
        if flight.failed:
            raise ClusterError(
                f"{len(flight.failed)} of {len(configs)} runs failed on the cluster; the others are kept. The first: "
                f"{flight.failed[0]}"
            )
        return not flight.late

    def submit(self, config: RunConfig, left_s: float | None) -> Any:
        """Hand one run to Ray."""
        resources = need(config, self.device, self.threads, self.ray.cluster_resources())
        task = self.ray.remote(perform_task).options(max_retries=RETRIES, **resources.options())
        return task.remote(
            config.to_dict(), self.device, self.threads, left_s, __version__, self._model(config.model)
        )

    def _model(self, name: str) -> Any:
        """A zoo model's files in the cluster's object store, put there once."""
        if name not in self.models:
            self.models[name] = self.ray.put({name: zoo.packed(name)} if name in zoo.ZOO else {})
        return self.models[name]

    def slots(self) -> int:
        """How many runs to have under way."""
        kind = "CPU" if self.device == "cpu" else "GPU"
        at_once = self.ray.cluster_resources().get(kind, 1) / (self.threads if kind == "CPU" else 1)
        return min(MOST_IN_FLIGHT, int(at_once) + AHEAD)


class _Flight:
    """One list of runs on its way through the cluster."""

    def __init__(self, executor: RayExecutor, sweep: Sweep, configs: Sequence[RunConfig]) -> None:
        self.executor, self.sweep, self.ray = executor, sweep, executor.ray
        self.waiting = deque({config.id: config for config in configs}.values())
        self.total = len(self.waiting)
        self.flying: dict[Any, tuple[RunConfig, Any]] = {}
        self.failed: list[str] = []
        self.late = False

    def __enter__(self) -> _Flight:
        return self

    def __exit__(self, *_: object) -> None:
        for ref, (_config, lock) in self.flying.items():
            self.ray.cancel(ref, force=True)
            lock.release()

    def may_wait(self) -> bool:
        """Whether any waiting run still fits the budget (another driver holds it)."""
        return any(self.sweep.clock.allows(config) for config in self.waiting)

    def start(self) -> None:
        """Hand out runs while there is room; one that another driver holds goes to the end of the line."""
        for _ in range(len(self.waiting)):
            if len(self.flying) >= self.executor.slots():
                return
            config = self.waiting.popleft()
            if self.sweep.record(config) is not None:
                continue
            lock = held(self.sweep.folder, config) if self.sweep.clock.allows(config) else None
            if lock is None:
                self.waiting.append(config)
            elif self.sweep.record(config) is not None:
                lock.release()
            else:
                ref = self.executor.submit(config, self.sweep.clock.left_s)
                self.flying[ref] = (config, lock)

    def collect(self) -> None:
        """Take in what has finished; wait a moment where nothing has."""
        if not self.flying:
            time.sleep(POLL_S)
            return
        ready, _ = self.ray.wait(list(self.flying), timeout=POLL_S)
        for ref in ready:
            config, lock = self.flying.pop(ref)
            try:
                self._take(config, ref)
            finally:
                lock.release()
        if self.sweep.progress is not None:
            done = self.total - len(self.waiting) - len(self.flying)
            self.sweep.progress(Progress(done, self.total, f"{len(self.flying)} runs on the cluster"))

    def _take(self, config: RunConfig, ref: Any) -> None:
        """Keep a run's record, or note why there is none."""
        try:
            found = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            found = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"}
        if "record" in found:
            self.sweep.keep(replace(from_dict(found["record"]), command=command()))
        elif "late" in found:
            self.late = True
        else:
            self.failed.append(f"{config.id}: {found['error']}")
