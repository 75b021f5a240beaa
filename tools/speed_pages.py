"""docs/speed.md: predicted against published step times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from planner.speed.efficiency import Constants
from tools.speed_later import Later, Said, blind, later, said_of
from tools.speed_runs import Run

HEAD = """# Step times: predicted against published

Written by `python -m tools.fit_speed`. {n} published runs of {sources} sources
([what they are](../data/measured/SPEED.md)) against `lora-plan`'s formula. Constants were fitted on every second
model of each source, in an order made by a hash ({fitted} runs), and are judged on the rest ({judged} runs). Errors
are |predicted / measured - 1| of a step's time; of tokens a second, |measured / predicted - 1|. The last column is
how many lie within the stated {coverage:.0%} interval.
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


def _worst(found: Sequence[Run], ratios: Any, count: int = 12) -> Iterable[str]:
    yield "| run | predicted / measured | what is assumed of it |"
    yield "|---|---|---|"
    for number in np.argsort(-np.abs(ratios))[:count]:
        run, setup = found[int(number)], found[int(number)].setup
        shown = f"{run.source}: {run.model}, {setup.method}, {setup.gpus} x {run.machine.accelerator.name}"
        step = f"{setup.accumulation} x {setup.micro_batch} x {setup.seq_len} tokens, {setup.sharding}"
        yield f"| {shown}, {step} | {np.exp(-ratios[number]):.2f} | {run.assumed or '-'} |"


LATER = """\
{n} further steps of {sources} sources ([speed_later.csv](../data/measured/speed_later.csv): each with its source and
the command of a user), collected when the constants stood and predicted before they were fitted again: "blind" are
those first predictions ([as they were](../data/measured/speed_later_blind.csv)), "now" those of today. No constant
was fitted on them. Changed since: the host's time for a kernel, which had lain at the bound of its search (15
microseconds); the shapes of DeepSpeed's example and the tokens of litgpt's prompts, among the runs above; experts
that kernels of their own launch as one. Of litgpt's and Unsloth's rows the lengths are guesses; where a trainer
checkpoints some layers or operations, none is taken.
"""


def _later(pairs: Sequence[tuple[Later, Said]]) -> str:
    errors = [said.error for _, said in pairs]
    held = sum(said.inside for _, said in pairs) / len(pairs)
    return f"{np.median(errors):.1%} | {np.quantile(errors, 0.9):.1%} | {held:.0%}"


def section() -> Iterable[str]:
    """What was collected after the constants were fitted."""
    first, cases = blind(), later()
    now = {case.number: said_of(case) for case in cases}
    text = LATER.format(n=len(cases), sources=len({case.source for case in cases}))
    yield from ("## Collected afterwards", "", text)
    yield (
        "| steps | runs | blind: median error | 90th percentile | within interval | now: median error | "
        "90th percentile | within interval |"
    )
    yield "|---|" + "---|" * 7
    rows: list[tuple[str, list[Later]]] = [
        ("all", cases),
        ("everything stated", [c for c in cases if c.stated]),
        ("of these, full fine-tuning and pretraining", [c for c in cases if c.stated and c.method == "full"]),
        ("of these, LoRA and QLoRA", [c for c in cases if c.stated and c.method != "full"]),
        ("something not stated", [c for c in cases if not c.stated]),
    ]
    rows += [(name, [c for c in cases if c.source == name]) for name in sorted({c.source for c in cases})]
    for name, chosen in rows:
        both = [[(c, known[c.number]) for c in chosen] for known in (first, now)]
        yield f"| {name} | {len(chosen)} | {_later(both[0])} | {_later(both[1])} |"


def page(
    found: Sequence[Run], ratios: Any, thin: Any, left_out: Mapping[str, Any], shipped: Constants
) -> str:
    """The whole page."""
    spread = shipped.spread
    width = spread.z * np.sqrt(spread.between**2 + np.array([spread.noise(share) for share in thin]))
    inside = np.abs(ratios) <= width
    fitted = np.array([run.fitted for run in found])
    lora = np.array([run.setup.method != "full" for run in found])
    lines = [
        HEAD.format(
            n=len(found), sources=len(left_out), fitted=int(fitted.sum()), judged=int((~fitted).sum()),
            coverage=spread.coverage,
        ),
        "## Judged", "", *_table(found, ratios, inside, ~fitted), "",
        "## Judged, LoRA and QLoRA only", "", *_table(found, ratios, inside, ~fitted & lora), "",
        "## Fitted on", "", *_table(found, ratios, inside, fitted), "",
        "## Each source with constants fitted on all others", "",
        "How far a trainer and machine that the constants have never seen may be off.", "",
        "| source | runs | median error | 90th percentile | median ratio |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for source, values in left_out.items():
        lines.append("|".join(_cells(source, values, values).split("|")[:6]) + "|")
    together = np.concatenate(list(left_out.values()))
    medians = [float(np.median(np.abs(np.expm1(-values)))) for values in left_out.values()]
    lines.append("|".join(_cells("**all**", together, together).split("|")[:6]) + "|")
    lines += ["", f"The median over sources of their median errors is {np.median(medians):.1%}.", ""]
    lines += [*section(), ""]
    lines += ["## Constants", "", "| constant | value | basis |", "|---|---|---|"]
    for name, basis in shipped.basis.items():
        value = getattr(shipped.efficiency, name, None) or getattr(spread, name, 0.0)
        lines.append(f"| `{name}` | {value:.4g} | {basis} |")
    lines += ["", "## Furthest off", "", *_worst(found, ratios), ""]
    return "\n".join(lines)
