"""Bring the outputs shown in README.md and docs/ up to date with the program.

    python tools/write_docs.py [--check]

A fenced block after `<!-- output: ARGUMENTS -->` holds what `lora-plan ARGUMENTS` prints at 80 columns.
docs/cli.md is written whole, from every command's --help, and docs/accuracy.md from the
table of errors. A table between `<!-- tried: NAME -->` and
`<!-- end -->` is one of tools/export_tables.py, or the layers of the code.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from planner.cli.main import COMMANDS, cli
from tools import accuracy_page, code_map
from tools.export_tables import TABLES as OF_EXPORTS

ROOT = Path(__file__).resolve().parent.parent
TABLES = {**OF_EXPORTS, "modules": code_map.table}
BLOCK = re.compile(r"(<!-- output: (?P<arguments>[^\n]*?) -->\n\n?```text\n).*?(```\n)", re.DOTALL)


TABLE = re.compile(r"(<!-- tried: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@contextmanager
def _in_root() -> Iterator[None]:
    """In the checkout, whose files the pages name."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(before)


def output_of(arguments: str) -> str:
    """What the command prints, as a plain terminal of 80 columns shows it."""
    env = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, env), _in_root():
        result = CliRunner(env=env).invoke(cli, arguments.split(), prog_name="lora-plan", terminal_width=80)
    if result.exit_code != 0:
        raise SystemExit(f"lora-plan {arguments} failed: {result.output} {result.exception!r}")
    return "\n".join(line.rstrip() for line in result.output.splitlines()).strip("\n") + "\n"


def with_outputs(text: str) -> str:
    """The text with every output block and every table made anew."""
    text = BLOCK.sub(lambda found: found[1] + output_of(found["arguments"]) + found[3], text)
    return TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n{found[3]}", text)


def cli_reference() -> str:
    """docs/cli.md."""
    lines = ["# Command line", "", "Written by `tools/write_docs.py` from the program's own help.", ""]
    for command in ("", *COMMANDS):
        arguments = f"{command} --help".strip()
        lines += [
            f"## lora-plan {command}".rstrip(),
            "",
            "```text",
            output_of(arguments).rstrip("\n"),
            "```",
            "",
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


WHOLE: dict[str, Callable[[], str]] = {"cli.md": cli_reference, "accuracy.md": accuracy_page.page}


def paths() -> list[Path]:
    """The README and every page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(path: Path) -> str:
    """The text that a page should have."""
    if path.name in WHOLE:
        return WHOLE[path.name]()
    return with_outputs(path.read_text(encoding="utf-8"))


def main() -> int:
    """Write the pages, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 where a page is out of date"
    )
    check = parser.parse_args().check
    stale = []
    for path in paths():
        text = text_of(path)
        if path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    for path in stale:
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
