"""A document as a PDF, set by Typst: tagged (PDF/UA-1), with bookmarks, links and metadata."""

from __future__ import annotations

import datetime
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ... import facts
from ...errors import InputError
from ..document import Document, to_data

PAPERS = {"a4": "a4", "letter": "us-letter"}
BREAK = "\N{ZERO WIDTH SPACE}"
_LONG = re.compile(r"\S{25,}")
_LONG_IN_CODE = re.compile(r"\S{80,}")
_AFTER = re.compile(r"([/\-_.,:=@+|&?]+)(?=\w)")
LONGEST_PART = 12
FOOTER = 44  # letters of the title that stand beside the page number


def _parts(word: str) -> str:
    """A long word with places to break: after punctuation, else every so many letters."""
    words = _AFTER.sub(rf"\1{BREAK}", word).split(BREAK)
    pieces = (w[i : i + LONGEST_PART] for w in words for i in range(0, len(w), LONGEST_PART))
    return BREAK.join(pieces)


def breakable(text: str) -> str:
    """The text with places to break in its longest words."""
    return _LONG.sub(lambda found: _parts(found[0]), text)


def breakable_code(text: str) -> str:
    """The same for code, only where a line could not hold the word."""
    return _LONG_IN_CODE.sub(
        lambda found: BREAK.join(found[0][i : i + 72] for i in range(0, len(found[0]), 72)), text
    )


def _softened(value: Any) -> Any:
    """A block's data with its texts breakable; code, drawings and addresses in their own ways."""
    if isinstance(value, str):
        return breakable(value)
    if isinstance(value, (list, tuple)):
        return [_softened(item) for item in value]
    if isinstance(value, dict):
        if value.get("kind") == "figure":
            return {**value, "caption": breakable(value["caption"])}
        if value.get("kind") == "code":
            return {**value, "text": breakable_code(value["text"])}
        return {
            key: item if key in ("url", "kind", "align") else _softened(item) for key, item in value.items()
        }
    return value


def inputs(document: Document, paper: str) -> dict[str, str]:
    """What the template reads."""
    if paper not in PAPERS:
        raise InputError("paper", paper, f"one of {', '.join(PAPERS)}")
    data = to_data(document)
    soft = {**data, "sections": _softened(data["sections"]), "title": breakable(data["title"])}
    title = data["title"]
    soft["footer"] = title if len(title) <= FOOTER else f"{title[: FOOTER - 1]}…"
    return {"document": json.dumps(soft), "paper": PAPERS[paper]}


def template() -> bytes:
    """The Typst template that every report is set from."""
    return (facts.reports_dir() / "report.typ").read_bytes()


def fonts() -> list[str]:
    """The fonts that matplotlib brings (DejaVu Sans has Hebrew, Arabic and more), beside those inside Typst."""
    spec = find_spec("matplotlib")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return [str(path) for place in places if (path := Path(place, "mpl-data", "fonts", "ttf")).is_dir()]


def write(document: Document, paper: str, moment: datetime.datetime) -> bytes:
    """The PDF's bytes, equal for equal documents and moments.

    A character that none of the fonts at hand has cannot be part of PDF/UA: then the machine's own fonts are
    searched, and where these lack it too, a box stands for it in an otherwise equal, tagged PDF.
    """
    import typst

    given = inputs(document, paper)
    for own_fonts, standard in ((False, True), (True, True), (True, False)):
        known = typst.Fonts(include_system_fonts=own_fonts, font_paths=fonts())
        compiler = typst.Compiler(template(), font_paths=known, sys_inputs=given)
        try:
            found = compiler.compile(
                format="pdf", timestamp=moment, pdf_standards=["ua-1"] if standard else []
            )
        except typst.TypstError as error:
            if not standard or not _missing_glyph(error):
                raise
            continue
        if isinstance(found, bytes):
            return found
    raise AssertionError("Typst gave no PDF")


def _missing_glyph(error: Exception) -> bool:
    return "could not be displayed" in str(error) or "glyph" in str(error)
