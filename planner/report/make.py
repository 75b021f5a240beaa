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


def _finish(
    document: Document, output: str | os.PathLike[str], paper: str, when: Any, command: str
) -> dict[str, Any]:
    """Write the document; what was written where."""
    format = format_of(output)
    content = render(document, format, paper, when)
    write_whole(output, content)
    return {
        "schema": SCHEMA,
        "version": document.version,
        "kind": document.kind,
        "title": document.title,
        "command": command,
        "output": os.fspath(output),
        "format": format,
        "paper": paper if format == "pdf" else None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "sections": [section.title for section in document.sections],
        "figures": [b.name for s in document.sections for b in s.blocks if isinstance(b, Figure)],
    }


def _checked(output: str | os.PathLike[str], paper: str) -> str:
    """The format, after everything about the file that can be wrong has been tried."""
    format = format_of(output)
    if paper not in PAPERS:
        raise InputError("paper", paper, f"one of {', '.join(PAPERS)}")
    check_target(output)
    return format


def _where(format: str, paper: str, stem: str) -> list[str]:
    """The command's words for the file."""
    ending = {"pdf": "pdf", "html": "html", "markdown": "md"}[format]
    return [*(["--paper", paper] if paper != "a4" else []), "-o", f"{stem}.{ending}"]


def make(
    model: Any, output: str | os.PathLike[str], *, paper: str, figures: bool,
    against: Sequence[Mapping[str, Any]], options: Mapping[str, Any], simulated: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Write the report of a plan, or of several side by side; what was written where."""
    format = _checked(output, paper)
    when = moment()
    more = [*_against(against), *_where(format, paper, "plan")]
    if isinstance(simulated, (str, os.PathLike)):
        more = ["--simulated", os.fspath(simulated), *more]
    material = gather(model, options, against, more=more, simulated=simulated)
    document = compose(material, when, figures and format != "markdown")
    return _finish(document, output, paper, when, material["command"])


def make_fit(
    sweep: str | os.PathLike[str], output: str | os.PathLike[str], *, paper: str, figures: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Write the report of a learning-rate fit; `options` are those of `fit`."""
    from . import fit_report

    format = _checked(output, paper)
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    command = shlex.join(
        ["lora-plan", "report", "--sweep", os.fspath(sweep), *words, *_where(format, paper, "fit")]
    )
    when = moment()
    document = fit_report.compose(
        sweep, when, figures=figures and format != "markdown", command=command, options=options
    )
    return _finish(document, output, paper, when, command)


def make_validation(
    runs: str | os.PathLike[str], output: str | os.PathLike[str], *, paper: str, figures: bool
) -> dict[str, Any]:
    """Write the report of a validation from its run records."""
    from . import validation_report

    format = _checked(output, paper)
    command = shlex.join(
        ["lora-plan", "report", "--runs", os.fspath(runs), *_where(format, paper, "evidence")]
    )
    when = moment()
    document = validation_report.compose(
        runs, when, figures=figures and format != "markdown", command=command
    )
    return _finish(document, output, paper, when, command)


def make_dataset(
    data: str | os.PathLike[str], output: str | os.PathLike[str], *, paper: str, figures: bool,
    options: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Write the report of a data set; `options` are those of `dataset`."""
    from . import dataset_report

    format = _checked(output, paper)
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    where = _where(format, paper, "data")
    command = shlex.join(["lora-plan", "report", "--data", os.fspath(data), *words, *where])
    when = moment()
    document = dataset_report.compose(
        data, when, figures=figures and format != "markdown", command=command, options=options
    )
    return _finish(document, output, paper, when, command)
