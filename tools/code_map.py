"""The layers of planner/ as a table, made of the modules' own first sentences: for docs/where.md."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERING = ROOT / "tests" / "test_layering.py"


def layers() -> tuple[str, ...]:
    """The layers that the test of imports holds, from the bottom up: names of modules in each."""
    for node in ast.parse(LAYERING.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "LAYERS":
            found: tuple[str, ...] = ast.literal_eval(node.value)
            return found
    raise SystemExit(f"{LAYERING.name} has no LAYERS")


def place_of(name: str) -> tuple[str, Path]:
    """A module's path as the page shows it, and the file with its docstring."""
    folder = ROOT / "planner" / name
    if folder.is_dir():
        return f"planner/{name}/", folder / "__init__.py"
    return f"planner/{name}.py", folder.with_suffix(".py")


def sentence_of(file: Path) -> str:
    """The first sentence of a module's docstring, or as much of it as stands before a colon's list begins."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    words = " ".join(text.split("\n\n")[0].split())
    return words.split(". ")[0].rstrip(".")


def table() -> str:
    """A row for each module and package, those of a layer together."""
    lines = ["| layer | module | what it is |", "|---|---|---|"]
    for height, names in enumerate(layers(), 1):
        for number, name in enumerate(names.split()):
            shown, file = place_of(name)
            said = sentence_of(file)
            lines.append(f"| {height if number == 0 else ''} | `{shown}` | {said} |")
    return "\n".join(lines)
