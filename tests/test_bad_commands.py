"""Wrong commands: one line that names the option, what was found and what is expected, and exit code 2."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import planner
from planner.cli.main import cli
from planner.errors import InputError, PlannerError

LLAMA = "-m meta-llama/Llama-3.1-8B"
GIVEN = {
    "estimate": LLAMA, "plan": f"{LLAMA} --tokens 5M --gpu h100 --gpus 1", "compare": LLAMA,
    "calibrate": f"{LLAMA} --gpu h100", "simulate": "-m gpt2",
}  # fmt: skip


def said(command: str, options: str) -> str:
    """The one error of a command, as `main` prints it."""
    result = CliRunner().invoke(cli, [command, *shlex.split(f"{GIVEN[command]} {options}")])
    if isinstance(result.exception, PlannerError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert isinstance(result.exception, SystemExit), (options, result.output, result.exception)
    assert result.exit_code == 2 and result.output.count("Error:") == 1
    return result.output.partition("Error: ")[2].strip()


@pytest.mark.parametrize(
    ("command", "options", "starts", "names"),
    [
        ("plan", "--budget 100$", "--budget: found '100$', expected a number", "Did you mean 100?"),
        ("plan", "--budget '€1,50'", "--budget: found '€1,50', expected a number", "Did you mean 1.5?"),
        ("plan", "--max-regret 1%", "--max-regret: found '1%', expected a number", "Did you mean 0.01?"),
        ("plan", "--price free", "--price: found 'free', expected a number.", ""),
        ("plan", "--budget nan", "budget: found nan, expected a number above 0", ""),
        ("plan", "--deadline 12:00", "deadline: found '12:00', expected a time above 0", "12h"),
        ("plan", "--deadline -3h", "deadline: found '-3h', expected a time above 0", ""),
        ("plan", "--prefer speed", "prefer: found 'speed', expected one of quality, cost, time", "mean time?"),
        ("plan", "--prefer cheapest", "prefer: found 'cheapest'", "mean cost?"),
        ("plan", "--host-memory 64", "host-memory: found '64', expected bytes above 0", "Did you mean 64GiB?"),
        ("plan", "--max-regret 1e-9 --deadline 1s", "deadline: found 1.0, expected limits that go together",
         "a deadline of 1.00 s and a regret of 1e-09"),
        ("plan", "--ranks 0,8", "ranks: found 0, expected a whole number of at least 1", ""),
        ("plan", "--layers attn,mpl", "layers: found 'attn', expected one of", "mean attention?"),
        ("estimate", "--layers unembedding --layers-to-transform 0", "layers: found 'unembedding'",
         "that is left: attention, mlp. What is excluded"),
        ("estimate", "--rank ∞", "--rank: found '∞', expected a whole number", ""),
        ("estimate", "--gpu h100 --price 2$", "--price: found '2$', expected a number", "Did you mean 2?"),
        ("estimate", "--offload cpu", "offload: found 'cpu', expected one of none, optimizer", "mean all?"),
        ("estimate", "--trainer nobody9", "trainer: found 'nobody9', expected plain or one of", "--help"),
        ("estimate", "--trainer huggingface", "trainer: found 'huggingface'", "mean hf-trainer"),
        ("estimate", "--host-memory 512 --offload all", "host-memory: found '512'", "Did you mean 512GiB?"),
        ("estimate", "--gpu h1000", "gpu: found 'h1000', expected a known accelerator", "H100"),
        ("estimate", "--gpu h1oo", "gpu: found 'h1oo', expected a known accelerator", "H100"),
        ("estimate", "--gpu h100 --gpus 8 --batch 3", "batch: found 3, expected a multiple of 8", "nearest is 8"),
        ("estimate", "--lora-dropout lots", "--lora-dropout: found 'lots', expected a number", ""),
        ("compare", "--methods lora,qlorra", "methods: found 'qlorra', expected one of lora", "mean qlora"),
        ("compare", "--ranks 8,many", "ranks: found 'many', expected a whole number", ""),
        ("compare", "--host-memory none", "host-memory: found 'none', expected bytes above 0", ""),
        ("calibrate", "--step-time 1 --tokens-per-s 5", "tokens-per-s: found 5.0, expected nothing beside step-time",
         ""),
        ("calibrate", "--tokens-per-s 5k", "--tokens-per-s: found '5k', expected a number", "Did you mean 5000?"),
        ("calibrate", "--peak 5 --peak-of reserved", "peak: found '5', expected bytes above 0", "mean 5GiB?"),
        ("simulate", "--quantize int3", "quantize: found 'int3', expected one of none, nf4", "mean int8?"),
        ("simulate", "--rank -3", "--rank: found '-3', expected a whole number", ""),
        ("simulate", "--gpus 2", "No such option '--gpus'", ""),
    ],
)  # fmt: skip
def test_a_wrong_command_is_one_error(command: str, options: str, starts: str, names: str) -> None:
    message = said(command, options)
    assert message.startswith(starts) and names in message and len(message) < 400, message


def test_a_calibration_that_is_added_to_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("hello", encoding="utf-8")
    assert said("calibrate", f"--step-time 1 --add-to {path}").startswith("add-to: found ")
    assert said("plan", f"--calibration {path}").startswith("calibration: found ")


def test_bytes_are_bytes_where_a_program_says_them() -> None:
    """A number typed without its unit is a slip; one that a program hands over is bytes."""
    plan = planner.estimate("gpt2", offload="all", host_memory=64)
    assert "host-memory-short" in {w.code for w in plan.warnings}
    with pytest.raises(InputError, match="Did you mean 64GiB"):
        planner.estimate("gpt2", offload="all", host_memory="64")
