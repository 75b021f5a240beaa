"""`lora-plan import`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click

from ..exports.imported import FORMATS, import_config
from .options import Count, json_option, print_json

EPILOG = """\b
Examples:
  lora-plan import axolotl.yml
  lora-plan import adapter_config.json --json
  lora-plan export trl-sft --config axolotl.yml -o run
"""


def shown(value: Any) -> str:
    """A value as the command line writes it."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def words(request: Mapping[str, Any]) -> list[str]:
    """A request as options of `estimate`."""
    found = []
    for name, value in request.items():
        if name == "variant":
            found += ["--dora"] if value == "dora" else []
        elif isinstance(value, bool):
            found += [f"--{name.replace('_', '-')}"] if value else []
        else:
            found.append(f"--{name.replace('_', '-')} {shlex.quote(shown(value))}")
    return found


@click.command("import", epilog=EPILOG)
@click.argument("file", type=click.Path())
@click.option(
    "--format", metavar="NAME", help=f"Whose file it is: {', '.join(FORMATS)}. Default: seen from it."
)
@click.option("--gpus", type=Count(), help="GPUs that it is launched on. Default: 1.")
@json_option
def command(file: str, format: str | None, gpus: int | None, as_json: bool) -> None:
    """Read a trainer's config as a request.

    FILE is PEFT's adapter_config.json (or its folder), or the YAML of TRL, Axolotl, LLaMA-Factory or torchtune.
    Prints the same as options of `estimate` (of `compare` where every parameter trains), what says how it is run, and
    every option that the plan has no place for.
    """
    found = import_config(file, format=format, gpus=gpus)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo(f"{found.format}: {file}")
    command = "compare" if found.full else "estimate"
    click.echo(" \\\n    ".join([f"lora-plan {command}", *words(found.request)]))
    if found.run:
        click.echo("Run: " + ", ".join(f"{name} {shown(value)}" for name, value in found.run.items()))
    for item in found.unread:
        click.echo(f"Not in the plan: {item.name} {item.value} ({item.reason})")
    for notice in found.notices:
        click.echo(f"Note: {notice.message}", err=True)
