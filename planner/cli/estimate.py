"""`lora-plan estimate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ..planning import estimate
from .adapter_options import MODEL_AND_ADAPTER, PEFT, adapter_options, library_options
from .options import Count, SectionedCommand, complete, json_option, print_json
from .run_options import HELD, MACHINE, SPREAD, STEP, run_options

EPILOG = """\b
Examples:
  lora-plan estimate --model meta-llama/Llama-3.1-8B
  lora-plan estimate -m meta-llama/Llama-3.1-8B --gpu h100 --batch 8 --checkpointing --tokens 50M
  lora-plan estimate -m Qwen/Qwen3-30B-A3B --rank 64 --dataset tulu-3-sft-mixture
  lora-plan estimate -m ./my-model --layers all-linear --tokens 50M --json
  lora-plan estimate -m Qwen/Qwen3-8B --rank 1 --episodes 320000 --success-rate 0.3
"""


def _datasets() -> Iterable[str]:
    from .. import facts

    return [fact.name for fact in facts.datasets()]


SECTIONS = {
    "Model and adapter": MODEL_AND_ADAPTER,
    "More of PEFT's LoraConfig": PEFT,
    "Data": ("dataset", "tokens", "episodes", "success_rate", "epochs"),
    "Machines": MACHINE,
    "Step": STEP,
    "What is held and how": (*HELD, *SPREAD),
}
OWN = ("seq_len", "batch", "checkpointing")  # fmt: skip


@click.command("estimate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@adapter_options
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=complete(_datasets),
    help="A dataset of known size (see `lora-plan datasets`).",
)
@click.option("--tokens", type=Count(), help="Tokens that carry loss, for example 300M.")
@click.option("--episodes", type=Count(), help="Episodes of a reinforcement-learning run.")
@click.option("--success-rate", type=float, help="Share of episodes with reward 1, for H(p) bits an episode.")
@click.option("--epochs", type=Count(), default=1, show_default=True, help="Passes over the data.")
@click.option(
    "--seq-len", type=Count(), help="Tokens a sequence. Default: 2048, or the model's context if shorter."
)
@click.option("--batch", type=Count(), default=1, show_default=True, help="Sequences in a step, of all GPUs.")
@click.option(
    "--checkpointing/--no-checkpointing",
    default=None,
    help="Compute activations again in the backward pass. Default: no, or the trainer's.",
)
@run_options(MACHINE)
@run_options(tuple(name for name in (*STEP, *HELD, *SPREAD) if name not in OWN))
@click.option("--explain", is_flag=True, help="Say where each number comes from.")
@json_option
def command(as_json: bool, explain: bool, **options: Any) -> None:
    """What a LoRA fine-tune of a model is.

    Prints the adapter's parameters for every layer set, training FLOPs and memory against full fine-tuning, the
    data's information against the adapter's capacity, and the learning rate; with --gpu what fits, time and cost.
    """
    plan = estimate(**library_options(options))
    if as_json:
        print_json(plan.to_dict())
        return
    from .estimate_page import show

    show(plan, explain)
