"""Token and loss-token counts against transformers' own template and tokenizer, row by row."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from planner.dataset.analysis import Reader, Settings, Sums
from planner.dataset.tokenizer import load
from tests.dataset import corpora, oracle
from tests.dataset.tokenizers_of import TEMPLATES, passage, write

NO_SYSTEM = ("mistral", "gemma")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Each template's folder, and what transformers loads from it."""
    from transformers import AutoTokenizer

    found = {}
    for name in TEMPLATES:
        folder = write(tmp_path_factory.mktemp(name), name)
        found[name] = (folder, AutoTokenizer.from_pretrained(str(folder)))
    return found


def read(path: Path, folder: Path, **settings: Any) -> Sums:
    with Reader(str(path), Settings(compression=None, near=None, **settings), load(folder)) as reader:
        return reader.read()


def summed(counts: list[oracle.Counted]) -> tuple[int, int]:
    return sum(tokens for tokens, _ in counts), sum(loss for _, loss in counts)


def lengths(counts: list[oracle.Counted]) -> dict[int, int]:
    found: dict[int, int] = {}
    for tokens, _ in counts:
        found[tokens] = found.get(tokens, 0) + 1
    return found


@pytest.mark.parametrize("form", corpora.FORMATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_counts_equal_transformers_row_by_row(
    name: str, form: str, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, tokenizer = models[name]
    rows, meanings = corpora.corpus(form, 40, seed=1, system=name not in NO_SYSTEM)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines(rows))
    sums = read(path, folder)
    expected = [count for meaning in meanings for count in oracle.count(tokenizer, meaning)]
    assert (sums.examples, sums.broken, sums.sequences) == (40, 0, len(expected))
    assert (sums.tokens, sums.loss_tokens) == summed(expected)
    assert sums.lengths == lengths(expected)
    assert (sums.loss_tokens == 0) == (form == "rl")


@pytest.mark.parametrize("loss_on", ["assistant", "completion", "all"])
@pytest.mark.parametrize("name", ["llama", "llama-marked", "chatml-marked", "mistral", "gemma"])
def test_what_carries_loss_can_be_named(
    name: str, loss_on: str, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, tokenizer = models[name]
    rows, meanings = corpora.corpus("messages", 30, seed=2, system=name not in NO_SYSTEM)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines(rows))
    sums = read(path, folder, loss_on=loss_on)
    expected = [count for meaning in meanings for count in oracle.count(tokenizer, meaning, loss_on)]
    assert (sums.tokens, sums.loss_tokens) == summed(expected)


def test_tools_reach_the_template(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, tokenizer = models["llama"]
    said = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"x": "Ä"}}}]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"messages": said, "tools": t}) for t in (tools, json.dumps(tools), None))
    )
    with_tools = tokenizer.apply_chat_template(said, tools=tools, tokenize=True, return_dict=True)[
        "input_ids"
    ]
    without = tokenizer.apply_chat_template(said, tokenize=True, return_dict=True)["input_ids"]
    sums = read(path, folder)
    assert sums.tokens == 2 * len(with_tools) + len(without) and len(with_tools) > len(without)


def test_turns_whose_reasoning_is_dropped_keep_the_rest(
    models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """By hand: in a turn that is not the last, the answer and its end; in the last, the reasoning too."""
    folder, tokenizer = models["thinking"]
    said: list[dict[str, str]] = []
    for i in range(3):
        said.append({"role": "user", "content": f"question {i}"})
        said.append(
            {"role": "assistant", "content": f"answer {i} of three", "reasoning_content": "so we think"}
        )
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": said}))
    ends = ["answer 0 of three<|im_end|>\n", "answer 1 of three<|im_end|>\n"]
    ends += ["<think>\nso we think\n</think>\n\nanswer 2 of three<|im_end|>\n"]
    by_hand = sum(len(tokenizer(end, add_special_tokens=False)["input_ids"]) for end in ends)
    with Reader(str(path), Settings(compression=None, near=None), load(folder)) as reader:
        sums = reader.read()
    assert sums.loss_tokens == by_hand
    assert reader.renderer.used["stand-in"] >= 2
    whole = tokenizer.apply_chat_template(said, tokenize=True, return_dict=True)["input_ids"]
    assert sums.tokens == len(whole)


def test_the_template_of_transformers_and_ours_write_the_same(models: dict[str, tuple[Path, Any]]) -> None:
    """Not the tokens alone: letter by letter."""
    for name, (folder, tokenizer) in models.items():
        template = load(folder).template()
        assert template is not None
        _, meanings = corpora.corpus("messages", 20, seed=5, system=name not in NO_SYSTEM)
        for meaning in meanings:
            for said, _ in meaning.chats:
                for prompt in (False, True):
                    theirs = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=prompt)
                    assert template.render(said, prompt=prompt) == theirs


def test_an_eos_token_is_counted_behind_plain_texts(
    models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = models["llama"]
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "hello world"}\n{"prompt": "2+2=", "completion": "4"}\n')
    without, with_eos = read(path, folder), read(path, folder, eos=True)
    assert with_eos.tokens == without.tokens + 2 and with_eos.loss_tokens == without.loss_tokens + 2


def test_plain_prompts_can_be_put_into_the_template(
    models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, tokenizer = models["chatml"]
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "2+2=", "completion": "4"}\n')
    said = [{"role": "user", "content": "2+2="}, {"role": "assistant", "content": "4"}]
    sums = read(path, folder, chat=True)
    assert [(sums.tokens, sums.loss_tokens)] == oracle.count(tokenizer, corpora.Meaning(((said, 1),)))


@pytest.mark.parametrize("name", ["llama", "chatml-marked", "mistral"])
def test_a_long_text_is_counted_as_a_whole_one(
    name: str, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """Beyond 65,536 letters texts are encoded in pieces."""
    folder, tokenizer = models[name]
    chance = random.Random(3)
    long = " ".join(passage(chance, 20, 60) for _ in range(700))
    assert len(long) > 150_000
    said = [{"role": "user", "content": long[:70_000]}, {"role": "assistant", "content": long}]
    rows: list[dict[str, Any]] = [{"messages": said}, {"text": long}]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines(rows))
    meanings = [corpora.Meaning(((said, None),)), corpora.Meaning(plain=(("", long),))]
    expected = [count for meaning in meanings for count in oracle.count(tokenizer, meaning)]
    sums = read(path, folder)
    assert (sums.examples, sums.broken) == (2, 0)
    assert (sums.tokens, sums.loss_tokens) == summed(expected)


def test_what_a_length_cuts_off(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    folder, tokenizer = models["chatml-marked"]
    rows, meanings = corpora.corpus("messages", 40, seed=7)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines(rows))
    limit, cut, tokens, loss = 150, 0, 0, 0
    for meaning in meanings:
        found = tokenizer.apply_chat_template(
            meaning.chats[0][0], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        cut += len(found["input_ids"]) > limit
        tokens += max(0, len(found["input_ids"]) - limit)
        loss += sum(found["assistant_masks"][limit:])
    sums = read(path, folder, seq_len=limit)
    assert (sums.cut_sequences, sums.cut_tokens, sums.cut_loss_tokens) == (cut, tokens, loss)
    assert 0 < cut < 40
