"""A plan as the command line that makes it again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from . import estimator
from .adapter.options import DEFAULTS
from .planning import USUAL, estimate
from .setup import Setup
from .trainers import PLAIN


@cache
def defaults() -> dict[str, Any]:
    """The options of a plan that have a default other than "not given", with it."""
    parameters = inspect.signature(estimate).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    usual = {name: value for name, value in USUAL.items() if value is not None}
    return {**Setup().to_dict(), **usual, **DEFAULTS, **named, "adapter_dtype": "float32", "epochs": 1}


# What a GPU without units for bfloat16, or QLoRA by no program in particular, makes something else of.
_SAID = frozenset(("precision", "autocast", "upcast_small", "trainer"))


def _goes_without_saying(name: str, value: Any, options: Mapping[str, Any]) -> bool:
    """Whether an option has the value that it has where nobody says it, beside these others: a trainer's profile and
    an objective fill fields of a set-up in their own way."""
    if value != defaults().get(name):
        return False
    if USUAL.get(name, value) is not None and name != "checkpointing":
        return True
    plain = options.get("trainer") in (None, PLAIN) and options.get("objective") in (None, "sft")
    return plain and name not in _SAID


# Flags that are off where they are not said, and have no form for that.
_ONLY_ON = frozenset(("trust_remote_code", "use_rslora"))
_OF_SEARCH = frozenset(
    ("budget", "deadline", "max_regret", "prefer", "fit", "ranks", "micro_batch", "alternatives", "frontier")
)
# What changes no file of an export.
_NOT_EXPORTED = frozenset(("eval_batch", "loading", "placing", "host_memory"))


@cache
def _typed() -> frozenset[str]:
    """Options that the command line has, by their names: what an estimate takes, but for what only programs say."""
    taken = {*inspect.signature(estimator.estimate).parameters, *inspect.signature(estimate).parameters}
    return frozenset((taken | {*USUAL, *DEFAULTS, "variant"}) - {"on_progress", "options", "model"})


def _flag(name: str, value: Any) -> list[str]:
    if name == "variant":
        return ["--dora"] if value == "dora" else []
    if name in _ONLY_ON and value is False:
        return []
    flag = f"--{name.replace('_', '-')}"
    if name == "data" and hasattr(value, "data"):  # what `planner.dataset` has read
        return [flag, str(value.data)]
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{flag[2:]}"]
    if hasattr(value, "measurements"):
        return [flag, "calibration.json"]  # measured in the program: no name says where it came from
    if isinstance(value, Mapping):
        return [flag, ",".join(f"{key}={item}" for key, item in value.items())]
    if isinstance(value, (list, tuple)):
        return [flag, ",".join(map(str, value))]
    if isinstance(value, float):
        return [flag, repr(value).removesuffix(".0")]
    return [flag, str(value)]


def command_of(
    model: object, options: Mapping[str, Any], command: str = "report", more: Sequence[str] = ()
) -> str:
    """The command line that makes this plan again: the model, and every option that is not at its default. What only
    programs can say stands behind it as a comment."""
    words = ["lora-plan", *command.split()]
    if isinstance(model, Mapping):
        words += ["--model", "config.json"]  # given as a mapping: no name says where it came from
    elif model is not None:
        words += ["--model", str(model)]
    known = _typed() | (_OF_SEARCH if words[1] == "plan" else frozenset())
    untyped = []
    for name, value in options.items():
        if value is None or _goes_without_saying(name, value, options):
            continue
        if words[1] == "export" and name in _NOT_EXPORTED:
            continue
        if name in known:
            words += _flag(name, value)
        else:
            untyped.append(f"{name}={value!r}")
    line = shlex.join([*words, *more])
    return f"{line}  # without {', '.join(untyped)}, which only Python takes" if untyped else line
