"""`lora-plan lr`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ..learning_rate.advice import METHODS, TASKS, Advice, lr
from .adapter_options import _models
from .options import Count, Number, SectionedCommand, complete, json_option, print_json

EPILOG = """\b
Examples:
  lora-plan lr --model Qwen/Qwen3-8B --rank 16
  lora-plan lr -m meta-llama/Llama-3.1-8B --method full --batch 32 --steps 200
  lora-plan lr -m mistralai/Mistral-7B-v0.1 --rank 1 --task rl --json
  lora-plan lr -m meta-llama/Llama-3.1-8B --law tinker-cookbook-2025-11
"""
SECTIONS = {
    "Model and adapter": ("model", "family", "hidden_size", "rank", "alpha", "scaling"),
    "Run": ("method", "task", "steps", "batch"),
    "Law": ("law",),
}


def _laws() -> Iterable[str]:
    from .. import facts

    return [fact.id for fact in facts.laws()]


@click.command("lr", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "-m",
    "--model",
    metavar="NAME|PATH",
    shell_complete=complete(_models),
    help="A model's name, a config.json, a folder with one, or a hub id.",
)
@click.option("--family", metavar="NAME", help="The model's family, where its name does not say it.")
@click.option("--hidden-size", type=Count(), help="The width; with --family it stands for a model.")
@click.option("-r", "--rank", type=Count(), default=32, show_default=True, help="LoRA rank.")
@click.option("--alpha", type=Number(), default=32.0, show_default=True, help="LoRA alpha.")
@click.option(
    "--scaling",
    type=click.Choice(["alpha/rank", "alpha/sqrt(rank)", "none"]),
    default="alpha/rank",
    show_default=True,
    help="Scale of the product B A; alpha/sqrt(rank) is rsLoRA.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="lora",
    show_default=True,
    help="LoRA or full fine-tuning.",
)
@click.option(
    "--task", type=click.Choice(TASKS), default="sft", show_default=True, help="Supervised, or by reward."
)
@click.option("--steps", type=Count(), help="Optimizer steps of the run; short runs want higher rates.")
@click.option("--batch", type=Count(), help="Sequences in an optimizer step.")
@click.option(
    "--law",
    metavar="NAME|FILE",
    shell_complete=complete(_laws),
    help="A law of data/laws.toml by name, or a file of `fit --out`. Default: our own fit.",
)
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Which learning rate to use.

    Prints a value, the interval in which the best rate lies on data like the law's and the wider one for other data,
    a small grid worth sweeping, and what they rest on: the law with its regret, factors for the run, and what is
    extrapolated.
    """
    advice = lr(**options)
    if as_json:
        print_json(advice.to_dict())
        return
    show(advice)


def _labelled(code: str, message: str) -> tuple[str, str]:
    """What a notice is: what the law was fitted on, what was not given, or what lies outside of the law's range."""
    if code == "learning-rate-data":
        return "fitted on", message.removeprefix("Fitted on ")
    if code in ("learning-rate-batch", "learning-rate-steps") and message.startswith("No "):
        return "assumed", message
    return ("note" if code in ("learning-rate-law", "learning-rate-interval") else "outside"), message


def show(advice: Advice) -> None:
    """The page for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from .. import units

    console = Console(highlight=False, soft_wrap=False)
    what = f"LoRA rank {advice.rank}" if advice.method == "lora" else "full fine-tuning"
    task = "reinforcement learning" if advice.task == "rl" else "supervised"
    name = advice.model or f"{advice.family}, width {advice.hidden_size:,}"
    console.print(Text.assemble((name, "bold cyan"), f"  {what}, {task}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_row(
        "learning rate", Text(units.rate(advice.value), style="bold"), Text(advice.basis, style="dim")
    )
    if advice.low is not None and advice.high is not None:
        level = "measured range" if advice.level is None else f"{advice.level:.0%}"
        own = "" if advice.level is None else " on data like the law's"
        table.add_row(
            "best rate within",
            f"{units.rate(advice.low)} to {units.rate(advice.high)}",
            Text(level + own, style="dim"),
        )
        if advice.level is not None and advice.other_low is not None and advice.other_high is not None:
            within = f"{units.rate(advice.other_low)} to {units.rate(advice.other_high)}"
            table.add_row("on other data", within, Text(level, style="dim"))
    table.add_row("rates to sweep", ", ".join(units.rate(rate) for rate in advice.grid))
    console.print(table)
    console.print(Text.assemble(("law  ", "bold"), f"{advice.law}: {advice.law_title}"))
    if (mean := advice.regret_percent.get("left_out_mean")) is not None:
        p90 = advice.regret_percent["left_out_p90"]
        console.print(
            f"at its rates, models that it had not seen lost {mean:.2f}% more than at their own best rates, "
            f"one in ten cases over {p90:.2f}%"
        )
    for factor in advice.factors:
        ends = f"{factor.low:.3g} to {factor.high:.3g}"
        console.print(
            Text.assemble(
                ("factor  ", "bold"), f"{factor.value:.3g} ({ends}, {factor.basis})  {factor.reason}"
            )
        )
    for notice in advice.extrapolates:
        label, text = _labelled(notice.code, notice.message)
        console.print(Text.assemble((f"{label}  ", "yellow"), text))
    for notice in advice.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
