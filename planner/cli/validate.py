"""`lora-plan validate`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import click

from .options import Count, SectionedCommand, json_option, print_json

EPILOG = """\b
Examples:
  lora-plan validate --list
  lora-plan validate C12 C15 C17 C19 C20
  lora-plan validate C4 C5 C14 --model tiny --budget 10m --out runs/
  lora-plan validate C3 C18 --model micro,tiny,mini,small --json
  lora-plan validate C3 C6 --executor ray --address auto

Killed or out of budget, the same command goes on where it stopped.
"""
SECTIONS = {
    "What is tried": ("model", "seeds", "steps", "data", "batch", "seq_len", "precision", "checkpointing"),
    "How it runs": ("device", "budget", "out", "workers", "threads", "executor", "address"),
}


@click.command("validate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("claims", nargs=-1, metavar="[CLAIM]...")
@click.option("--list", "as_list", is_flag=True, help="List the claims with their expected duration here.")
@click.option(
    "-m",
    "--model",
    default="tiny",
    show_default=True,
    help="nano, pico, micro, tiny, mini, small, medium or mixture, made on first use; or what transformers loads. "
    "A comma list for claims about width.",
)
@click.option("--seeds", type=Count(), default=3, show_default=True, help="Repetitions; intervals need two.")
@click.option("--steps", type=Count(), default=120, show_default=True, help="Steps of the standard run.")
@click.option(
    "--data",
    metavar="FILE",
    help="Your own text for the standard runs: lines, or JSON lines with prompt and completion.",
)
@click.option(
    "--batch", type=Count(), default=16, show_default=True, help="Sequences a step of the standard run."
)
@click.option("--seq-len", type=Count(), default=64, show_default=True, help="Longest sequence in tokens.")
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    help="float32, or bfloat16 for mixed precision: products in bfloat16, weights and adapter in float32.",
)
@click.option("--checkpointing", is_flag=True, help="Compute activations again in the backward pass.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--budget", metavar="TIME", help="90s, 10m or 2h; what is then missing stays undecided.")
@click.option(
    "-o", "--out", default="runs", show_default=True, metavar="DIR", help="Folder of the run records."
)
@click.option("--workers", type=Count(), default=1, show_default=True, help="Processes, one a GPU in turn.")
@click.option("--threads", type=Count(), default=1, show_default=True, help="CPU threads a process.")
@click.option("--executor", default="local", show_default=True, help="local, or ray for a cluster.")
@click.option("--address", help="With --executor ray: the cluster's address; auto where nothing is given.")
@click.option("--sweep-csv", metavar="FILE", help="Write the folder's supervised runs as a sweep table too.")
@click.option("--memory-csv", metavar="FILE", help="Write peaks of memory of the folder's runs on a GPU too.")
@json_option
def command(
    claims: tuple[str, ...],
    as_list: bool,
    as_json: bool,
    sweep_csv: str | None,
    memory_csv: str | None,
    **options: Any,
) -> None:
    """Try the article's claims by short real runs, and give each a verdict.

    Without CLAIM all are tried: the article's twenty and V1, which it leaves open. A verdict is confirmed, refuted
    or undecided by a rule that is fixed before the runs (--list --json shows it); each finished run is a record in
    --out and is never run twice. Exit code 0 whatever the verdicts are.
    """
    from ..validate.api import listing

    if as_list:
        entries = listing(claims or None, options["model"], options["seeds"], options["steps"])
        if as_json:
            print_json({"schema": 1, "claims": entries})
            return
        from .validate_page import show_list

        show_list(entries)
        return
    from ..validate import validate
    from .validate_page import progress_bar, show

    bar = progress_bar() if sys.stderr.isatty() else nullcontext()
    with bar as progress:
        report = validate(claims or None, progress=progress, **options)
    if sweep_csv is not None:
        from ..validate.tables import write_sweep

        write_sweep(options["out"], sweep_csv)
    if memory_csv is not None:
        from ..validate.tables import write_memory

        write_memory(options["out"], memory_csv)
    if as_json:
        print_json(report.to_dict())
    else:
        show(report.to_dict())
