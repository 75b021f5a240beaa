"""`lora-plan export`."""

from __future__ import annotations

from typing import Any

import click

from ..exports import export
from ..exports.registry import TARGETS
from ..exports.training import SCHEDULES
from .adapter_options import MODEL_AND_ADAPTER, PEFT, adapter_options
from .config_option import config_option, only_given
from .estimate import DATA, DATA_FILE, RATE, data_file_options, data_options, rate_options
from .options import Count, Number, SectionedCommand, json_option, print_json
from .progress import reading
from .run_options import BEFORE, BESIDE, HELD, MACHINE, SPREAD, STEP, run_options

EPILOG = """\b
Examples:
  lora-plan export peft --model meta-llama/Llama-3.1-8B --layers all -o my-adapter
  lora-plan export trl-sft -m meta-llama/Llama-3.1-8B --layers attention,mlp --dataset alpaca
  lora-plan export axolotl -m Qwen/Qwen3-8B --dataset no-robots --gpus 8 --sharding fsdp -o run
  lora-plan export llamafactory --config axolotl.yml
  lora-plan export peft -m openai/gpt-oss-20b --targets q_proj,v_proj \\
    --target-parameters experts.gate_up_proj,experts.down_proj --rank-pattern experts.down_proj=8
"""
OWN = (
    "full",
    "lr",
    "train_data",
    "schedule",
    "warmup",
    "weight_decay",
    "seed",
    "out",
    "group",
)
SECTIONS = {
    "Model and adapter": (*MODEL_AND_ADAPTER, "config"),
    "More of PEFT's LoraConfig": PEFT,
    "Data": (*DATA, *DATA_FILE, "train_data"),
    "Run": ("full", "lr", *RATE, *(name for name in OWN if name not in ("full", "lr", "train_data"))),
    "Machines": MACHINE,
    "Step": (*STEP, *BESIDE, *BEFORE),
    "What is held and how": (*HELD, *SPREAD),
}


@click.command("export", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("target", metavar="TARGET", type=click.Choice(list(TARGETS)))
@adapter_options
@config_option
@data_options
@data_file_options
@click.option(
    "--train-data", metavar="NAME|PATH", help="What the trainer loads. Default: the plan's data set."
)
@click.option(
    "--full", is_flag=True, help="All parameters train, and no adapter: TRL, Axolotl, LLaMA-Factory."
)
@click.option("--lr", type=Number(), help="Learning rate. Default: the law's, for this batch and alpha.")
@rate_options
@click.option(
    "--schedule", metavar="NAME", help=f"How the rate moves: {', '.join(SCHEDULES)}. Default: constant."
)
@click.option("--warmup", type=Number(), help="Steps of warm-up, or below 1 their share. Default: 0.")
@click.option("--weight-decay", type=Number(), help="Default: 0.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the run.")
@click.option("--out", metavar="DIR", default="out", show_default=True, help="Where the trainer writes.")
@click.option("--group", type=Count(), default=8, show_default=True, help="GRPO: completions of a prompt.")
@run_options((*STEP, *BESIDE, *BEFORE, *HELD, *SPREAD, *MACHINE))
@click.option(
    "-o",
    "--output",
    metavar="DIR|-",
    type=click.Path(),
    help="Folder to write to. Without it, or with -, the main file on standard output.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, /, target: str, output: str | None, as_json: bool, **options: Any
) -> None:
    """Write what a trainer loads, so that it trains exactly what `estimate` counts.

    TARGET is peft (adapter_config.json); a trainer whose config carries the whole plan, adapter, learning rate,
    batch, length, precision and sharding, each with its reason: trl-sft, trl-grpo, axolotl, llamafactory, unsloth,
    tinker, torchtune, megatron; or a launcher: accelerate, deepspeed. Where the trainer cannot express the choice,
    an error names the nearest that it can.
    """
    with reading(only_given(context, options, run=True)) as given:
        found = export(target, **given)
    if as_json:
        places = found.write(output) if output not in (None, "-") else []
        print_json({**found.to_dict(), "written": places})
        return
    for notice in found.notices:
        click.echo(f"Note: {notice.message}", err=True)
    if output is None or output == "-":
        click.echo(found.text, nl=False)
        if len(found.files) > 1:
            click.echo(f"With -o DIR also: {', '.join(list(found.files)[1:])}.", err=True)
        return
    for place in found.write(output):
        click.echo(place, err=True)
