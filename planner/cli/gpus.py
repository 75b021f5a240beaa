"""`lora-plan gpus`."""

from __future__ import annotations

from typing import Any

import click

from .. import facts, units
from ..fact_types import Accelerator
from .options import json_option, print_json


def _entry(fact: Accelerator) -> dict[str, Any]:
    prices = [
        {"provider": p.provider, "usd_per_gpu_hour": p.usd_per_gpu_hour, "kind": p.kind, "date": p.date}
        for p in facts.prices_of(fact.name)
    ]
    return {**vars(fact), "aliases": list(fact.aliases), "source": vars(fact.source), "prices": prices}


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    prices = [p["usd_per_gpu_hour"] for p in entry["prices"] if p["kind"] == "on-demand"]
    price = (
        ""
        if not prices
        else f"{min(prices):.2f}"
        if len(prices) == 1
        else f"{min(prices):.2f}-{max(prices):.2f}"
    )
    half = entry["bf16_dense_flops_per_s"] or entry["fp16_dense_flops_per_s"]
    bandwidth = entry["bandwidth_bytes_per_s"]
    return (
        entry["name"],
        f"{entry['memory_gb_marketed']:g}" if entry["memory_gb_marketed"] else "",
        f"{bandwidth / 1e9:,.0f}" if bandwidth else "",
        units.significant(half / 1e12, 4) if half else "",
        price,
    )


@click.command("gpus")
@click.argument("pattern", required=False)
@json_option
def command(pattern: str | None, as_json: bool) -> None:
    """List the accelerators that are known, or those whose name contains PATTERN.

    Rates are dense peaks (16-bit: bfloat16, or float16 where there is no bfloat16). Prices are on-demand, per
    GPU and hour, as found on the date that --json gives beside each.
    """
    from .listing import matching, show_rows

    known = facts.accelerators()
    found = matching(known, pattern, [[f.name, *f.aliases] for f in known], "accelerator")
    entries = [_entry(fact) for fact in found]
    if as_json:
        print_json({"schema": 1, "gpus": entries})
        return
    show_rows(("accelerator", "GB", "GB/s", "16-bit TFLOP/s", "USD/h"), [_row(entry) for entry in entries])
