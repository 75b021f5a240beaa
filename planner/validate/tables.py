"""Run records as tables that the rest of the planner reads: a learning-rate sweep, peaks of memory.

A record itself is what `lora-plan calibrate --record` and `lora-plan dataset --run` read.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from .models import shape
from .records import LATER, RunRecord, read_all, write_whole

COLUMNS = (
    "model", "family", "hidden_size", "method", "rank", "lr", "loss", "seed", "steps", "batch", "alpha", "dataset",
    "status",
)  # fmt: skip


def sweep_row(record: RunRecord) -> dict[str, object]:
    """A supervised run as a row of a sweep; a run that diverged has no loss and says so in `status`.

    Layer sets other than `all`, variants and layouts are part of the dataset's name, so that arms of one rank stay
    apart.
    """
    config = record.config
    size = shape(config.model)
    dataset = config.task if config.layers == "all" else f"{config.task} on {config.layers}"
    apart = [value for value in (config.variant, config.experts) if value not in LATER.values()]
    dataset = " ".join([dataset, *apart])
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


MEMORY_COLUMNS = (
    "model", "method", "rank", "targets", "weights_dtype", "optimizer", "batch", "seq_len", "grad_checkpointing",
    "attention_impl", "gpus", "gpu_type", "sharding", "peak_memory_gb", "unit", "tokens_per_s", "step_time_s",
    "source", "notes", "quality", "memory_metric", "tokens_per_s_scope", "trainable_params", "model_tflops_per_gpu",
    "grad_accum", "global_batch",
)  # fmt: skip


def memory_row(record: RunRecord) -> dict[str, object]:
    """A run's peak of memory in the columns of data/measured/memory.csv."""
    config = record.config
    return {
        "model": config.model, "method": config.method, "rank": config.rank or "", "targets": config.layers,
        "weights_dtype": "fp32", "optimizer": config.optimizer, "batch": config.batch, "seq_len": config.seq_len,
        "grad_checkpointing": config.checkpointing, "attention_impl": "eager", "gpus": 1,
        "gpu_type": record.hardware.get("accelerator", ""), "sharding": "none",
        "peak_memory_gb": repr((record.peak_memory_bytes or 0) / 2**30), "unit": "GiB",
        "step_time_s": "" if record.step_s is None else repr(record.step_s),
        "source": f"lora-plan validate, run {record.id}",
        "notes": f"torch {record.versions.get('torch', '')}, precision {config.precision}", "quality": "A",
        "memory_metric": "torch.cuda.max_memory_allocated", "trainable_params": record.trainable or "",
        "grad_accum": 1, "global_batch": config.batch,
    }  # fmt: skip


def _on_gpu(record: RunRecord) -> bool:
    return bool(record.peak_memory_bytes and record.hardware.get("accelerator"))


def memory_csv(folder: str | os.PathLike[str]) -> str:
    """The folder's supervised runs on a GPU with their peaks, as CSV. A CPU's peak is
    the process's and no row here."""
    out = io.StringIO()
    writer = csv.DictWriter(out, MEMORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in read_all(folder):
        if record.config.kind == "sft" and record.status == "ok" and _on_gpu(record):
            writer.writerow(memory_row(record))
    return out.getvalue()


def write_memory(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the table of peaks, whole or not at all."""
    write_whole(Path(path), memory_csv(folder))


def write_sweep(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the table, whole or not at all."""
    write_whole(Path(path), sweep_csv(folder))
