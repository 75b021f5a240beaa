"""Records that are there already: read from a folder or a packed file, and judged without running anything."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from .api import judge
from .claims import IDS, Setting, claim
from .models import shape
from .records import RunConfig, RunRecord, from_dict, read_all
from .report import Found


class Kept:
    """Records in memory, behind the sweep's look-up."""

    def __init__(self, records: Mapping[str, RunRecord]) -> None:
        self.records = records

    def record(self, config: RunConfig) -> RunRecord | None:
        """The record of a configuration."""
        return self.records.get(config.id)


def load(source: str | os.PathLike[str]) -> dict[str, RunRecord]:
    """Records by id, from a folder of them or a .jsonl file, one a line. Raises InputError where there is none."""
    place = Path(source)
    if place.is_dir():
        found = {record.id: record for record in read_all(place)}
    elif place.is_file():
        try:
            lines = place.read_text(encoding="utf-8").splitlines()
            each = [
                from_dict(json.loads(line), f"{place.name} line {n}")
                for n, line in enumerate(lines, 1)
                if line
            ]
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(
                "runs", os.fspath(source), "a .jsonl file of run records", f"{error}."
            ) from error
        found = {record.id: record for record in each}
    else:
        raise InputError("runs", os.fspath(source), "a folder of run records or a .jsonl file that exists")
    if not found:
        raise InputError("runs", os.fspath(source), "a folder of run records that holds at least one")
    return found


def setting_of(records: Mapping[str, RunRecord]) -> Setting:
    """What the records were made for: the models of supervised runs on fresh text (the one with most arms first, then
    those of other widths whose comparison is whole), their usual number of steps, and how many seeds they have. Seeds
    that only some arms were given do not count."""
    usual = [r.config for r in records.values() if r.config.kind == "sft" and r.config.task == "dialect"]
    if not usual:
        return Setting()
    steps, batch = Counter((config.steps, config.batch) for config in usual).most_common(1)[0][0]
    usual = [config for config in usual if (config.steps, config.batch) == (steps, batch)]
    arms = Counter(config.model for config in usual if config.seed == 0)
    first = arms.most_common(1)[0][0] if arms else usual[0].model
    models = {config.model for config in usual}
    runs = Counter(config.seed for config in usual if config.model == first)
    seeds, kept = 1, Kept(records)
    while runs[seeds] and runs[seeds] >= runs[1] / 2:
        seeds += 1
    # Another width counts where both arms of its comparison are all there: a part of one decides nothing.
    others = [
        model
        for model in sorted(models - {first}, key=lambda model: int(shape(model)["hidden_size"]))
        if not claim("C3").needs(Setting((model,), seeds, steps), kept.record)
    ]
    return Setting((first, *others), seeds, steps)


def judge_all(records: Mapping[str, RunRecord], setting: Setting) -> tuple[Found, ...]:
    """Every claim's verdict on these records: on the setting's models or, where runs are missing there, on the first
    other model (by width) that has all of them; undecided where none has."""
    kept = Kept(records)
    used = {record.config.model for record in records.values()} - {setting.models[0]}
    others = sorted(used, key=lambda model: int(shape(model)["hidden_size"]))
    return tuple(
        _judge(name, [setting, *(replace(setting, models=(m,)) for m in others)], kept) for name in IDS
    )


def _judge(name: str, settings: Sequence[Setting], kept: Kept) -> Found:
    found = [judge(claim(name), setting, kept.record) for setting in settings[:1]]
    for setting in settings[1:]:
        if not math.isnan(found[-1].judgement.measured.value):
            return found[-1]
        found.append(judge(claim(name), setting, kept.record))
    return found[0] if math.isnan(found[-1].judgement.measured.value) else found[-1]
