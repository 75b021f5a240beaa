"""Reports: a plan, or several side by side, as a document. What is heavy is imported when one is made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any


def report(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, output: str | os.PathLike[str] = "plan.pdf", *,
    paper: str = "a4", figures: bool = True, against: Sequence[Mapping[str, Any]] = (),
    simulated: str | os.PathLike[str] | Mapping[str, Any] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Write the report of a plan to `output` (.pdf, .html or .md) and say what was written where.

    `options` are those of `estimate`. `paper` is a4 or letter. Without `figures` nothing is drawn. With `against`,
    a list of options that change (such as {"rank": 8} or {"model": "Qwen/Qwen3-8B"}), the report compares the plan
    with these others. `simulated` (what `simulate` found, or a file with its JSON) stands beside the
    estimate. Raises a PlannerError for a bad option or a place that cannot be written.
    """
    from .make import make

    return make(
        model, output, paper=paper, figures=figures, against=against, options=options, simulated=simulated
    )
