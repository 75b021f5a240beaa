"""Published figures of GRPO as rows: passes of engines that make completions, and steps."""

from __future__ import annotations

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner import hardware
from planner.estimator import load
from planner.running import running
from planner.setup import Setup
from planner.speed import StepTime
from planner.speed.decode import Engine, cache_bytes, load_of, pace_of, pass_s
from planner.speed.efficiency import constants

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "data" / "measured"
COUNTS = ("rank", "batch", "accumulation", "prompt_tokens", "seq_len", "mean_completion", "vllm_gpus")


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of a table of data/measured."""
    with (MEASURED / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True)
class Pass:
    """A published pass: its row, its seconds, and the formula's under an engine."""

    row: dict[str, str]

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Source, engine, model and GPUs."""
        gpus = "" if self.row["gpus"] == "1" else f"{self.row['gpus']}x "
        return self.row["source"], self.row["engine"], self.row["model"], gpus + self.row["gpu"]

    @property
    def seconds(self) -> float:
        """As published."""
        return float(self.row["pass_ms"]) / 1e3

    def predicted(self, vllm: Engine) -> float:
        """Seconds of the pass, with vLLM's constants where it is vLLM's."""
        _, arch = load(self.row["model"], False)
        own = constants().efficiency
        engine = vllm if self.row["engine"] == "vllm" else Engine(own.memory)
        gpus = int(self.row["gpus"])
        setup = Setup(
            attention_kernel="flash", objective="grpo", loss="tiled", generation="server", vllm_gpus=gpus,
            vllm_tensor_parallel=gpus,
        )  # fmt: skip
        machine = hardware.cluster(hardware.find(self.row["gpu"]), 1)
        work, pace = load_of(arch, setup, (), engine), pace_of(machine, setup, engine, own)
        batch = float(self.row["batch"])
        return pass_s(work, pace, engine, batch, batch * cache_bytes(arch, int(self.row["context"]), 2))


def options_of(row: dict[str, str]) -> dict[str, Any]:
    """The options of a step's row, as `running` takes them."""
    found: dict[str, Any] = {"objective": "grpo", "gpu": row["gpu"], "gpus": int(row["gpus"])}
    if row["method"] == "full":
        found["method"] = "full"
    words = shlex.split(row["options"])
    for place, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name = word[2:].replace("-", "_")
        value = words[place + 1] if place + 1 < len(words) and not words[place + 1].startswith("--") else None
        if value is None:
            found[name] = True
        elif name in COUNTS:
            found[name] = int(value)
        else:
            found[name] = float(value) if name == "vllm_memory" else value
    return found


def step_of(row: dict[str, str]) -> StepTime:
    """The formula's step of a row."""
    found = running(row["model"], options_of(row)).time()
    assert found is not None
    return found
