"""Templates of published models, as TRL ships them, against transformers: tools, reasoning, parts, empty turns,
special tokens in the text, half of a pair of turns."""

from __future__ import annotations

import importlib.util
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from planner.dataset.analysis import Reader, Settings
from planner.dataset.template import GENERATION
from planner.dataset.tokenizer import load
from tests.dataset import oracle, tokenizers_of
from tests.dataset.tokenizers_of import passage

TRL = importlib.util.find_spec("trl")
FOLDER = Path(TRL.origin).parent / "chat_templates" if TRL and TRL.origin else None
KINDS = {
    "llama3": "llama", "llama3_1": "llama", "llama3_training": "llama", "deepseekv3": "llama", "gptoss": "llama",
    "gptoss_training": "llama", "qwen2_5": "qwen", "qwen2_5_training": "qwen", "qwen3": "qwen",
    "qwen3_training": "qwen", "glm4moe": "qwen", "gemma": "gemma", "gemma3": "gemma", "gemma3_training": "gemma",
    "phi3": "mistral", "phi3_training": "mistral", "cohere2": "mistral",
}  # fmt: skip
ODD = (
    "<|im_end|>",
    "</s>",
    "<|eot_id|>",
    "<think>",
    "</think>",
    "<s>",
    "<end_of_turn>",
    "<|im_start|>assistant\n",
)
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Wetter für einen Ort", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]  # fmt: skip
ROWS = 12

logging.getLogger("transformers").setLevel(logging.ERROR)


def said(chance: random.Random) -> Any:
    """A text, now and then empty, with spaces around, with a special token inside, or in parts."""
    text = passage(chance, 1, 15)
    if chance.random() < 0.1:
        text = chance.choice(("", f"  \n{text} \n", text + chance.choice(ODD) + passage(chance, 1, 4)))
    return [{"type": "text", "text": text}] if chance.random() < 0.05 else text


def conversation(chance: random.Random) -> dict[str, Any]:
    """One to three turns, with or without a system prompt, tools and reasoning."""
    tools = chance.random() < 0.3
    messages = [{"role": "system", "content": said(chance)}] if chance.random() < 0.4 else []
    for _ in range(chance.choice((1, 1, 2, 3))):
        messages.append({"role": "user", "content": said(chance)})
        if tools and chance.random() < 0.6:
            call = {"name": "weather", "arguments": {"city": passage(chance, 1, 2)}}
            calls = [{"type": "function", "id": f"call{chance.randint(10000, 99999)}", "function": call}]
            messages.append({"role": "assistant", "content": chance.choice((None, "")), "tool_calls": calls})
            messages.append({"role": "tool", "content": passage(chance, 1, 6), "name": "weather"})
        answer = {"role": "assistant", "content": said(chance)}
        if chance.random() < 0.2:
            answer["reasoning_content"] = passage(chance, 1, 8)
        elif chance.random() < 0.1:
            answer["content"] = f"<think>\n{passage(chance, 1, 8)}\n</think>\n\n{passage(chance, 1, 8)}"
        messages.append(answer)
    return {"messages": messages, **({"tools": TOOLS} if tools else {})}


def expected(tokenizer: Any, row: dict[str, Any], marked: bool) -> tuple[int, int | None]:
    """Tokens and loss tokens as transformers counts them; no loss where a beginning of the conversation is written
    otherwise than in the whole, and so tells nothing."""
    messages, tools = row["messages"], row.get("tools")
    if marked:
        found = tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return len(found["input_ids"]), sum(found["assistant_masks"])
    ids = oracle._ids(tokenizer, messages, tools=tools)
    whole, mask = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False), [0] * len(ids)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        try:
            after = tokenizer.apply_chat_template(messages[: i + 1], tools=tools, tokenize=False)
            before = oracle._ids(tokenizer, messages[:i], prompt=True, tools=tools)
        except Exception:
            return len(ids), None
        if not whole.startswith(after):
            return len(ids), None
        begin = oracle._shared(ids, before)
        beginning = oracle._ids(tokenizer, messages[: i + 1], tools=tools)
        end = len(ids) if i == len(messages) - 1 else oracle._shared(ids, beginning)
        mask[begin:end] = [1] * max(0, end - begin)
    return len(ids), sum(mask)


@pytest.mark.skipif(FOLDER is None or not FOLDER.is_dir(), reason="needs the templates that TRL ships")
@pytest.mark.parametrize("name", KINDS)
def test_counts_with_published_templates_equal_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    assert FOLDER is not None
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    monkeypatch.setitem(tokenizers_of.TEMPLATES, name, (KINDS[name], source))
    folder = tokenizers_of.write(tmp_path / "model", name)
    tokenizer, mine = AutoTokenizer.from_pretrained(str(folder)), load(folder)
    chance, path, counted, told = random.Random(name), tmp_path / "rows.jsonl", 0, 0
    for _ in range(ROWS):
        row = conversation(chance)
        path.write_text(json.dumps(row), encoding="utf-8")
        with Reader(str(path), Settings(compression=None, near=None), mine) as reader:
            sums = reader.read()
        try:
            tokens, loss = expected(tokenizer, row, GENERATION.search(source) is not None)
        except Exception:  # what a template refuses is a broken row here, or its parts are joined
            assert sums.broken or reader.renderer.used.get("flattened")
            continue
        assert (sums.examples, sums.broken, sums.tokens) == (1, 0, tokens)
        counted += 1
        if loss is not None:
            assert sums.loss_tokens == loss
            told += 1
    assert counted >= ROWS // 4 and (told >= 2 or name == "phi3")
