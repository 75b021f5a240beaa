"""The published runs of data/measured/speed.csv, ready to be predicted."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from planner import facts, hardware
from planner.adapter import Adapted, AdapterSpec, adapt
from planner.adapter.whole import NOTHING_WHOLE, Whole, trained_whole
from planner.estimator import load
from planner.memory.traffic import traffic as traffic_of
from planner.moments import Traffic
from planner.schema import Architecture
from planner.setup import Setup
from planner.speed.step import work_of
from planner.speed.trained import held
from planner.speed.work import Work


@dataclass(frozen=True)
class Run:
    """A published run with its work. `group` is the trainer on a machine, which shares what the formula misses."""

    source: str
    model: str
    setup: Setup
    machine: hardware.Cluster
    work: Work
    traffic: tuple[Traffic, ...]
    measured_s: float
    quality: str
    assumed: str
    fitted: bool

    @property
    def group(self) -> str:
        """One trainer on one machine."""
        return f"{self.source} | {self.machine.accelerator.name}"


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def chosen(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs of source and model that constants may be fitted on: of each source's models, in the order of their
    hashes, every second one; the source's own hash says whether the first is among them."""
    found: set[tuple[str, str]] = set()
    by_source: dict[str, set[str]] = {}
    for source, model in pairs:
        by_source.setdefault(source, set()).add(model)
    for source, models in by_source.items():
        order = sorted(models, key=lambda model: _hash(f"{source}|{model}"))
        found.update((source, model) for model in order[_hash(source) % 2 :: 2])
    return found


@lru_cache(maxsize=64)
def _architecture(config: str, model: str) -> Architecture:
    return load(json.loads(config) if config else model)[1]


def _adapter(arch: Architecture, row: Mapping[str, str]) -> tuple[tuple[Adapted, ...], Whole]:
    if row["method"] == "full":
        return (), NOTHING_WHOLE
    names = tuple(row["targets"].split(","))
    spec = AdapterSpec(int(row["rank"]), 32.0, experts="peft")
    if names[0].startswith("all-linear"):
        saved = tuple(names[0].split("+")[1:])
        spec = replace(spec, layers=("all-linear",), modules_to_save=saved)
    else:
        spec = replace(spec, layers=None, targets=names)
    adapted = adapt(arch, spec)
    return adapted, trained_whole(arch, spec, adapted)


def machine_of(gpu: str, gpus: int, link: str) -> hardware.Cluster:
    """The cluster of a row: its own links, or those that the source states."""
    kind, _, rate = link.partition(" ")
    found = hardware.cluster(
        hardware.find(gpu), gpus, link="pcie" if kind in ("pcie", "lanes") else None,
        network_bytes_per_s=float(rate) if kind == "network" else None,
    )  # fmt: skip
    return replace(found, link_bytes_per_s=float(rate), staged=False) if kind == "lanes" else found


def prepared(
    source: str, model: str, arch: Architecture, setup: Setup, machine: hardware.Cluster,
    trained: tuple[tuple[Adapted, ...], Whole], measured_s: float, quality: str, assumed: str, fitted: bool,
) -> Run:  # fmt: skip
    """A run with its work and traffic."""
    adapted, whole = trained
    mine = held(arch, setup, adapted, whole)
    traffic = traffic_of(arch, setup, math.ceil(mine.shared), math.ceil(mine.experts))
    return Run(
        source, model, setup, machine, work_of(arch, setup, adapted, whole), traffic, measured_s, quality, assumed,
        fitted,
    )  # fmt: skip


def runs() -> list[Run]:
    """Every published run."""
    found = []
    rows = list(csv.DictReader(io.StringIO(facts.read_data("measured", "speed.csv"))))
    fitted = chosen((row["source"], row["model"]) for row in rows)
    for row in rows:
        arch = _architecture(row["config"], row["model"])
        values: dict[str, Any] = json.loads(row["setup"])
        setup = Setup(**values)
        found.append(
            prepared(
                row["source"], row["model"], arch, setup, machine_of(row["gpu"], setup.gpus, row["link"]),
                _adapter(arch, row), float(row["step_time_s"]), row["quality"], row["assumed"],
                (row["source"], row["model"]) in fitted,
            )
        )  # fmt: skip
    return found
