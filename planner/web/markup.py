"""Small pieces of HTML. Every word from outside passes through `text`: markup in it is shown and not obeyed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from ..report.wording import clean

BASES = {
    "exact": "Counted; checked against other implementations.",
    "analytic": "From a formula of the set-up; the interval says how sure.",
    "fitted": "From a law fitted on published runs; the interval says how sure.",
    "assumed": "From a rule of thumb with a source; no interval is known.",
    "measured": "Seen, with its source.",
    "simulated": "From a run without weights.",
}


def text(words: object) -> str:
    """Words as HTML."""
    return html.escape(clean(str(words)), quote=True)


def basis(name: str | None) -> str:
    """The mark that says where a number comes from."""
    if not name:
        return ""
    return f'<span class="lp-basis lp-{text(name)}" title="{text(BASES.get(name, ""))}">{text(name)}</span>'


def tile(title: str, value: str, note: str, kind: str | None = None, tone: str = "") -> str:
    """A figure of the headline with its name, a line below it and its basis."""
    return (
        f'<div class="lp-tile {text(tone)}"><dt>{text(title)}{basis(kind)}</dt>'
        f"<dd><b>{text(value)}</b><span>{text(note)}</span></dd></div>"
    )


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    marked: object = None,
    words: bool = False,
) -> str:
    """A table whose first column names its rows; the row called `marked` stands out. With `words` the second
    column holds words and not figures."""
    cells = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    body = []
    for first, *rest in rows:
        tone = ' class="lp-marked"' if marked is not None and first == marked else ""
        body.append(
            f'<tr{tone}><th scope="row">{text(first)}</th>'
            + "".join(f"<td>{text(x)}</td>" for x in rest)
            + "</tr>"
        )
    kind = "lp-table lp-words" if words else "lp-table"
    return (
        f'<div class="lp-scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table class="{kind}">'
        f"<caption>{text(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def note(words: str, tone: str = "") -> str:
    """A paragraph of its own."""
    return f'<p class="lp-note {text(tone)}">{text(words)}</p>'


def link(label: str, target: str, *, download: bool = False) -> str:
    """A link; `target` is an address that this page made."""
    more = " download" if download else ' target="_blank" rel="noreferrer noopener"'
    return f'<a class="lp-button" href="{text(target)}"{more}>{text(label)}</a>'
