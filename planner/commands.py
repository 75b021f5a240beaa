"""A plan as the command line that makes it again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .adapter.options import DEFAULTS
from .planning import USUAL, estimate
from .setup import Setup


def defaults() -> dict[str, Any]:
    """The options of a plan that have a default other than "not given", with it."""
    parameters = inspect.signature(estimate).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    usual = {name: value for name, value in USUAL.items() if value is not None}
    return {**Setup().to_dict(), **usual, **DEFAULTS, **named, "adapter_dtype": "float32", "epochs": 1}


def _flag(name: str, value: Any) -> list[str]:
    if name == "variant":
        return ["--dora"] if value == "dora" else []
    flag = f"--{name.replace('_', '-')}"
    if name == "data" and hasattr(value, "data"):  # what `planner.dataset` has read
        return [flag, str(value.data)]
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
    usual = defaults()
    for name, value in options.items():
        if value is not None and value != usual.get(name):
            words += _flag(name, value)
    return shlex.join([*words, *more])
