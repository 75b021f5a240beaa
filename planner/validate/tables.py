"""Run records as tables that the rest of the planner reads: a learning-rate sweep as CSV."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from .models import shape
from .records import RunRecord, read_all, write_whole

COLUMNS = (
    "model", "family", "hidden_size", "method", "rank", "lr", "loss", "seed", "steps", "batch", "alpha", "dataset",
    "status",
)  # fmt: skip


def sweep_row(record: RunRecord) -> dict[str, object]:
    """A supervised run as a row of a sweep; a run that diverged has no loss and says so in `status`.

    Layer sets other than `all` are part of the dataset's name, so that arms of one rank stay apart.
    """
    config = record.config
    size = shape(config.model)
    dataset = config.task if config.layers == "all" else f"{config.task} on {config.layers}"
    return {
        "model": config.model, "family": size["model_type"], "hidden_size": size["hidden_size"],
        "method": config.method, "rank": config.rank or "", "lr": repr(config.lr),
        "loss": repr(record.evaluation()) if record.status == "ok" else "", "seed": config.seed,
        "steps": config.steps, "batch": config.batch, "alpha": config.alpha if config.rank else "",
        "dataset": dataset, "status": "missing" if record.status == "failed" else record.status,
    }  # fmt: skip


def sweep_csv(folder: str | os.PathLike[str]) -> str:
    """The folder's supervised runs (without those of transformed parametrisations) as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in read_all(folder):
        if (
            record.config.kind == "sft"
            and record.config.p == record.config.q == 1
            and record.config.evaluate_at
        ):
            writer.writerow(sweep_row(record))
    return out.getvalue()


def write_sweep(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the table, whole or not at all."""
    write_whole(Path(path), sweep_csv(folder))
