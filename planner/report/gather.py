"""The material of a report: the plan as its JSON, and the same plan at other ranks, lengths or choices."""

from __future__ import annotations

import datetime
import inspect
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..adapter.options import DEFAULTS
from ..errors import InputError, PlannerError
from ..estimator import estimate
from ..exports import export
from . import machine
from .wording import clean_data

RANKS = (1, 4, 8, 16, 32, 64, 128, 256, 512)
LENGTHS = (512, 2048, 8192, 32768)
_ELSEWHERE = ("model", "warnings", "sources")  # the same at every rank, or said once
EPOCH = "SOURCE_DATE_EPOCH"


def moment() -> datetime.datetime:
    """The time that a report bears: SOURCE_DATE_EPOCH where it is set, else now."""
    given = os.environ.get(EPOCH)
    if given is None or not given.strip():
        return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    try:
        return datetime.datetime.fromtimestamp(int(given), datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        raise InputError(EPOCH, given, "seconds since 1970 as a whole number") from None


def options_of_estimate() -> dict[str, Any]:
    """The options that a plan takes, with their defaults."""
    parameters = inspect.signature(estimate).parameters
    return {name: option.default for name, option in parameters.items() if name != "model"}


def _flag(name: str, value: Any) -> list[str]:
    if name == "variant":
        return ["--dora"] if value == "dora" else []
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [flag, ",".join(f"{key}={item}" for key, item in value.items())]
    if isinstance(value, (list, tuple)):
        return [flag, ",".join(map(str, value))]
    if isinstance(value, float):
        return [flag, f"{value:g}"]
    return [flag, str(value)]


def command_of(
    model: object, options: Mapping[str, Any], command: str = "report", more: Sequence[str] = ()
) -> str:
    """The command line that makes this plan again: the model, and every option that is not at its default."""
    words = ["lora-plan", *command.split()]
    if isinstance(model, Mapping):
        words += ["--model", "config.json"]  # given as a mapping: no name says where it came from
    elif model is not None:
        words += ["--model", str(model)]
    defaults = options_of_estimate()
    for name, value in options.items():
        if value is not None and value != defaults.get(name):
            words += _flag(name, value)
    return shlex.join([*words, *more])


def _at(model: Any, options: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """A plan's JSON with some options changed, without what does not change with them."""
    found = estimate(model, **{**options, **changed}).to_dict()
    return {key: value for key, value in found.items() if key not in _ELSEWHERE}


def at_ranks(model: Any, options: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The plan at usual ranks and at its own. Only its own where a file gives the adapter."""
    ranks = {rank} if options.get("adapter") is not None else {*RANKS, rank}
    return {str(r): _at(model, options, **({} if r == rank else {"rank": r})) for r in sorted(ranks)}


def at_lengths(model: Any, options: Mapping[str, Any], ranks: Iterable[str]) -> dict[str, Any]:
    """LoRA's FLOPs over full fine-tuning's by sequence length and rank; {} where there is no count."""
    if options.get("adapter") is not None:
        return {}
    found: dict[str, Any] = {}
    for length in LENGTHS:
        row = {
            rank: (_at(model, options, rank=int(rank), seq_len=length, batch=1)["flops"] or {}).get("ratio")
            for rank in ranks
        }
        if all(value is not None for value in row.values()):
            found[str(length)] = row
    return found


def _config(model: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What PEFT loads for this adapter, or why there is nothing that it could load."""
    known = {**DEFAULTS, "adapter": None, "adapter_dtype": None, "trust_remote_code": None}
    chosen = {name: value for name, value in options.items() if name in known}
    try:
        return {"config": export("peft", model, **chosen), "reason": None}
    except PlannerError as error:
        return {"config": None, "reason": str(error)}


def gather(
    model: Any,
    options: Mapping[str, Any],
    against: Sequence[Mapping[str, Any]] = (),
    *,
    lengths: bool = True,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that a report may show, as cleaned plain data.

    `against` holds the options in which other plans differ from this one; with it a comparison is made.
    """
    known = (*options_of_estimate(),)
    ours, run = machine.split(options, known)
    plan = estimate(model, **ours).to_dict()
    rank = plan["adapter"]["rank"]
    ranks = at_ranks(model, ours, rank)
    extra = machine.fill(plan, model, ours, run, [int(r) for r in ranks])
    material = {
        "plan": plan,
        "ranks": ranks,
        "lengths": at_lengths(model, ours, ranks) if lengths else {},
        "others": [_other(model, options, changes, known) for changes in against],
        "peft": _config(model, ours),
        **extra,
        "command": command_of(model, options, more=more),
        "estimate_command": command_of(model, ours, "estimate"),
        "export_command": command_of(model, _of_adapter(ours), "export peft"),
    }
    found: dict[str, Any] = clean_data(material)
    return found


def _of_adapter(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in options.items() if name in (*DEFAULTS, "adapter", "trust_remote_code")
    }


def _other(
    model: Any, options: Mapping[str, Any], changes: Mapping[str, Any], known: tuple[str, ...]
) -> dict[str, Any]:
    """A plan beside the first: what differs, and its JSON."""
    changed = {**options, **changes}
    other = changed.pop("model", model)
    ours, run = machine.split(changed, known)
    plan = estimate(other, **ours).to_dict()
    extra = machine.fill(plan, other, ours, run, [plan["adapter"]["rank"]])
    return {
        "changes": {key: str(value) for key, value in changes.items()},
        "plan": plan,
        "regret": extra["regret"],
    }
