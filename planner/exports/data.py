"""A plan's data set in a trainer's own words: its files, format, columns and roles, or why the trainer has none."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..dataset.shape import Shape

WROTE = "train.jsonl"
_READ = ("format", "split", "columns")


def shape_for(said: Mapping[str, Any], own: Mapping[str, Any]) -> Shape | None:
    """The shape of the data that were given as a file or folder, or read from the hub; None where none were."""
    place = own["train_data"] if own["train_data"] is not None else said.get("data")
    if place is None:
        return None
    if hasattr(place, "shape"):  # what `planner.dataset` has read
        return _flat(place.shape)
    if own["train_data"] is not None and not os.path.exists(str(place)):
        return None
    given = own["train_data"] is None
    options = {key: said[key] for key in _READ if said.get(key) is not None} if given else {}
    from ..dataset.shape import shape_of

    return _flat(shape_of(str(place), **options))


def _flat(shape: Shape | None) -> Shape | None:
    """The shape, or an InputError where it was read from inside an object, which no trainer's config can say."""
    inside = [name for name in shape.columns.values() if "." in name] if shape else []
    if shape is None or not inside or shape.renamed_by is None:
        return shape
    raise InputError(
        "columns", shape.renamed_by, "columns at the top of a row: no trainer looks into an object",
        f"`{_written(shape)}` writes them so; then give --data {WROTE} without --columns.",
    )  # fmt: skip


def _written(shape: Shape) -> str:
    """The command that writes the data in columns that all trainers read."""
    by = f" --columns {shlex.quote(shape.renamed_by)}" if shape.renamed_by else ""
    return f"lora-plan dataset {shlex.quote(shape.data)}{by} --write {WROTE}"


EVERY = ("messages", "prompt-completion", "text")


def refused(shape: Shape, trainer: str, expected: str, reads: tuple[str, ...] = EVERY) -> InputError:
    """The error for data that a trainer's config cannot describe.

    `reads` are the plain forms that it can: where the data can be written as one of them, the command is named.
    """
    if shape.kind != "sft":
        pairs = "answers with labels" if shape.format == "kto" else "preference pairs"
        what = {"preference": pairs, "rl": "prompts without answers"}[shape.kind]
        near = {
            "preference": "keeps the answers that are liked, as messages",
            "rl": "is trl-grpo, with --episodes",
        }
        return InputError(
            "data", what, f"examples for supervised training, which an export to {trainer} is of",
            f"The nearest {near[shape.kind]}.",
        )  # fmt: skip
    columns = ", ".join(shape.columns.values())
    what = f"{shape.format} ({columns})" if columns else "rows of several formats"
    plain = {"text": "text", "prompt-completion": "messages" if shape.chat else "prompt-completion"}
    if shape.format != "mixed" and plain.get(shape.format, "messages") not in reads:
        return InputError("data", what, f"{expected}: {trainer} reads no other", "The nearest is trl-sft.")
    return InputError(
        "data", what, f"{expected}: {trainer} reads no other",
        f"`{_written(shape)}` writes them so; then give --data {WROTE}.",
    )  # fmt: skip


def arguments(shape: Shape) -> dict[str, Any]:
    """The arguments of `datasets.load_dataset` for it."""
    if shape.loader == "hub":
        return {"path": shape.data}
    files: Any = shape.files[0] if len(shape.files) == 1 else list(shape.files)
    return {"path": shape.loader, "data_files": files}


def by_role(shape: Shape) -> dict[str, list[str]]:
    """The names of speakers in the data by transformers' roles."""
    found: dict[str, list[str]] = {}
    for theirs, ours in (shape.speakers or {}).items():
        found.setdefault(ours, []).append(theirs)
    return found


def text_of(shape: Shape) -> str:
    """What the data are, for a comment."""
    columns = ", ".join(shape.columns.values())
    return (
        f"Read from the data: {shape.format}, {'columns' if len(shape.columns) > 1 else 'column'} {columns}."
    )


def as_messages(shape: Shape, trainer: str) -> list[str]:
    """Lines of Python that define `example(row)`: a row with `messages`, or with prompt and completion, or text."""
    c = shape.columns
    head = ["def example(row):"]
    if shape.format in ("messages", "sharegpt"):
        said = f"message[{shape.role!r}]"
        renamed = {a: b for a, b in (shape.speakers or {}).items() if a != b}
        role = f"{renamed!r}.get({said}, {said})" if renamed else said
        lines = [
            "    messages = [",
            f"        {{**message, 'role': {role}, 'content': message[{shape.content!r}]}}"
            if (shape.role, shape.content) == ("role", "content")
            else f"        {{'role': {role}, 'content': message[{shape.content!r}]}}",
            f"        for message in row[{c['messages']!r}]",
            "    ]",
            *_system(shape),
        ]
        return [*head, *lines, "    return {'messages': messages}"]
    if shape.format == "alpaca" and "history" not in c:
        question = [f"    question = row[{c['prompt']!r}]"]
        if "input" in c:
            question += [
                f"    if (row[{c['input']!r}] or '').strip():",
                f"        question += '\\n\\n' + row[{c['input']!r}]",
            ]
        answer = f"{{'role': 'assistant', 'content': row[{c['completion']!r}]}}"
        return [
            *head, *question, f"    messages = [{{'role': 'user', 'content': question}}, {answer}]", *_system(shape),
            "    return {'messages': messages}",
        ]  # fmt: skip
    if shape.format == "prompt-completion":
        return [
            *head,
            f"    return {{'prompt': row[{c['prompt']!r}], 'completion': row[{c['completion']!r}]}}",
        ]
    if shape.format == "text":
        return [*head, f"    return {{'text': row[{c['text']!r}]}}"]
    raise refused(shape, trainer, "conversations, prompts with completions, or texts")


def _system(shape: Shape) -> list[str]:
    name = shape.columns.get("system")
    if name is None:
        return []
    return [
        f"    if row[{name!r}] and messages[0]['role'] != 'system':",
        f"        messages.insert(0, {{'role': 'system', 'content': row[{name!r}]}})",
    ]


def python_lines(shape: Shape, trainer: str) -> list[str]:
    """Lines of Python that load the rows as `data`, in the columns that TRL reads."""
    given = arguments(shape)
    path = given.pop("path")
    if path is None:
        raise refused(shape, trainer, "JSON lines, CSV, Parquet, Arrow or text")
    files = "".join(f", {name}={value!r}" for name, value in given.items())
    define = as_messages(shape, trainer)
    kept = set(shape.columns.values()) <= {"messages", "prompt", "completion", "text", "tools"}
    load = f"load_dataset({path!r}{files}, split='train')"
    if kept and not shape.renamed and shape.format not in ("alpaca",):
        return [f"data = {load}"]
    return [*define, "", "", f"data = {load}", "data = data.map(example, remove_columns=data.column_names)"]
