"""`lora-plan review`."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import click

from .. import units
from ..exports.checks import SEVERITIES
from ..exports.imported import FORMATS
from ..exports.review import Review, review
from ..moments import FIT_WORDS
from .estimate import DATA, data_options
from .options import Count, Number, SectionedCommand, json_option, print_json
from .run_options import MACHINE, run_options

EPILOG = """\b
Examples:
  lora-plan review axolotl.yml
  lora-plan review trl.yaml --gpu h100 --gpus 8 --tokens 50M
  lora-plan review my-adapter --dataset alpaca --lr 2e-4 --json
"""
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
WIDTH = 100


@click.command("review", cls=SectionedCommand, epilog=EPILOG, sections={"Data": DATA, "Machines": MACHINE})
@click.argument("file", type=click.Path())
@data_options
@run_options(tuple(name for name in MACHINE if name != "gpus"))
@click.option("--gpus", type=Count(), help="GPUs that it is launched on. Default: 1.")
@click.option(
    "--format", metavar="NAME", help=f"Whose file it is: {', '.join(FORMATS)}. Default: seen from it."
)
@click.option("-m", "--model", metavar="NAME|PATH", help="The model, where the file names none or another.")
@click.option("--lr", type=Number(), help="Learning rate, where the file has none.")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 1 where a finding is as grave as this or graver.",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    file: str,
    as_json: bool,
    fail_on: str | None,
    format: str | None,
    **options: Any,
) -> None:
    """What a trainer's config takes, and what looks wrong in it.

    FILE is PEFT's adapter_config.json (or its folder), or the YAML of TRL, Axolotl, LLaMA-Factory or torchtune.
    Memory, time, capacity and learning rate as in `estimate`, then findings, each with its reason, its source and
    what to do.
    """
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    found = review(file, format=format, **given)
    if as_json:
        print_json(found.to_dict())
    else:
        show(found)
    if fail_on and found.at_least(fail_on):
        sys.exit(1)


def _row(label: str, text: str, colour: str | None = None) -> None:
    lines = textwrap.wrap(text, WIDTH - 15, break_long_words=False) or [""]
    for number, line in enumerate(lines):
        head = f"{label:<14}" if number == 0 else " " * 14
        click.echo(f"{click.style(head, fg=colour, bold=bool(colour))} {line}")


def show(found: Review) -> None:
    """The page for people."""
    plan = found.plan
    spec, work = plan.adapter.spec, plan.workload
    _row("Config", f"{found.format or 'plan'}{': ' + found.file if found.file else ''}")
    full = found.method == "full"
    if full:
        _row("Trained", f"{plan.model.id}: every parameter, {plan.model.params:,} (exact)")
    else:
        counted = f"{plan.adapter.params:,} parameters ({plan.adapter.basis})"
        _row("Adapter", f"{plan.model.id}: rank {spec.rank}, alpha {spec.alpha:g}, {counted}")
    memory = (plan.memory or {}).get(found.method)
    if memory:
        peak, low, high = (units.byte_size(memory[key]) for key in ("per_gpu_bytes", "low", "high"))
        fit = f"{FIT_WORDS[memory['fit']]}; " if memory["fit"] else ""
        _row("Memory", f"{peak} a GPU ({low} to {high}; analytic), {fit}{work.seq_len:,} tokens a sequence")
    if not full and plan.time and plan.time["seconds"] is not None:
        took, low, high = (units.duration(plan.time[key]) for key in ("seconds", "low", "high"))
        _row(
            "Time",
            f"{took} ({low} to {high}; {plan.time['basis']}), {units.counted(plan.time['steps'], 'step')}",
        )
    cap = plan.capacity
    if cap.utilisation is not None and not full:
        _row(
            "Capacity",
            f"{cap.verdict}: {cap.utilisation:.1%} used, rank {cap.required_rank} needed ({cap.basis})",
        )
    if found.law is not None:
        span = f", {found.law.low:.2g} to {found.law.high:.2g}" if found.law.low and found.law.high else ""
        given = f"given {found.lr:g}; " if found.lr is not None else ""
        _row("Learning rate", f"{given}the law's {found.law.value:.2g}{span}")
    click.echo("")
    for finding in found.findings:
        _row(finding.severity, f"{finding.message} [{finding.code}]", COLOURS[finding.severity])
        _row("", finding.reason)
        _row("", f"-> {finding.advice}")
        _row("", f"Source: {finding.source.title}, {finding.source.url}")
    if not found.findings:
        _row("", "Nothing looks wrong.")
    for item in found.unread:
        _row("not read", f"{item.name} {item.value}: {item.reason}")
    for notice in found.notices:
        click.echo(f"Note: {notice.message}", err=True)
