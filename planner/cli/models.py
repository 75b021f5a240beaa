"""`lora-plan models`."""

from __future__ import annotations

from typing import Any

import click

from .. import facts
from ..architecture.build import has_builder
from .options import json_option, print_json


def _entry(fact: facts.ModelFact, aliases: list[str]) -> dict[str, Any]:
    return {
        "id": fact.model_id,
        "model_type": fact.model_type,
        "params": fact.built_params,
        "published_params": fact.published_params,
        "supported": has_builder(fact.model_type),
        "aliases": aliases,
        "source": vars(fact.source),
        "note": fact.note,
    }


@click.command("models")
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List the models of the catalogue, or those whose name contains PATTERN.

    Every name here, and each of its aliases, works with `lora-plan estimate --model` offline. Re-uploads and
    quantised copies of these models are recognised too.
    """
    from .listing import matching, show_rows

    by_model: dict[str, list[str]] = {}
    for alias, target in facts.model_aliases().items():
        by_model.setdefault(target, []).append(alias)
    known = [facts.model(name) for name in facts.model_ids()]
    names = [[fact.model_id, *by_model.get(fact.model_id, [])] for fact in known]
    found = matching(known, pattern, names, "model of the catalogue")
    entries = [_entry(f, by_model.get(f.model_id, [])) for f in found]
    if as_json:
        print_json({"schema": 1, "models": entries})
        return
    show_rows(
        ("model", "type", "parameters", "aliases"),
        [
            (
                entry["id"],
                entry["model_type"] + ("" if entry["supported"] else " (no builder yet)"),
                f"{entry['params']:,}" if entry["params"] else "",
                str(len(entry["aliases"]) or ""),
            )
            for entry in entries
        ],
        left=2,
    )
