"""A comparison's report: plans side by side, what differs between them, and the first one's evidence."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .document import Bullets, Code, Document, Mono, Paragraph, Row, Section, Table, Text, para
from .numbers import Material
from .sections import choice, evidence
from .wording import clean, name

MOST = 5
# Label, path in a plan, style, and a path to divide by.
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("Rank", "adapter/rank", "whole", ""),
    ("Trainable parameters", "adapter/params", "whole", ""),
    ("of the model", "adapter/params", "percent", "model/params"),
    ("Parameters of the model", "model/params", "count", ""),
    ("FLOPs a token", "flops/lora_per_token", "flops", ""),
    ("of full fine-tuning", "flops/ratio", "percent", ""),
    ("Adapter holds", "capacity/bits", "bits", ""),
    ("used by the data", "capacity/utilisation", "percent", ""),
    ("Learning rate", "learning_rate/value", "rate", ""),
    ("from", "learning_rate/low", "rate", ""),
    ("to", "learning_rate/high", "rate", ""),
    ("Memory of a GPU, LoRA", "memory/lora/per_gpu_bytes", "bytes", ""),
    ("QLoRA", "memory/qlora/per_gpu_bytes", "bytes", ""),
    ("full fine-tuning", "memory/full/per_gpu_bytes", "bytes", ""),
    ("Time", "time/seconds", "duration", ""),
    ("Cost", "cost/usd", "usd", ""),
)


def _plans(root: Material) -> list[Material]:
    return [root.within("plan"), *(root.within(f"others/{i}/plan") for i in range(len(root.get("others"))))]


def _label(place: int) -> str:
    return "ABCDEF"[place]


def _who(root: Material) -> Bullets:
    items: list[Text] = []
    for place, m in enumerate(_plans(root)):
        words = f": {choice.kind(m)} on {choice.layers(m)}"
        extra = choice.more(m)
        changes = root.get(f"others/{place - 1}/changes") if place else None
        said = ", ".join(f"{clean(k)}={name(v)}" for k, v in changes.items()) if changes else ""
        items.append(
            (
                Mono(_label(place)), " ", name(str(m.get("model/id"))), words, f" ({extra})" if extra else "",
                f"; differs by {said}" if said else "; the plan that the others are compared with",
            )
        )  # fmt: skip
    return Bullets(tuple(items))


def _table(root: Material) -> Table:
    plans = _plans(root)
    rows = []
    for label, path, style, over in ROWS:
        if all(m.get(path) is None for m in plans):
            continue
        cells = [(m.quotient(path, over, style) if over else m.number(path, style),) for m in plans]
        rows.append(Row(((label,), *cells)))
    verdicts = [(str(m.get("capacity/verdict") or "not known"),) for m in plans]
    rows.append(Row((("Verdict on capacity",), *verdicts)))
    header = ("", *(_label(place) for place in range(len(plans))))
    return Table("Side by side", header, tuple(rows), "l" + "r" * len(plans))


def _warnings(root: Material) -> tuple[Bullets, ...]:
    items: list[Text] = [
        (Mono(_label(place)), f" {clean(note['message'])}")
        for place, m in enumerate(_plans(root))
        for note in m.get("warnings") or ()
    ]
    return (Bullets(tuple(items)),) if items else ()


def document(material: Mapping[str, Any], moment: datetime.datetime) -> Document:
    """The document of several plans. Raises InputError where they do not fit beside each other."""
    root = Material(material)
    if len(root.get("others")) > MOST:
        raise InputError(
            "against", len(root.get("others")), f"at most {MOST} other plans: more do not fit a page"
        )
    m = root.within("plan")
    unknown = [w for w in ("information", "memory", "time", "cost") if m.get(w) is None]
    missing: tuple[Paragraph, ...] = ()
    if unknown:
        missing = (para(f"Not part of these plans, so not known: {', '.join(unknown)}."),)
    model, date = name(str(m.get("model/id"))), f"{moment.day} {moment:%B %Y}"
    again = Section("How to make it again", (Code(str(root.get("command")), "shell"),))
    sections = (
        Section("The plans", (_who(root), _table(root))),
        Section("What could go wrong", (*_warnings(root), *missing) or (para("No plan carries a warning."),)),
        *(s for s in evidence.method(root) if s.title in ("Method", "Sources")),
        again,
    )
    return Document(
        kind="comparison",
        title=f"Fine-tuning {model}: {len(_plans(root))} plans compared",
        subtitle=f"A comparison of LoRA plans, {date}, lora-plan {m.get('version')}",
        description=f"Comparison of {len(_plans(root))} LoRA plans, the first for {model}.",
        date=date,
        version=str(m.get("version")),
        sections=sections,
    )
