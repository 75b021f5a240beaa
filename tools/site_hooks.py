"""What mkdocs calls while it builds the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

OUTSIDE = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?:\.\./)+(?P<path>[^)\s]+)\)")


def inside(markdown: str) -> str:
    """The page with each link to a file of the checkout as its text and the file's path: a site has no checkout."""

    def plain(found: re.Match[str]) -> str:
        path = f"`{found['path']}`"
        return path if found["text"].strip("`") == found["path"] else f"{found['text']} ({path})"

    return OUTSIDE.sub(plain, markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Before a page is rendered."""
    return inside(markdown)


def on_post_build(config: Any, **_: Any) -> None:
    """The colours of code, by day and by night."""
    from pygments.formatters import HtmlFormatter

    day = HtmlFormatter(style="default").get_style_defs(".highlight")
    night = HtmlFormatter(style="github-dark").get_style_defs("[data-bs-theme=dark] .highlight")
    text = re.sub(r"(?m)^(?:td|span)\.linenos.*\n|^pre .*\n", "", f"{day}\n{night}\n")
    Path(config["site_dir"], "pygments.css").write_text(text, encoding="utf-8")
