"""docs/speed.md: predicted against published step times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from planner.speed.efficiency import Constants, constants, evidence_of
from planner.speed.kinds import kind_of
from tools.speed_calibrated import calibrated
from tools.speed_firsts import as_first
from tools.speed_fit import LeftOut, halves, holds, staged_of
from tools.speed_gathered_page import gatherings
from tools.speed_later import LATEST, later
from tools.speed_left_out import sources_left_out, within_a_fifth
from tools.speed_outliers import costs, outliers
from tools.speed_runs import Run
from tools.speed_widths_page import widths_table

HEAD = """# Step times: predicted against published

Written by `python -m tools.fit_speed`. {n} published runs of {sources} sources
([what they are](../data/measured/SPEED.md)) against `lora-plan`'s formula. Constants were fitted on every second
model of each source, in an order made by a hash ({fitted} runs), and are judged on the rest
({judged} runs). Whoever asks is a new source: how far new sources lie off is in
[sources left out](#sources-left-out), and how wide intervals must be for them in [widths](#widths). Errors
are |predicted / measured - 1| of a step's time; of
tokens a second, |measured / predicted - 1|. The last column is how many lie within the stated {coverage:.0%}
interval.
"""
COLUMNS = "| source | runs | median error | 90th percentile | median ratio | tokens/s | within interval |"
RULE = "|---|---|---|---|---|---|---|"


def _cells(name: str, ratios: Any, inside: Any) -> str:
    if not len(ratios):
        return f"| {name} | 0 | | | | | |"
    time, rate = np.abs(np.expm1(-ratios)), np.abs(np.expm1(ratios))
    return (
        f"| {name} | {len(ratios)} | {np.median(time):.1%} | {np.quantile(time, 0.9):.1%} | "
        f"{np.exp(np.median(-ratios)):.2f} | {np.median(rate):.1%} | {np.mean(inside):.0%} |"
    )


def _table(found: Sequence[Run], ratios: Any, inside: Any, chosen: Any) -> Iterable[str]:
    sources = np.array([run.source for run in found])
    yield COLUMNS
    yield RULE
    for source in sorted(set(sources)):
        mine = chosen & (sources == source)
        if mine.any():
            yield _cells(source, ratios[mine], inside[mine])
    yield _cells("**all**", ratios[chosen], inside[chosen])


def within(found: Sequence[Run], ratios: Any, thin: Any) -> Any:
    """Whether the interval of each run holds it."""
    known = constants()
    return np.array(
        [
            holds(ratio, halves(share, staged_of(run, known.efficiency), known.spreads[_kind(run)]))
            for run, ratio, share in zip(found, ratios, thin, strict=True)
        ]
    )


def _kind(run: Run) -> str:
    return kind_of(run.setup, run.machine, evidence_of(run.machine.accelerator.name))


def _named(run: Run) -> str:
    setup = run.setup
    step = f"{setup.accumulation} x {setup.micro_batch} x {setup.seq_len} tokens, {setup.sharding}"
    machine = f"{setup.gpus} x {run.machine.accelerator.name}"
    kept = f"{setup.precision}, {step}"
    return f"{run.source}: {run.model}, {setup.method}, {machine}, {kept}"


COSTS_TEXT = """\
Where a source states what its training cost. Steps are as stated or follow from the data
([speed_latest.csv](../data/measured/speed_latest.csv) says which); an instance's price covers its whole machine.
"""


def _worst(found: Sequence[Run], ratios: Any, count: int = 12) -> Iterable[str]:
    yield "| run | predicted / measured | what is assumed of it |"
    yield "|---|---|---|"
    for number in np.argsort(-np.abs(ratios))[:count]:
        run = found[int(number)]
        yield f"| {_named(run)} | {np.exp(-ratios[number]):.2f} | {run.assumed or '-'} |"


def page(found: Sequence[Run], ratios: Any, thin: Any, without: Sequence[LeftOut], shipped: Constants) -> str:
    """The whole page."""
    inside = within(found, ratios, thin)
    fitted = np.array([run.fitted for run in found])
    lora = np.array([run.setup.method != "full" for run in found])
    lines = [
        HEAD.format(
            n=len(found), sources=len({run.source for run in found}), fitted=int(fitted.sum()),
            judged=int((~fitted).sum()), coverage=shipped.any_spread.coverage,
        ),
        "## Judged", "", *_table(found, ratios, inside, ~fitted), "",
        "## Judged, LoRA and QLoRA only", "", *_table(found, ratios, inside, ~fitted & lora), "",
        "## Fitted on", "", *_table(found, ratios, inside, fitted), "",
        "## Sources left out", "", *sources_left_out(without), "",
        "## Widths", "", *widths_table(), "",
        "## Where a fifth holds", "", *within_a_fifth(without), "",
        "## With one measured step", "", *calibrated([as_first(item) for item in without]), "",
    ]  # fmt: skip
    lines += gatherings()
    far = {_named(run): float(np.exp(-ratio)) for run, ratio in zip(found, ratios, strict=True)}
    lines += ["## More than twice off", "", *outliers(far), ""]
    lines += ["## Costs", "", COSTS_TEXT, *costs(later(LATEST)), ""]
    lines += ["## Constants", "", "| constant | value | basis |", "|---|---|---|"]
    for name, basis in shipped.basis.items():
        value = getattr(shipped.efficiency, name, None) or getattr(shipped.any_spread, name, 0.0)
        lines.append(f"| `{name}` | {value:.4g} | {basis} |")
    lines += ["", "## Furthest off", "", *_worst(found, ratios), ""]
    return "\n".join(lines)
