"""Reports: a plan, or several side by side, as a document. What is heavy is imported when one is made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError


def report(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, output: str | os.PathLike[str] = "plan.pdf", *,
    paper: str = "a4", figures: bool = True, against: Sequence[Mapping[str, Any]] = (),
    simulated: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    sweep: str | os.PathLike[str] | None = None, runs: str | os.PathLike[str] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Write the report of a plan to `output` (.pdf, .html or .md) and say what was written where.

    `options` are those of `estimate`. `paper` is a4 or letter. Without `figures` nothing is drawn. With `against`,
    a list of options that change (such as {"rank": 8} or {"model": "Qwen/Qwen3-8B"}), the report compares the plan
    with these others. `simulated` (what `simulate` found, or a file with its JSON) stands beside the
    estimate. Other kinds of report need no model: `sweep` (a CSV; options are those of `fit`) gives a learning-rate
    fit's, `runs` (a folder of run records or a .jsonl file) a validation's, `data` without a model (a file, a folder;
    options are those of `dataset`, its loss as `nats`) a data set's. Raises a PlannerError for a bad option or
    a place that cannot be written.
    """
    from .make import make, make_dataset, make_fit, make_validation

    if sweep is not None or runs is not None:
        _alone(sweep=sweep, runs=runs, model=model, simulated=simulated, against=against or None)
    if sweep is not None:
        return make_fit(sweep, output, paper=paper, figures=figures, options=options)
    if runs is not None:
        _alone(runs=runs, **options)
        return make_validation(runs, output, paper=paper, figures=figures)
    if model is None and options.get("data") is not None and options.get("adapter") is None:
        return make_dataset(options.pop("data"), output, paper=paper, figures=figures, options=options)
    return make(
        model, output, paper=paper, figures=figures, against=against, options=options, simulated=simulated
    )


def _alone(**given: Any) -> None:
    """Raise InputError where more than one of these options was given."""
    there = [name for name, value in given.items() if value is not None]
    if len(there) > 1:
        remedy = "Each makes a report of its own kind."
        raise InputError(there[1], given[there[1]], f"nothing beside {there[0]}", remedy)
