"""Tokens and loss tokens as transformers itself counts them, row by row, with its own template and tokenizer.

Loss: where a template marks what the assistant writes, transformers' assistant mask; elsewhere the tokens behind
those that the conversation has up to a turn (ready for the assistant) by itself, up to those that it has with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.dataset.corpora import Chat, Meaning

Counted = tuple[int, int]


def _ids(tokenizer: Any, said: Chat, prompt: bool = False, **more: Any) -> list[int]:
    found = tokenizer.apply_chat_template(
        said, tokenize=True, return_dict=True, add_generation_prompt=prompt, **more
    )
    return list(found["input_ids"])


def _shared(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens they begin alike."""
    for i, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return i
    return min(len(one), len(two))


def _assistant(tokenizer: Any, said: Chat, marked: bool) -> Counted:
    if marked:
        found = tokenizer.apply_chat_template(
            said, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return len(found["input_ids"]), sum(found["assistant_masks"])
    ids = _ids(tokenizer, said)
    mask = [0] * len(ids)
    for i, message in enumerate(said):
        if message["role"] == "assistant":
            begin = _shared(ids, _ids(tokenizer, said[:i], prompt=True))
            end = len(ids) if i == len(said) - 1 else _shared(ids, _ids(tokenizer, said[: i + 1]))
            mask[begin:end] = [1] * max(0, end - begin)
    return len(ids), sum(mask)


def _completion(tokenizer: Any, said: Chat, prompt: int) -> Counted:
    ids = _ids(tokenizer, said)
    return len(ids), len(ids) - _shared(ids, _ids(tokenizer, said[:prompt], prompt=True))


def _plain(tokenizer: Any, prompt: str, completion: str, everywhere: bool) -> Counted:
    ids = tokenizer(prompt + completion)["input_ids"]
    if everywhere or not prompt:
        return len(ids), len(ids)
    return len(ids), len(ids) - _shared(ids, tokenizer(prompt)["input_ids"])


def count(tokenizer: Any, meaning: Meaning, loss_on: str = "auto") -> list[Counted]:
    """Tokens and loss tokens of each sequence of a row."""
    marked, found = "generation %}" in tokenizer.chat_template, []
    for said, prompt in meaning.chats:
        if not meaning.trained:
            found.append((len(_ids(tokenizer, said, prompt=True)), 0))
        elif loss_on == "all":
            size = len(_ids(tokenizer, said))
            found.append((size, size))
        elif loss_on == "assistant" or (loss_on == "auto" and prompt is None):
            found.append(_assistant(tokenizer, said, marked))
        else:
            found.append(_completion(tokenizer, said, len(said) - 1 if prompt is None else prompt))
    for before, after in meaning.plain:
        size, loss = _plain(tokenizer, before, after, loss_on == "all")
        found.append((size, loss if meaning.trained else 0))
    return found
