"""The documentation as a site: links, navigation, examples, and a build without warnings that loads nothing."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import planner
from planner import facts
from tools import accuracy_page, site_hooks

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]\n]*\]\((?!https?:|mailto:)([^)\s]+)\)")
# What would be fetched when a page is shown; a link that a reader may follow is none.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)|"
    r"<link\b(?![^>]*rel=[\"']?canonical)[^>]*?\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)|"
    r"(?:@import\s+|url\()[\"']?((?:https?:)?//[^\"')\s]+)",
    re.IGNORECASE,
)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Ids of the headings, as GitHub and Python-Markdown both make them of plain words."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} +(.+?) *$", prose(page), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\s-]", "", title).strip().lower()
        found.add(re.sub(r"[\s]+", "-", slug))
    return found


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    bad = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            bad.append(link)
    return bad


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) [c](gone.md) ![d](no.png)\n", encoding="utf-8")
    assert broken(page) == ["#three", "gone.md", "no.png"]


def config() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8")))


def leaves(nav: Any) -> list[str]:
    """The files of a navigation."""
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [leaf for value in values for leaf in leaves(value)]


def test_the_navigation_has_every_page_once() -> None:
    assert sorted(leaves(config()["nav"])) == [page.name for page in PAGES]


def blocks(page: str, kind: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "least"), [("derivations.md", 40), ("extending.md", 25), ("api.md", 4)])
def test_examples_print_what_they_show(page: str, least: int) -> None:
    source = "".join(blocks(page, "pycon"))
    example = doctest.DocTestParser().get_doctest(source, {}, page, page, 0)
    options = doctest.ELLIPSIS
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=options).run(example, out=said.append)
    assert result.failed == 0, "".join(said)
    assert result.attempted >= least


def test_quoted_tables_are_the_shipped_ones() -> None:
    text = (DOCS / "extending.md").read_text(encoding="utf-8")
    quoted = re.findall(r"<!-- (?:table|part) of (\S+) -->\n```\w+\n(.*?)```", text, flags=re.DOTALL)
    assert len(quoted) == 5
    for path, block in quoted:
        assert block in (ROOT / path).read_text(encoding="utf-8"), path


def test_the_accuracy_page_names_every_quantity() -> None:
    text = accuracy_page.page()
    assert text == (DOCS / "accuracy.md").read_text(encoding="utf-8"), "run python tools/write_docs.py"
    rows = facts.read_data("measured", "accuracy.csv").splitlines()[1:]
    shown = re.findall(r"^\| \*\*[^|]+\| all \| \w+ \| ([\d,]+) \|", text, flags=re.MULTILINE)
    assert sum(int(number.replace(",", "")) for number in shown) == len(rows)
    for name in ("exact", "analytic", "fitted", "simulated", "measured", "assumed"):
        assert f" | {name} | " in text


def test_links_out_of_the_site_become_words() -> None:
    assert site_hooks.inside("see [CONTRIBUTING.md](../CONTRIBUTING.md).") == "see `CONTRIBUTING.md`."
    assert (
        site_hooks.inside("[what](../data/x.csv), [m](methods.md)") == "what (`data/x.csv`), [m](methods.md)"
    )


def external(site: Path) -> list[str]:
    """What the built pages and their styles would load from another host."""
    found = []
    for path in site.rglob("*"):
        if path.suffix in (".html", ".css"):
            hits = LOADED.findall(path.read_text(encoding="utf-8", errors="replace"))
            found += [f"{path.name}: {''.join(hit)}" for hit in hits]
    return found


def test_what_a_page_would_load_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<script src="https://a.example/x.js"></script><link href="//b.example/x.css" rel="stylesheet">'
        '<a href="https://c.example">c</a><link rel="canonical" href="https://d.example">',
        encoding="utf-8",
    )
    (tmp_path / "a.css").write_text(
        '@import "https://e.example/f.css"; a { background: url(x.png) }', encoding="utf-8"
    )
    assert sorted(hit.split("//")[1][0] for hit in external(tmp_path)) == ["a", "b", "e"]


@pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("mkdocstrings_handlers")),
    reason='mkdocs is not installed: pip install ".[docs]"',
)
def test_the_site_builds_without_warnings_and_loads_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "WARNING" not in said and "ERROR" not in said, said
    assert {page.stem for page in PAGES} <= {path.stem for path in site.glob("*.html")}
    assert external(site) == []
    assert ".highlight" in (site / "pygments.css").read_text(encoding="utf-8")
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("planner.flops.step_macs", "planner.capacity.required_rank"):
        assert f'id="{name}"' in api, name
    shown = {name.rsplit(".", 1)[-1] for name in re.findall(r'id="(planner\.[\w.]+)"', api)}
    assert set(planner.__all__) - {"__version__"} <= shown
