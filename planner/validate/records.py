"""Run records: one training run's configuration and result as a versioned JSON file, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import InputError, PlannerError
from ..whole_files import put

SCHEMA = 1
Kind = Literal["sft", "rl", "flops", "kernel"]
Method = Literal["full", "lora"]
Status = Literal["ok", "diverged", "failed"]
Precision = Literal["float32", "bfloat16"]


# Fields added after the first records, with the value that stands for "as before": there they are no part of the id.
LATER: dict[str, Any] = {"variant": "plain", "experts": "scaled"}


class RecordError(PlannerError, OSError):
    """A record cannot be written or read; what was finished before is untouched."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result on one machine. Its hash names the record.

    `task` is a task's name with its settings (`biographies:people=200`). `examples` distinct examples are gone
    through again and again; 0 means fresh ones at every step. `layers` are the planner's layer sets. `p` and `q`
    apply the article's invariant transform (A's scale and rate by p, B's rate by q, alpha by 1/(pq),
    epsilons likewise).
    """

    kind: Kind = "sft"
    model: str = "tiny"
    task: str = "dialect"
    method: Method = "lora"
    lr: float = 1e-3
    rank: int = 0
    alpha: float = 32.0
    layers: str = "all"
    steps: int = 200
    batch: int = 16
    seq_len: int = 64
    seed: int = 0
    examples: int = 0
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-12
    p: float = 1.0
    q: float = 1.0
    group: int = 8
    evaluate_at: tuple[int, ...] = ()
    checkpointing: bool = False
    precision: str = "float32"
    variant: str = "plain"
    experts: str = "scaled"

    def __post_init__(self) -> None:
        """Raise InputError where a field is outside its choices."""
        for name, kinds in (("kind", Kind), ("method", Method), ("precision", Precision)):
            choices = get_args(kinds)
            if getattr(self, name) not in choices:
                raise InputError(name, getattr(self, name), f"one of {', '.join(choices)}")
        if not (0 < self.lr < math.inf):
            raise InputError("lr", self.lr, "a learning rate above 0")
        if (self.method == "lora") != (self.rank >= 1):
            raise InputError("rank", self.rank, "a rank of at least 1 with lora, 0 with full")
        for name in ("steps", "batch", "seq_len", "group"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a whole number of at least 1")

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the configuration and of the schema's number."""
        told = {k: v for k, v in self.to_dict().items() if k not in LATER or v != LATER[k]}
        text = json.dumps({"schema": SCHEMA, **told}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def but(self, **changes: Any) -> RunConfig:
        """The same with some fields changed; full fine-tuning has no rank."""
        return replace(self, **changes)


@dataclass(frozen=True)
class RunRecord:
    """One finished run. `curve` holds the training loss of each step, `evaluations` (step, loss); `norms` the
    spectral and Frobenius norms of A and B by module at the end; `measured` what else a kind of run yields.

    `peak_memory_bytes` is what torch allocated on a GPU, the process's resident size on a CPU. The `result` is what
    the same configuration gives again; times, memory, hardware and date are not part of it.
    """

    config: RunConfig
    status: Status
    curve: tuple[float, ...] = ()
    evaluations: tuple[tuple[int, float], ...] = ()
    norms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    flops: int | None = None
    trainable: int | None = None
    step_s: float | None = None
    wall_s: float | None = None
    peak_memory_bytes: int | None = None
    reason: str = ""
    weights: str = ""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    schema: int = SCHEMA

    @property
    def id(self) -> str:
        """The configuration's."""
        return self.config.id

    @property
    def result(self) -> dict[str, Any]:
        """What the configuration decides: the same on a second run on the same machine."""
        keys = (
            "status",
            "curve",
            "evaluations",
            "norms",
            "measured",
            "flops",
            "trainable",
            "reason",
            "weights",
        )
        data = self.to_dict()
        return {key: data[key] for key in ("config", *keys)}

    def evaluation(self, step: int | None = None) -> float:
        """The evaluation loss at a step (the last one without), infinite where the run did not get there."""
        found = dict(self.evaluations)
        if self.status != "ok" or not found:
            return math.inf
        return found.get(max(found) if step is None else step, math.inf)

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it; a loss that is no number is null."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["config"] = self.config.to_dict()
        data["curve"] = [_finite(loss) for loss in self.curve]
        data["evaluations"] = [[step, _finite(loss)] for step, loss in self.evaluations]
        return {"schema": data.pop("schema"), "id": self.id, **data}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def config_from(raw: Mapping[str, Any]) -> RunConfig:
    """A configuration as JSON holds it."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return RunConfig(**values)


def from_dict(data: Mapping[str, Any], where: str = "record") -> RunRecord:
    """A record as JSON holds it. Raises RecordError where it is another schema or not whole."""
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, Mapping) else None
        raise RecordError(f"{where} has schema {found!r}; this version reads {SCHEMA}.")
    try:
        known = {f.name for f in fields(RunRecord)} - {"config", "curve", "evaluations"}
        record = RunRecord(
            config=config_from(data["config"]), curve=tuple(_number(loss) for loss in data["curve"]),
            evaluations=tuple((int(step), _number(loss)) for step, loss in data["evaluations"]),
            **{key: value for key, value in data.items() if key in known},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{where} is not a whole record: {error}.") from error
    if data.get("id") != record.id:
        raise RecordError(f"{where} says id {data.get('id')!r}, but its configuration's is {record.id}.")
    return record


def path_of(folder: str | os.PathLike[str], run_id: str) -> Path:
    """Where a run's record lies."""
    return Path(folder) / f"{run_id}.json"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all. Raises RecordError where the disk or folder refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, text)
    except OSError as error:
        raise RecordError(
            f"{path.name} cannot be written into {path.parent}: {error.strerror or error}. "
            "Runs finished before are kept; make room and give the same command again."
        ) from error


def write(folder: str | os.PathLike[str], record: RunRecord) -> Path:
    """Write a record under its configuration's hash."""
    path = path_of(folder, record.id)
    write_whole(path, json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")) + "\n")
    return path


def read(folder: str | os.PathLike[str], run_id: str) -> RunRecord | None:
    """The record of this id, or None where there is none. A file that is none of ours is an error."""
    path = path_of(folder, run_id)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read as a record: {error}. Remove it to run it again."
        ) from error
    return from_dict(data, str(path))


def read_all(folder: str | os.PathLike[str]) -> Iterator[RunRecord]:
    """Every record of a folder, by id."""
    for path in sorted(Path(folder).glob("[0-9a-f]*.json")):
        if len(path.stem) == 16:
            record = read(folder, path.stem)
            if record is not None:
                yield record
