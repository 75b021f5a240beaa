"""A plan's report: the page that decides, then a section for each part of the plan."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .document import Document, Figure, Section
from .numbers import Material
from .sections import counts, decision, evidence, learning, running
from .wording import name


def document(
    material: Mapping[str, Any], moment: datetime.datetime, figures: Mapping[str, Figure]
) -> Document:
    """The document of one plan. `figures` go to the section that bears their name's first word."""
    root = Material(material)
    m = root.within("plan")
    first = decision.sections(m)
    rest = [
        counts.parameters(root),
        counts.flops(root),
        learning.capacity(root),
        learning.learning_rate(root),
        running.memory(root),
        running.time_and_cost(root),
        running.configuration(root),
        evidence.evidence(root),
        *evidence.method(root),
    ]
    rest[0] = replace(rest[0], new_page=True)
    model = name(str(m.get("model/id")))
    date = f"{moment.day} {moment:%B %Y}"
    return Document(
        kind="plan",
        title=f"Fine-tuning {model}",
        subtitle=f"A plan for LoRA, {date}, lora-plan {m.get('version')}",
        description=f"Plan of a LoRA fine-tune of {model}: parameters, compute, capacity, learning rate.",
        date=date,
        version=str(m.get("version")),
        sections=tuple(_with_figures(section, figures) for section in (*first, *rest)),
    )


def _with_figures(section: Section, figures: Mapping[str, Figure]) -> Section:
    drawn = tuple(figure for figure in figures.values() if figure.name == section.title)
    return replace(section, blocks=(*section.blocks, *drawn)) if drawn else section
