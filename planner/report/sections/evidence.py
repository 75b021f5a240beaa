"""Sections on trust: the evidence behind each number, the method, the sources, and how to make the report again."""

from __future__ import annotations

from ..document import Block, Bullets, Code, Link, Mono, Paragraph, Row, Run, Section, Table, Text
from ..numbers import Material
from ..wording import clean
from . import choice
from .decision import NOTES_SHOWN

OWN = "memory/{method}"
# Quantity, its path and style in the plan, whose evidence it shares, and its path in a simulation or a measurement of
# the plan's method.
QUANTITIES = (
    ("Parameters of the model", "model/params", "whole", "model", ""),
    ("Parameters of the adapter", "adapter/params", "whole", "adapter", ""),
    ("FLOPs of a step", "flops/step/lora", "flops", "flops", "flops"),
    ("Memory of one GPU", f"{OWN}/per_gpu_bytes", "bytes", OWN, ""),
    ("of this, allocated by torch", f"{OWN}/allocated_bytes", "bytes", OWN, "peak_bytes"),
    ("and reserved by it", f"{OWN}/reserved_bytes", "bytes", OWN, "reserved_bytes"),
    ("Seconds of a step", "time/step/seconds", "duration", "time", "step_seconds"),
    ("Learning rate", "learning_rate/value", "rate", "learning_rate", ""),
    ("Bits in the data", "information/bits", "bits", "information", ""),
    ("Bits that the adapter holds", "capacity/bits", "bits", "capacity", ""),
)
MEANING = {
    "exact": "a count that agrees with an independent one to the last unit",
    "analytic": "a formula that follows from the shapes, with what it neglects said",
    "fitted": "a law fitted on runs",
    "simulated": "the real training step on tensors without data",
    "measured": "taken from runs",
    "assumed": "a rule of thumb with its source",
    "not known": "no number, rather than a guess",
}
FORMULAS: tuple[tuple[str, str], ...] = (
    ("Parameters", "r (d_in + d_out) for each adapted matrix; an expert’s pair counts once for each expert."),
    (
        "FLOPs",
        (
            "2 for each multiply-add, forward and backward: 3 products for a matrix trained in full, 2 for a frozen "
            "one, and 3 for each factor; no gradient where nothing below is trained. Norms, activations and the "
            "optimizer are left out."
        ),
    ),
    ("Information", "bits for each loss token or episode, times their number; distinct tokens once."),
    ("Capacity", "bits a parameter, times the adapter’s parameters; used = information / capacity."),
    (
        "Memory",
        (
            "weights, adapter, gradients, optimizer states and what a step keeps for its backward pass, at the "
            "moment of the peak, with the overhead of the driver."
        ),
    ),
    (
        "Time and cost",
        "seconds of a step by a roofline fitted on published runs, times steps, GPUs and the price.",
    ),
)


def evidence(root: Material) -> Section:
    """Each quantity with its evidence; simulated and measured values beside the estimate where there are any."""
    m = root.within("plan")
    extra = [word for word in ("simulated", "measured") if root.get(word) is not None]
    rows = []
    own = choice.memory(m)
    for label, said, style, shared, key in QUANTITIES:
        path, section = (each.replace(OWN, own) for each in (said, shared))
        cells: list[Text] = [
            (label,),
            (m.number(path, style),),
            (choice.basis(m, section) if m.get(path) is not None else "not known",),
        ]
        cells += [
            (root.number(f"{word}/{m.get('method') or 'lora'}/{key}", style) if key else "",)
            for word in extra
        ]
        rows.append(Row(tuple(cells)))
    header = ("Quantity", "Estimate", "Evidence", *(word.capitalize() for word in extra))
    kinds = list(dict.fromkeys(str(row.cells[2][0]) for row in rows))
    legend = Bullets(tuple((Mono(kind), f": {MEANING[kind]}") for kind in kinds if kind in MEANING))
    blocks: list[Block] = [
        Table("Evidence behind each number", header, tuple(rows), "lrl" + "r" * len(extra)), legend
    ]  # fmt: skip
    if not extra:
        words = "Nothing here was simulated or measured: every number is an estimate. --simulated adds a simulation."
        blocks.append(Paragraph((words,), "note"))
    return Section("Evidence", tuple(blocks))


def _source(source: dict[str, str]) -> Text:
    title, url = clean(str(source.get("title", ""))), str(source.get("url", ""))
    linked: Run = Link(title, url) if url.startswith(("https://", "http://")) else title
    place = ", ".join(clean(str(source[key])) for key in ("locator", "date") if source.get(key))
    return (clean(str(source.get("used_for", ""))), ": ", linked, f", {place}." if place else ".")


def method(root: Material) -> list[Section]:
    """Formulas, sources, versions and the command."""
    m = root.within("plan")
    formulas = Bullets(tuple((Mono(label), f": {words}") for label, words in FORMULAS))
    sources = Bullets(tuple(_source(source) for source in m.get("sources") or ()))
    made = Paragraph((f"lora-plan {m.get('version')}, JSON schema ", m.number("schema"), ". Made by:"))
    again = Paragraph(("The same numbers for programs:",))
    found = [
        Section("Method", (formulas,)),
        Section("Sources", (sources,)),
        Section(
            "How to make it again",
            (
                made,
                Code(str(root.get("command")), "shell"),
                again,
                Code(f"{root.get('estimate_command')} --json", "shell"),
            ),
        ),
    ]
    notes = m.get("warnings") or []
    if len(notes) > NOTES_SHOWN:
        items = tuple((Mono(note["code"]), f": {clean(note['message'])}") for note in notes)
        found.insert(0, Section("Notes", (Bullets(items),)))
    return found
