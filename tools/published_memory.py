"""Published measurements of memory as cases: what was run, by a trainer's profile, and what was measured.

`cases()` reads data/measured/memory.csv and peft_method_comparison.csv. A reader turns a row into options of
`planner.running.running`: what the source states, and the name of the trainer whose profile fills the rest. Nothing
here depends on what was measured. A row that cannot be predicted is a `Skipped` with the reason.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from planner import facts, hardware
from tools.measured_models import CONFIGS, NAMES
from tools.published_memory_readers import GIB, READERS, NotCoveredError, Row

DRIVER = ", nvidia-smi"


@dataclass(frozen=True)
class Case:
    """One published measurement. `metric` is what was measured: allocated, reserved or device bytes of a GPU, or
    the memory of the GPU that it just fits ("needed").

    `stated`: batch, length and checkpointing are the source's own. `assumed` says what is not stated.
    """

    source: str
    row: int
    quality: str
    model: str
    options: dict[str, Any]
    metric: str
    measured: float
    stated: bool
    assumed: str = ""
    detail: str = ""
    gpu: str = ""

    @property
    def memory_bytes(self) -> int | None:
        """The GPU's memory, where its name tells it."""
        found = re.search(r"(\d+) ?GB", self.gpu)
        return int(found[1]) * GIB if found else None

    @property
    def headline(self) -> bool:
        """Whether it is of quality A with batch, length and checkpointing stated, and a trainer's own figure."""
        return self.quality == "A" and self.stated and not self.source.endswith(DRIVER)

    @property
    def trainer(self) -> str:
        """The profile."""
        return str(self.options.get("trainer", "plain"))

    @property
    def fitted(self) -> bool:
        """Whether constants may be fitted on it: half of the groups (source, model, method), by their hashes."""
        key = f"{self.source.removesuffix(DRIVER)}|{self.model}|{self.options.get('method')}"
        return int(hashlib.sha256(key.encode()).hexdigest(), 16) % 2 == 0


@dataclass(frozen=True)
class Skipped:
    """A row that is not predicted, and why."""

    source: str
    row: int
    model: str
    why: str


def workspaces_of(gpu: str) -> dict[str, int]:
    """The field that a GPU of this name changes in a set-up, whoever names it; its type is what the row says."""
    found = hardware.workspace_bytes(gpu.removeprefix("NVIDIA "))
    return {} if found is None else {"workspace_bytes": found}


def _table(name: str) -> list[Row]:
    return list(csv.DictReader(io.StringIO(facts.read_data("measured", name))))


def _of_trainers() -> Iterator[Case | Skipped]:
    for number, raw in enumerate(_table("memory.csv"), start=2):
        source, reader = next(value for start, value in READERS.items() if raw["source"].startswith(start))
        try:
            read = reader(raw)
        except NotCoveredError as error:
            yield Skipped(source, number, raw["model"], str(error))
            continue
        unit = GIB if raw["unit"].startswith("GiB") else 1e9
        case = Case(
            source, number, raw["quality"], raw["model"], read.options, read.metric,
            float(raw["peak_memory_gb"]) * unit * read.scale, read.stated, read.assumed, read.detail,
            raw["gpu_type"],
        )  # fmt: skip
        yield case
        for metric, measured in read.extra:
            yield Case(
                source + DRIVER, number, raw["quality"], raw["model"], read.options, metric, measured,
                read.stated, read.assumed, read.detail, raw["gpu_type"],
            )  # fmt: skip


PEFT_VARIANTS = ("lorafa", "mica")


def _of_peft() -> Iterator[Case | Skipped]:
    source = "huggingface/peft method_comparison"
    for number, raw in enumerate(_table("peft_method_comparison.csv"), start=2):
        if raw["task"] != "MetaMathQA":
            yield Skipped(source, number, raw["experiment"], "a model of images")
        elif raw["peft_type"] != "LORA" or any(name in raw["experiment"] for name in PEFT_VARIANTS):
            yield Skipped(
                source, number, raw["experiment"], f"{raw['experiment'].split('/')[0]} is not LoRA as planned"
            )
        else:
            options = {
                "rank": int(raw["r"]), "targets": raw["target_modules"].replace(";", ","),
                "batch": int(raw["batch_size"]),
                "seq_len": int(raw["max_seq_length"]), "checkpointing": "none", "trainer": "peft-comparison",
            }  # fmt: skip
            yield Case(
                source, number, "A", raw["model"], options, "reserved",
                float(raw["accelerator_memory_max_bytes"]), True,
                "the longest batch has the greatest length", gpu="NVIDIA L40S 48GB",
            )  # fmt: skip


def cases() -> tuple[list[Case], list[Skipped]]:
    """Every measurement that can be predicted, and the others."""
    found, left = [], []
    for item in (*_of_trainers(), *_of_peft()):
        if isinstance(item, Case):
            found.append(item)
        else:
            left.append(item)
    return found, left


def model_of(name: str) -> Any:
    """A case's model as `planner` takes it: a name, or a config where the catalogue has none."""
    return CONFIGS.get(name) or NAMES.get(name, name)
