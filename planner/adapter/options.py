"""From the options of a call, as a person or a program writes them, to an AdapterSpec."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import InputError
from .files import read_spec
from .spec import ALL_LINEAR, AdapterSpec, check_spec

Number = TypeVar("Number", int, float)

# The options that describe an adapter, with their defaults.
DEFAULTS: dict[str, Any] = {
    "rank": 32, "alpha": 32, "layers": None, "targets": None, "target_regex": None, "target_parameters": None,
    "layers_to_transform": None, "exclude_modules": None, "rank_pattern": None, "alpha_pattern": None,
    "modules_to_save": None, "bias": "none", "experts": "scaled", "layout": None, "variant": "lora",
    "use_rslora": False,
}  # fmt: skip
_PLAIN = re.compile(r"[\w.,\-\s/:]*")


def names(field: str, value: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """A comma list, or a sequence, as a tuple of distinct names; None stays None."""
    if value is None:
        return None
    try:
        items = value.split(",") if isinstance(value, str) else list(value)
    except TypeError as error:
        raise InputError(field, value, "a comma list of names") from error
    found = tuple(dict.fromkeys(str(item).strip() for item in items if str(item).strip()))
    if not found:
        raise InputError(field, value, "a comma list of names")
    return found


def _names_or_regex(field: str, value: Any) -> tuple[tuple[str, ...] | None, str | None]:
    """A list of names; or, where one string is more than a comma list of names, a regular expression."""
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return None, value
    return names(field, value), None


def _layer_numbers(value: Any) -> tuple[int, ...] | None:
    expected = "layer numbers from 0, like 0,1,5-8"
    if value is None:
        return None
    items = [value] if isinstance(value, int) else value.split(",") if isinstance(value, str) else value
    found: set[int] = set()
    try:
        for item in items:
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                raise ValueError
            first, dash, last = str(item).strip().partition("-")
            start, end = int(first), int(last if dash else first)
            if not 0 <= start <= end < 100_000:
                raise ValueError
            found.update(range(start, end + 1))
    except (TypeError, ValueError):
        raise InputError("layers-to-transform", value, expected) from None
    if not found:
        raise InputError("layers-to-transform", value, expected)
    return tuple(sorted(found))


def _pattern(field: str, value: Any, number: type[Number]) -> tuple[tuple[str, Number], ...]:
    expected = "NAME=NUMBER pairs, like q_proj=8,down_proj=64"
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple((str(key), each) for key, each in value.items())
    if not isinstance(value, str):
        raise InputError(field, value, expected)
    found: dict[str, Number] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        key, equals, text = item.rpartition("=")
        try:
            found[key.strip()] = number(text)
        except ValueError:
            equals = ""
        if not equals or not key.strip():
            raise InputError(field, item, expected)
    return tuple(found.items())


def spec_of(options: Mapping[str, Any]) -> AdapterSpec:
    """The spec that the options describe, checked; `adapter` in them names an existing adapter's files instead."""
    if options.get("adapter") is not None:
        for name, usual in DEFAULTS.items():
            if options[name] != usual:
                raise InputError(name.replace("_", "-"), options[name], "nothing beside adapter")
        spec = read_spec(os.fspath(options["adapter"]))
        dtype = options["adapter_dtype"]
        return spec if dtype == "float32" else replace(spec, dtype=dtype)
    layers = names("layers", options["layers"])
    targets, regex = _names_or_regex("targets", options["targets"])
    if targets == (ALL_LINEAR,) and layers is None:  # PEFT's own spelling of target_modules
        targets, layers, options = None, targets, {**options, "targets": None}
    given = [name for name, value in (("layers", layers), ("targets", options["targets"]),
                                      ("target-regex", options["target_regex"])) if value]  # fmt: skip
    if len(given) > 1:
        value = options[given[1].replace("-", "_")]
        shown = value if isinstance(value, str) else ",".join(value)
        raise InputError(given[1], shown, f"nothing beside {given[0]}", "Give one of the two.")
    regex = options["target_regex"] or regex
    parameters = names("target-parameters", options["target_parameters"]) or ()
    excluded, exclude_regex = _names_or_regex("exclude-modules", options["exclude_modules"])
    experts, alpha = options["experts"], options["alpha"]
    chosen = targets or regex
    layout: Any = options["layout"] or ("tinker" if experts == "shared-outer" and not chosen else "modules")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise InputError("alpha", alpha, "a number above 0")
    spec = AdapterSpec(
        rank=options["rank"], alpha=alpha, layers=None if chosen else layers or (None if parameters else ("all",)),
        targets=targets, experts=experts, layout=layout, variant=options["variant"],
        dtype=options["adapter_dtype"], target_regex=regex, target_parameters=parameters,
        layers_to_transform=_layer_numbers(options["layers_to_transform"]), exclude_modules=excluded or (),
        exclude_regex=exclude_regex, rank_pattern=_pattern("rank-pattern", options["rank_pattern"], int),
        alpha_pattern=_pattern("alpha-pattern", options["alpha_pattern"], float),
        modules_to_save=names("modules-to-save", options["modules_to_save"]) or (), bias=options["bias"],
        use_rslora=bool(options["use_rslora"]),
    )  # fmt: skip
    check_spec(spec)
    return spec
