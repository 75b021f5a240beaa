"""docs/memory-published.md: how memory as predicted compares with published measurements."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from planner.memory.constants import KINDS, Constants
from tools.interval_fit import FEW_SOURCES, KindHeld
from tools.measured_outliers import why
from tools.published_memory import Skipped
from tools.published_memory_later_page import section

if TYPE_CHECKING:
    from tools.compare_published_memory import Compared

FAR = 0.25
TITLES = (
    "| source | quality | measured | runs | median error | 90th percentile | median ratio | within interval |"
)
HEAD = """\
# Memory: predicted against published

Written by `python -m tools.compare_published_memory`. Every measurement of
[memory.csv](../data/measured/memory.csv) and
[peft_method_comparison.csv](../data/measured/peft_method_comparison.csv)
that a set-up can say, predicted with the profile of its trainer (`--trainer`, `data/trainers.toml`: what that program
does, each field with its source) and what the row itself states. No row has a constant of its own. Errors are
|predicted / measured - 1|; the ratio is predicted over measured.

What was measured is predicted as such: `allocated` is `torch.cuda.max_memory_allocated`, `reserved` what torch's
allocator took, `device` what nvidia-smi shows. Allocated memory has no fitted constant at all; the others share the
five below (`cached_varied` rests on ms-swift alone), fitted on half of the groups of runs (source, model and method,
by a hash) and judged on the rest.
Quality A: the configuration is stated; B: something must be assumed.
"""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _ninth(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]


def _line(name: str, found: Sequence[Compared]) -> str:
    errors = [c.error for c in found]
    quality = "/".join(sorted({c.case.quality for c in found}))
    metric = "/".join(sorted({c.case.metric for c in found}))
    inside = sum(c.inside for c in found) / len(found)
    return (
        f"| {name} | {quality} | {metric} | {len(found)} | {_percent(statistics.median(errors))} | "
        f"{_percent(_ninth(errors))} | {statistics.median(c.ratio for c in found):.2f} | {100 * inside:.0f}% |"
    )


def _table(title: str, found: Sequence[Compared], text: str = "") -> list[str]:
    lines = [f"## {title}", ""]
    if text:
        lines += [text, ""]
    lines += [
        TITLES,
        "|---|---|---|---|---|---|---|---|",
    ]
    for source in sorted({c.case.source for c in found}):
        lines.append(_line(source, [c for c in found if c.case.source == source]))
    if found:
        lines.append(_line("**all**", found))
    return [*lines, ""]


def _summary(done: Sequence[Compared]) -> list[str]:
    rows: list[tuple[str, Callable[[Compared], bool]]] = [
        ("quality A; batch, length and checkpointing stated", lambda c: c.case.headline),
        ("the same, judged alone", lambda c: c.case.headline and not c.case.fitted),
        ("of these, LoRA and QLoRA", lambda c: c.case.headline and c.case.options.get("method") != "full"),
        ("of these, full fine-tuning", lambda c: c.case.headline and c.case.options.get("method") == "full"),
        ("of these, one GPU", lambda c: c.case.headline and c.found.setup.gpus == 1),
        ("of these, several GPUs", lambda c: c.case.headline and c.found.setup.gpus > 1),
        ("of these, without fms-acceleration", lambda c: c.case.headline and "fms" not in c.case.source),
        ("everything else (quality B, not stated, nvidia-smi)", lambda c: not c.case.headline),
    ]
    lines = [
        "## In short", "",
        TITLES.replace("source", "measurements"), "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, test in rows:
        chosen = [c for c in done if test(c)]
        if chosen:
            lines.append(_line(name, chosen))
    by_source = [
        statistics.median(c.error for c in done if c.case.source == source)
        for source in {c.case.source for c in done if c.case.headline}
    ]
    return [
        *lines, "",
        "fms-acceleration has more runs than all others together. The median over sources of their median errors: "
        + _percent(statistics.median(by_source)) + ".", "",
    ]  # fmt: skip


KIND_TEXT = {
    "alone": "one GPU, sequences of one length",
    "varied": "one GPU, lengths that vary",
    "shared": "several GPUs that each run whole sequences",
    "split": "matrices, layers, experts or sequences split over GPUs",
    "offloaded": "states or parameters in the host's memory",
}


def _constants(known: Constants) -> list[str]:
    gb = 1e9
    return [
        "## Constants", "",
        "| constant | value | what it is |",
        "|---|---|---|",
        f"| `context_bytes` | {known.context_bytes / gb:.3g} GB | CUDA's context and the libraries' kernels |",
        f"| `communication_bytes` | {known.communication_bytes / gb:.3g} GB | NCCL's buffers, on several GPUs |",
        f"| `cached_apart` | {known.cached_apart:.3g} | of the smaller phases' transient bytes, kept for later |",
        f"| `cached_gathered` | {known.cached_gathered:.3g} | of gathered units, kept on a stream of their own |",
        f"| `cached_varied` | {known.cached_varied:.3g} | of what grows with the length, where lengths vary |",
        *(
            f"| `low`, `high`{_kind(kind)} | {known.bounds(kind)[0]:.3g}, {known.bounds(kind)[1]:.3g} | "
            f"holds {100 * known.coverage:.0f}% of those fitted: {KIND_TEXT[kind]} |"
            for kind in KINDS
        ),
        *(
            f"| `low`, `high` of `{each.trainer}`, {each.kind} | {each.low:.3g}, {each.high:.3g} | "
            "of a trainer whose own figures were compared |"
            for each in known.trainers
        ),
        "",
    ]  # fmt: skip


def _kind(name: str) -> str:
    return "" if name == "alone" else f" `_{name}`"


def _far(done: Sequence[Compared]) -> list[str]:
    far = [c for c in done if c.error > FAR]
    said = (
        f"{len(far)} of {len(done)}; of the {sum(c.case.headline for c in done)} of quality A with batch, length and "
        f"checkpointing stated {sum(c.case.headline for c in far)}. What is not known of them, or what the formula "
        "lacks."
    )
    lines = [
        f"## Further off than {100 * FAR:.0f}%", "",
        said, "",
        "| source | rows | predicted over measured | why |",
        "|---|---|---|---|",
    ]  # fmt: skip
    groups: dict[tuple[str, str], list[Compared]] = {}
    for item in far:
        groups.setdefault((item.case.source, why(item.case)), []).append(item)
    for (source, reason), items in sorted(groups.items()):
        ratios = [c.ratio for c in items]
        shown = f"{min(ratios):.2f}" if len(items) == 1 else f"{min(ratios):.2f} to {max(ratios):.2f}"
        numbers = ", ".join(str(c.case.row) for c in items)
        lines.append(f"| {source} | {numbers} | {shown} | {reason} |")
    return [*lines, ""]


def _skipped(left: Iterable[Skipped]) -> list[str]:
    groups: dict[tuple[str, str], list[Skipped]] = {}
    for item in left:
        groups.setdefault((item.source, item.why), []).append(item)
    lines = ["## Not predicted", "", "| source | rows | why |", "|---|---|---|"]
    lines += [f"| {source} | {len(items)} | {why} |" for (source, why), items in sorted(groups.items())]
    return [*lines, ""]


def _assumed(done: Sequence[Compared]) -> list[str]:
    groups: dict[tuple[str, str, str], int] = {}
    for item in done:
        key = item.case.source, item.case.trainer, item.case.assumed
        groups[key] = groups.get(key, 0) + 1
    lines = [
        "## Profiles and what is assumed",
        "",
        "| source | trainer | runs | assumed |",
        "|---|---|---|---|",
    ]
    lines += [f"| {s} | {t} | {n} | {a or 'nothing'} |" for (s, t, a), n in sorted(groups.items())]
    return [*lines, ""]


KINDS_HEAD = """
## How often the interval holds

For sources that an estimate has not met. *Of the others*: the mean over sources of the share of each that an
interval of all others holds, by the half that `low` and `high` rest on, as it was predicted first; both ends
are moved out until that is 90%, where there are at least {few} sources to tell it by. *Judged*: the other half,
as it was predicted first.

| kind of set-up | sources | of the others | judged, runs | held |
|---|---|---|---|---|"""
KIND_NAMES = {
    "alone": "one GPU, sequences of one length", "varied": "one GPU, lengths that vary",
    "shared": "several GPUs that each run whole sequences", "split": "matrices, layers, experts or sequences split",
    "offloaded": "states or parameters in the host's memory",
}  # fmt: skip


def _kinds(kinds: Sequence[KindHeld]) -> list[str]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    return [
        KINDS_HEAD.format(few=FEW_SOURCES),
        *(
            f"| {KIND_NAMES[k.kind]} | {k.sources} | {share(k.held_by_others)} | {k.judged} | {share(k.held)} |"
            for k in kinds
        ),
    ]


def page(
    done: Sequence[Compared],
    alone: Sequence[Compared],
    left: Sequence[Skipped],
    known: Constants,
    kinds: Sequence[KindHeld],
) -> str:
    """The whole page."""
    lines = [
        HEAD,
        *_summary(done),
        *_table("Judged", [c for c in done if not c.case.fitted]),
        *_table("Fitted on", [c for c in done if c.case.fitted]),
        *_table(
            "Each source with constants fitted on all others", alone,
            "How far a trainer that the constants have never seen may be off. Profiles are read from the trainers' "
            "sources either way.",
        ),
        *_far(done),
        *section(),
        *_assumed(done),
        *_skipped(left),
        *_constants(known),
        *_kinds(kinds),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"
