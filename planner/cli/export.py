"""`lora-plan export`."""

from __future__ import annotations

from typing import Any

import click

from ..exports import FORMATS, export, text, write
from .adapter_options import MODEL_AND_ADAPTER, PEFT, adapter_options, library_options
from .options import SectionedCommand

EPILOG = """\b
Examples:
  lora-plan export peft --model meta-llama/Llama-3.1-8B --layers all -o my-adapter
  lora-plan export peft -m openai/gpt-oss-20b --targets q_proj,v_proj \\
    --target-parameters experts.gate_up_proj,experts.down_proj --rank-pattern experts.down_proj=8
"""
SECTIONS = {"Model and adapter": MODEL_AND_ADAPTER, "More of PEFT's LoraConfig": PEFT}


@click.command("export", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("format", type=click.Choice(FORMATS))
@adapter_options
@click.option(
    "-o",
    "--output",
    metavar="DIR|-",
    type=click.Path(),
    help="Folder to write to. Without it, or with -, standard output.",
)
def command(format: str, output: str | None, **options: Any) -> None:
    """Write the config that trains exactly what `estimate` counts.

    FORMAT peft: adapter_config.json, for LoraConfig.from_pretrained. Where PEFT cannot train the choice, an error
    names the nearest that it can.
    """
    found = export(format, **library_options(options))
    if output is None or output == "-":
        click.echo(text(found), nl=False)
        return
    click.echo(write(found, output), err=True)
