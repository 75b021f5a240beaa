"""`lora-plan estimate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import click

from ..adapter import ALL_LINEAR, DTYPE_BYTES, LAYER_SETS, PRESETS, ExpertConvention, Layout
from ..estimator import estimate
from .options import Count, SectionedCommand, complete, complete_last, json_option, print_json

EPILOG = """\b
Examples:
  lora-plan estimate --model meta-llama/Llama-3.1-8B
  lora-plan estimate -m Qwen/Qwen3-30B-A3B --rank 64 --dataset tulu-3-sft-mixture
  lora-plan estimate -m ./my-model --layers all-linear --tokens 50M --json
  lora-plan estimate -m Qwen/Qwen3-8B --rank 1 --episodes 320000 --success-rate 0.3
"""


def _models() -> Iterable[str]:
    from .. import facts

    return [*facts.model_ids(), *facts.model_aliases()]


def _datasets() -> Iterable[str]:
    from .. import facts

    return [fact.name for fact in facts.datasets()]


SECTIONS = {
    "Model and adapter": (
        "model", "rank", "alpha", "layers", "targets", "experts", "layout", "dora", "adapter_dtype",
    ),
    "Data": ("dataset", "tokens", "episodes", "success_rate", "epochs"),
    "Step": ("seq_len", "batch", "checkpointing"),
}  # fmt: skip


@click.command("estimate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "-m",
    "--model",
    required=True,
    metavar="NAME|PATH",
    shell_complete=complete(_models),
    help="A model's name, a config.json, a folder with one, or a hub id.",
)
@click.option("-r", "--rank", type=int, default=32, show_default=True, help="LoRA rank.")
@click.option(
    "--alpha", type=float, default=32.0, show_default=True, help="LoRA alpha; the scale is alpha / rank."
)
@click.option(
    "--layers",
    metavar="SETS",
    shell_complete=complete_last([*PRESETS, ALL_LINEAR, *LAYER_SETS]),
    help=f"Comma list of {', '.join(LAYER_SETS)}; or all (attention, mlp, unembedding; the default) or "
    "all-linear (what PEFT's all-linear adapts).",
)
@click.option(
    "--targets", metavar="NAMES", help="Comma list of module names instead, as PEFT's target_modules."
)
@click.option(
    "--experts",
    metavar="CONVENTION",
    default="scaled",
    show_default=True,
    shell_complete=complete(lambda: get_args(ExpertConvention)),
    help="How experts are adapted: scaled (each its own pair, rank / active experts), per-expert (each its own, "
    "full rank), shared-outer (Tinker: the hidden side shared), peft (what PEFT trains) or none.",
)
@click.option(
    "--layout",
    metavar="LAYOUT",
    shell_complete=complete(lambda: get_args(Layout)),
    help="Which matrices a set means: modules (as the library has them) or tinker (its choice and split of fused "
    "ones; the default with --experts shared-outer).",
)
@click.option("--dora", is_flag=True, help="DoRA: a trained magnitude for each output.")
@click.option(
    "--adapter-dtype",
    metavar="DTYPE",
    default="float32",
    show_default=True,
    shell_complete=complete(lambda: DTYPE_BYTES),
    help=f"How the adapter is stored: {', '.join(DTYPE_BYTES)}.",
)
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
@click.option("--batch", type=Count(), default=1, show_default=True, help="Sequences in a step.")
@click.option(
    "--checkpointing/--no-checkpointing",
    default=False,
    show_default=True,
    help="Compute activations again in the backward pass.",
)
@click.option("--explain", is_flag=True, help="Say where each number comes from.")
@json_option
def command(as_json: bool, explain: bool, dora: bool, **options: Any) -> None:
    """What a LoRA fine-tune of a model is.

    Prints the adapter's parameters for every layer set, training FLOPs against full fine-tuning, the data's
    information against the adapter's capacity, and the learning rate.
    """
    plan = estimate(options.pop("model"), variant="dora" if dora else "lora", **options)
    if as_json:
        print_json(plan.to_dict())
        return
    from .estimate_page import show

    show(plan, explain)
