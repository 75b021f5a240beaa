"""`lora-plan convert`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from ..learning_rate.parametrisation import INITS, SCALINGS, Conversion, convert, to_rows
from .options import Count, Number, SectionedCommand, complete, json_option, print_json

EPILOG = """\b
Examples:
  lora-plan convert --from tinker --to megatron --lr 5e-4 --rank 32
  lora-plan convert --from peft --to trl --lr 2e-4 --rank 16 --alpha 32 --to-alpha own
  lora-plan convert --from article --to lora+ --lr 3e-4 --json
"""
SECTIONS = {
    "Recipe": (
        "source", "lr", "rank", "alpha", "lr_ratio", "scaling", "init", "init_gain", "eps", "weight_decay", "d_in",
    ),
    "Target": ("target", "to_alpha", "to_rank", "keep_init"),
}  # fmt: skip


def _names() -> Iterable[str]:
    from .. import facts

    return [spelling for fact in facts.conventions() for spelling in (fact.id, *fact.aliases)]


CONVENTIONS = (
    "article, tinker, peft, rslora, trl, unsloth, unsloth-2r, megatron (nemo), gaussian, lora+, unscaled"
)


@click.command("convert", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "--from", "source", metavar="NAME", required=True, shell_complete=complete(_names),
    help=f"The recipe's convention: {CONVENTIONS}.",
)  # fmt: skip
@click.option(
    "--to", "target", metavar="NAME", required=True, shell_complete=complete(_names), help="The wanted convention."
)  # fmt: skip
@click.option("--lr", type=Number(), required=True, help="Learning rate (of A, where B has its own).")
@click.option("-r", "--rank", type=Count(), help="Rank. Default: the convention's.")
@click.option("--alpha", type=Number(), help="Alpha. Default: the convention's.")
@click.option("--lr-ratio", type=Number(), help="LR_B / LR_A. Default: the convention's (LoRA+ 16).")
@click.option("--scaling", type=click.Choice(SCALINGS), help="Instead of the convention's.")
@click.option("--init", type=click.Choice(INITS), help="Instead of the convention's.")
@click.option("--init-gain", type=Number(), default=1.0, show_default=True, help="Factor on that draw of A.")
@click.option("--eps", type=Number(), help="Adam's epsilon. Default: the convention's.")
@click.option("--weight-decay", type=Number(), default=0.0, show_default=True, help="Decoupled, as in AdamW.")
@click.option(
    "--d-in", type=Count(), default=4096, show_default=True, help="Inputs of the matrix, for A's spread."
)
@click.option(
    "--to-alpha", metavar="NUMBER|own", help="Fix the target's alpha (own: the convention's default)."
)
@click.option("--to-rank", type=Count(), help="Another rank; equivalent to first order only.")
@click.option("--keep-init", is_flag=True, help="Scale the target's draw of A to the recipe's spread.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Translate a LoRA recipe into another parametrisation.

    Alpha, its scaling, the draw of A and the rates of A and B trade against each other: the command finds the recipe
    of another trainer that trains the same weights, and says what is exact, what holds to first order, and what does
    not carry over.
    """
    found = convert(**options)
    if as_json:
        print_json(found.to_dict())
        return
    show(found)


def show(found: Conversion) -> None:
    """The page for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, column in enumerate(("", found.source, found.target)):
        table.add_column(column, justify="left" if number == 0 else "right")
    table.add_row("scaling", found.before.scaling, found.after.scaling)
    table.add_row("draw of A", found.before.init, found.after.init)
    after = to_rows(found.after)
    for name, value in to_rows(found.before).items():
        if name.startswith("weight decay") and not value:
            continue
        table.add_row(name, f"{value:.4g}", f"{after[name]:.4g}")
    console.print(table)
    console.print(
        Text(f"p = {found.p:.4g} on A, q = {found.q:.4g} on B (at {found.d_in:,} inputs)", style="dim")
    )
    if found.single_rate is not None:
        console.print(Text.assemble(("one rate for both  ", "bold"), f"{found.single_rate:.4g}"))
    verdict = "the same training, step by step" if found.exact else "not the same step by step"
    console.print(Text(verdict, style="bold"))
    for item in found.kept:
        colour = {"exact": "green", "first order": "yellow", "not kept": "red"}[item.level]
        console.print(Text.assemble((f"{item.level}  ", colour), f"{item.name}: {item.reason}"))
    for notice in found.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
