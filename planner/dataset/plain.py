"""A row in the columns that every trainer reads: messages, prompt and completion, text, or chosen and rejected."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .formats import Example, Item


def plain_row(example: Example) -> dict[str, Any]:
    """An example as one object. Raises InputError for prompts of reinforcement learning, whose answers stand in
    columns that only their reward knows."""
    if not example.trained:
        raise InputError(
            "write", example.format, "examples to train on",
            "Prompts for reinforcement learning are read as they are: name their column prompt.",
        )  # fmt: skip
    if len(example.items) == 2:
        return _pair(*example.items)
    item = example.items[0]
    if example.label is not None:
        cut = item if item.prompt_messages is not None else item._replace(prompt_messages=_before_last(item))
        return {**_prompt_and(cut, "completion"), "label": example.label} | _tools(example)
    if item.messages is not None:
        return {"messages": [dict(message) for message in item.messages]} | _tools(example)
    if example.format == "prompt-completion":
        return {"prompt": item.prompt, "completion": item.completion}
    return {"text": item.prompt + item.completion}


def _tools(example: Example) -> dict[str, Any]:
    return {"tools": example.tools} if example.tools else {}


def _before_last(item: Item) -> int:
    return max(0, len(item.messages or ()) - 1)


def _prompt_and(item: Item, name: str) -> dict[str, Any]:
    if item.messages is None:
        return {"prompt": item.prompt, name: item.completion}
    cut = item.prompt_messages or 0
    return {
        "prompt": [dict(message) for message in item.messages[:cut]],
        name: [dict(message) for message in item.messages[cut:]],
    }


def _pair(chosen: Item, rejected: Item) -> dict[str, Any]:
    return {**_prompt_and(chosen, "chosen"), "rejected": _prompt_and(rejected, "rejected")["rejected"]}
