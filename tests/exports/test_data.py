"""The data's own format in each trainer's words, and data written in the columns that all of them read."""

from __future__ import annotations

import ast
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from planner import dataset, estimate, export, import_config
from planner.cli.main import cli
from planner.dataset.shape import shape_of
from planner.errors import HubError, InputError, UnknownModelError
from planner.estimator import load
from planner.exports.trainers import trainer
from tools.small_models import EXAMPLES, data_files

LLAMA = "meta-llama/Llama-3.2-1B-Instruct"
OPTIONS: dict[str, Any] = {"layers": "attention,mlp", "seq_len": 64, "lr": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("data")
    data_files(place)
    return place


def written(target: str, data: Path, **more: Any) -> Any:
    return export(target, LLAMA, data=str(data), **{**OPTIONS, **more})


@pytest.mark.parametrize(
    ("name", "format", "columns", "speakers"),
    [
        ("messages.jsonl", "messages", ["messages"], {"user": "user", "assistant": "assistant"}),
        ("sharegpt.jsonl", "sharegpt", ["conversations"], {"human": "user", "gpt": "assistant"}),
        ("alpaca.jsonl", "alpaca", ["instruction", "input", "output"], None),
        ("alpaca.csv", "alpaca", ["instruction", "input", "output"], None),
        ("prompts.jsonl", "prompt-completion", ["prompt", "completion"], None),
        ("questions.jsonl", "prompt-completion", ["question", "answer"], None),
        ("texts.jsonl", "text", ["text"], None),
        ("problems.jsonl", "rl", ["prompt"], {"user": "user"}),
    ],
)
def test_shape(folder: Path, name: str, format: str, columns: list[str], speakers: Any) -> None:
    found = shape_of(folder / name)
    assert (found.format, list(found.columns.values()), found.speakers) == (format, columns, speakers)
    assert found.files == (str(folder / name),) and found.loader == (
        "csv" if name.endswith("csv") else "json"
    )


def test_axolotls_type(folder: Path) -> None:
    def entry(name: str) -> Any:
        return yaml.safe_load(written("axolotl", folder / name).text)["datasets"][0]

    chat = entry("sharegpt.jsonl")
    assert (chat["type"], chat["field_messages"], chat["ds_type"]) == (
        "chat_template",
        "conversations",
        "json",
    )
    assert chat["message_property_mappings"] == {"role": "from", "content": "value"}
    assert chat["roles"] == {"user": ["human"], "assistant": ["gpt"]}
    assert "roles" not in entry("messages.jsonl")
    assert entry("alpaca.csv") == {"path": str(folder / "alpaca.csv"), "ds_type": "csv", "type": "alpaca"}
    assert entry("questions.jsonl")["type"] == {
        "field_instruction": "question", "field_output": "answer", "format": "{instruction}",
        "no_input_format": "{instruction}",
    }  # fmt: skip
    assert (entry("texts.jsonl")["type"], entry("texts.jsonl")["field"]) == ("completion", "text")


def test_llamafactorys_description(folder: Path) -> None:
    def entry(name: str) -> tuple[Any, Any]:
        done = written("llamafactory", folder / name)
        said = yaml.safe_load(done.text)
        assert said["dataset_dir"] == "."
        return json.loads(done.files["dataset_info.json"])[said["dataset"]], said

    chat, _ = entry("sharegpt.jsonl")
    assert chat["formatting"] == "sharegpt" and chat["columns"] == {"messages": "conversations"}
    assert chat["tags"] == {
        "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
    }  # fmt: skip
    asked, _ = entry("questions.jsonl")
    assert asked["columns"] == {"prompt": "question", "response": "answer"}
    texts, said = entry("texts.jsonl")
    assert texts["columns"] == {"prompt": "text"} and said["stage"] == "pt"


def test_trls_mixture(folder: Path) -> None:
    def said(name: str, **more: Any) -> Any:
        return yaml.safe_load(written("trl-sft", folder / name, **more).text)

    chat = said("messages.jsonl")
    assert chat["datasets"] == [
        {"path": "json", "data_files": str(folder / "messages.jsonl"), "split": "train"}
    ]
    assert chat["assistant_only_loss"] is True and "dataset_name" not in chat
    assert "assistant_only_loss" not in said("messages.jsonl", loss_on="all")
    assert said("prompts.jsonl")["completion_only_loss"] is True
    assert "trl-sft.yaml" in written("trl-sft", folder / "messages.jsonl").files["trl-sft.sh"]
    rl = export(
        "trl-grpo", LLAMA, episodes=64, batch=32, train_data=str(folder / "problems.jsonl"), **OPTIONS
    )
    assert yaml.safe_load(rl.text)["datasets"][0]["data_files"] == str(folder / "problems.jsonl")


@pytest.mark.parametrize("name", ["sharegpt.jsonl", "alpaca.jsonl", "questions.jsonl", "texts.jsonl"])
def test_unsloths_script_makes_columns_that_trl_reads(folder: Path, name: str) -> None:
    """The function that the script defines, run on a row."""
    tree = ast.parse(written("unsloth", folder / name, kernels="unsloth").text)
    made: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    row = json.loads((folder / name).read_text().split("\n")[1])
    if name == "texts.jsonl":
        assert not made  # a column text is read as it is
        return
    scope: dict[str, Any] = {}
    exec(compile(ast.Module(made, []), "script", "exec"), scope)
    found = scope["example"](row)
    if name == "questions.jsonl":
        assert found == {"prompt": row["question"], "completion": row["answer"]}
        return
    said, answer = found["messages"]
    assert (said["role"], answer["role"]) == ("user", "assistant")
    if name == "alpaca.jsonl":
        assert (
            said["content"] == f"{row['instruction']}\n\n{row['input']}"
            and answer["content"] == row["output"]
        )
    else:
        assert [said["content"], answer["content"]] == [turn["value"] for turn in row["conversations"]]


def test_tinkers_script_is_python_and_reads_the_file(folder: Path) -> None:
    text = written("tinker", folder / "sharegpt.jsonl", experts="shared-outer").text
    ast.parse(text)
    assert str(folder / "sharegpt.jsonl") in text and 'example(row)["messages"]' in text


def test_torchtunes_and_megatrons_builders(folder: Path) -> None:
    known = written("torchtune", folder / "sharegpt.jsonl")
    data = yaml.safe_load(known.text)["dataset"]
    assert data["conversation_style"] == "sharegpt" and data["conversation_column"] == "conversations"
    text = written("megatron", folder / "questions.jsonl", precision="bf16-master").text
    ast.parse(text)
    assert "prompt_column='question', completion_column='answer'" in text


@pytest.mark.parametrize(
    ("target", "name", "words"),
    [
        ("trl-sft", "alpaca.jsonl", "--write train.jsonl"),
        ("trl-sft", "sharegpt.jsonl", "--write train.jsonl"),
        ("tinker", "texts.jsonl", "The nearest is trl-sft"),
        ("megatron", "texts.jsonl", "The nearest is trl-sft"),
    ],
)
def test_what_a_trainer_cannot_read_is_refused(folder: Path, target: str, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        written(target, folder / name, **({"precision": "bf16-master"} if target == "megatron" else {}))


@pytest.mark.parametrize("name", ["sharegpt.jsonl", "alpaca.csv", "questions.jsonl", "texts.jsonl"])
def test_written_data_say_the_same_and_go_into_trl(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "train.jsonl"
    done = CliRunner().invoke(cli, ["dataset", str(folder / name), "--write", str(out), "--json"])
    assert done.exit_code == 0, done.output
    before, after = json.loads(done.stdout), dataset(out).to_dict()
    kept = ("examples", "sequences", "bytes", "loss_bytes", "duplicates")
    assert after["examples"] == EXAMPLES and {k: before[k] for k in kept} == {k: after[k] for k in kept}
    written("trl-sft", out)


def test_nothing_is_written_of_prompts_without_answers(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.jsonl"
    done = CliRunner().invoke(cli, ["dataset", str(folder / "problems.jsonl"), "--write", str(out)])
    assert isinstance(done.exception, InputError) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["trl-sft", "axolotl", "llamafactory"])
@pytest.mark.parametrize("name", ["messages.jsonl", "prompts.jsonl", "texts.jsonl"])
def test_import_and_export_again(folder: Path, tmp_path: Path, target: str, name: str) -> None:
    done = written(target, folder / name)
    place = done.write(tmp_path)[0]
    found = import_config(place)
    assert found.run["train_data"] == str(folder / name) and not found.unread
    again = export(target, **found.options())
    assert yaml.safe_load(again.text) == yaml.safe_load(done.text)
    assert set(again.files) == set(done.files)


def test_the_command_takes_data(folder: Path) -> None:
    asked = ["export", "axolotl", "-m", LLAMA, "--layers", "mlp", "--data", str(folder / "texts.jsonl")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0 and "type: completion" in done.stdout, done.output


@pytest.fixture(scope="module")
def other_names(folder: Path) -> dict[str, Path]:
    """The same two conversations: under the usual names, under others, and inside an object."""
    chat = [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "That, and a little more."},
    ]
    pair = {"Question": "What?", "Reply": "That."}
    rows: dict[str, dict[str, Any]] = {
        "plain": {"messages": chat},
        "dialog": {"dialog": chat},
        "inside": {"body": {"m": chat}},
        "pair": pair,
    }
    found = {}
    for name, row in rows.items():
        found[name] = folder / f"{name}-named.jsonl"
        found[name].write_text("".join(json.dumps({**row, "id": number}) + "\n" for number in range(5)))
    return found


def test_columns_of_other_names_are_read_by_every_command(other_names: dict[str, Path]) -> None:
    usual = estimate(LLAMA, data=str(other_names["plain"])).to_dict()
    for name, columns in (("dialog", "messages=dialog"), ("inside", {"messages": "body.m"})):
        found = estimate(LLAMA, data=str(other_names[name]), columns=columns).to_dict()
        assert (
            found["information"] == usual["information"]
            and found["data"]["tokens"] == usual["data"]["tokens"]
        )
    words = ["-m", LLAMA, "--data", str(other_names["dialog"]), "--columns", "messages=dialog", "--json"]
    for command, more in (("estimate", []), ("plan", ["--gpu", "h100"]), ("compare", [])):
        done = CliRunner().invoke(cli, [command, *words, *more])
        assert done.exit_code == 0, (command, done.output)
    with pytest.raises(InputError, match="None of its 5 rows can.*--columns"):
        estimate(LLAMA, data=str(other_names["dialog"]))
    with pytest.raises(InputError, match="columns: .*--data beside it"):
        estimate(LLAMA, tokens=1000, columns="messages=dialog")


def test_a_trainer_is_told_the_names_in_the_data(other_names: dict[str, Path]) -> None:
    def said(target: str, name: str, columns: str) -> str:
        return str(written(target, other_names[name], columns=columns).text)

    assert (
        yaml.safe_load(said("axolotl", "dialog", "messages=dialog"))["datasets"][0]["field_messages"]
        == "dialog"
    )
    pair = yaml.safe_load(said("axolotl", "pair", "prompt=Question,completion=Reply"))["datasets"][0]
    assert pair["type"]["field_instruction"] == "Question" and pair["type"]["field_output"] == "Reply"
    space: dict[str, Any] = {}
    script = said("unsloth", "dialog", "messages=dialog")
    start = script.index("def example(row):")
    exec(script[start : script.index("\n\n", start)], space)
    row = json.loads(other_names["dialog"].read_text().splitlines()[0])
    assert space["example"](row)["messages"] == row["dialog"]
    with pytest.raises(
        InputError, match=r"looks into an object.*--columns messages=body.m --write train.jsonl"
    ):
        said("axolotl", "inside", "messages=body.m")
    with pytest.raises(InputError, match=r"--columns messages=dialog --write train.jsonl"):
        said("trl-sft", "dialog", "messages=dialog")


def test_torchtunes_config_of_a_base_model_or_its_instruct_stands_for_the_other() -> None:
    text = export("torchtune", "meta-llama/Llama-3.1-8B", **OPTIONS).text
    said = yaml.safe_load(text)
    assert said["model"]["_component_"] == "torchtune.models.llama3_1.lora_llama3_1_8b"
    assert said["checkpointer"]["checkpoint_dir"] == "models/Llama-3.1-8B"
    assert "those of meta-llama/Meta-Llama-3.1-8B-Instruct" in " ".join(text.split("\n# "))
    known = {each["hub"] for each in trainer("torchtune").extra["models"].values()}
    both = 0
    for name in known:  # base and -Instruct are of one shape wherever the catalogue has both
        twin = name.removesuffix("-Instruct") if name.endswith("-Instruct") else f"{name}-Instruct"
        with contextlib.suppress(UnknownModelError, HubError):
            assert load(twin)[1].params == load(name)[1].params
            both += 1
    assert both >= 10
