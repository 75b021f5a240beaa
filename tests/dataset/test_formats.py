"""Rows as people have them: which format they are taken for, what of them is text, and what is said of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from planner import dataset
from planner.cli.main import cli
from planner.dataset import formats
from planner.dataset.plain import plain_row
from planner.errors import InputError


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Berlin"}'}}
]}  # fmt: skip
TURNS = [user("q"), assistant("good")]

# A row, the format and kind that it is taken for, and each sequence: its roles, or its prompt and completion.
ROWS: dict[str, tuple[dict[str, Any], str, str, list[Any]]] = {
    "tool calls": (
        {"messages": [user("12?"), CALL, {"role": "tool", "content": "12"}, assistant("12")], "tools": [{}]},
        "messages", "sft", [["user", "assistant", "tool", "assistant"]],
    ),
    "sharegpt with tools": (
        {"conversations": [
            {"from": "system", "value": "s"}, {"from": "human", "value": "h"},
            {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "o"},
            {"from": "tool", "value": "o"}, {"from": "gpt", "value": "g"},
        ]},
        "sharegpt", "sft", [["system", "user", "assistant", "tool", "tool", "assistant"]],
    ),
    "alpaca with history": (
        {"instruction": "q", "input": "", "output": "o", "history": [["a", "b"]], "system": "s"},
        "alpaca", "sft", [["system", "user", "assistant", "user", "assistant"]],
    ),
    "messages apart": (
        {"prompt": [user("q")], "completion": [assistant("r")]}, "prompt-completion", "sft", [["user", "assistant"]],
    ),
    "pairs of text": (
        {"prompt": "q", "chosen": "c", "rejected": "r"}, "preference", "preference", [("q", "c"), ("q", "r")],
    ),
    "pairs, prompt within": (
        {"chosen": TURNS, "rejected": [user("q"), assistant("bad")]},
        "preference", "preference", [["user", "assistant"], ["user", "assistant"]],
    ),
    "pairs beside their prompt and messages": (
        {"prompt": "q", "chosen": TURNS, "rejected": [user("q"), assistant("bad")], "messages": TURNS},
        "preference", "preference", [["user", "assistant"], ["user", "assistant"]],
    ),
    "pairs of one message": (
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "c"},
         "rejected": {"from": "gpt", "value": "r"}},
        "preference", "preference", [["user", "assistant"], ["user", "assistant"]],
    ),
    "kto": ({"prompt": "q", "completion": "c", "label": False}, "kto", "preference", [("q", "c")]),
    "kto of messages": ({"messages": TURNS, "label": True}, "kto", "preference", [["user", "assistant"]]),
    "gsm8k": ({"question": "2+2?", "answer": "4"}, "prompt-completion", "sft", [("2+2?", "4")]),
    "verl": (
        {"prompt": [user("q")], "reward_model": {"ground_truth": "4"}, "data_source": "x"}, "rl", "rl", [["user"]],
    ),
    "problems": ({"problem": "p", "solution": "s", "answer": "4"}, "rl", "rl", [("p", "")]),
    "text beside others": ({"text": "t", "meta": {"a": 1}}, "text", "sft", [("", "t")]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_taken_for_what_it_is(name: str) -> None:
    row, form, kind, sequences = ROWS[name]
    example = formats.read_row(row)
    assert (example.format, example.kind) == (form, kind)
    found = [
        (item.prompt, item.completion) if item.messages is None else [m["role"] for m in item.messages]
        for item in example.items
    ]
    assert found == sequences


def test_labels_are_written_with_their_answers() -> None:
    row = {"prompt": "q", "completion": "c", "label": False}
    assert plain_row(formats.read_row(row)) == row
    chat = plain_row(formats.read_row({"messages": TURNS, "label": True}))
    assert chat == {"prompt": TURNS[:1], "completion": TURNS[1:], "label": True}
    with pytest.raises(formats.RowError, match="label is a int"):
        formats.read_row({"prompt": "q", "completion": "c", "label": 1}, "kto")


@pytest.mark.parametrize(
    "row", [{"dialog": ["a"]}, {"segments": []}, {"input_ids": [1]}, {"prompt": "p", "completions": ["a"]}]
)
def test_what_is_not_recognised_says_its_columns_and_the_formats(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    result = CliRunner().invoke(cli, ["dataset", str(path)])
    shown = " ".join(result.output.split())
    assert result.exit_code == 0 and f"its columns are {', '.join(row)}" in shown
    assert "Rows whose columns fit no format: 1." in shown and "--columns" in shown
    for name in formats.FORMATS[1:]:
        assert name in shown


def test_columns_can_be_renamed_and_reached_into(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"Question": "2+2?", "Answer": "four", "id": 3}\n')
    found = dataset(path, columns="prompt=Question, completion=Answer")
    assert (dict(found.formats), found.text_bytes, found.loss_bytes) == ({"prompt-completion": 1}, 8, 4)
    path.write_text(json.dumps({"custom_id": "r", "body": {"messages": TURNS}}) + "\n")
    assert "--columns messages=body.messages" in dataset(path).broken_rows[0].reason
    assert dict(dataset(path, columns={"messages": "body.messages"}).formats) == {"messages": 1}
    path.write_text('{"a.b": "text with a dot in its name"}\n')
    assert dataset(path, columns="text=a.b").examples == 1


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_renamed_columns_of_tables_are_read(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"Body": [{"said": "hello"}] * 3, "text": ["other"] * 3})
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    assert dataset(path, columns="text=Body.said").text_bytes == 15


@pytest.mark.parametrize("columns", ["promt=Question", "prompt", "prompt="])
def test_a_wrong_name_is_one_sentence(columns: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n')
    with pytest.raises(InputError, match="^columns: found"):
        dataset(path, columns=columns)
