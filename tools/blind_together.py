"""What first predictions say together: every set of published runs that was predicted before anybody looked at it.

README's table has these three lines, docs/agreement.md has them again, and a line of each set. A set more needs no
change here. `python -m tools.blind_together` prints the lines; with `--write` the tables go into docs/agreement.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tools import compare_random_memory
from tools import speed_later as steps
from tools.memory_page import quantile
from tools.published_memory_later import RUN, Later, Said, blind, inside, later, said_of
from tools.published_memory_seventh import errors
from tools.published_memory_told import SETS
from tools.speed_gathered_page import SECTIONS

FIRST_DRAW = 8  # the seed from which preferences, GRPO, images and odd targets are drawn too
PAGE = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"
START, END = "<!-- sets -->\n", "<!-- end of sets -->\n"
AFTERWARDS = "after"  # eleven figures of one source, read beside the first set's: no set of their own


def _sources(found: Iterable[Later]) -> int:
    """How many there are; what was reserved in a run whose allocated bytes are a figure too is of the same one."""
    return len({case.source.removesuffix(", reserved") for case in found})


def memory() -> str:
    """Of runs with batch, length and checkpointing stated: how far off in the middle, and how often the interval of
    then held, of all sets and of those from the eighth on, which no interval and no constant rests on."""
    said = blind()
    first = [
        (c, said[c.number]) for c in later() if c.stated and c.metric not in RUN and c.found != AFTERWARDS
    ]
    newest = [(c, s) for c, s in first if c.found in SETS]
    (middle, _), (lately, _) = errors(first), errors(newest)
    held, since = (statistics.mean(inside(c, s) for c, s in each) for each in (first, newest))
    return (
        f"{len(first)} published runs of {_sources(c for c, _ in first)} sources in "
        f"{len({c.found for c, _ in first})} sets, everything stated | median error {middle:.1%}, {held:.0%} within "
        f"the 90% interval of then; the newest {len(newest)} {lately:.1%}, {since:.0%}"
    )


def seconds() -> str:
    """Of steps with everything stated, the same."""
    first = [(c, steps.blind(s.name)[c.number]) for s in SECTIONS for c in steps.later(s.name) if c.stated]
    judging = set(_judging())
    newest = [(c, s) for c, s in first if c in judging]
    middle, lately = (statistics.median(s.error for _, s in each) for each in (first, newest))
    held, since = (statistics.mean(s.inside for _, s in each) for each in (first, newest))
    return (
        f"{len(first)} published steps of {len({c.source for c, _ in first})} sources in {len(SECTIONS)} sets, "
        f"everything stated | median error {middle:.1%}, {held:.0%} within the 90% interval of then; "
        f"the newest {len(newest)} {lately:.1%}, {since:.0%}"
    )


def _judging() -> Sequence[steps.Later]:
    return [c for s in SECTIONS if s.judges for c in steps.later(s.name)]


def drawn() -> str:
    """Of set-ups drawn at random, estimate against simulation, as each was run first."""
    rows = [each for each in compare_random_memory.read() if each.seed >= FIRST_DRAW]
    found = sorted(abs(each.first_error) for each in rows if each.first_error is not None)
    counted = [each.first_flops for each in rows if each.first_flops is not None]
    return (
        f"{len({each.seed for each in rows})} draws of {len(found)} set-ups in all, of any model type, DPO to GRPO, "
        f"images, odd targets | median error {statistics.median(found):.2%}, 95th percentile "
        f"{quantile(found, 0.95):.1%}, most {found[-1]:.0%}; FLOPs equal to the last one in "
        f"{sum(not each for each in counted)} of {len(counted)}"
    )


def _of_memory(name: str, found: Sequence[Later]) -> str:
    said = blind()
    pairs = [[(c, said[c.number]) for c in found], [(c, said_of(c)) for c in found]]
    first, now = (f"{errors(each)[0]:.1%} | {errors(each)[1]:.0%} | {_held(each):.0%}" for each in pairs)
    return f"| {name} | {len(found)} | {_sources(found)} | {first} | {now} |"


def _held(pairs: Sequence[tuple[Later, Said]]) -> float:
    return statistics.mean(inside(c, s) for c, s in pairs)


def _of_steps(name: str, found: Sequence[steps.Later], first: Mapping[int, steps.Said]) -> str:
    said = [[first[c.number] for c in found], [steps.said_of(c) for c in found]]
    shown = (
        f"{statistics.median(s.error for s in each):.1%} | {statistics.mean(s.inside for s in each):.0%}"
        for each in said
    )
    return f"| {name} | {len(found)} | {len({c.source for c in found})} | {' | '.join(shown)} |"


def tables() -> str:
    """A line of every set: of memory and of steps, of what is stated in full."""
    every = [c for c in later() if c.stated and c.metric not in RUN and c.found != AFTERWARDS]
    named = dict.fromkeys(c.found for c in every)
    lines = [
        "| memory, set | figures | sources | blind: median | 90th | within | now: median | 90th | within |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_of_memory(name, [c for c in every if c.found == name]) for name in named),
        "",
        "| steps, gathering | figures | sources | blind: median | within | now: median | within |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in SECTIONS:
        found = [c for c in steps.later(each.name) if c.stated]
        lines.append(_of_steps(each.title.lower(), found, steps.blind(each.name)))
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    """A page with its tables of sets written anew."""
    before, rest = text.split(START)
    return f"{before}{START}{tables()}{END}{rest.split(END)[1]}"


LINES = {
    "memory, predicted before anybody looked": memory,
    "memory of random set-ups against `simulate`, run once before anybody looked": drawn,
    "seconds of a step, predicted before anybody looked": seconds,
}


def main() -> None:
    """The lines as README and docs/agreement.md have them, and where asked the tables into the latter."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for name, line in LINES.items():
        print(f"| {name} | {line()} |")


if __name__ == "__main__":
    main()
