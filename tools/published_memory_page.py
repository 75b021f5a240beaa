"""docs/memory-published.md: how memory as predicted compares with published measurements."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from planner.memory.constants import Constants
from planner.memory.interval_kinds import KINDS
from tools.interval_fit import Ratio, share_of
from tools.measured_outliers import why
from tools.memory_calibrated_page import measured_section
from tools.published_memory import Skipped
from tools.published_memory_later import RESTS_ON
from tools.published_memory_later_page import section
from tools.published_memory_seventh import section as seventh
from tools.published_memory_sixth import section as sixth
from tools.published_memory_told import SETS
from tools.published_memory_told import section as told

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
five below, fitted on half of the groups of runs (source, model and method, by a hash) and judged on the rest;
`cached_varied` also on ten later figures of six sources, and judged on the newest sets. What lengths leave reserved
depends on how they are spread and on their order: of ms-swift's benchmark, of whose lengths the mean and the spread
are published, 17 of 21 figures lie among those of 12 orders by torch's allocator itself, whose middle ones are 8.5%
off in the middle and 30% at the most (`python -m tools.reserved_by_lengths --every --orders 12`; nothing is fitted).
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
    "alone-lora": "known trainer, LoRA on one GPU, lengths stated",
    "alone": "known trainer, QLoRA and full fine-tuning on one GPU, lengths stated",
    "open": "known trainer, one GPU, lengths that vary or are not stated",
    "shared": "known trainer, several GPUs that each run whole sequences, lengths stated",
    "shared-open": "known trainer, several GPUs, lengths that vary or are not stated",
    "split": "known trainer, matrices, layers, experts or sequences split over GPUs",
    "unnamed": "unknown trainer, one GPU",
    "unnamed-several": "unknown trainer, several GPUs",
    "offloaded": "states or parameters in the host's memory, whoever trains",
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
        "",
    ]  # fmt: skip


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

`low` and `high` depend on the kind of set-up: from `low` times what is needed to `high` times that and some GB,
with what is cached. A trainer is **known** where `--trainer` (or a config's) names a profile of the program that
runs; `plain`, `hf-loop` and `deepspeed` name none. Intervals rest on **first predictions** alone, of sources that
nobody had looked at: those {sets}. What a source taught is in the formula since, so that today's error on it says
nothing of the next. A source is one published table, document or data set; all count the same. How an interval is
made: `tools/interval_fit.py`. **Every source is judged by an interval that all others give.** `made of` are the
sources and figures of the kinds whose measurements the ends come from: known trainers on one GPU, or on several
with all stated; known trainers on several; unknown trainers; offloading.

*Now* is how often the interval that ships holds what is predicted today, when what a source taught is in the rules;
in its two columns a kind has the figures whose trainer's profile it was known by at first.

| kind of set-up | low to high | made of | sources | runs | first: held, runs | sources | now: held, runs | sources |
|---|---|---|---|---|---|---|---|---|"""
MARKS_HEAD = """
By what else is known of a set-up. None but the profile and offloading has a part in the kind. The first
table is judged too; no interval rests on it, since profiles of trainers were read beside its figures.

| | sources | runs | first: held, runs | held, sources | now: held, runs | held, sources |
|---|---|---|---|---|---|---|"""
MARKS = {
    "": "all",
    "set given": "the first table", "set first": "collected afterwards", "set third": "third set",
    "set fourth": "fourth set", "set fifth": "fifth set", "set sixth": "sixth set",
    "lengths stated": "batch, length and checkpointing stated", "lengths open": "something not stated",
    "trainer own": "by a profile of the program that ran", "trainer near": "by a stand-in",
    "trainer general": "by a profile of a sort of programs", "trainer none": "by no profile",
    "one GPU": "one GPU", "several GPUs": "several GPUs",
    "parameters sharded": "parameters sharded", "experts routed": "experts, routed",
    "method lora": "LoRA", "method qlora": "QLoRA", "method full": "full fine-tuning",
    "measured allocated": "allocated was measured", "measured reserved": "reserved",
    "measured device": "what the driver shows", "measured needed": "the card that it fits",
    "sequences full": "sequences as long as typed", "sequences packed": "packed", "sequences padded": "padded",
    "sequences vary": "lengths vary",
}  # fmt: skip
Judged = Sequence[tuple[Ratio, bool]]


def _held(judged: Judged, now: Judged, test: Callable[[Ratio], bool]) -> str:
    """The cells of those that pass a test, as they were predicted first and as they are now; "" where none does."""
    first, today = share_of(judged, test), share_of(now, test)
    if first is None or today is None:
        return ""
    shares = (first.of_runs, first.of_sources, today.of_runs, today.of_sources)
    return f"{first.sources} | {first.runs} | " + " | ".join(f"{share:.0%}" for share in shares)


def _passes(mark: str) -> Callable[[Ratio], bool]:
    """Whether something is known of a measurement; the first table stands by itself."""
    return lambda each: (
        (not mark or mark in each.about) and (mark == "set given" or "set given" not in each.about)
    )


def _kinds(judged: Judged, now: Judged, known: Constants, order: Sequence[str]) -> list[str]:
    sets = ", ".join(MARKS[f"set {name}"].replace(" set", "") for name in RESTS_ON[1:])
    sets = f"{MARKS['set first']}, and the sets after them ({sets})"
    lines = [KINDS_HEAD.format(sets=sets)]
    for kind in KINDS:
        found = known.of_kind(kind)
        cells = _held(judged, now, lambda each, kind=kind: each.kind == kind and _passes("")(each))  # type: ignore[misc]
        made = f"{found.sources} sources, {found.runs}"
        lines.append(
            f"| `{kind}`: {KIND_TEXT[kind]} | {found.low:.2f} to {found.high:.2f}, "
            f"{found.extra_bytes / 1e9:g} GB | {made} | {cells} |"
        )
    lines += [*order, MARKS_HEAD]
    for mark, name in MARKS.items():
        cells = _held(judged, now, _passes(mark))
        if cells:
            lines.append(f"| {name} | {cells} |")
    return lines


def page(
    done: Sequence[Compared],
    alone: Sequence[Compared],
    left: Sequence[Skipped],
    known: Constants,
    judged: tuple[Judged, Judged],
    order: Sequence[str],
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
            "sources either way. What varying lengths leave in the allocator's cache is a constant that ms-swift's "
            "figures alone determine: without them it is whatever the fit to the others ends at.",
        ),
        *_far(done),
        *section([*sixth(), *seventh(), *(line for name in SETS for line in told(name))]),
        *_assumed(done),
        *_skipped(left),
        *_constants(known),
        *_kinds(*judged, known, order),
        *measured_section(),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"
