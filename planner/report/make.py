"""From options to a file: gather, draw, compose, write."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from . import comparison, plan_report
from .document import Document, Figure
from .files import check_target, format_of, write_whole
from .gather import gather, moment
from .numbers import Material
from .writers.pdf import PAPERS

SCHEMA = 1


def compose(material: Mapping[str, Any], when: Any, figures: bool) -> Document:
    """The document of this material, a comparison where it holds other plans."""
    if material["others"]:
        return comparison.document(material, when)
    drawn: Mapping[str, Figure] = {}
    if figures:
        from .figures.plan import figures as draw

        drawn = draw(Material(material))
    return plan_report.document(material, when, drawn)


def render(document: Document, format: str, paper: str, when: Any) -> bytes:
    """The document in a format."""
    if format == "pdf":
        from .writers import pdf

        return pdf.write(document, paper, when)
    if format == "html":
        from .writers import html

        return html.write(document)
    from .writers import markdown

    return markdown.write(document)


def _against(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The command's words for other plans."""
    words = (
        shlex.join(f"{key.replace('_', '-')}={value}" for key, value in each.items()) for each in changes
    )
    return [part for word in words for part in ("--against", word)]


def make(
    model: Any, output: str | os.PathLike[str], *, paper: str, figures: bool,
    against: Sequence[Mapping[str, Any]], options: Mapping[str, Any], simulated: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a report; what was written where."""
    format = format_of(output)
    if paper not in PAPERS:
        raise InputError("paper", paper, f"one of {', '.join(PAPERS)}")
    check_target(output)
    when = moment()
    draws = figures and format != "markdown"
    ending = {"pdf": "pdf", "html": "html", "markdown": "md"}[format]
    more = [*_against(against), *(["--paper", paper] if paper != "a4" else []), "-o", f"plan.{ending}"]
    if isinstance(simulated, (str, os.PathLike)):
        more = ["--simulated", os.fspath(simulated), *more]
    material = gather(model, options, against, more=more, simulated=simulated)
    document = compose(material, when, draws)
    content = render(document, format, paper, when)
    write_whole(output, content)
    return {
        "schema": SCHEMA,
        "version": document.version,
        "kind": document.kind,
        "title": document.title,
        "command": material["command"],
        "output": os.fspath(output),
        "format": format,
        "paper": paper if format == "pdf" else None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sections": [section.title for section in document.sections],
        "figures": [b.name for s in document.sections for b in s.blocks if isinstance(b, Figure)],
    }
