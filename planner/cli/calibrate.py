"""`lora-plan calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..memory.interval_kinds import KIND_WORDS
from .adapter_options import ADAPTER, PEFT, adapter_options
from .options import Number, SectionedCommand, json_option, print_json
from .run_options import BEFORE, BESIDE, HELD, IMAGES, SPREAD, STEP, run_options

if TYPE_CHECKING:  # loaded where a calibration is made
    from ..measuring import Calibrated
    from ..moments import MemoryEstimate
    from ..speed import StepTime

EPILOG = """\b
Examples:
  lora-plan calibrate -m meta-llama/Llama-3.1-8B --gpu h100 --layers all-linear --rank 16 --batch 8 \\
      --seq-len 4096 --checkpointing layer --tokens-per-s 9000 -o mine.json
  lora-plan calibrate --record run.json --add-to mine.json -o mine.json
  lora-plan calibrate -m meta-llama/Llama-3.1-8B --layers all-linear --rank 16 --batch 8 --seq-len 4096 \\
      --checkpointing layer --peak 68.3GiB --peak-of allocated -o mine.json
  lora-plan plan -m meta-llama/Llama-3.1-8B --tokens 50M --gpu h100 --calibration mine.json
"""
MACHINE = ("gpu", "gpus", "gpus_per_node")
SECTIONS = {
    "What was measured": ("record", "step_time", "tokens_per_s", "peak", "peak_of", "add_to", "out"),
    "On what": MACHINE,
    "Model and adapter": ADAPTER,
    "More of PEFT's LoraConfig": PEFT,
    "Step": ("method", *STEP, *BESIDE, *BEFORE, *IMAGES),
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
@click.option("--step-time", type=Number(), metavar="SECONDS", help="Seconds of an optimizer step.")
@click.option("--tokens-per-s", type=Number(), metavar="RATE", help="Tokens a second of all GPUs instead.")
@click.option("--peak", metavar="SIZE", help="The highest memory of a GPU: 68.3GiB, 34GB, 32461MiB or bytes.")
@click.option(
    "--peak-of", metavar="WHAT",
    help="What --peak is: allocated (torch.cuda.max_memory_allocated), reserved (max_memory_reserved) or device "
    "(nvidia-smi).",
)  # fmt: skip
@click.option("--add-to", type=click.Path(), metavar="FILE", help="An earlier calibration to add to.")
@click.option(
    "-o",
    "--out",
    type=click.Path(),
    metavar="FILE",
    help="Where to write the calibration, which is not kept without.",
)
@run_options(MACHINE)
@adapter_options
@click.option(
    "--method", metavar="NAME", help="lora, qlora or full. Default: qlora with --quantize, else lora."
)
@run_options((*STEP, *BESIDE, *BEFORE, *IMAGES, *HELD, *SPREAD))
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Learn from a measured step how fast your trainer and machine are, and from a measured peak what they hold.

    Compares the step's time with the formula's and narrows the interval of every estimate for the same trainer
    and GPU that is given the file with --calibration. A peak of memory corrects and narrows that of the same model,
    trainer, method, sharding and loss, on one GPU or on several; either may be given alone.
    """
    from .. import units
    from ..measuring import calibrate

    found = calibrate(**_given(options))
    if as_json:
        print_json(found.to_dict())
        return
    for line in (*_step_lines(found), *_peak_lines(found)):
        click.echo(line)
    steps, peaks = len(found.calibration.measurements), len(found.calibration.peaks)
    held = [
        units.counted(number, word)
        for number, word in ((steps, "measurement"), (peaks, "measured peak"))
        if number
    ]
    if found.path:
        click.echo(f"wrote {found.path}: {' and '.join(held)}")
    else:
        click.echo(
            f"not kept: {' and '.join(held)}; -o FILE keeps that, for --calibration FILE and --add-to FILE"
        )
    for notice in found.notices:
        click.echo(f"note  {notice.message}")


def _step_lines(found: Calibrated) -> Iterator[str]:
    """The step as it was measured, and as it is predicted before and after."""
    from .. import units

    before, after, measured = found.before, found.after, found.measurement
    if before is None or after is None or measured is None:
        return

    def shown(step: StepTime) -> str:
        return f"{units.duration(step.seconds)} ({units.duration(step.low)} to {units.duration(step.high)})"

    yield measured.description
    yield f"{measured.trainer} on {measured.gpu}"
    yield f"measured          {units.duration(measured.measured_s)}"
    yield f"predicted before  {shown(before)}"
    yield f"predicted after   {shown(after)}"
    yield f"interval of       {after.grounds.said}"


def _peak_lines(found: Calibrated) -> Iterator[str]:
    """The peak as it was measured, and the memory of its set-up before and after."""
    from .. import units

    peak, before, after = found.peak, found.memory_before, found.memory_after
    if peak is None or before is None or after is None:
        return

    def shown(memory: MemoryEstimate) -> str:
        return (
            f"{units.byte_size(memory.per_gpu_bytes)} "
            f"({units.byte_size(memory.low)} to {units.byte_size(memory.high)})"
        )

    if found.measurement is None:
        yield peak.description
    predicted = f"predicted {units.byte_size(peak.predicted_bytes)}"
    yield f"measured          {units.byte_size(peak.measured_bytes)} {peak.of}, {predicted}"
    yield f"memory before     {shown(before)}"
    yield f"memory after      {shown(after)}"
    if after.corrected:
        yield f"                  {after.corrected.factor:.3g} times what does not follow from the set-up"
    if within := after.within:
        held = f"{within.held:.0%} of {units.counted(within.judged, 'source')}"
        yield f"interval of       {KIND_WORDS[within.kind]}: it holds {held}"
