"""The page that `simulate` prints for people, and what it shows while it works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from .. import units
from ..simulate import SimulatedStep, SimulatedSteps
from ..trainers import PLAIN

NAMES = {"lora": "LoRA", "full": "full", "qlora": "QLoRA"}
PARTS = {
    "weights": "weights", "adapter": "adapter", "gradients": "gradients", "optimizer": "optimizer",
    "activations": "activations", "logits": "logits and loss", "temporary": "temporary",
}  # fmt: skip
BY_DATA = {"by data": "reserved_bytes", "  least": "least_reserved_bytes", "  most": "most_reserved_bytes"}
MOST_OPERATORS = 5
ENOUGH_S = 1.0  # for a thread to end that has been told to


class Doing:
    """What is being done, on standard error beside something that turns."""

    def __init__(self, status: Status, among: frozenset[threading.Thread]) -> None:
        self.status, self.among = status, among

    def __call__(self, what: str) -> None:
        """Show this from now on."""
        self.status.update(what)
        self.status.start()

    def pause(self) -> None:
        """Until something is told next, without the thread that turns it."""
        self.status.stop()
        for thread in set(threading.enumerate()) - self.among:
            thread.join(ENOUGH_S)


@contextmanager
def watched() -> Iterator[Callable[[str], None]]:
    """Takes what is being done, and shows it on standard error where that is a terminal."""
    console, among = Console(stderr=True), frozenset(threading.enumerate())
    if not console.is_terminal:
        yield lambda what: None
        return
    with console.status("reading the model", spinner="dots") as status:
        yield Doing(status, among)


def _table(title: str, steps: SimulatedSteps) -> Table:
    heading = Text.assemble((title, "bold"), (f"  {steps.basis}", "dim"))
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", header_style="dim")
    for name in steps.steps:
        table.add_column(NAMES[name], justify="right", header_style="dim", no_wrap=True)
    return table


def _memory(found: SimulatedSteps) -> Table:
    steps = list(found.steps.values())
    table = _table("Memory at the peak", found)
    for part, name in PARTS.items():
        table.add_row(name, *(units.byte_size(step.parts[part]) for step in steps))
    table.add_row("peak", *(units.byte_size(step.peak_bytes) for step in steps), style="bold")
    if any(step.reserved_bytes is not None for step in steps):
        sizes = (step.reserved_bytes for step in steps)
        table.add_row("reserved", *("" if size is None else units.byte_size(size) for size in sizes))
    if any(step.varied is not None for step in steps):
        told = [step.varied and step.varied.to_dict() for step in steps]
        for name, key in BY_DATA.items():
            table.add_row(name, *(units.byte_size(each[key]) if each else "" for each in told))
    if found.gpu is not None:
        table.add_row("with context", *(units.byte_size(step.per_gpu_bytes) for step in steps))
        table.add_row("fits", *({True: "yes", False: "no", None: "unknown"}[step.fits] for step in steps))
    table.add_row("reached in", *(step.moment.partition(" ")[0] for step in steps))
    table.add_row("", *(step.moment.partition(" ")[2] for step in steps))
    return table


def _moments(found: SimulatedSteps) -> Table:
    steps = list(found.steps.values())
    table = _table("Most in each phase", found)
    for phase in ("evaluation", "forward", "loss", "backward", "optimizer"):
        sizes = [step.moments.get(phase) for step in steps]
        if not any(sizes):
            continue
        table.add_row(phase, *("" if peak is None else units.byte_size(peak.bytes) for peak in sizes))
    return table


def _operators(step: SimulatedStep) -> dict[str, int]:
    found: dict[str, int] = {}
    for by_operator in step.flops_by_operator.values():
        for name, count in by_operator.items():
            found[name] = found.get(name, 0) + count
    return found


def _flops(found: SimulatedSteps) -> Table:
    counts = [_operators(step) for step in found.steps.values()]
    table = _table("FLOPs of a step", found)
    largest = sorted(
        {name for each in counts for name in each}, key=lambda n: -max(c.get(n, 0) for c in counts)
    )
    for name in largest[:MOST_OPERATORS]:
        short = name.lstrip("_").replace("scaled_dot_product_", "")
        table.add_row(short, *(units.flops(each[name]) if name in each else "" for each in counts))
    table.add_row("all", *(units.flops(sum(each.values())) for each in counts), style="bold")
    return table


def show(found: SimulatedSteps, console: Console | None = None) -> None:
    """Print the page."""
    console = console or Console(highlight=False, soft_wrap=False)
    first = next(iter(found.steps.values())).setup
    size = f"{found.model_type}, {units.count(found.params)} parameters"
    console.print(Text.assemble((found.model_id, "bold cyan"), f"  {size}"))
    parts = [first.accumulation] if first.accumulation > 1 else []
    sizes = " x ".join(f"{each:,}" for each in (*parts, first.micro_batch, first.seq_len))
    step = f"a step of {sizes} tokens, {first.precision}, {first.optimizer}"
    if first.checkpointing != "none":
        step += ", layers checkpointed"
    if first.trainer != PLAIN:
        step += f", as {first.trainer} runs it"
    if first.eval_batch:
        step += f", evaluations of {first.eval_batch} x {first.seq_len:,}"
    console.print(Text(step))
    if found.gpu is not None:
        size = "" if found.gpu.memory_bytes is None else f", {units.byte_size(found.gpu.memory_bytes)}"
        console.print(Text(f"on {found.gpu.name}{size}"))
    console.print(
        Text(f"{found.layers_simulated} of {found.layers} layers run, in {found.seconds:.1f} s", "dim")
    )
    for table in (_memory(found), _moments(found), _flops(found)):
        console.print("", table)
    console.print("")
    for notice in found.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
