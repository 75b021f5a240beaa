"""`lora-plan fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import Count, SectionedCommand, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

    from ..learning_rate.fit import FitResult, Regret
    from ..learning_rate.fit.result import SimilarRates

EPILOG = """\b
The sweep has a row a run, with the columns
  model,family,hidden_size,method,rank,lr,loss        method is lora or full
and optionally seed,steps,batch,alpha,dataset,status  status: ok, diverged or missing

\b
Examples:
  lora-plan fit sweep.csv
  lora-plan fit sweep.csv --form article --figure fit.svg --table cells.csv
  lora-plan fit sweep.csv -o mine.json
  lora-plan lr -m meta-llama/Llama-3.1-8B --law mine.json
  lora-plan fit sweep.csv --json
"""
SECTIONS = {
    "Fit": ("form", "interpolation", "draws", "seed", "non_finite"),
    "Files": ("out", "figure", "table"),
}


@click.command("fit", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("sweep", metavar="SWEEP.csv", type=click.Path())
@click.option(
    "--form",
    metavar="FORM",
    default="auto",
    show_default=True,
    help="auto (the lowest regret out of sample), constant, article, or terms joined by + out of width, "
    "width_by_family, family, rank or rank_sat (levels off), lora_width, batch, steps, alpha.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["quadratic", "log-linear"]),
    default="quadratic",
    show_default=True,
    help="How loss is read between the rates of a sweep; log-linear is the article's.",
)
@click.option("--draws", type=Count(), default=1000, show_default=True, help="Bootstrap draws for intervals.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws.")
@click.option(
    "--non-finite",
    type=click.Choice(["error", "diverged", "missing"]),
    default="error",
    show_default=True,
    help="What a run without a finite loss and without a status is.",
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(),
    help="Write the law as .json, for --law of lr and estimate.",
)
@click.option("--figure", metavar="FILE", type=click.Path(), help="Draw the fit as .svg, .pdf or .png.")
@click.option("--table", metavar="FILE", type=click.Path(), help="Write a CSV with a row for each cell.")
@json_option
def command(
    as_json: bool, sweep: str, out: str | None, figure: str | None, table: str | None, **options: Any
) -> None:
    """Fit a learning-rate law to a sweep.

    Minimises the loss above each sweep's best at the law's rate, compares forms on models that were left out, and
    gives every constant an interval from fits without each model.
    """
    from ..learning_rate.fit import fit
    from ..learning_rate.fit.as_law import check_law_path, write_law
    from ..learning_rate.sweep import read_sweep

    if out is not None:
        check_law_path(out)
    if figure is not None:
        from ..learning_rate.figure import check_figure_path

        check_figure_path(figure)
    read = read_sweep(sweep, non_finite=options.pop("non_finite"))
    result = fit(read, **options)
    if out is not None:
        write_law(result, out, read.name)
    if table is not None:
        write_table(result, table)
    if figure is not None:
        from ..learning_rate.figure import draw

        draw(result, read, figure)
    if as_json:
        print_json(result.to_dict())
        return
    show(result)
    if out is not None:
        click.echo(f"wrote {out}")


def write_table(result: FitResult, path: str) -> None:
    """Write the cells as CSV."""
    from ..errors import InputError

    try:
        result.to_frame().to_csv(path, index=False)
    except OSError as error:
        raise InputError("table", path, "a file that can be written", f"{error.strerror}.") from error


def _number(value: float | None, factor: bool) -> str:
    from .. import units

    if value is None:
        return ""
    if factor:
        return units.rate(value) if value < 0.01 else f"{value:.3g}"
    return f"{value:.3f}"


def _term_rows(result: FitResult) -> list[tuple[str, str, str, str]]:
    """Name, value, interval and whether the law uses it, for each constant."""
    from ..learning_rate.fit import Estimate

    rows = []
    for name, found in result.terms.items():
        if found is None:
            continue
        many = {name: found} if isinstance(found, Estimate) else {f"{name} {k}": v for k, v in found.items()}
        if not isinstance(found, Estimate) and len({one.value for one in found.values()}) == 1:
            many = {f"{name}, all families": found["population"]}
        factor = name in ("base", "m_lora", "base_lora", "family")
        for label, one in many.items():
            ends = f"{_number(one.low, factor)} to {_number(one.high, factor)}" if one.low is not None else ""
            rows.append((label, _number(one.value, factor), ends, "" if one.used else "not in the law"))
    return rows


def _regret_row(label: str, one: Regret | None) -> tuple[str, ...]:
    if one is None:
        return (label, "", "", "", "", "")
    return (
        label,
        f"{one.mean:.3f}",
        f"{one.median:.3f}",
        f"{one.p90:.2f}",
        f"{one.max:.2f}",
        str(one.outside),
    )


def _show_rates(console: Console, found: SimilarRates, table: Callable[..., Table]) -> None:
    """The rates of similar sweeps, a row a family."""
    from .. import units

    ranks = list(next(iter(found.rates.values())))
    out = table("", *(f"r{rank}" for rank in ranks))
    for family, row in found.rates.items():
        out.add_row(family, *(units.rate(row[rank]) for rank in ranks))
    better = "the law that --out writes: " if found.better else ""
    console.print("", f"{better}rates that cost similar sweeps least, by family and rank")
    console.print(out)


def show(result: FitResult) -> None:
    """The page for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)

    def table(*columns: str) -> Table:
        out = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=any(columns)
        )
        for number, column in enumerate(columns):
            out.add_column(column, justify="left" if number == 0 else "right")
        return out

    console.print(
        Text.assemble(("law  ", "bold"), (result.form, "bold cyan"), f"  {result.status}: {result.message}")
    )
    console.print(
        f"{result.n_models} models, {result.n_families} families, {result.n_sweeps} sweeps, {result.n_runs} runs"
    )
    terms = table("constant", "value", f"{result.level:.0%} interval", "")
    for row in _term_rows(result):
        terms.add_row(*row, style="dim" if row[3] else "")
    console.print("", terms)
    regret = table("loss above the best, %", "mean", "median", "p90", "max", "outside")
    for kind, found in result.scored.items():
        for name, one in found.items():
            regret.add_row(*_regret_row(f"{name.replace('_', ' ')}, {kind}", one))
    if result.similar is not None:
        short = {
            "in_sample": "in sample",
            "leave_one_model_out": "model out",
            "leave_one_family_out": "family out",
        }
        for kind, found in result.similar.scored.items():
            for name, one in found.items():
                regret.add_row(*_regret_row(f"similar sweeps, {short[name]}, {kind}", one))
    console.print("", regret)
    if result.similar is not None:
        _show_rates(console, result.similar, table)
    if len(result.forms) > 1:
        forms = table("form", "constants", "in sample", "model out", "family out")
        for form in result.forms:
            cells = (form.in_sample, form.leave_one_model_out, form.leave_one_family_out)
            forms.add_row(
                form.form, str(form.coefficients), *("" if c is None else f"{c:.3f}" for c in cells)
            )
        console.print("", forms, "")
    for verdict in result.verdicts:
        gap = f"{verdict.difference:+.3f} points ({verdict.low:+.3f} to {verdict.high:+.3f})"
        console.print(
            Text.assemble(
                (f"{verdict.question} ", "bold"),
                f"{verdict.verdict}: {gap}, {verdict.form} against {verdict.other}",
            )
        )
    for notice in result.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
