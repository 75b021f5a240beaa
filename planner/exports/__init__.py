"""From a plan's choices to what a trainer loads, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..adapter import adapt
from ..adapter.options import DEFAULTS, spec_of
from ..adapter.whole import trained_whole
from ..dataclass import dataclass
from ..errors import InputError, hint
from ..estimator import load, model_of
from ..schema import Notice
from ..selective import SELECTIVE
from . import peft
from .files import write

if TYPE_CHECKING:
    from ..plan import Plan

Model = str | os.PathLike[str] | Mapping[str, Any] | None


@dataclass(frozen=True)
class Exported:
    """What a trainer loads: `files` by name, the main one first; `notices` say what to fill in or to check."""

    target: str
    files: Mapping[str, str]
    notices: tuple[Notice, ...] = ()
    plan: Plan | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `export`."""
        return {
            "schema": 1,
            "target": self.target,
            "files": dict(self.files),
            "warnings": [dict(vars(notice)) for notice in self.notices],
            "plan": self.plan.to_dict() if self.plan else None,
        }

    @property
    def text(self) -> str:
        """The main file's content."""
        return next(iter(self.files.values()))

    def write(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write all files into a folder, whole or not at all; their paths."""
        return write(self.files, folder)


def text(config: Mapping[str, Any]) -> str:
    """A config as the file's content."""
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def peft_config(model: Model = None, **options: Any) -> dict[str, Any]:
    """The adapter_config.json that trains what `estimate` counts with the same adapter options.

    Raises InputError where PEFT cannot train the choice; the message names the nearest that it can.
    """
    known = {**DEFAULTS, "adapter": None, "adapter_dtype": "float32", "trust_remote_code": False}
    for name in options:
        if name not in known:
            raise InputError(name, options[name], f"one of {', '.join(known)}", hint(name, known).strip())
    given = {**known, **options, "model": model}
    spec = spec_of(given)
    found, arch = load(model_of(given), given["trust_remote_code"])
    adapted = adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    base = None if found.origin == "config" else found.model_id
    return peft.lora_config(arch, spec, adapted, whole, found.config, base)


def _peft(model: Any, options: Mapping[str, Any]) -> Exported:
    """PEFT's file needs no run: options that say how it is run are read over."""
    from .training import check_names, request_of

    request, _ = request_of(model, options)
    check_names(request)
    known = {*DEFAULTS, "adapter", "adapter_dtype", "trust_remote_code"}
    base = request.pop("model", None)
    chosen = {name: value for name, value in request.items() if name in known}
    return Exported("peft", {"adapter_config.json": text(peft_config(base, **chosen))})


def export(
    target: str, model: Model | Plan = None, *, output: str | os.PathLike[str] | None = None, **options: Any
) -> Exported:
    """What a trainer loads, for a model and the options of `estimate`, or for a Plan.

    `target` is one of planner.exports.TARGETS. Options of the export alone: `lr` (instead of the law's), `seed`,
    `out` (where the trainer writes), `train_data` (a hub id or file), and for GRPO `group` and `prompt_tokens`. With
    `output`, a folder, the files are written there. Raises InputError where the trainer cannot express the plan; the
    message names the nearest that it can.
    """
    from .registry import profile_of
    from .registry import target as find
    from .training import training_of

    found = find(target)
    if options.get("full") and not found.full:
        raise InputError(
            "full",
            True,
            f"nothing: what is written for {found.title} trains adapters",
            "The nearest is trl-sft.",
        )
    if found.id == "peft":
        done = _peft(model, options)
    else:
        training = training_of(model, options, found.usual, found.full)
        if (objective := training.setup.objective) not in ("sft", "grpo"):
            wanted = "sft or grpo: what is written is of supervised or reinforcement learning"
            raise InputError("objective", objective, wanted, "PEFT's own file (peft) has no objective.")
        if training.setup.checkpointing == SELECTIVE:
            others = f"none or layer: {found.title} has no such policy"
            raise InputError("checkpointing", SELECTIVE, others, "The nearest is layer.")
        training = replace(training, profile=profile_of(found.id, training.setup.kernels))
        settled = [f"{name} {training.said[name]}" for name in found.chooses if name in training.said]
        if settled:
            text = f"{found.title} settles these by itself, whatever the plan says: {', '.join(settled)}."
            training = replace(training, notices=(*training.notices, Notice("trainers-own", text)))
        done = Exported(found.id, found.build(training), training.notices, training.plan)
    if output is not None:
        done.write(output)
    return done


__all__ = ["Exported", "export", "peft_config", "text", "write"]
