"""Pieces that commands share: the --json flag, parameter types, completion of names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..errors import InputError
from ..units import parse_count

Function = TypeVar("Function", bound=Callable[..., Any])


def with_options(options: Sequence[Callable[[Function], Function]], function: Function) -> Function:
    """A command with these options, in their order in the help."""
    for option in reversed(options):
        function = option(function)
    return function


class Count(click.ParamType[int]):
    """A whole number that may be written 300M or 1e6."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or fail naming the option."""
        label = param.opts[-1] if param else "value"
        try:
            return parse_count(label, value)
        except InputError as error:
            raise click.UsageError(str(error), ctx) from error


class Number(click.ParamType[float]):
    """A number; where a sign of money, of a share or of thousands stands beside it, the one meant is named."""

    name = "float"
    beside = re.compile(
        r"\s*(?:usd|[$\u20ac\u00a3])?\s*(-?\d+(?:[.,]\d+)?)\s*(usd|[$\u20ac\u00a3]|%|k|)\s*", re.IGNORECASE
    )

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail naming the option and the number that is nearest."""
        label = param.opts[-1] if param else "value"
        try:
            return float(value)
        except ValueError:
            match = self.beside.fullmatch(str(value))
        near = ""
        if match:
            times = {"%": 0.01, "k": 1000.0}.get(match[2].lower(), 1.0)
            near = f"Did you mean {float(match[1].replace(',', '.')) * times:g}?"
        raise click.UsageError(str(InputError(label, value, "a number", near)), ctx)


class SectionedCommand(click.Command):
    """A command whose help lists its options under headings. `sections` maps a heading to option names."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = dict(sections or {})

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each heading with its options, the remaining ones last."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {param.name: param.get_help_record(ctx) for param in options}
        named = {name for names in self.sections.values() for name in names}
        rest = [name for name in records if name not in named]
        for heading, names in [*self.sections.items(), ("Output", rest)]:
            rows = [record for name in names if (record := records.get(name))]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def json_option(function: Function) -> Function:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def print_json(data: Any) -> None:
    """Print data as JSON, the same bytes for the same data."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def complete(names: Callable[[], Iterable[str]]) -> Callable[..., list[Any]]:
    """A completion function over names, matched without case anywhere in the name."""

    def found(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        wanted = incomplete.lower()
        hits = [name for name in names() if wanted in name.lower()]
        return [CompletionItem(name) for name in hits[:200]]

    return found


def complete_last(names: Iterable[str]) -> Callable[..., list[Any]]:
    """Completion of the last item of a comma list."""

    def found(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        head, comma, last = incomplete.rpartition(",")
        return [CompletionItem(head + comma + name) for name in names if name.startswith(last)]

    return found
