"""The user's own file: a text a line, or JSON lines with `prompt` and `completion` (or `text`)."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import InputError
from .base import Example, Task

HELD_OUT = 64


def _example(line: str, path: Path, number: int) -> Example:
    if not line.startswith("{"):
        return Example("", line)
    try:
        data = json.loads(line)
        if "text" in data:
            return Example("", str(data["text"]))
        return Example(str(data.get("prompt", "")), str(data["completion"]))
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path.name} line {number}", line, "a text, or JSON with text, or prompt and completion"
        ) from error


def make(text: str) -> Task:
    """`file:PATH`; every eighth example, up to 64, is held out."""
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("data", text, "a readable text file") from error
    known = [_example(line, path, n + 1) for n, line in enumerate(lines) if line.strip()]
    held_out = tuple(known[7::8][:HELD_OUT])
    kept = [item for item in known if item not in held_out]
    if not kept or not held_out:
        raise InputError("data", text, "at least 8 examples", f"It has {len(known)}.")
    return Task(f"file:{text}", lambda index: kept[index % len(kept)], held_out, len(kept))
