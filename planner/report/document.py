"""The document model: what a report says, as plain data that every writer understands.

A text is a sequence of runs: strings, and `Number`s that know which value of the material they show. No run is ever
read as markup by a writer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Number:
    """A number as shown. `path` leads to its value in the report's material; with `over` it is the quotient of the
    two values."""

    text: str
    value: float
    path: tuple[str, ...]
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Strong:
    """Words that stand out."""

    text: str


@dataclass(frozen=True)
class Mono:
    """A name as programs spell it."""

    text: str


@dataclass(frozen=True)
class Link:
    """A web address under words; `url` is only ever http or https."""

    text: str
    url: str


Run = str | Number | Strong | Mono | Link
Text = tuple[Run, ...]


@dataclass(frozen=True)
class Paragraph:
    """Running text; a "lead" is larger, a "note" smaller."""

    runs: Text
    style: Literal["body", "lead", "note"] = "body"


def para(*runs: Run, style: Literal["body", "lead", "note"] = "body") -> Paragraph:
    """A paragraph of these runs."""
    return Paragraph(runs, style)


@dataclass(frozen=True)
class Bullets:
    """A list of short texts."""

    items: tuple[Text, ...]


@dataclass(frozen=True)
class Row:
    """A table's row; a strong one is what the report is about."""

    cells: tuple[Text, ...]
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a header. `align` has l or r for each column, `widths` the parts of the page's width that
    columns share (0 for as wide as the content). `basis` is the kind of evidence behind its numbers. A `large`
    one is what a page is for."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    align: str
    widths: tuple[float, ...] = ()
    basis: str = ""
    large: bool = False


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    text: str
    language: str = "text"


@dataclass(frozen=True)
class Figure:
    """A drawing: SVG, a caption, and `alt`, which says in words what it shows."""

    name: str
    svg: str
    caption: str
    alt: str


Block = Paragraph | Bullets | Table | Code | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]
    new_page: bool = False


@dataclass(frozen=True)
class Document:
    """A report. `sections[0]` is the page that decides."""

    kind: str
    title: str
    subtitle: str
    description: str
    date: str
    version: str
    sections: tuple[Section, ...]
    keywords: tuple[str, ...] = field(default=("LoRA", "fine-tuning"))


def runs_of(block: Block) -> Iterator[Run]:
    """Every run of a block, in reading order."""
    if isinstance(block, Paragraph):
        yield from block.runs
    elif isinstance(block, Bullets):
        for item in block.items:
            yield from item
    elif isinstance(block, Table):
        for row in block.rows:
            for cell in row.cells:
                yield from cell


def numbers_of(document: Document) -> Iterator[Number]:
    """Every number of a document, in reading order."""
    for section in document.sections:
        for block in section.blocks:
            yield from (run for run in runs_of(block) if isinstance(run, Number))


def plain(text: Text) -> str:
    """A text without its marks."""
    return "".join(run if isinstance(run, str) else run.text for run in text)


def _run_data(run: Run) -> Any:
    if isinstance(run, str):
        return run
    data = {"kind": type(run).__name__.lower(), "text": run.text}
    return {**data, "url": run.url} if isinstance(run, Link) else data


def _text_data(text: Text) -> list[Any]:
    return [_run_data(run) for run in text]


def _block_data(block: Block) -> dict[str, Any]:
    kind = type(block).__name__.lower()
    if isinstance(block, Paragraph):
        return {"kind": kind, "style": block.style, "runs": _text_data(block.runs)}
    if isinstance(block, Bullets):
        return {"kind": kind, "items": [_text_data(item) for item in block.items]}
    if isinstance(block, Table):
        rows = [{"strong": r.strong, "cells": [_text_data(cell) for cell in r.cells]} for r in block.rows]
        return {**vars(block), "kind": kind, "rows": rows}
    return {**vars(block), "kind": kind}


def to_data(document: Document) -> dict[str, Any]:
    """The document as JSON has it: what a template reads."""
    sections = [
        {
            "title": section.title,
            "new_page": section.new_page,
            "blocks": [_block_data(b) for b in section.blocks],
        }
        for section in document.sections
    ]
    return {**vars(document), "sections": sections}
