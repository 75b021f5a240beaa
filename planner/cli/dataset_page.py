"""The page that `dataset` prints for people: a headline, the counts, lengths and batches, information, broken
rows."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .. import units
from ..dataset.result import DatasetReport, Tokens

BROKEN_SHOWN = 10
MASKS = {
    "generation": "by the template's generation marks",
    "prefixes": "by what each turn adds to the text",
    "no-template": "by contents alone",
}


def _table(title: str, basis: str = "") -> Table:
    heading = Text.assemble((title, "bold"), (f"  {basis}" if basis else "", "dim"))
    table = Table(
        title=heading, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False
    )
    table.add_column()
    table.add_column()
    return table


def _count(tokens: Tokens) -> str:
    if tokens.low == tokens.high:
        return f"{tokens.value:,}"
    return f"{units.count(tokens.value)} ({units.count(tokens.low)} to {units.count(tokens.high)})"


def _headline(report: DatasetReport) -> RenderableType:
    formats = ", ".join(
        name if len(report.formats) == 1 else f"{count:,} {name}" for name, count in report.formats.items()
    )
    size = sum(file.bytes for file in report.files)
    kinds = dict.fromkeys(file.kind for file in report.files)
    files = f"{len(report.files)} files, " if len(report.files) > 1 else ""
    where = f"  {files}{', '.join(kinds)}, {units.byte_size(size)}" if size else ""
    return Text.assemble((report.data, "bold cyan"), where, f"; {formats}" if formats else "")


def _counts(report: DatasetReport) -> Table:
    table = _table("Counts", "measured" if report.tokenizer else "bytes measured, tokens assumed")
    table.add_row("examples", f"{report.examples:,}")
    if report.sequences != report.examples:
        table.add_row("sequences", f"{report.sequences:,}")
    table.add_row("tokens", _count(report.tokens))
    if report.kind != "rl":
        share = report.loss_tokens.value / report.tokens.value if report.tokens.value else 0.0
        how = MASKS.get(report.mask or "", "") if report.tokenizer else ""
        table.add_row(
            "carry loss", f"{_count(report.loss_tokens)}, {units.percent(share)}{'; ' + how if how else ''}"
        )
    near = "" if report.duplicates_near is None else f", {report.duplicates_near:,} near"
    table.add_row("duplicates", f"{report.duplicates_exact:,} exact{near}")
    if report.broken:
        table.add_row("broken rows", Text(f"{report.broken:,}: see below", style="bold red"))
    else:
        table.add_row("broken rows", "0")
    return table


def _lengths(report: DatasetReport) -> Table | None:
    found = report.lengths or report.lengths_bytes
    if found is None:
        return None
    table = _table("Lengths", "tokens" if report.lengths else "bytes")
    table.add_row("half, 90%, 99%", f"{found.p50:,}; {found.p90:,}; {found.p99:,}")
    table.add_row("longest", f"{found.max:,}")
    if report.cut is not None:
        cut = report.cut
        lost = f"{cut.sequences:,} sequences, {cut.tokens:,} tokens, {cut.loss_tokens:,} of them with loss"
        table.add_row(f"over {report.seq_len:,}", lost if cut.sequences else "none")
    if report.padding_efficiency is not None:
        table.add_row(
            f"padded by {report.batch}", f"{units.percent(report.padding_efficiency)} of places are tokens"
        )
    if report.packing_efficiency is not None:
        table.add_row(
            f"packed to {report.seq_len:,}",
            f"{units.percent(report.packing_efficiency)}, {report.packed_sequences:,} sequences",
        )
    return table


def _information(report: DatasetReport) -> Table:
    info, ways = report.information, report.ways
    table = _table("Information", "duplicates once")
    if report.kind == "rl":
        table.add_row("episodes", f"{info.units:,}")
        table.add_row(
            "at most", f"{units.bits(info.bits)} ({units.significant(info.bits_per_unit)} an episode)"
        )
        if info.groups is not None:
            groups = info.groups
            table.add_row(
                f"groups of {groups.size}",
                f"{units.percent(groups.informative)} have rewards that differ; the others teach nothing",
            )  # fmt: skip
        return table
    rule = ways["rule"]
    table.add_row("rule, 1 bit a loss token", _bits(rule))
    if (found := ways["compression"]) is not None:
        text = f"at most {units.bits(found['bits'])} ({units.significant(found['bits_per_byte'])} a byte)"
        table.add_row("zstd, without a model", text)
    if (found := ways["measured"]) is not None:
        table.add_row(f"measured, {found['nats_per_token']:.4g} nats a token", _bits(found))
    else:
        table.add_row("measured", "not given: add --loss NATS or --run FILE")
    if (found := ways["pairs"]) is not None:
        table.add_row("which of each pair", f"at most {units.bits(found['bits'])}")
    return table


def _bits(way: dict[str, float]) -> str:
    if way["low"] == way["high"]:
        return units.bits(way["bits"])
    return f"{units.bits(way['bits'])} ({units.bits(way['low'])} to {units.bits(way['high'])})"


def show(report: DatasetReport, console: Console | None = None) -> None:
    """Print the page."""
    console = console or Console(highlight=False, soft_wrap=False)
    console.print(_headline(report))
    console.print("")
    for table in (_counts(report), _lengths(report), _information(report)):
        if table is not None:
            console.print(table, "")
    for notice in report.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
    if not report.broken:
        return
    console.print(Text("Broken rows", style="bold"))
    for row in report.broken_rows[:BROKEN_SHOWN]:
        unit = "row" if row.file.endswith((".parquet", ".arrow", "/")) else "line"
        console.print(Text(f"  {row.file}, {unit} {row.line:,}: {row.reason}"))
    if report.broken > BROKEN_SHOWN:
        rest = report.broken - BROKEN_SHOWN
        console.print(Text(f"  and {rest:,} more; --broken-out FILE writes them all"))
