"""How a base is loaded and placed, said by a user who names no trainer: against counts by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click import Context
from click.testing import CliRunner

from planner import estimate
from planner.choices import CHOICES
from planner.cli import main
from planner.cli.main import cli
from planner.cli.run_options import _EACH

LLAMA_8B, VALUES = "meta-llama/Llama-3.1-8B", 8_030_261_248  # parameters, as the model's card counts them


def test_a_user_without_a_profile_can_say_how_the_base_is_loaded() -> None:
    """All of it in 16 bits at once is 2 bytes a parameter, more than a step of four bits with a short batch takes;
    what is said stands before a profile's own."""
    for trainer in (None, "trl"):
        found = estimate(
            LLAMA_8B, quantize="nf4", loading="together", trainer=trainer, layers="attention,mlp", seq_len=128
        ).to_dict()["memory"]["qlora"]
        assert found["loading"]["moment"] == "loading all tensors"
        assert found["loading"]["allocated_bytes"] == 2 * VALUES
        assert found["per_gpu_bytes"] == found["loading"]["per_gpu_bytes"]
    assert estimate(LLAMA_8B, quantize="nf4").to_dict()["memory"]["qlora"]["loading"] is None


def test_a_user_without_a_profile_can_say_how_parameters_are_placed() -> None:
    """The whole model on every GPU, the adapter (3,407,872 bytes), and a quarter of the embedding, which is divided
    first (128,256 x 4,096 values)."""
    options: dict[str, Any] = {"gpus": 4, "sharding": "zero3", "rank": 1, "layers": "attention"}
    found = estimate(LLAMA_8B, placing="whole", **options).to_dict()["memory"]["lora"]["loading"]
    assert found["moment"] == "placing the whole model"
    assert found["allocated_bytes"] == 2 * VALUES + 3_407_872 + 2 * 128_256 * 4_096 // 4
    shards = estimate(LLAMA_8B, placing="shards", **options).to_dict()["memory"]["lora"]["loading"]
    assert shards["allocated_bytes"] < found["allocated_bytes"] / 2


def test_the_command_line_says_it_too() -> None:
    runner = CliRunner()
    found = runner.invoke(
        cli, ["estimate", "-m", LLAMA_8B, "--quantize", "nf4", "--loading", "together", "--json"]
    )
    assert json.loads(found.stdout)["memory"]["qlora"]["loading"]["allocated_bytes"] == 2 * VALUES
    placed = runner.invoke(
        cli,
        ["compare", "-m", LLAMA_8B, "--gpus", "4", "--sharding", "zero3", "--placing", "whole", "--json"],
    )
    assert placed.exit_code == 0, placed.output


def test_the_help_says_what_each_word_means() -> None:
    for name, (_, meant) in _EACH.items():
        assert set(meant) == set(CHOICES[name])
        assert all(f"{word} (" in " ".join(said(name).split()) for word in meant)


def said(name: str) -> str:
    """The help of an option of `estimate`."""
    command = cli.get_command(Context(cli), "estimate")
    assert command
    return next(str(getattr(each, "help", "")) for each in command.params if each.name == name)


def test_a_word_that_is_none_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["estimate", "-m", LLAMA_8B, "--loading", "togeter"])
    assert stopped.value.code == 2
    assert "Did you mean together?" in capsys.readouterr().err
