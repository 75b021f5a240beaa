"""A document as one self-contained HTML file: style and drawings inside, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from html import escape

from ... import facts
from ..document import Block, Bullets, Code, Document, Figure, Link, Mono, Paragraph, Run, Strong, Table, Text

# The drawings' colours as the style sheet names them, so that they follow light and dark.
_COLOURS = {
    "#1a1a1a": "var(--ink)",
    "#595959": "var(--quiet)",
    "#b8b8b8": "var(--hair)",
    "#ffffff": "var(--ground)",
    "#0b4f79": "var(--accent)",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def _run(run: Run) -> str:
    if isinstance(run, str):
        return f"<bdi>{escape(run)}</bdi>" if _turns(run) else escape(run)
    text = escape(run.text)
    if isinstance(run, Strong):
        return f"<strong>{text}</strong>"
    if isinstance(run, Mono):
        return f"<code>{text}</code>"
    if isinstance(run, Link):
        return f'<a href="{escape(run.url)}" rel="noreferrer">{text}</a>'
    return f'<span class="n">{text}</span>'


def _turns(text: str) -> bool:
    return "\N{FIRST STRONG ISOLATE}" in text


def _text(text: Text) -> str:
    return "".join(map(_run, text))


def _table(table: Table) -> str:
    sides = ["r" if side == "r" else "l" for side in table.align]
    head = "".join(
        f'<th scope="col" class="{side}">{escape(word)}</th>' if word else "<td></td>"
        for word, side in zip(table.header, sides, strict=True)
    )
    body = []
    for row in table.rows:
        cells = "".join(
            f'<th scope="row" class="{side}">{_text(cell)}</th>'
            if number == 0
            else f'<td class="{side}">{_text(cell)}</td>'
            for number, (cell, side) in enumerate(zip(row.cells, sides, strict=True))
        )
        body.append(f'<tr class="strong">{cells}</tr>' if row.strong else f"<tr>{cells}</tr>")
    basis = f" <em>{escape(table.basis)}</em>" if table.basis else ""
    return (
        f'<div class="wide"><table><caption>{escape(table.caption)}{basis}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def _figure(figure: Figure) -> str:
    svg = re.sub(r"^.*?(?=<svg)", "", figure.svg, count=1, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, variable)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(figure.alt)}" ', 1)
    return f"<figure>{svg}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f'<p class="{block.style}">{_text(block.runs)}</p>'
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Code):
        return f'<pre tabindex="0"><code>{escape(block.text)}</code></pre>'
    return _figure(block)


def write(document: Document) -> bytes:
    """The file's bytes."""
    style = (facts.reports_dir() / "report.css").read_text(encoding="utf-8")
    parts = [
        "<!doctype html>",
        '<html lang="en-GB"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<meta name="description" content="{escape(document.description)}">',
        f'<meta name="generator" content="lora-plan {escape(document.version)}">',
        f"<title>{escape(document.title)}</title>",
        f"<style>\n{style}</style></head>",
        f"<body><main><header><h1><bdi>{escape(document.title)}</bdi></h1>",
        f'<p class="note">{escape(document.subtitle)}</p></header>',
    ]
    for section in document.sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts += [_block(block) for block in section.blocks]
        parts.append("</section>")
    parts.append("</main></body></html>\n")
    return "\n".join(parts).encode()
