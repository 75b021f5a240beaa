"""Sources left out of the fit: how far off they are, and whether intervals hold them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from planner.speed.efficiency import constants, family_of
from tools.speed_firsts import as_first
from tools.speed_fit import LeftOut, by_source, even, halves
from tools.speed_widths import held_by_others

LEFT_OUT_TEXT = """\
Every source with constants fitted on all others, on everything that states its set-up: {n} runs of {sources} sources.
How far somebody that the constants have never seen may be off, though the formula has been taught by them all. Widths
of intervals come from first predictions ([below](#widths)); the last column is the share of runs inside an interval
**whose width the source had no part in**.
"""


Inside = Mapping[int, bool]  # runs by their identity: whether an interval of other sources holds them


def held(found: Sequence[LeftOut], inside: Inside) -> tuple[float, float]:
    """How many runs lie inside: of all, and sources counting the same."""
    each = np.array([inside[id(item)] for item in found])
    return float(np.mean(each)), float(np.average(each, weights=even(found)))


def sources_left_out(found: Sequence[LeftOut]) -> Iterable[str]:
    """The table of sources left out."""
    groups = by_source(found)
    inside = dict(zip(map(id, found), held_by_others([as_first(item) for item in found]), strict=True))
    yield LEFT_OUT_TEXT.format(n=len(found), sources=len(groups))
    yield "| source | runs | accelerator | median error | 90th percentile | median ratio | within interval |"
    yield "|---|---|---|---|---|---|---|"
    for source, items in groups.items():
        known = "known" if all(item.known for item in items) else "not known"
        yield _left_out_row(source, items, known, inside)
    yield _left_out_row("**all**", found, "", inside)
    lora = [item for item in found if item.run.setup.method != "full"]
    yield _left_out_row("**LoRA and QLoRA**", lora, "", inside)
    medians = [np.median([abs(math.expm1(-item.ratio)) for item in items]) for items in groups.values()]
    yield ""
    yield f"The median over sources of their median errors is {np.median(medians):.1%}."
    yield ""
    yield "| known | runs | sources | interval in the middle | within interval | sources counting the same |"
    yield "|---|---|---|---|---|---|"
    kinds: list[tuple[str, Callable[[LeftOut], bool]]] = [
        ("all", lambda item: True),
        ("accelerator known", lambda item: item.known),
        ("accelerator not known", lambda item: not item.known),
        ("parameters sharded", lambda item: item.run.setup.parameters_sharded),
        ("one GPU", lambda item: item.run.setup.gpus == 1),
        ("LoRA and QLoRA", lambda item: item.run.setup.method != "full"),
        ("full fine-tuning and pretraining", lambda item: item.run.setup.method == "full"),
    ]
    for name, chosen in kinds:
        mine = [item for item in found if chosen(item)]
        wide = [halves(i.thin, i.staged, constants().spreads[as_first(i).kind]) for i in mine]
        low, high = np.exp(np.median(wide, axis=0))
        rows, each = held(mine, inside)
        ends = f"{1 / low:.2f} to {high:.2f}"
        yield f"| {name} | {len(mine)} | {len(by_source(mine))} | {ends} | {rows:.0%} | {each:.0%} |"


def _left_out_row(name: str, items: Sequence[LeftOut], known: str, inside: Inside) -> str:
    errors = [abs(math.expm1(-item.ratio)) for item in items]
    ratio = math.exp(np.median([-item.ratio for item in items]))
    return (
        f"| {name} | {len(items)} | {known} | {np.median(errors):.1%} | {np.quantile(errors, 0.9):.1%} | "
        f"{ratio:.2f} | {held(items, inside)[0]:.0%} |"
    )


FIFTH = 0.2
FIFTH_TEXT = """\
The same runs by what they are, each under constants that its source had no part in: how far off they are, how many
lie within a fifth, and in how many sources the middle one does. Steps that do not state all of their set-up are not
among them, nor are kinds that no source states.
"""
Chosen = Callable[[LeftOut], bool]


def kinds_of_run() -> dict[str, Chosen]:
    """Kinds of run by which errors are shown."""
    return {
        "full fine-tuning and pretraining": lambda i: i.run.setup.method == "full",
        "LoRA": lambda i: i.run.setup.method == "lora",
        "QLoRA": lambda i: i.run.setup.method == "qlora",
        "one GPU": lambda i: i.run.setup.gpus == 1,
        "GPUs of a machine": lambda i: 1 < i.run.setup.gpus <= i.run.machine.per_node,
        "over machines": lambda i: i.run.setup.gpus > i.run.machine.per_node,
        "FSDP": lambda i: i.run.setup.sharding.startswith("fsdp"),
        "DeepSpeed's ZeRO": lambda i: i.run.setup.sharding.startswith("zero"),
        "split by tensors or stages": lambda i: (
            i.run.setup.tensor_parallel * i.run.setup.pipeline_parallel > 1
        ),
        "parameters or states in host memory": lambda i: i.run.setup.offload != "none",
        "models with experts": lambda i: bool(re.search(r"-A\d|gpt-oss|Mixtral|MoE", i.run.model)),
        "padded under PyTorch's own attention": lambda i: any(g.kind == "masked" for g in i.run.work.gemms),
        "A100, H100 and their kin": lambda i: family_of(i.run.machine.accelerator.name) in ("A100", "H100"),
        "other cards of NVIDIA's": lambda i: (
            i.run.machine.accelerator.vendor == "NVIDIA"
            and family_of(i.run.machine.accelerator.name) not in ("A100", "H100")
        ),
        "other makers": lambda i: i.run.machine.accelerator.vendor != "NVIDIA",
        "fewer than 2,048 tokens a GPU and pass": lambda i: i.run.setup.tokens < 2048,
    }


def within_a_fifth(found: Sequence[LeftOut]) -> Iterable[str]:
    """The table of errors by kind of run."""
    yield FIFTH_TEXT
    yield "| runs that are | runs | sources | median error | runs within 20% | sources whose middle run is |"
    yield "|---|---|---|---|---|---|"
    for name, chosen in kinds_of_run().items():
        groups = by_source(mine := [item for item in found if chosen(item)])
        if not mine:
            continue
        errors = [abs(math.expm1(-item.ratio)) for item in mine]
        middles = [np.median([abs(math.expm1(-i.ratio)) for i in items]) for items in groups.values()]
        good = sum(middle <= FIFTH for middle in middles)
        yield (
            f"| {name} | {len(mine)} | {len(groups)} | {np.median(errors):.1%} | "
            f"{np.mean(np.array(errors) <= FIFTH):.0%} | {good} of {len(groups)} |"
        )
