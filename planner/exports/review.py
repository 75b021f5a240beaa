"""`planner.review`: a trainer's config against the planner's figures, and what looks wrong in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..choices import Method
from ..dataclass import dataclass
from ..errors import InputError, PlannerError
from ..plan import Plan
from ..schema import Notice
from .checks import CHECKS, SEVERITIES, Case, Finding
from .checks_full import FULL_CHECKS
from .imported import Imported, Unread, import_config
from .trainers import trainer
from .training import OWN, Rate, Training, training_of

SCHEMA = 1


@dataclass(frozen=True)
class Review:
    """The plan of a config, the law's learning rate for it, and the findings, gravest first."""

    plan: Plan
    law: Rate | None
    lr: float | None
    findings: tuple[Finding, ...]
    unread: tuple[Unread, ...]
    notices: tuple[Notice, ...]
    format: str | None = None
    file: str | None = None
    method: Method = "lora"

    def worst(self) -> str | None:
        """The gravest severity; None without findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in SEVERITIES if severity in found), None)

    def at_least(self, severity: str) -> bool:
        """Whether a finding is as grave as this, or graver."""
        limit = SEVERITIES.index(severity)
        return any(SEVERITIES.index(finding.severity) <= limit for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `review`."""
        law = self.law
        return {
            "schema": SCHEMA,
            "format": self.format,
            "file": self.file,
            "method": self.method,
            "findings": [finding.to_dict() for finding in self.findings],
            "learning_rate": {
                "given": self.lr, "law": law.value if law else None, "low": law.low if law else None,
                "high": law.high if law else None,
            },
            "unread": [dict(vars(item)) for item in self.unread],
            "warnings": [dict(vars(notice)) for notice in self.notices],
            "plan": self.plan.to_dict(),
        }  # fmt: skip


def _unmatched(unread: Iterable[Unread]) -> Iterable[Finding]:
    """A name of a module that the model does not have."""
    for item in unread:
        if item.value == "target":
            yield Finding(
                "unmatched-target", "note", f"{item.name} {item.reason}.",
                "PEFT passes over names that match nothing.", "Take it out, or correct it.", trainer("peft").source,
            )  # fmt: skip


def _unknown_keys(unread: Iterable[Unread], format: str | None) -> Iterable[Finding]:
    """An option that the trainer does not know is a slip, or does nothing."""
    if format is None:
        return
    for item in unread:
        if not item.known:
            yield Finding(
                "unknown-option", "warning", f"{item.name}: {item.value} is no option of this trainer.", item.reason,
                "Correct its name, or take it out.", trainer(format).source,
            )  # fmt: skip


def _law(training: Training) -> Rate | None:
    """What the law says for this run, whatever rate was given; None where no law covers it."""
    if training.setup.objective != "sft":
        return None
    try:
        return replace(training, own={**training.own, "lr": None}).rate_for(None)
    except PlannerError:
        return None


def review(
    config: str | os.PathLike[str] | Mapping[str, Any] | Imported | Plan, *, format: str | None = None,
    gpus: int | None = None, **options: Any,
) -> Review:  # fmt: skip
    """What a trainer's config takes and what looks wrong in it: memory, time, capacity, learning rate, targets.

    `config` is a file (PEFT's adapter_config.json, TRL's, Axolotl's or LLaMA-Factory's YAML), a mapping, or a Plan.
    Further options are those of `estimate` (`gpu`, `tokens`, `dataset` ...) and `lr`; they win over the file's.
    """
    unread: tuple[Unread, ...] = ()
    notices: tuple[Notice, ...] = ()
    run: dict[str, Any] = {}
    kind = file = None
    base: Any = config
    given = dict(options)
    if isinstance(config, Plan):
        given.update({"gpus": gpus} if gpus is not None else {})
    else:
        found = config if isinstance(config, Imported) else import_config(config, format=format, gpus=gpus)
        unread, notices, kind, file = found.unread, found.notices, found.format, found.file
        run = dict(found.run)
        size = ("dataset", "tokens", "episodes", "data")
        kept = {
            name: value for name, value in found.request.items()
            if not (name in size and any(options.get(each) is not None for each in size))
        }  # fmt: skip
        given, base = {**kept, **given}, None
        base = given.pop("model", None)
    for name in ("lr", "schedule"):
        if options.get(name) is not None:
            run[name] = options[name]
    given.pop("schedule", None)
    own = {name: run[name] for name in ("lr", "train_data", "full") if run.get(name) is not None}
    if kind == "trl-grpo" and not any(given.get(name) for name in ("episodes", "dataset", "data")):
        given["episodes"] = _episodes(given, run)
    if kind == "peft" and "batch" not in given:  # which says nothing of how it is run: a sequence a GPU
        given = {"accumulation": 1, **({} if gpus is None else {"gpus": gpus}), **given}
    training = training_of(base, {**{k: v for k, v in given.items() if k not in OWN or k == "lr"}, **own})
    law = _law(training)
    case = Case(training, law, run, kind)
    findings = [
        finding for check in (FULL_CHECKS if training.full else CHECKS) for finding in check(case)
    ] + [
        *_unmatched(unread),
        *_unknown_keys(unread, kind),
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Review(training.plan, law, run.get("lr"), tuple(findings), unread, notices, kind, file,
                  training.setup.method)  # fmt: skip


def _episodes(given: Mapping[str, Any], run: Mapping[str, Any]) -> int:
    """Completions that the run samples: steps times those of a step. Raises InputError where it does not say."""
    steps = run.get("max_steps") or -1
    if steps > 0:
        return int(steps) * int(given["batch"])
    raise InputError(
        "episodes",
        None,
        "how many completions the run samples",
        "Give --episodes; the file has no max_steps.",
    )
