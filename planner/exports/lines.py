"""Text of the files that trainers read: lines with their reasons as YAML, Python or a shell command.

A value comes from a model's or a data set's name now and then, which may hold anything: every string is quoted by the
rules of the language it stands in, and a comment never leaves its line.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..dataclass import dataclass

WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z_][\w./\-]*")
# What YAML 1.1 reads as something other than a word.
_WORDS = frozenset("y n yes no on off true false null none nan inf".split())


@dataclass(frozen=True)
class Line:
    """One option: its name, its value, and why it has it. With `off` it is written as a comment, to be filled in."""

    name: str
    value: Any
    why: str = ""
    off: bool = False


@dataclass(frozen=True)
class Section:
    """Options under a heading."""

    title: str
    lines: tuple[Line, ...]


def flat(text: object) -> str:
    """A text without what could end its line or hide what follows."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def comment(text: str, indent: str = "") -> list[str]:
    """A text as comment lines of YAML, Python and shells."""
    room = WIDTH - len(indent) - 2
    lines = textwrap.wrap(flat(text), room, break_long_words=False, break_on_hyphens=False) if text else []
    return [f"{indent}# {line}" for line in lines]


def yaml_number(value: float) -> str:
    """A float that YAML 1.1 and 1.2 both read as one: with a dot and a signed exponent."""
    text = repr(float(value))
    if "e" in text and "." not in text.split("e")[0]:
        head, _, tail = text.partition("e")
        text = f"{head}.0e{tail}"
    return text.replace("inf", ".inf")


def yaml_string(value: str) -> str:
    """A string in double quotes, all but printable ASCII by its code (YAML has no pairs of surrogates, as JSON)."""
    kept = (
        f"\\{c}" if c in '"\\' else c if " " <= c <= "~" else f"\\U{ord(c):08x}"
        for c in value
    )  # fmt: skip
    return f'"{"".join(kept)}"'


def yaml_value(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return yaml_number(value)
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else yaml_string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{yaml_value(str(k))}: {yaml_value(v)}" for k, v in value.items()) + "}"
    return "[" + ", ".join(yaml_value(item) for item in value) + "]"


def yaml_entry(name: str, value: Any, indent: str = "", off: bool = False) -> list[str]:
    """An option with its value; mappings, and lists of them, on lines of their own."""
    mark = "# " if off else ""
    if isinstance(value, Mapping) and value:
        below = [
            line for key, item in value.items() for line in yaml_entry(str(key), item, indent + "  ", off)
        ]
        return [f"{mark}{indent}{yaml_value(name)}:", *below]
    if isinstance(value, Sequence) and value and all(isinstance(item, Mapping) and item for item in value):
        found = [f"{mark}{indent}{yaml_value(name)}:"]
        for item in value:
            rows = [line for key, each in item.items() for line in yaml_entry(str(key), each, "", off)]
            found += [f"{mark}{indent}  {'- ' if n == 0 else '  '}{row}" for n, row in enumerate(rows)]
        return found
    return [f"{mark}{indent}{yaml_value(name)}: {yaml_value(value)}"]


def yaml_text(header: Iterable[str], sections: Iterable[Section]) -> str:
    """A YAML file: comments first, then each section with a reason above every option that has one."""
    out = [line for text in header for line in comment(text)]
    for section in sections:
        out += ["", *comment(f"--- {section.title}")]
        for line in section.lines:
            out += comment(line.why)
            out += yaml_entry(line.name, line.value, off=line.off)
    return "\n".join(out) + "\n"


def python_value(value: Any) -> str:
    """A value as a Python literal on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {python_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(python_value(item) for item in value) + "]"
    if isinstance(value, Code):
        return value.text
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise TypeError(f"no literal for {type(value).__name__}")
    return repr(value)


@dataclass(frozen=True)
class Code:
    """An expression of ours in a Python file, such as torch.bfloat16."""

    text: str


def python_call(target: str, lines: Iterable[Line], indent: str = "") -> list[str]:
    """`target(name=value, ...)`, one argument a line with its reason above it."""
    out = [f"{indent}{target}("]
    for line in lines:
        out += comment(line.why, indent + "    ")
        if line.name.startswith("*") or not line.name:
            text = f"{python_value(line.value)},"
        else:
            text = f"{line.name}={python_value(line.value)},"
        mark = "# " if line.off else ""
        out.append(f"{indent}    {mark}{text}")
    return [*out, f"{indent})"]


def shell_text(command: Sequence[str], header: Iterable[str]) -> str:
    """A shell script of one command, an argument a line."""
    out = ["#!/bin/sh"]
    out += [line for text in header for line in comment(text)]
    words = [" ".join(shlex.quote(flat(part)) for part in group.split("\0")) for group in command]
    return "\n".join([*out, "", " \\\n    ".join(words)]) + "\n"


def arguments(lines: Iterable[Line]) -> list[str]:
    """Options as arguments of a script, name and value apart by a NUL for `shell_text`."""
    found = []
    for line in lines:
        if line.off or line.value is None:
            continue
        if isinstance(line.value, bool):
            value = str(line.value)
        elif isinstance(line.value, Mapping):
            value = json.dumps(line.value)
        elif isinstance(line.value, (list, tuple)):
            value = "\0".join(str(item) for item in line.value)
        else:
            value = str(line.value)
        found.append(f"--{line.name}\0{value}")
    return found
