"""`lora-plan report`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from ..report import report
from .adapter_options import library_options
from .estimate import SECTIONS
from .estimate import command as estimate_command
from .options import SectionedCommand, print_json

EPILOG = """\b
Examples:
  lora-plan report --model meta-llama/Llama-3.1-8B --tokens 300M --gpu h100 -o plan.pdf
  lora-plan report -m Qwen/Qwen3-30B-A3B --tokens 300M -o plan.html
  lora-plan report -m meta-llama/Llama-3.1-8B -o ranks.pdf --against rank=8 --against rank=128
  lora-plan report -m Qwen/Qwen3-8B -o models.md --against model=meta-llama/Llama-3.1-8B
  lora-plan report --data train.jsonl --tokenizer ./my-model -o data.pdf
  lora-plan report --sweep sweep.csv -o law.pdf
  lora-plan report --runs runs/ -o evidence.pdf
"""
_NOT_OURS = ("explain", "as_json", "help")
_PLAN_OPTIONS = {
    param.name: param
    for param in estimate_command.params
    if param.name not in _NOT_OURS and isinstance(param, click.Option)
}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were not left at their defaults."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return {k: v for k, v in options.items() if k == "model" or context.get_parameter_source(k) != default}


def _plan_options(options: dict[str, Any], needs_model: bool) -> dict[str, Any]:
    """The options of a plan that were typed; where another kind is asked for, there may be none."""
    if needs_model:
        return _given(library_options(options))
    return {name: value for name, value in _given(options).items() if value is not None}


def _changes(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[dict[str, Any]]:
    """Each --against as options by name, with the types that the options have."""
    found = []
    known = _PLAN_OPTIONS
    for value in values:
        changed: dict[str, Any] = {}
        try:
            words = shlex.split(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r}: {error}", ctx, param) from error
        for word in words:
            key, equals, text = word.partition("=")
            option = known.get(key.replace("-", "_"))
            if not equals or option is None:
                from ..errors import hint

                near = hint(key, [str(name).replace("_", "-") for name in known])
                raise click.BadParameter(
                    f"found {word!r}, expected OPTION=VALUE with an option of this command.{near}", ctx, param
                )
            changed[str(option.name)] = option.type_cast_value(ctx, text)
        if not changed:
            raise click.BadParameter("found nothing, expected OPTION=VALUE", ctx, param)
        if "dora" in changed:
            changed["variant"] = "dora" if changed.pop("dora") else "lora"
        found.append(changed)
    return found


@click.command("report", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "-o", "--output", metavar="FILE", required=True, type=click.Path(),
    help="Where to write: a name that ends in .pdf, .html or .md.",
)  # fmt: skip
@click.option(
    "--paper", type=click.Choice(["a4", "letter"]), default="a4", show_default=True, help="Paper of a PDF."
)
@click.option(
    "--figures/--no-figures", default=True, show_default=True, help="Draw figures (in PDF and HTML)."
)
@click.option(
    "--against", metavar="'OPTION=VALUE ..'", multiple=True, callback=_changes,
    help="Compare with the plan in which these options differ, such as rank=8. May be repeated.",
)  # fmt: skip
@click.option(
    "--simulated", metavar="FILE", type=click.Path(),
    help="JSON of `lora-plan simulate --json` for the same fine-tune, shown beside the estimate.",
)  # fmt: skip
@click.option(
    "--sweep", metavar="FILE.csv", type=click.Path(),
    help="Instead of a plan: fit a learning-rate law to this sweep, as `lora-plan fit` does, and report it.",
)  # fmt: skip
@click.option(
    "--runs", metavar="FOLDER", type=click.Path(),
    help="Instead of a plan: judge the run records that `lora-plan validate` left there, and report the verdicts.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs: what was written where.")
def command(
    output: str,
    paper: str,
    figures: bool,
    against: list[dict[str, Any]],
    simulated: str | None,
    sweep: str | None,
    runs: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write a plan, a data set, a fit or a validation as a document that one can send: PDF, HTML or Markdown.

    One page that decides, then parameters, compute, capacity, learning rate, memory, time and cost, the
    configuration, and the evidence and sources behind every number. Takes every option of `estimate`.
    """
    found = report(
        output=output,
        paper=paper,
        figures=figures,
        against=against,
        simulated=simulated,
        sweep=sweep,
        runs=runs,
        **_plan_options(options, needs_model=sweep is None and runs is None and options["data"] is None),
    )
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['output']}: {found['title']} ({found['bytes'] / 1000:,.0f} kB)", err=True)


command.params = [*_PLAN_OPTIONS.values(), *command.params]
