"""Generated corpora in every format: each row beside what it means, said apart from the code that reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.dataset.tokenizers_of import passage

Chat = list[dict[str, Any]]


@dataclass(frozen=True)
class Meaning:
    """What is trained on: conversations (each with the number of messages that are the prompt, or None), or a plain
    prompt and completion."""

    chats: tuple[tuple[Chat, int | None], ...] = ()
    plain: tuple[tuple[str, str], ...] = ()
    trained: bool = True


def chat(chance: random.Random, system: bool, turns: int | None = None) -> Chat:
    """A conversation that begins with the user, or a system prompt, and ends with the assistant."""
    said: Chat = (
        [{"role": "system", "content": passage(chance, 1, 8)}] if system and chance.random() < 0.4 else []
    )
    for _ in range(turns or chance.choice((1, 1, 2, 3, 4))):
        said.append({"role": "user", "content": passage(chance)})
        said.append({"role": "assistant", "content": passage(chance)})
    return said


def messages(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """OpenAI's format."""
    said = chat(chance, system)
    return {"messages": said, "id": chance.randint(0, 9)}, Meaning(((said, None),))


def sharegpt(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """from and value."""
    said = chat(chance, system)
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": names[m["role"]], "value": m["content"]} for m in said]
    return {"conversations": turns}, Meaning(((said, None),))


def prompt_completion(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """Both as text, or both as messages."""
    if chance.random() < 0.5:
        prompt, completion = passage(chance), passage(chance)
        return {"prompt": prompt, "completion": completion}, Meaning(plain=((prompt, completion),))
    said = chat(chance, system)
    return {"prompt": said[:-1], "completion": said[-1:]}, Meaning(((said, len(said) - 1),))


def alpaca(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """instruction, input, output; an instruction with its input is one message."""
    question, context = passage(chance) or "x", chance.choice(("", passage(chance)))
    row = {"instruction": question, "input": context, "output": passage(chance)}
    asked = f"{row['instruction']}\n\n{row['input']}" if row["input"].strip() else row["instruction"]
    said: Chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
    return row, Meaning(((said, 1),))


def text(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """Plain text."""
    said = passage(chance, 5, 80)
    return {"text": said}, Meaning(plain=(("", said),))


def preference(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """Two answers to one prompt, in the three usual manners."""
    said = chat(chance, system)
    other = [*said[:-1], {"role": "assistant", "content": passage(chance) + "?"}]
    manner, before = chance.randint(0, 2), len(said) - 1
    if manner == 0:
        row = {"chosen": said, "rejected": other}
    elif manner == 1:
        row = {"prompt": said[:-1], "chosen": said[-1:], "rejected": other[-1:]}
    else:
        prompt = passage(chance)
        pair = ((prompt, passage(chance)), (prompt, passage(chance) + "?"))
        return {"prompt": prompt, "chosen": pair[0][1], "rejected": pair[1][1]}, Meaning(plain=pair)
    return row, Meaning(((said, before), (other, before)))


def rl(chance: random.Random, system: bool) -> tuple[dict[str, Any], Meaning]:
    """Prompts with answers to check against."""
    said = chat(chance, system)[:-1]
    if chance.random() < 0.5:
        return {"prompt": said, "answer": "4"}, Meaning(((said, len(said)),), trained=False)
    prompt = passage(chance)
    return {"problem": prompt, "answer": "4"}, Meaning(plain=((prompt, ""),), trained=False)


FORMATS: dict[str, Callable[[random.Random, bool], tuple[dict[str, Any], Meaning]]] = {
    "messages": messages, "sharegpt": sharegpt, "prompt-completion": prompt_completion, "alpaca": alpaca,
    "text": text, "preference": preference, "rl": rl,
}  # fmt: skip


def corpus(
    form: str, rows: int, seed: int, system: bool = True
) -> tuple[list[dict[str, Any]], list[Meaning]]:
    """Rows of a format with what they mean; no plain text is empty."""
    chance = random.Random(f"{form} {seed}")
    found: list[tuple[dict[str, Any], Meaning]] = []
    while len(found) < rows:
        row, meaning = FORMATS[form](chance, system)
        if all((prompt + completion).strip() for prompt, completion in meaning.plain):
            found.append((row, meaning))
    return [row for row, _ in found], [meaning for _, meaning in found]


def lines(rows: list[dict[str, Any]]) -> bytes:
    """JSON lines, half of them with every letter beyond ASCII escaped."""
    written = [json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows)]
    return "".join(f"{line}\n" for line in written).encode()
