"""A simulation beside a plan: the JSON of `lora-plan simulate --json`, read and held to the same fine-tune."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

_EXPECTED = "the output of `lora-plan simulate --json`"
METHODS = ("lora", "qlora")
LARGEST_BYTES = 64 * 2**20


def read(simulated: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The simulation in a file, or as a mapping. Raises InputError."""
    if isinstance(simulated, Mapping):
        found: Any = dict(simulated)
    else:
        place = os.fspath(simulated)
        try:
            if os.path.getsize(place) > LARGEST_BYTES:
                raise InputError("simulated", place, _EXPECTED, "It is too large for one.")
            with open(place, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("simulated", place, f"{_EXPECTED} ({error})") from error
    entries = found if isinstance(found, dict) else {}
    steps = {each: dict(entries[each]) for each in METHODS if isinstance(entries.get(each), Mapping)}
    if not steps or not isinstance(entries.get("model"), Mapping):
        raise InputError("simulated", str(simulated), _EXPECTED)
    return {"model": dict(entries["model"]), **steps}


def matching(
    simulated: str | os.PathLike[str] | Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, Any]:
    """The simulation, refused where it is of another model, adapter or step than the plan."""
    found = read(simulated)
    method = plan["method"]
    if method not in found:
        there = ", ".join(each for each in METHODS if each in found)
        raise InputError(
            "simulated", there, f"a simulation of {method}", f"Simulate it with --methods {method}."
        )
    step = found[method]
    setup = step.get("setup") or {}
    work = plan["workload"]
    pairs = (
        ("model", found["model"].get("id"), plan["model"]["id"]),
        ("trained parameters", step.get("trained_params"), plan["adapter"]["params"]),
        ("batch", setup.get("micro_batch"), work["batch"]),
        ("seq-len", setup.get("seq_len"), work["seq_len"]),
        ("checkpointing", setup.get("checkpointing", "none") != "none", work["checkpointing"]),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise InputError(
                "simulated", theirs, f"a simulation of this plan, whose {what} is {ours}", "Simulate it anew."
            )
    return found
