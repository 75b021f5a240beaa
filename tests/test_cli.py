"""The command line as a user meets it: output, JSON, errors with exit code 2 and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from planner import estimate, process
from planner.cli import main
from planner.cli.main import COMMANDS, cli
from planner.cli.options import Count

ROOT = Path(__file__).resolve().parent.parent
LLAMA = "meta-llama/Llama-3.1-8B"


class Result:
    """What a run of the command line left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*args: str) -> Result:
        with pytest.raises(SystemExit) as stopped:
            main(list(args))
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


def test_estimate_prints_the_headline_and_four_tables(run: Any) -> None:
    result = run("estimate", "--model", LLAMA, "--tokens", "300M")
    assert result.code == 0 and result.err == ""
    for text in (
        LLAMA,
        "8.03 B",
        "88,121,344",
        "83,886,080",
        "69.9%",
        "4.27e-4",
        "300 Mbit",
        "exceeded",
        "55",
    ):
        assert text in result.out, text
    for title in ("Adapter parameters", "Training FLOPs", "Information and capacity", "Learning rate"):
        assert title in result.out
    assert "\x1b" not in result.out


def test_json_is_the_plan(run: Any) -> None:
    result = run("estimate", "-m", LLAMA, "--rank", "64", "--dataset", "alpaca", "--json")
    assert result.json() == json.loads(json.dumps(estimate(LLAMA, rank=64, dataset="alpaca").to_dict()))


def test_every_option_reaches_the_plan(run: Any) -> None:
    data = run(
        "estimate", "-m", LLAMA, "--rank", "4", "--alpha", "8", "--layers", "attention,mlp", "--experts", "none",
        "--layout", "tinker", "--dora", "--adapter-dtype", "bfloat16", "--episodes", "1e4", "--success-rate", "0.5",
        "--epochs", "2", "--seq-len", "512", "--batch", "3", "--checkpointing", "--json",
    ).json()  # fmt: skip
    adapter, work = data["adapter"], data["workload"]
    assert (adapter["rank"], adapter["alpha"], adapter["layers"]) == (4, 8, "attention,mlp")
    assert (adapter["experts"], adapter["layout"], adapter["variant"]) == ("none", "tinker", "dora")
    assert adapter["dtype"] == "bfloat16" and adapter["bytes"] == 2 * adapter["params"]
    assert (work["epochs"], work["seq_len"], work["batch"], work["checkpointing"]) == (2, 512, 3, True)
    assert data["information"]["units"] == 10_000 and data["information"]["kind"] == "rl"
    assert data["flops"]["step"]["batch"] == 3


def test_explain_names_every_source(run: Any) -> None:
    result = run("estimate", "-m", LLAMA, "--dataset", "alpaca", "--explain")
    flat = " ".join(result.out.split())
    for source in estimate(LLAMA, dataset="alpaca").to_dict()["sources"]:
        assert source["title"] in flat and source["date"] in flat
    for basis in ("exact:", "assumed:", "fitted:"):
        assert basis in flat


@pytest.mark.parametrize("columns", ["30", "60", "100", "200"])
def test_any_width(run: Any, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = run("estimate", "-m", LLAMA)
    assert result.code == 0
    assert all(len(line) <= int(columns) for line in result.out.splitlines())
    assert "88,121,344" in result.out


def test_colour_follows_no_color() -> None:
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "100"}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "planner", "estimate", "-m", LLAMA]
    coloured = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    plain = subprocess.run(
        command, env={**env, "NO_COLOR": "1"}, capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert "\x1b[" in coloured
    assert "\x1b[36" not in plain and "\x1b[1;36" not in plain


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m planner models | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stderr == "" and result.stdout.startswith("model")


BAD: list[tuple[list[str], str]] = [
    (["-m", "meta-llama/Lama-3.1-8B"], "meta-llama/Llama-3.1-8B"),
    (["-m", ""], "model"),
    (["-m", LLAMA, "--rank", "-1"], "rank"),
    (["-m", LLAMA, "--rank", "eight"], "eight"),
    (["-m", LLAMA, "--rank", "100000"], "rank"),
    (["-m", LLAMA, "--layers", "attentoin"], "attention"),
    (["-m", LLAMA, "--targets", "qproj"], "q_proj"),
    (["-m", LLAMA, "--experts", "per_expert"], "per-expert"),
    (["-m", LLAMA, "--layout", "tinkr"], "tinker"),
    (["-m", LLAMA, "--adapter-dtype", "bf16"], "bfloat16"),
    (["-m", LLAMA, "--dataset", "tulu"], "tulu"),
    (["-m", LLAMA, "--tokens", "many"], "many"),
    (["-m", LLAMA, "--tokens", "0"], "tokens"),
    (["-m", LLAMA, "--success-rate", "2", "--episodes", "5"], "success-rate"),
    (["-m", LLAMA, "--no-such-option"], "--no-such-option"),
    ([], "--model"),
]


@pytest.mark.parametrize(("args", "named"), BAD, ids=str)
def test_bad_input_is_one_clear_error(run: Any, args: list[str], named: str) -> None:
    result = run("estimate", *args)
    assert result.code == 2 and result.out == ""
    assert named in result.err and "Traceback" not in result.err


def config_file(folder: Path, **change: Any) -> Path:
    """A small Llama's config in a file; a field set to None is left out."""
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 100, "tie_word_embeddings": False, **change,
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
    return path


def test_a_config_file_and_its_folder(run: Any, tmp_path: Path) -> None:
    path = config_file(tmp_path)
    by_file = run("estimate", "-m", str(path), "--rank", "4", "--json").json()
    by_folder = run("estimate", "-m", str(tmp_path), "--rank", "4", "--json").json()
    assert by_file["model"]["source"] == by_folder["model"]["source"] == "local"
    assert by_file["adapter"] == by_folder["adapter"]
    path.unlink()
    config_file(tmp_path, hidden_size=128)
    again = run("estimate", "-m", str(tmp_path), "--rank", "4", "--json").json()
    assert again["model"]["hidden_size"] == 128


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": None}, "hidden_size"), ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": None}, "model_type"), ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"hiden_size": 64, "hidden_size": None}, "hiden_size"),
    ],
)  # fmt: skip
def test_bad_config_files(run: Any, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    result = run("estimate", "-m", str(config_file(tmp_path, **change)))
    assert result.code == 2 and named in result.err and "Traceback" not in result.err


def test_files_that_are_no_config(run: Any, tmp_path: Path) -> None:
    sparse = tmp_path / "config.json"
    with sparse.open("wb") as file:
        file.truncate(2 * 2**30)
    cases = [str(sparse)]
    for number, data in enumerate((b"\x00\xff\xfe binary", b'{"a": ', b"[1, 2]", b"")):
        path = tmp_path / f"{number}.json"
        path.write_bytes(data)
        cases.append(str(path))
    empty = tmp_path / "folder"
    empty.mkdir()
    for case in (*cases, str(empty), str(tmp_path / "absent.json")):
        result = run("estimate", "-m", case)
        assert result.code == 2 and result.err.startswith("Error: ") and result.err.count("\n") <= 2, (
            result.err
        )


def test_listings(run: Any) -> None:
    models = run("models", "--json").json()["models"]
    assert len(models) == 500 and all(entry["source"]["url"] for entry in models)
    assert LLAMA in run("models").out
    assert "NousResearch" in run("models", "hermes").out
    gpus = run("gpus", "h100", "--json").json()["gpus"]
    assert {gpu["name"] for gpu in gpus} >= {"H100 SXM 80GB"} and gpus[0]["bf16_dense_flops_per_s"] == 989e12
    datasets = run("datasets", "--json").json()["datasets"]
    assert all(entry["source"]["title"] for entry in datasets)
    assert "tulu-3-sft-mixture" in run("datasets").out
    missed = run("models", "nothing-like-it")
    assert missed.code == 2 and "No model of the catalogue" in missed.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Any, shell: str) -> None:
    assert "_LORA_PLAN_COMPLETE" in run("completion", shell).out


def test_completion_offers_models_and_sets() -> None:
    def offers(words: str, number: int) -> str:
        env = {
            **os.environ, "_LORA_PLAN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number),
        }  # fmt: skip
        code = "from planner.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT
        ).stdout

    assert "meta-llama/Llama-3.1-8B" in offers("lora-plan estimate --model 3.1-8b", 3)
    assert "attention,mlp" in offers("lora-plan estimate -m x --layers attention,m", 5)
    assert "estimate" in offers("lora-plan est", 1)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(run: Any, command: str) -> None:
    result = run(*([command] if command else []), "--help")
    assert result.code == 0 and result.out.startswith("Usage: lora-plan")
    assert run(*([command] if command else []), "-h").out == result.out


def test_the_version(run: Any) -> None:
    from planner import __version__

    assert run("--version").out.strip() == f"lora-plan, version {__version__}"


def test_a_misspelt_command_names_the_nearest(run: Any) -> None:
    result = run("estmate")
    assert result.code == 2 and "estimate" in result.err


def test_a_command_inside_a_program_leaves_its_imports_whole(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a process that is the command's own may import libraries in part: whoever goes on may need the rest."""
    monkeypatch.setattr(process, "ends_soon", False)
    cli.get_command(click.Context(cli), "estimate")
    assert run("estimate", "-m", "gpt2").code == 0 and not process.ends_soon
    for words, ends in ((["estimate", "-m", "gpt2"], True), (["validate", "--help"], False)):
        monkeypatch.setattr(sys, "argv", ["lora-plan", *words])
        with pytest.raises(SystemExit):
            main()
        assert process.ends_soon is ends


MAY_BE_NOTHING = {"eval_batch", "lora_dropout", "nats", "prompt_tokens", "success_rate"}
OF_EPISODES = {"episodes", "success_rate", "group_size"}


@pytest.mark.parametrize(("name", "least"), [("estimate", 40), ("plan", 10), ("compare", 40)])
def test_no_number_is_nothing_or_less_but_those_that_may_be(name: str, least: int, run: Any) -> None:
    """Every option that takes a number, so that one that is added is among them: refused by its name and value."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    numbers = (Count, click.types.IntParamType, click.types.FloatParamType)
    found = [
        each for each in command.params if isinstance(each, click.Option) and isinstance(each.type, numbers)
    ]
    tried = [(each, value) for each in found for value in ("0", "-1")]
    tried = [(each, value) for each, value in tried if value != "0" or each.name not in MAY_BE_NOTHING]
    assert len(tried) >= least
    for option, value in tried:
        data = {"--episodes": "1000"} if option.name in OF_EPISODES else {"--tokens": "1M"}
        base = {"--model": "gpt2", "--gpu": "h100", **data, option.opts[-1]: value}
        result = run(name, *(word for pair in base.items() for word in pair))
        assert result.code == 2 and not result.out, (option.name, value)
        said = result.err.replace("'", "").replace("--", "")
        assert f"{str(option.name).replace('_', '-')}: found {value}" in said, (
            option.name,
            value,
            result.err,
        )
