"""How long the page's server takes for an answer once a field has changed, warm, and beside planner.estimate.

Timed is the handler of the page's one event: the plan and every figure and table made of it, by the page's own
fields. Transport and drawing in the browser are left out. The target is a median under 200 ms.

    python benchmarks/web_answer.py [--rounds 20] [--out record.json] [--check 200]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from machine import about_this_machine, write_record

from planner import estimate
from planner.web.page import Handlers
from planner.web.state import NAMES, USUAL, Choices, options

MODELS = ("meta-llama/Llama-3.2-1B", "moonshotai/Kimi-K2-Instruct")


def milliseconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def answered(handlers: Handlers, chosen: Choices, into: list[Any]) -> None:
    """What the page's outputs become."""
    into.extend(handlers.update(*(getattr(chosen, name) for name in NAMES)))


def measured(model: str, rounds: int) -> dict[str, Any]:
    """Medians of the handler and of the estimate.

    Each call is at another rank, so that neither finds what the other has left.
    """
    handlers, whole, base = Handlers(hub=False), [], []
    for turn in range(rounds + 2):
        chosen: Choices = dataclasses.replace(
            USUAL, model=model, rank=8 + 2 * turn, tokens="300M", gpu="h100"
        )
        given = options(dataclasses.replace(chosen, rank=chosen.rank + 1))
        base.append(milliseconds(partial(estimate, model, **given)))
        shown: list[Any] = []
        whole.append(milliseconds(partial(answered, handlers, chosen, shown)))
        if "lp-error" in shown[0]:
            raise SystemExit(f"the page answered with an error: {shown[0]}")
    handler, plain = statistics.median(whole[2:]), statistics.median(base[2:])  # two to warm up
    return {"model": model, "handler_ms": handler, "estimate_ms": plain, "ratio": handler / plain}


def main() -> int:
    """Measure, print, and check if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, help="write a JSON record here")
    parser.add_argument("--check", type=float, metavar="MS", help="exit 1 where a median is above this")
    given = parser.parse_args()
    rows = [measured(model, given.rounds) for model in MODELS]
    for row in rows:
        print(
            f"{row['model']}: handler {row['handler_ms']:.0f} ms, estimate {row['estimate_ms']:.0f} ms, "
            f"ratio {row['ratio']:.1f} (medians of {given.rounds}, warm)"
        )
    if given.out:
        write_record(given.out, {"benchmark": "web_answer", **about_this_machine(), "rows": rows})
    slow = [row for row in rows if given.check is not None and row["handler_ms"] > given.check]
    for row in slow:
        print(f"FAILED: {row['model']} took {row['handler_ms']:.0f} ms", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
