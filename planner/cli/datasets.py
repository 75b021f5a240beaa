"""`lora-plan datasets`."""

from __future__ import annotations

from typing import Any

import click

from .. import facts, units
from ..fact_types import DatasetFact
from .options import json_option, print_json


def _entry(fact: DatasetFact) -> dict[str, Any]:
    return {**vars(fact), "aliases": list(fact.aliases), "source": vars(fact.source)}


def _count(number: int | None) -> str:
    return "" if number is None else units.count(number)


@click.command("datasets")
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List the datasets whose size is known, or those whose name contains PATTERN.

    Loss tokens are those of the completions; an empty cell means that nobody has counted them.
    """
    from .listing import matching, show_rows

    known = facts.datasets()
    found = matching(known, pattern, [[f.name, *f.aliases] for f in known], "dataset")
    if as_json:
        print_json({"schema": 1, "datasets": [_entry(fact) for fact in found]})
        return
    show_rows(
        ("dataset", "kind", "examples", "tokens", "loss tokens", "episodes", "tokenizer", "date",
         "basis"),
        [
            (f.name, f.kind, _count(f.examples), _count(f.total_tokens), _count(f.loss_tokens), _count(f.episodes),
             f.tokenizer or "", f.source.date, f.basis)
            for f in found
        ],
        left=2,
    )  # fmt: skip
