"""`lora-plan calibrate`."""

from __future__ import annotations

from typing import Any

import click

from .adapter_options import ADAPTER, PEFT, adapter_options
from .options import SectionedCommand, json_option, print_json
from .run_options import HELD, IMAGES, SPREAD, STEP, run_options

EPILOG = """\b
Examples:
  lora-plan calibrate -m meta-llama/Llama-3.1-8B --gpu h100 --layers all-linear --rank 16 --batch 8 \\
      --seq-len 4096 --checkpointing layer --tokens-per-s 9000 -o mine.json
  lora-plan calibrate --record run.json --add-to mine.json -o mine.json
  lora-plan plan -m meta-llama/Llama-3.1-8B --tokens 50M --gpu h100 --calibration mine.json
"""
MACHINE = ("gpu", "gpus", "gpus_per_node")
SECTIONS = {
    "What was measured": ("record", "step_time", "tokens_per_s", "add_to", "out"),
    "On what": MACHINE,
    "Model and adapter": ADAPTER,
    "More of PEFT's LoraConfig": PEFT,
    "Step": ("method", *STEP, *IMAGES),
    "What is held and how": (*HELD, *SPREAD),
}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed: a record's fields stand where they were not."""
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    found = {name: value for name, value in options.items() if context.get_parameter_source(name) is typed}
    if found.pop("dora", False):
        found["variant"] = "dora"
    return found


@click.command("calibrate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "--record", type=click.Path(), metavar="FILE", help="A run's record in JSON; options override it."
)
@click.option("--step-time", type=float, metavar="SECONDS", help="Seconds of an optimizer step.")
@click.option("--tokens-per-s", type=float, metavar="RATE", help="Tokens a second of all GPUs instead.")
@click.option("--add-to", type=click.Path(), metavar="FILE", help="An earlier calibration to add to.")
@click.option("-o", "--out", type=click.Path(), metavar="FILE", help="Where to write the calibration.")
@run_options(MACHINE)
@adapter_options
@click.option(
    "--method", metavar="NAME", help="lora, qlora or full. Default: qlora with --quantize, else lora."
)
@run_options((*STEP, *IMAGES, *HELD, *SPREAD))
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Learn from a measured step how fast your trainer and machine are.

    Compares the step's time with the formula's and narrows the interval of every estimate for the same trainer
    and GPU that is given the file with --calibration.
    """
    from .. import units
    from ..measuring import calibrate

    found = calibrate(**_given(options))
    if as_json:
        print_json(found.to_dict())
        return
    before, after, measured = found.before, found.after, found.measurement

    def shown(seconds: float, low: float, high: float) -> str:
        return f"{units.duration(seconds)} ({units.duration(low)} to {units.duration(high)})"

    click.echo(measured.description)
    click.echo(f"{measured.trainer} on {measured.gpu}")
    click.echo(f"measured          {units.duration(measured.measured_s)}")
    click.echo(f"predicted before  {shown(before.seconds, before.low, before.high)}")
    click.echo(f"predicted after   {shown(after.seconds, after.low, after.high)}")
    click.echo(f"interval of       {after.grounds.said}")
    if found.path:
        number = len(found.calibration.measurements)
        click.echo(f"wrote {found.path}: {number} measurement{'s' if number > 1 else ''}")
    for notice in after.notices:
        click.echo(f"note  {notice.message}")
