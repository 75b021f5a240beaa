"""What an exported file says, read independently of what wrote it: YAML by PyYAML, Python by its syntax tree."""

from __future__ import annotations

import ast
import json
from typing import Any

import yaml

from planner.exports import Exported


def settings(found: Exported) -> dict[str, Any]:
    """Names and values of the main file; keyword arguments of all calls where it is Python."""
    name = next(iter(found.files))
    if name.endswith(".py"):
        return python_settings(found.text)
    return dict(json.loads(found.text) if name.endswith(".json") else yaml.safe_load(found.text))


def python_settings(text: str) -> dict[str, Any]:
    """Keyword arguments of every call, and assigned names; an expression that is no literal as its source."""
    out: dict[str, Any] = {}
    for node in ast.walk(ast.parse(text)):
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            pairs = [(node.targets[0].attr, node.value)]
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id.isupper()
        ):
            pairs = [(node.targets[0].id, node.value)]
        for name, value in pairs:
            if name is not None:
                try:
                    out[name] = ast.literal_eval(value)
                except ValueError:
                    out[name] = ast.unparse(value)
    return out
