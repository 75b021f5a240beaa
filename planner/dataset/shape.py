"""How the rows of a data set look: their format, columns, and names of speakers, as a trainer's config names them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import formats, sources
from .columns import columns_of, renamed
from .formats import Example, RowError
from .streams import DamagedError, Stream, head

LOOKED_AT = 200  # rows; a speaker who comes later is not seen
LOADERS: Mapping[str, str] = {
    "jsonl": "json", "json": "json", "csv": "csv", "text": "text", "parquet": "parquet", "arrow": "arrow",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What a trainer must be told of a data set.

    `format` is mixed where rows differ. `files` are absolute paths (empty: a data set of the hub); `loader` is the
    builder of `datasets` that reads them, None where it reads none of this form. `columns` names messages, prompt,
    completion, input, system, history, tools or text. `role` and `content` are the keys of a message, `speakers` the
    names of its roles as transformers has them. `chat`: prompt and completion are messages too. `renamed_by` is the
    --columns under which it was read, `columns` has the names in the data.
    """

    data: str
    files: tuple[str, ...]
    loader: str | None
    format: str
    kind: str
    columns: Mapping[str, str]
    role: str = "role"
    content: str = "content"
    speakers: Mapping[str, str] | None = None
    chat: bool = False
    renamed_by: str | None = None

    @property
    def renamed(self) -> bool:
        """Whether a message's keys or roles are other than transformers' own."""
        roles = self.speakers or {}
        return (self.role, self.content) != ("role", "content") or any(a != b for a, b in roles.items())


def shape_of(
    data: str | os.PathLike[str], *, format: str = "auto", split: str | None = None, config: str | None = None,
    encoding: str | None = None, columns: str | Mapping[str, str] | None = None,
) -> Shape:  # fmt: skip
    """The shape of a file, a folder or a data set of the hub, from its first rows; `columns` as `dataset` takes them.

    Raises InputError where no row of it can be used.
    """
    formats.check_format(format)
    names = columns_of(columns)
    place = os.fspath(data)
    path = Path(place).expanduser()
    if path.exists():
        files, _ = sources.find(path, split, encoding)
        return shape_of_files(place, files, format, encoding, names)
    from . import hub
    from .tables import plain

    return _of_rows(place, (), "hub", (plain(row) for row in hub.rows(place, split, config)), format, names)


def shape_of_files(
    place: str, files: list[sources.DataFile], format: str = "auto", encoding: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Shape:  # fmt: skip
    """The shape of files that were found. Raises InputError."""
    kinds = {file.kind for file in files}
    loader = LOADERS.get(next(iter(kinds))) if len(kinds) == 1 else None
    if any(_is_object(file) for file in files):
        loader = None
    names = tuple(os.path.abspath(file.path) for file in files)
    return _of_rows(place, names, loader, _local_rows(files, encoding), format, columns or {})


def _is_object(file: sources.DataFile) -> bool:
    """Whether a JSON document is one object, whose field `datasets` would have to be told."""
    return file.kind == "json" and head(file.path).lstrip()[:1] == b"{"


def _local_rows(files: list[sources.DataFile], encoding: str | None) -> Iterator[Any]:
    for file in files:
        with ExitStack() as stack:
            stream = None
            if file.kind not in ("parquet", "arrow", "saved"):
                stream = stack.enter_context(Stream(file.path, encoding))
            try:
                yield from (value for _, value, error in sources.rows(file, stream) if error is None)
            except DamagedError:
                continue


def _of_rows(
    place: str, files: tuple[str, ...], loader: str | None, rows: Iterator[Any], format: str,
    theirs: Mapping[str, str],
) -> Shape:  # fmt: skip
    found: list[tuple[Mapping[str, Any], Example]] = []
    for row in (renamed(row, theirs) for row in islice(rows, LOOKED_AT)):
        try:
            found.append((row, formats.read_row(row, format)))
        except RowError:
            continue
    if not found:
        raise InputError("data", place, f"a row that can be used among the first {LOOKED_AT}")
    names = {example.format for _, example in found}
    form, kind = (names.pop() if len(names) == 1 else "mixed"), found[0][1].kind
    columns: dict[str, str] = {}
    speakers: dict[str, str] = {}
    keys = ("role", "content")
    for row, _ in found:
        columns = {**_columns(row, form), **columns}
        for message in _messages(row, columns):
            keys = ("from", "value") if "from" in message and "role" not in message else ("role", "content")
            said = message.get(keys[0])
            if isinstance(said, str):
                speakers[said] = formats.ROLES.get(said.lower(), said) if keys[0] == "from" else said
    chat = form in ("prompt-completion", "rl") and found[0][1].items[0].messages is not None
    by = ",".join(f"{name}={column}" for name, column in theirs.items()) or None
    own = {what: theirs.get(name, name) for what, name in columns.items()}
    return Shape(place, files, loader, form, kind, own, *keys, speakers or None, chat, by)


def _messages(row: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    for name in ("messages", "prompt", "completion"):
        value = row.get(columns.get(name, ""))
        for message in value if isinstance(value, (list, tuple)) else ():
            if isinstance(message, Mapping):
                yield message


def _columns(row: Mapping[str, Any], form: str) -> dict[str, str]:
    """The columns that this row has, by what they hold."""
    every: Mapping[str, Mapping[str, tuple[str, ...]]] = {
        "messages": {"messages": formats.CHATS, "system": ("system", "system_prompt"), "tools": ("tools",)},
        "sharegpt": {"messages": formats.CHATS, "system": ("system", "system_prompt"), "tools": ("tools",)},
        "alpaca": {"prompt": ("instruction",), "input": ("input", "context"), "history": ("history",),
                   "completion": ("output", "response", "completion"), "system": ("system", "system_prompt")},
        "prompt-completion": {"prompt": formats.PROMPTS, "completion": formats.COMPLETIONS, "tools": ("tools",)},
        "text": {"text": formats.TEXTS},
        "rl": {"prompt": (*formats.PROMPTS, "messages", "instruction")},
    }  # fmt: skip
    found = {}
    for what, names in every.get(form, {}).items():
        held = (name for name in names if row.get(name) not in (None, "", []))
        name = next(held, next((name for name in names if name in row and what == "input"), None))
        if name is not None:
            found[what] = name
    return found
