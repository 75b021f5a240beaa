"""The material of a report: the plan as its JSON, and the same plan at other ranks, lengths or choices."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..adapter.options import DEFAULTS
from ..commands import command_of
from ..errors import InputError, PlannerError
from ..exports import peft_config
from ..given import OF_DATA
from ..grpo import group_of
from ..objective_rules import SHARES_GPU
from ..planning import OF_GRPO, estimate
from . import machine
from .simulated import matching
from .wording import clean_data

RANKS = (1, 4, 8, 16, 32, 64, 128, 256, 512)
LENGTHS = (512, 2048, 8192, 32768)
_ELSEWHERE = ("model", "warnings", "sources")  # the same at every rank, or said once
# How a batch is laid out, which no share of FLOPs depends on; a single sequence may not divide by it.
_SPREAD = (
    "gpu", "gpus", "gpus_per_node", "accumulation", "sharding", "shard_size", "tensor_parallel", "pipeline_parallel",
    "expert_parallel", "sequence_parallel", "offload", "price", "calibration",
)  # fmt: skip
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


def _at(model: Any, options: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """A plan's JSON with some options changed, without what does not change with them."""
    found = estimate(model, **{**options, **changed}).to_dict()
    return {key: value for key, value in found.items() if key not in _ELSEWHERE}


def at_ranks(model: Any, options: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The plan at its own rank and at the usual ones that its matrices have room for.

    Only its own where a file gives the adapter.
    """
    found = {rank: _at(model, options)}
    for other in () if options.get("adapter") is not None else RANKS:
        if other in found:
            continue
        try:
            found[other] = _at(model, options, rank=other)
        except InputError as error:
            if error.field != "rank":
                raise
    return {str(each): found[each] for each in sorted(found)}


def at_lengths(model: Any, options: Mapping[str, Any], ranks: Iterable[str]) -> dict[str, Any]:
    """LoRA's FLOPs over full fine-tuning's by sequence length and rank; {} where there is no count."""
    if options.get("adapter") is not None:
        return {}
    options = {name: value for name, value in options.items() if name not in _SPREAD}
    batch, shortest = 1, 0
    if (
        options.get("objective") == "grpo"
    ):  # a group, longer than its prompt; vLLM beside it has a server's FLOPs
        batch, shortest = group_of({"group": options.get("group")}), options.get("prompt_tokens") or 0
        options = {name: value for name, value in options.items() if name not in OF_GRPO}
        if options.get("generation") in SHARES_GPU:
            options["generation"] = "server"
    found: dict[str, Any] = {}
    for length in (each for each in LENGTHS if each > shortest):
        row = {
            rank: (_at(model, options, rank=int(rank), seq_len=length, batch=batch)["flops"] or {}).get(
                "ratio"
            )
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
        return {"config": peft_config(model, **chosen), "reason": None}
    except PlannerError as error:
        return {"config": None, "reason": str(error)}


def gather(
    model: Any,
    options: Mapping[str, Any],
    against: Sequence[Mapping[str, Any]] = (),
    *,
    lengths: bool = True,
    more: Sequence[str] = (),
    simulated: Any = None,
) -> dict[str, Any]:
    """Everything that a report may show, as cleaned plain data.

    `against` holds the options in which other plans differ from this one; with it a comparison is made.
    """
    first = estimate(model, **options)
    plan = first.to_dict()
    rank = plan["adapter"]["rank"]
    again = dict(options)
    if first.data is not None:  # read once
        again = {key: value for key, value in options.items() if key not in OF_DATA} | {"data": first.data}
    ranks = at_ranks(model, again, rank)
    card = machine.card(options.get("gpu"))
    if card:
        plan["sources"].append({"used_for": "GPU", **card["source"]})
    material = {
        "plan": plan,
        "ranks": ranks,
        "lengths": at_lengths(model, again, ranks) if lengths else {},
        "others": [_other(model, again, changes) for changes in against],
        "peft": _config(model, options),
        "simulated": None if simulated is None else matching(simulated, plan),
        "card": card,
        "regret": {each: found["regret"] for each, found in ranks.items() if found["regret"]},
        "law": _law(plan),
        "command": command_of(model, options, more=more),
        "estimate_command": command_of(model, options, "estimate"),
        "export_command": command_of(model, _of_adapter(options), "export peft"),
    }
    found: dict[str, Any] = clean_data(material)
    return found


def _of_adapter(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in options.items() if name in (*DEFAULTS, "adapter", "trust_remote_code")
    }


def _law(plan: Mapping[str, Any]) -> dict[str, str]:
    """The learning-rate law in its makers' words."""
    rate = plan["learning_rate"]
    return {"id": rate["law"], **rate["about"]}


def _other(model: Any, options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A plan beside the first: what differs, and its JSON."""
    changed = {**options, **changes}
    other = changed.pop("model", model)
    return {
        "changes": {key: str(value) for key, value in changes.items()},
        "plan": estimate(other, **changed).to_dict(),
    }
