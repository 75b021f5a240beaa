"""Which model is meant: a name of the catalogue, or a pasted config, held to what a server can safely build."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..architecture.build import build_natively, has_builder, text_alone
from ..architecture.resolve import ResolvedConfig, resolve, resolve_name
from ..errors import ConfigError, InputError, UnsupportedArchitectureError
from .state import Choices

# Far above any model there is; far below what takes a server down.
LARGEST_NUMBER = 10**12
MOST_LAYERS = 2_000
DEEPEST = 40


def model_of(chosen: Choices, *, hub: bool = False) -> ResolvedConfig:
    """The model of these choices. No path of this machine is read, no code of a repository is run, and the hub is
    asked only with `hub`. Raises a PlannerError."""
    if chosen.config:
        return _safe(resolve(parsed(chosen.config)))
    if not chosen.model:
        raise InputError("model", chosen.model, "a model's name, or a config.json pasted below it")
    found = resolve_name(chosen.model, hub=hub)
    return found if found.origin == "catalogue" else _safe(found)


def parsed(text: str) -> dict[str, Any]:
    """A pasted config as an object. Raises ConfigError."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"the pasted config is not valid JSON: {error.msg} at {where}.") from None
    except (RecursionError, ValueError):
        raise ConfigError("the pasted config is not valid JSON.") from None
    if not isinstance(found, dict):
        raise ConfigError("the pasted config is no JSON object with a model_type.")
    return found


def _short(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**30 else "a number of more than 30 digits"


def _numbers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Every whole number of a config with its key."""
    if depth > DEEPEST:
        raise ConfigError("the config is nested too deeply.")
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, str(name), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _safe(found: ResolvedConfig) -> ResolvedConfig:
    """The config, if building its inventory is quick and runs nothing but the planner's own builders."""
    config = text_alone(found.config)
    for key, number in _numbers(found.config):
        if ("layer" in key or "depth" in key) and abs(number) > MOST_LAYERS:
            raise ConfigError(f"{key}: found {_short(number)}, expected at most {MOST_LAYERS:,}.")
        if abs(number) > LARGEST_NUMBER:
            raise ConfigError(f"{key}: found {_short(number)}, expected at most {LARGEST_NUMBER:,}.")
    kind = config.get("model_type")
    if not isinstance(kind, str) or not has_builder(kind):
        raise UnsupportedArchitectureError(
            f"the page builds only model types that lora-plan itself knows, and {str(kind)[:60]!r} is none; on the "
            "command line, lora-plan estimate --model config.json asks transformers too."
        )
    build_natively(config)
    return found
