"""`lora-plan estimate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ..planning import estimate
from .adapter_options import MODEL_AND_ADAPTER, PEFT, adapter_options, library_options
from .config_option import config_option, only_given
from .options import (
    Count,
    Function,
    Number,
    SectionedCommand,
    complete,
    json_option,
    print_json,
    with_options,
)
from .progress import reading
from .run_options import BEFORE, BESIDE, HELD, HOST, IMAGES, MACHINE, SPREAD, STEP, UNITS, run_options

EPILOG = """\b
Examples:
  lora-plan estimate --model meta-llama/Llama-3.1-8B
  lora-plan estimate -m meta-llama/Llama-3.1-8B --gpu h100 --batch 8 --checkpointing --tokens 50M
  lora-plan estimate -m Qwen/Qwen3-30B-A3B --rank 64 --dataset tulu-3-sft-mixture
  lora-plan estimate -m ./my-model --layers all-linear --tokens 50M --json
  lora-plan estimate --config axolotl.yml --gpu h100
  lora-plan estimate -m Qwen/Qwen2.5-VL-7B-Instruct --images 1 --image-size 1280x720 --gpu l40s
  lora-plan estimate -m Qwen/Qwen3-8B --rank 1 --episodes 320000 --success-rate 0.3
"""


def _datasets() -> Iterable[str]:
    from .. import facts

    return [fact.name for fact in facts.datasets()]


def _laws() -> Iterable[str]:
    from .. import facts

    return [fact.id for fact in facts.laws()]


_DATA_OPTIONS = (
    click.option(
        "--dataset",
        metavar="NAME",
        shell_complete=complete(_datasets),
        help="A dataset of known size (see `lora-plan datasets`).",
    ),
    click.option("--tokens", type=Count(), help="Tokens that carry loss, for example 300M."),
    click.option("--episodes", type=Count(), help="Episodes of a reinforcement-learning run."),
    click.option(
        "--success-rate", type=Number(), help="Share of episodes with reward 1, for H(p) bits an episode."
    ),
    click.option("--epochs", type=Count(), default=1, show_default=True, help="Passes over the data."),
)


def data_options(function: Function) -> Function:
    """Add the options that say what is learnt from."""
    return with_options(_DATA_OPTIONS, function)


_READ_OPTIONS = (
    click.option(
        "--data", metavar="FILE|DIR|NAME", help="Data to read and count, as `lora-plan dataset` does."
    ),
    click.option(
        "-t",
        "--tokenizer",
        metavar="PATH|NAME",
        help="Of --data. Default: the model's own, where it can be had.",
    ),
    click.option("--format", metavar="NAME", help="Of --data: see `lora-plan dataset`."),
    click.option("--loss-on", metavar="WHICH", help="Of --data: assistant, completion or all."),
    click.option("--split", metavar="NAME", help="Of --data. Default: train, where there are several."),
    click.option(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="Of --data: its columns under a format's names, as prompt=Question.",
    ),
)
_FILE_OPTIONS = (
    *_READ_OPTIONS,
    click.option(
        "--nats",
        type=Number(),
        metavar="LOSS",
        help="The model's log loss per token in the first epoch, for its bits.",
    ),
    click.option("--group-size", type=Count(), help="Episodes sampled from each prompt."),
)
_CAPACITY_OPTIONS = (
    click.option(
        "--bits-per-param", type=Number(), help="What a parameter holds. Default: 2, and up to 3.6."
    ),
    click.option("--curves", is_flag=True, help="Every rank, for every layer set and expert convention."),
)


def read_options(function: Function) -> Function:
    """Add the options of how data are read alone."""
    return with_options(_READ_OPTIONS, function)


def data_file_options(function: Function) -> Function:
    """Add the options of data that are read."""
    return with_options(_FILE_OPTIONS, function)


def _capacity_options(function: Function) -> Function:
    return with_options(_CAPACITY_OPTIONS, function)


_RATE_OPTIONS = (
    click.option(
        "--law",
        metavar="NAME|FILE",
        shell_complete=complete(_laws),
        help="A learning-rate law by name, or a file of `fit --out`. Default: our own fit.",
    ),
    click.option("--family", metavar="NAME", help="The model's family, where its name does not say it."),
)


def rate_options(function: Function) -> Function:
    """Add the options that say where a learning rate comes from."""
    return with_options(_RATE_OPTIONS, function)


DATA = ("dataset", "tokens", "episodes", "success_rate", "epochs")
READ = ("data", "tokenizer", "format", "loss_on", "split", "columns")
DATA_FILE = (*READ, "nats", "group_size")
RATE = ("law", "family")
SECTIONS = {
    "Model and adapter": (*MODEL_AND_ADAPTER, "config"),
    "More of PEFT's LoraConfig": PEFT,
    "Data": (*DATA, *DATA_FILE, "bits_per_param", "curves"),
    "Machines": (*MACHINE, *HOST),
    "Step": (*STEP, "group", *BESIDE, *BEFORE, *IMAGES),
    "What is held and how": (*HELD, *SPREAD, *UNITS),
    "Learning rate": RATE,
}


@click.command("estimate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@adapter_options
@config_option
@data_options
@data_file_options
@_capacity_options
@rate_options
@run_options((*MACHINE, *HOST))
@click.option("--group", type=Count(), help="grpo: completions of a prompt. Default: 8.")
@run_options((*STEP, *BESIDE, *BEFORE, *IMAGES, *HELD, *SPREAD, *UNITS))
@click.option("--explain", is_flag=True, help="Say where each number comes from.")
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, explain: bool, **options: Any) -> None:
    """What a LoRA fine-tune of a model is.

    Prints the adapter's parameters for every layer set, training FLOPs and memory against full fine-tuning, the
    data's information against the adapter's capacity, and the learning rate; with --gpu what fits, time and cost.
    """
    config = options["config"]
    if config is None:
        del options["config"]
        asked = library_options(options)
    else:
        asked = only_given(context, options, run=False)
    with reading(asked) as given:
        plan = estimate(**given)
    if as_json:
        print_json(plan.to_dict())
        return
    from .estimate_page import show

    show(plan, explain)
    if config is not None:
        click.echo(f"What looks wrong in it: lora-plan review {config}", err=True)
