"""Tables on data and ranks for the page of `estimate`: what the data hold, what a rank costs, every rank."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from .. import units
from ..plan import Plan
from ..ranks import Curve
from ..regret import Regret

_COLOURS = {"ample": "green", "tight": "yellow", "exceeded": "red"}


def titled_table(title: str, basis: str, *columns: str) -> Table:
    """An empty table of the page: its title with the basis of its numbers, the first column of words."""
    heading = Text.assemble((title, "bold"), (f"  {basis}" if basis else "", "dim"))
    table = Table(
        title=heading, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0),
        show_header=any(columns),
    )  # fmt: skip
    for number, name in enumerate(columns or ("", "")):
        right = bool(columns) and number > 0
        table.add_column(name, justify="right" if right else "left", header_style="dim", no_wrap=right)
    return table


def unit_of(plan: Plan) -> str:
    """What information is counted by."""
    return "episode" if plan.information is not None and plan.information.kind == "rl" else "loss token"


def _rank(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"


def capacity(plan: Plan) -> Table:
    """Information against capacity."""
    info, cap = plan.information, plan.capacity
    table = titled_table("Information and capacity", cap.basis)
    table.add_row("adapter holds", f"{units.bits(cap.bits)} ({cap.bits_per_param:g} a parameter)")
    if info is None:
        table.add_row("data hold", "not given: add --tokens 300M, --data FILE or --dataset NAME")
        return table
    unit = unit_of(plan)
    per = f"{units.significant(info.bits_per_unit)} a{'n' if unit[0] == 'e' else ''} {unit}"
    bits, low, high = info.interval
    span = f", {units.bits(low)} to {units.bits(high)}" if low < high else ""
    table.add_row("data hold", f"{units.bits(bits)} ({per}){span}")
    if cap.utilisation is not None:
        style = _COLOURS[cap.verdict or "tight"]
        table.add_row("used", Text(f"{units.percent(cap.utilisation)}: {cap.verdict}", style=f"bold {style}"))
    enough = _rank(cap.required_rank)
    if (cap.required_rank_low, cap.required_rank_high) != (cap.required_rank,) * 2:
        enough += f" ({_rank(cap.required_rank_low)} to {_rank(cap.required_rank_high)})"
    table.add_row("rank that is enough", enough)
    if cap.params_per_unit is not None:
        table.add_row(f"parameters per {unit}", units.significant(cap.params_per_unit))
    return table


def regret_text(regret: Regret) -> str:
    """+0.6% loss (0.4 to 1.0), or within noise, or as much as no training at all leaves."""
    if regret.within_noise:
        return "within noise"
    if regret.low == regret.high:  # capped there
        return f"up to +{units.significant(100 * regret.value, 2)}% loss, as untrained: too small"
    low, high = (units.significant(100 * value, 2) for value in (regret.low, regret.high))
    return f"+{units.significant(100 * regret.value, 2)}% loss ({low} to {high})"


def price(plan: Plan) -> Table | None:
    """The price of too small a rank; None without supervised data."""
    found = plan.regret
    if found is None:
        return None
    table = titled_table("Price of a rank", "fitted")
    for rank, regret in found.others:
        table.add_row(
            f"rank {rank}", regret_text(regret), style="bold" if rank == plan.adapter.spec.rank else ""
        )
    leaves = found.leaves
    if not found.within_data:
        table.add_row("leaves the common curve", "not before the data end")
        return table
    step = found.step(leaves.value)
    where = f"after {units.count(round(leaves.value))} loss tokens"
    if step is not None:
        low, high = found.step(leaves.low), found.step(leaves.high)
        where = f"about step {step:,} ({low:,} to {high:,}), {where}"
    table.add_row("leaves the common curve", where)
    return table


def data(plan: Plan) -> Table | None:
    """What was read of a file."""
    report = plan.data
    if report is None:
        return None
    table = titled_table("Data", report.tokens.basis)
    table.add_row("read", f"{report.data}, {', '.join(report.formats)}")
    table.add_row(
        "examples", f"{report.examples:,}" + (f", {report.broken:,} broken" if report.broken else "")
    )
    table.add_row("tokens", units.count(report.tokens.value))
    if report.kind != "rl":
        table.add_row("carry loss", units.count(report.loss_tokens.value))
    near = f", {report.duplicates_near:,} near" if report.duplicates_near is not None else ""
    table.add_row("duplicates", f"{report.duplicates_exact:,} exact{near}")
    if report.lengths is not None:
        lengths = report.lengths
        table.add_row("half, 90%, 99%", f"{lengths.p50:,}; {lengths.p90:,}; {lengths.p99:,} tokens")
        table.add_row("longest", f"{lengths.max:,}")
    if report.cut is not None:
        table.add_row(f"over {report.seq_len:,}", f"{report.cut.sequences:,} cut off")
    compression = report.ways["compression"]
    if compression is not None:
        table.add_row("zstd, an upper bound", units.bits(compression["bits"]))
    return table


def curves(plan: Plan, curve: Curve) -> Table:
    """The ranks of one layer set."""
    name = curve.layers + (f", experts {curve.experts}" if plan.adapter.expert_rank else "")
    required = curve.required
    enough = ""
    if required is not None:
        enough = f"rank {_rank(required.value)} is enough ({_rank(required.low)} to {_rank(required.high)})"
    unit = unit_of(plan)
    table = titled_table(name, enough, "rank", "parameters", f"per {unit}", "used", "price")
    for point in curve.points:
        used = Text("")
        if point.utilisation is not None and point.verdict is not None:
            used = Text(f"{units.percent(point.utilisation)} {point.verdict}", style=_COLOURS[point.verdict])
        per = "" if point.params_per_unit is None else units.significant(point.params_per_unit)
        cost = regret_text(point.regret) if point.regret else ""
        table.add_row(str(point.rank), f"{point.params:,}", per, used, cost)
    return table
