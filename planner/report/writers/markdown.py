"""A document as Markdown (CommonMark with tables). Figures are left out: a text file holds none."""

from __future__ import annotations

import re

from ..document import Block, Bullets, Code, Document, Link, Mono, Paragraph, Run, Strong, Table, Text

# Marks that mean something anywhere in a line; those that do at its start are for _start.
_BREAKS_A_LINK = re.compile(r"[<>\s]")
_INLINE = re.compile(r"([\\`*_\[\]<>|~$&])")


def escape(text: str) -> str:
    """Words as they are: no markup, no line breaks."""
    return _INLINE.sub(r"\\\1", text.replace("\n", " "))


def _start(line: str) -> str:
    """A line whose first mark does not begin a heading, a list or a quotation."""
    return re.sub(r"^(\s*)([#+\-=>]|\d+[.)])", lambda found: f"{found[1]}\\{found[2]}", line)


def _run(run: Run) -> str:
    if isinstance(run, str):
        return escape(run)
    if isinstance(run, Strong):
        return f"**{escape(run.text)}**"
    if isinstance(run, Mono):
        return _code_span(run.text)
    if isinstance(run, Link):
        return f"[{escape(run.text)}](<{_BREAKS_A_LINK.sub('', run.url)}>)"
    return escape(run.text)


def _code_span(text: str) -> str:
    text = text.replace("\n", " ")
    fence = "`" * (max((len(ticks) for ticks in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}" if "`" not in text else f"{fence} {text} {fence}"


def _text(text: Text, strong: bool = False) -> str:
    found = "".join(map(_run, text)).strip()
    return f"**{found}**" if strong and found and "**" not in found else found


def _table(table: Table) -> str:
    marks = {"l": ":--", "r": "--:"}
    heading = f"**{escape(table.caption)}**" + (f" ({escape(table.basis)})" if table.basis else "")
    lines = [
        heading,
        "",
        f"| {' | '.join(escape(word) for word in table.header)} |",
        f"| {' | '.join(marks[side] for side in table.align)} |",
    ]
    lines += [f"| {' | '.join(_text(cell, row.strong) for cell in row.cells)} |" for row in table.rows]
    return "\n".join(lines)


def _fence(code: Code) -> str:
    longest = max((len(ticks) for ticks in re.findall("`+", code.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{code.language}\n{code.text}\n{fence}"


def _block(block: Block) -> str | None:
    if isinstance(block, Paragraph):
        return _start(_text(block.runs))
    if isinstance(block, Bullets):
        return "\n".join(f"- {_start(_text(item))}" for item in block.items)
    if isinstance(block, Table):
        return _table(block)
    return _fence(block) if isinstance(block, Code) else None


def write(document: Document) -> bytes:
    """The file's bytes."""
    parts = [f"# {escape(document.title)}", escape(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block)) is not None]
    return ("\n\n".join(parts) + "\n").encode()
