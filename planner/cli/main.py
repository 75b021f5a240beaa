"""The `lora-plan` group: commands are found by name and imported on use."""

from __future__ import annotations

import gc
import keyword
import os
import sys
from importlib import import_module
from typing import Any

import click

from .. import process
from ..errors import PlannerError
from ..version import __version__

COMMANDS = {
    "estimate": "What a LoRA fine-tune of a model is: parameters, FLOPs, capacity, learning rate.",
    "compare": "LoRA, QLoRA and full fine-tuning side by side, over models and ranks.",
    "plan": "The best plan for a model, data, GPUs, a budget and a deadline.",
    "calibrate": "Learn from a measured step how fast your trainer and machine are.",
    "simulate": "Run the training step without weights: peak memory by part, its moment, FLOPs.",
    "lr": "Which learning rate to use, how sure that is, and which rates to sweep.",
    "fit": "Fit a learning-rate law to a sweep.",
    "convert": "Translate a LoRA recipe into another parametrisation.",
    "dataset": "What is in a data set: tokens, loss tokens, lengths, duplicates, information.",
    "export": "Write what a trainer loads, so that it trains exactly what was planned.",
    "import": "Read a trainer's config as a request.",
    "review": "What a trainer's config takes, and what looks wrong in it.",
    "validate": "Try the article's claims by short real runs, and give each a verdict.",
    "report": "Write a plan as a document that one can send: PDF, HTML or Markdown.",
    "web": "The planner as a page in the browser.",
    "models": "List the models of the catalogue.",
    "gpus": "List the accelerators that are known, with their peaks and prices.",
    "datasets": "List the datasets whose size is known.",
    "completion": "Print the shell completion script.",
}
# Commands that train or stay.
LONG = frozenset(("validate", "web"))
# Whoever makes a command's context without the group's gives it these too: click keeps a command's help option.
CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(click.Group):
    """A group that imports a command's module only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if name not in COMMANDS:
            return None
        module = f".{name}_" if keyword.iskeyword(name) else f".{name}"
        command: click.Command = import_module(module, __package__).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where one is misspelt."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from ..errors import hint

            raise click.UsageError(f"No such command {args[0]!r}.{hint(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an option that has another name elsewhere is told in our own."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            from .other_words import explained

            raise explained(error) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT_SETTINGS,
    epilog="Start with:  lora-plan estimate --model meta-llama/Llama-3.1-8B",
)
@click.version_option(__version__, "-V", "--version", prog_name="lora-plan")
def cli() -> None:
    """Plan a LoRA fine-tune before running it.

    Exact parameters and FLOPs for any model of the catalogue, the information in the data against the
    adapter's capacity, and the learning rate: offline, in milliseconds, without torch. Every command takes
    --json for programs.
    """


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave_if_heavy(code: object, had_torch: bool) -> None:
    """End the command's process, where it has imported torch, without taking apart thousands of modules one by one, a
    thirtieth of such a command. A program that had torch before goes on."""
    heavy = process.leaves_at_once or ("torch" in sys.modules and not had_torch)
    if process.ends_soon and heavy and (code is None or isinstance(code, int)):
        _leave(code or 0)


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; a PlannerError becomes one line on standard error and exit code 2. Without `argv` the
    process is the command's own."""
    process.ends_soon = argv is None and not LONG.issuperset(sys.argv[1:2])
    had_torch = "torch" in sys.modules
    gc.set_threshold(100_000)  # a short command drops little: looking for it often is a tenth of a cold start
    try:
        try:
            return cli.main(args=argv, prog_name="lora-plan", standalone_mode=True)
        except SystemExit as end:
            _leave_if_heavy(end.code, had_torch)
            raise
    except PlannerError as error:
        click.echo(f"Error: {error}", err=True)
        _leave_if_heavy(error.exit_code, had_torch)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left; say nothing more, and let no flush at exit complain.
        sys.stderr.close()
        sys.exit(0)
    finally:
        gc.freeze()  # nor is anything looked through once more when the interpreter ends
