"""Data of a file joined to a model by every command that plans, the law and the family of a rate, and the bar."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import planner
from planner.cli import progress
from planner.cli.main import cli
from planner.errors import InputError

MODEL = "meta-llama/Llama-3.2-1B"


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def said(*args: str) -> dict[str, Any]:
    done = run(*args, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Sixty conversations, one of them broken."""
    path = tmp_path / "chats.jsonl"
    rows = [
        json.dumps({"messages": [
            {"role": "user", "content": f"What is {i} plus {i}?"},
            {"role": "assistant", "content": f"It is {2 * i}."},
        ]})
        for i in range(60)
    ]  # fmt: skip
    path.write_text("\n".join([*rows, "{"]) + "\n")
    return path


def test_every_command_reads_the_same_data(chats: Path) -> None:
    one = said("estimate", "-m", MODEL, "--data", str(chats), "--epochs", "2")
    data = planner.dataset(chats)
    side = said("compare", "-m", MODEL, "--data", str(chats), "--epochs", "2", "--methods", "lora")
    best = said("plan", "-m", MODEL, "--data", str(chats), "--epochs", "2", "--gpu", "l4", "--gpus", "1")
    assert one["information"]["units"] == data.loss_tokens.value
    for found in (side, best):
        assert found["tokens"] == 2 * data.tokens.value
        assert found["loss_tokens"] == data.loss_tokens.value
        assert "broken-rows" in {notice["code"] for notice in found["warnings"]}
    assert side["columns"][0]["regret"]["value"] == one["regret"]["value"]


def test_of_several_models_the_first_counts(chats: Path) -> None:
    found = planner.compare([MODEL, "Qwen/Qwen3-0.6B"], methods="lora", data=chats)
    assert "data-of-first" in {notice.code for notice in found.warnings}


def test_a_search_hands_its_data_on(chats: Path) -> None:
    found = planner.plan(MODEL, data=chats, epochs=3, gpu="l4", gpus=1)
    again = planner.estimate(**found.options())
    assert again.information is not None
    assert again.information.units == found.loss_tokens


@pytest.mark.parametrize("command", ["compare", "plan"])
def test_what_goes_with_data_alone_is_refused_without(command: str, chats: Path) -> None:
    for more in (["--split", "train", "--tokens", "1M"], ["--data", str(chats), "--tokens", "1M"]):
        done = run(command, "-m", MODEL, *more)
        assert done.exit_code != 0
        assert isinstance(done.exception, InputError)


def test_a_law_and_a_family_move_the_rate_of_an_estimate_and_an_export() -> None:
    plain = said("estimate", "-m", MODEL)["learning_rate"]
    other = said("estimate", "-m", MODEL, "--family", "Qwen3")["learning_rate"]
    assert other["family"] == "qwen3" and other["value"] != plain["value"]
    assert other["value"] == planner.lr(MODEL, family="qwen3").value
    law = "tinker-cookbook-2025-11"
    published = said("estimate", "-m", MODEL, "--law", law)["learning_rate"]["value"]
    for more, rate in ((["--law", law], published), (["--family", "qwen3"], other["value"])):
        text = run(
            "export", "trl-sft", "-m", MODEL, "--layers", "attention,mlp", "--batch", "128", *more
        ).output
        written = next(line for line in text.splitlines() if line.startswith("learning_rate:"))
        assert float(written.split()[1]) == pytest.approx(rate, rel=0.01)
    with pytest.raises(InputError, match="family.*qwen3"):
        planner.estimate(MODEL, family="qwen33")


def test_convert_names_the_option_that_was_typed() -> None:
    for option, args in (("from", ("artical", "peft")), ("to", ("article", "peftt"))):
        done = run("convert", "--from", args[0], "--to", args[1], "--lr", "1e-4")
        assert str(done.exception).startswith(f"{option}: found ")
        assert "Did you mean" in str(done.exception)


class Terminal(io.StringIO):
    """Standard error as a person reads it."""

    def isatty(self) -> bool:
        """Always."""
        return True


@pytest.mark.parametrize("command", ["estimate", "compare", "plan --gpu l4 --gpus 1"])
def test_a_bar_is_shown_on_a_terminal_alone(
    command: str, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[bool, int]] = []
    monkeypatch.setattr(
        progress.Bar, "__call__", lambda self, done, total, rows: told.append((self.wanted, done / total))
    )
    assert run(*command.split(), "-m", MODEL, "--data", str(chats), "--json").exit_code == 0
    assert told and told[-1] == (False, 1.0)  # told, and nobody to show it to
    monkeypatch.setattr("planner.cli.progress.sys.stderr", Terminal())
    assert progress.Bar().wanted and not progress.Bar(False).wanted


def test_the_bar_is_no_part_of_a_request(chats: Path) -> None:
    with progress.reading({"model": MODEL, "data": str(chats)}) as options:
        plan = planner.estimate(**options)
    assert "on_progress" not in plan.request and plan.request["data"] == str(chats)
