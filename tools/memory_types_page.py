"""docs/memory-types.md: the analytic peak of memory beside the simulated one, of every model type."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from .memory_page import quantile
from .memory_rows import Compared, Row
from .memory_types import SETUPS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "memory-types.md"
MIB = 2**20
SHOWN = 0.005  # errors from here on are listed one by one
HEAD = """# Memory of every model type: estimated and simulated

Written by `python -m tools.compare_types`; do not edit. `--page` computes the estimates anew beside the record
([memory_types.json](../data/measured/memory_types.json)), `--fresh` simulates every type again.

Every model type that has a builder, or whose images have an account: {types} of them run. Its config is what
transformers' class makes of nothing, else the catalogue's first of the type, cut to the fewest layers that show every
kind of layer (four at least) and a vocabulary of 1,000, so that a layer, not the logits, makes the peak: a rule that
is wrong shows here at its worst, while in a whole model other parts would hide it. Each type meets {setups} set-ups,
4 sequences of 1,024 tokens on one GPU: rank 16 on all linear modules with everything kept, with layers run again
("LoRA"), so with float32 weights under autocast, with eager attention and with flash attention, on an NF4 base
("QLoRA"), and full fine-tuning with layers run again ("full"); where nothing else is said in bfloat16, with AdamW and
SDPA.

The error is that of the peak that torch allocates, analytic / simulated - 1. No constant is fitted, but this is no
blind test: the worst were looked at and mended, by the types' own code ([blind draws](memory.md)).

{types} types, {points:,} points: median error {median:.2%}, 95th percentile {tail:.2%}, most {most:.1%};
{far} points of {far_types} types are more than {shown:.1%} off.
"""


def head(found: Sequence[Compared]) -> str:
    """The page's head with its figures."""
    errors = [abs(each.error) for each in found]
    far = far_off(found)
    return HEAD.format(
        types=len({each.row.point.family for each in found}), setups=len(SETUPS), points=len(found),
        median=statistics.median(errors), tail=quantile(errors, 0.95), most=max(errors), far=len(far),
        far_types=len({each.row.point.family for each in far}), shown=SHOWN,
    )  # fmt: skip


def far_off(found: Sequence[Compared]) -> list[Compared]:
    """The points that are listed one by one, the largest error first."""
    return sorted((each for each in found if abs(each.error) > SHOWN), key=lambda each: -abs(each.error))


def line_of(each: Compared) -> str:
    """A point in one line of a table."""
    peak = each.row.simulated_bytes or 0
    return (
        f"| {each.row.point.family} | {each.row.point.model} | {each.error:+.2%} | "
        f"{(each.analytic_bytes - peak) / MIB:+,.1f} | {peak / MIB:,.0f}, {each.row.moment} | "
        f"{each.estimate.peak.name} |"
    )


def _by_setup(found: Sequence[Compared]) -> Iterator[str]:
    yield "\n## By set-up\n"
    yield "| set-up | points | median error | 95th percentile | most |\n|---|---:|---:|---:|---:|"
    for name in SETUPS:
        errors = [abs(each.error) for each in found if each.row.point.model == name]
        if errors:
            yield (
                f"| {name} | {len(errors)} | {statistics.median(errors):.2%} | {quantile(errors, 0.95):.2%} | "
                f"{max(errors):.1%} |"
            )


def _far(found: Sequence[Compared]) -> Iterator[str]:
    yield f"\n## Every point more than {SHOWN:.1%} off\n"
    yield "| type | set-up | error | MiB | simulated: MiB, at | estimated at |\n|---|---|---:|---:|---|---|"
    yield from map(line_of, far_off(found))


def cells(found: Sequence[Compared]) -> dict[str, dict[str, str]]:
    """The error of every type in every set-up, as the page has it."""
    cells: dict[str, dict[str, str]] = {}
    for each in found:
        cells.setdefault(each.row.point.family, {})[each.row.point.model] = f"{100 * each.error:+.2f}"
    return cells


def _by_type(found: Sequence[Compared]) -> Iterator[str]:
    yield "\n## By type\n\nErrors in per cent; a dash is what is not compared.\n"
    yield f"| type | worst | {' | '.join(SETUPS)} |\n|---|{'---:|' * (len(SETUPS) + 1)}"
    for kind, own in sorted(cells(found).items()):
        worst = max(own.values(), key=lambda each: abs(float(each)))
        yield f"| {kind} | {worst} | {' | '.join(own.get(name, '–') for name in SETUPS)} |"


def _refused(
    found: Sequence[Compared], refused: Sequence[tuple[Row, str]], unknown: Sequence[tuple[str, str]]
) -> Iterator[str]:
    ran = {each.row.point.family for each in found}
    yield "\n## What is not compared\n"
    yield "No config that could be built:\n"
    yield from (f"- {kind}: {reason}" for kind, reason in unknown)
    grouped: dict[tuple[str, str], list[str]] = {}
    for row, reason in refused:
        grouped.setdefault((row.point.family, reason), []).append(row.point.model)
    none = {key: names for key, names in grouped.items() if key[0] not in ran}
    yield "\nTypes of which no set-up is compared:\n"
    yield from (f"- {kind}: {reason}" for kind, reason in none)
    yield "\nTypes of which these set-ups are not compared:\n"
    yield from (
        f"- {kind}, {'; '.join(names)}: {reason}"
        for (kind, reason), names in grouped.items()
        if (kind, reason) not in none
    )


def page(
    found: Sequence[Compared], refused: Sequence[tuple[Row, str]], unknown: Sequence[tuple[str, str]]
) -> str:
    """The whole page."""
    parts = (
        head(found),
        *_by_setup(found),
        *_far(found),
        *_by_type(found),
        *_refused(found, refused, unknown),
    )
    return "\n".join(parts).rstrip() + "\n"


def write_page(
    found: Sequence[Compared], refused: Sequence[tuple[Row, str]], unknown: Sequence[tuple[str, str]]
) -> None:
    """Write the page."""
    PAGE.write_text(page(found, refused, unknown), encoding="utf-8")
