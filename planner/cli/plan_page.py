"""The page that `plan` prints for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .. import units
from ..errors import InputError
from ..memory.interval_kinds import KIND_WORDS
from ..moments import FIT_WORDS
from ..running import OF_FILE
from ..search.evaluate import Evaluated
from ..search.result import Found
from .capacity_tables import regret_text

MOST_NEIGHBOURS = 14
FIRST = "gpus-tried"  # the notice without which the best plan is not understood
TARGETS = {
    "llama-factory": "llamafactory", "axolotl": "axolotl", "torchtune": "torchtune", "unsloth": "unsloth",
    "megatron": "megatron",
}  # fmt: skip


def target_of(trainer: str | None, objective: str = "sft") -> str:
    """What `export` calls the trainer of a profile; TRL where it writes no file for it."""
    if objective == "grpo":
        return "trl-grpo"
    return next((target for name, target in TARGETS.items() if (trainer or "").startswith(name)), "trl-sft")


def _table(title: str, note: str, *columns: str) -> Table:
    heading = Text.assemble((title, "bold"), (f"  {note}" if note else "", "dim"))
    table = Table(
        title=heading, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim",
        show_header=any(columns),
    )  # fmt: skip
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", overflow="fold")
    return table


def money(usd: float | None) -> str:
    """Dollars for people."""
    return "?" if usd is None else f"${usd:,.2f}"


def _interval(low: float, high: float) -> str:
    return f"{units.duration(low)} to {units.duration(high)}"


def _best(found: Found) -> RenderableType:
    best, run = found.best, found.best.run
    table = Table.grid(padding=(0, 2, 0, 0))
    ends = f"{units.byte_size(best.memory.low)} to {units.byte_size(best.memory.high)}"
    peak = (
        f"{units.byte_size(best.memory.per_gpu_bytes)} ({ends}) of {units.byte_size(best.memory_bytes)} a GPU"
    )
    fit = best.memory.fit(best.memory_bytes)
    table.add_row("memory", f"{f'{FIT_WORDS[fit]}: ' if fit else ''}{peak}, most at {best.memory.peak.name}")
    if (found_peak := best.memory.corrected) and (within := best.memory.within):
        held = f"{within.held:.0%} of {units.counted(within.judged, 'source')}"
        by = f"{units.counted(found_peak.peaks, 'measured peak')}, of a step's rest x {found_peak.factor:.3g}"
        table.add_row("", f"by {by}; interval of {KIND_WORDS[within.kind]}: it holds {held}")
    if best.host.node_bytes:
        room = found.limits.host_bytes
        of = "" if room is None else f" of {units.byte_size(room)}"
        table.add_row("host's memory", f"{units.byte_size(best.host.node_bytes)}{of} a machine")
    if run.low is not None and run.high is not None:
        table.add_row(
            "time",
            f"{units.duration(best.seconds)} ({_interval(run.low, run.high)}), "
            f"{units.counted(run.steps or 0, 'step')} of {run.step.tokens:,} tokens",
        )
        table.add_row("", f"interval of {run.step.grounds.said}")
    if best.cost and best.cost.low is not None and best.cost.high is not None:
        price = best.cost.price
        asked = f"at {money(price.usd_per_gpu_hour)} a GPU and hour"
        table.add_row(
            "cost", f"{money(best.usd)} ({money(best.cost.low)} to {money(best.cost.high)}), {asked}"
        )
    rate = found.learning_rate
    if rate.value is not None:
        ends = (
            ""
            if rate.low is None or rate.high is None
            else f" ({units.rate(rate.low)} to {units.rate(rate.high)})"
        )
        table.add_row("learning rate", f"{units.rate(rate.value)}{ends}")
    if best.regret:
        table.add_row("expected regret", regret_text(best.regret))
    if run.step.phases:
        parts = (f"{name} {units.duration(seconds)}" for name, seconds in run.step.phases.items() if seconds)
        table.add_row("a step", f"{units.duration(run.step.seconds)}: {', '.join(parts)}")
    mfu = f", {units.percent(run.step.mfu)} of the peak" if run.step.mfu else ""
    table.add_row("speed", f"{run.step.tokens_per_s:,.0f} tokens/s{mfu}")
    table.add_row("adapter", f"{best.params:,} parameters")
    return Group(Text(best.choice.text, style="bold green"), table)


def _row(plan: Evaluated) -> tuple[str, ...]:
    regret = "?"
    if plan.regret:
        regret = "noise" if plan.regret.within_noise else units.percent(plan.regret.value)
    return (
        plan.choice.text, units.byte_size(plan.memory.per_gpu_bytes), units.duration(plan.seconds), money(plan.usd),
        regret,
    )  # fmt: skip


def _plans(title: str, note: str, plans: Sequence[Evaluated]) -> Table:
    table = _table(title, note, "plan", "a GPU", "time", "cost", "regret")
    for plan in plans:
        table.add_row(*_row(plan))
    return table


def _frontier(plans: Sequence[Evaluated]) -> Table:
    """The frontier; of plans that differ by less than is shown, on as many GPUs of a kind, the best."""
    shown: dict[tuple[object, ...], Evaluated] = {}
    for plan in plans:
        key = (*_row(plan)[2:], plan.choice.accelerator.name, plan.choice.layout.gpus)
        known = shown.get(key)
        if known is None or _regret(plan) <= _regret(known):
            shown[key] = plan
    left = len(plans) - len(shown)
    alike = f"; {left} alike left out: --json" if left else ""
    return _plans("Frontier", f"none is quicker, cheaper and better at once{alike}", list(shown.values()))


def _regret(plan: Evaluated) -> float:
    return plan.regret.value if plan.regret else 0.0


def _rejected(found: Found) -> Table:
    """The neighbours: those that break a limit, then those that are worse, other kinds of GPU last."""
    table = _table("Why not", "one change to the best plan", "change", "")
    own = [item for item in found.rejected if not item.change.startswith("gpu ")]
    others = [item for item in found.rejected if item.change.startswith("gpu ")]
    for item in (*own, *others)[:MOST_NEIGHBOURS]:
        table.add_row(item.change, Text(item.reason, style="red" if item.kind != "worse" else ""))
    left = len(found.rejected) - MOST_NEIGHBOURS
    if left > 0:
        table.add_row(Text(f"and {left} more: --json", style="dim"), "")
    return table


def _typed(console: Console, what: str, command: str) -> None:
    """A command line, which is not broken so that it can be copied."""
    console.print(Text.assemble((f"{what}  ", "bold"), command), soft_wrap=True)


def _as_file(found: Found) -> str:
    """How the best plan becomes a trainer's file, or why it does not; data that were read are not read again."""
    objective = str(found.given.get("objective", "sft"))
    if objective not in ("sft", "grpo"):
        return ""
    from ..exports import export

    target, options = target_of(found.given.get("trainer"), objective), found.options()
    if options.get("data") is not None:
        options = {name: value for name, value in options.items() if name not in (*OF_FILE, "epochs")}
        options["tokens"] = found.tokens
    try:
        export(target, **options)
    except InputError as error:
        return f"as a trainer's file  `export {target}` refuses it: {error}\n"
    return f"as a trainer's file  the same with `export {target}` for `estimate`\n"


def show(found: Found, console: Console | None = None) -> None:
    """Print the page."""
    console = console or Console(highlight=False, soft_wrap=False)
    tokens = f"{units.count(found.tokens)} tokens"
    console.print(Text.assemble((found.model, "bold cyan"), f"  {tokens}"))
    first = [each for each in found.warnings if each.code == FIRST]
    said = [
        f"{found.feasible:,} of {found.candidates:,} plans keep the limits.",
        *(each.message for each in first),
    ]
    console.print(" ".join(said), "")
    console.print(_best(found), "")
    _typed(console, "in full", found.command())
    console.print(_as_file(found), style="dim")
    runner_up = found.alternatives[0] if found.alternatives else None
    blocks: Iterable[tuple[RenderableType, Evaluated | None]] = (
        (_plans("Sure to fit", "the best whose memory fits at its upper end too", [found.sure]), found.sure)
        if found.sure
        else ("", None),
        (_plans("Next best", "other ways", found.alternatives) if runner_up else "", runner_up),
        (_frontier(found.frontier), None),
    )
    for block, plan in blocks:
        if block:
            console.print(block)
            if plan:
                _typed(console, "in full" if plan is found.sure else "the first in full", found.command(plan))
            console.print("")
    if found.binding:
        console.print(Text("What binds", style="bold"))
        for item in found.binding:
            console.print(Text.assemble((f"{item.limit}  ", "yellow"), item.message))
        console.print("")
    console.print(_rejected(found), "")
    for notice in (each for each in found.warnings if each not in first):
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
