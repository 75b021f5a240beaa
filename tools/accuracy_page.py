"""docs/accuracy.md: how exact each number is, from data/measured/accuracy.csv. Written by tools/write_docs.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from planner.report.accuracy import QUANTITIES, pairs, summary

# The number, the basis it carries in the JSON, what it is judged by, and the page with the details.
NUMBERS = (
    ("Parameters of a model", "exact", "transformers' builds, all models of the catalogue", "coverage.md"),
    ("Parameters of an adapter", "exact", "PEFT's count on random small models", "methods.md#pefts-options"),
    ("FLOPs of a step", "exact", "torch's FLOP counter, by family", "coverage.md"),
    ("Memory of a GPU", "analytic", "published runs; the step simulated without weights", "memory-published.md"),
    ("The same by `simulate`", "simulated", "the tape of the estimate, moment by moment", "memory.md"),
    ("Seconds of a step", "fitted", "published runs, half of them never fitted on", "speed.md"),
    ("Cost", "fitted", "time's interval, times the range of dated prices", "methods.md#cost"),
    ("Learning rate", "fitted", "models and families left out of the fit", "learning_rate.md"),
    ("Price of too small a rank", "fitted", "models left out of the fit",
     "methods.md#the-price-of-too-small-a-rank-fitted"),
    ("Tokens of a data set", "exact", "transformers' tokenizers and templates", "datasets.md"),
    ("Information, 1 bit a token", "assumed", "a rule; a measured loss replaces it", "derivations.md#information"),
    ("Information, H(p) an episode", "analytic", "an upper bound, not a rate", "derivations.md#information"),
    ("Capacity, 2 bits a parameter", "assumed", "our own small runs: 1.23 to 3.6 is the interval",
     "evidence.md#bits-a-parameter-that-an-adapter-stores"),
    ("Adapters that a server holds", "assumed", "published sizes of caches only", "methods.md#serving-assumed"),
    ("Claims of the article", "measured", "short runs of our own, rules fixed before", "evidence.md"),
)  # fmt: skip
HEAD = """\
# How exact each number is

Written by `python tools/write_docs.py` from `data/measured/accuracy.csv`, which
`python -m tools.write_accuracy` makes of the program's predictions and what others counted or measured; tests
compare both. `lora-plan report` prints the same table.

## What each number rests on

| number | basis | judged by | more |
|---|---|---|---|
"""
MIDDLE = """
An estimate carries its interval in the JSON (`low`, `high`) where it has one. What lies outside of what was fitted
is a warning in the result.

## Predicted against counted and measured

The error is |predicted / measured - 1|. Rows on which a constant was fitted stand apart: the others are the
ones to go by.

| quantity | source | fitted on | rows | median error | 90th percentile |
|---|---|---|---|---|---|
"""


def _error(value: float) -> str:
    return "0" if value == 0 else f"{value:.1%}"


def _measured() -> Iterator[str]:
    for row in summary(pairs()):
        if row["source"] and row["quantity"] in ("parameters", "flops"):
            continue  # one source each
        yield _line(row)


def _line(row: Mapping[str, Any]) -> str:
    name = "" if row["source"] else f"**{QUANTITIES[row['quantity']]}**"
    cells = (
        name, row["source"] or "all", "yes" if row["fitted"] else "no", f"{row['rows']:,}",
        _error(row["median"]), _error(row["p90"]),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page."""
    numbers = (f"| {name} | {basis} | {judge} | [details]({to}) |" for name, basis, judge, to in NUMBERS)
    tail = (
        "\nFew rows of a source say little about it. Memory by trainer: [published runs](memory-published.md); "
        "times by\ntrainer: [step times](speed.md).\n"
    )
    return HEAD + "\n".join(numbers) + "\n" + MIDDLE + "\n".join(_measured()) + "\n" + tail
