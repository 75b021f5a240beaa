"""Command lines that are printed, parsed by the command line itself."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.choices import CHOICES
from planner.cli.main import cli
from planner.commands import _typed, command_of
from planner.planning import USUAL
from planner.remedies import CHANGES, LAYOUT, typed

FLAGS = (
    "autocast", "tf32", "quantize_experts", "upcast_small", "optimizer_in_backward", "lengths_vary", "vllm_sleep",
    "expandable_segments", "gradients_late", "prepared_wide", "frozen_towers",
    "outputs_held",
)  # fmt: skip
NUMBERS = ("lora_dropout", "vllm_memory", "price")
NAMES = ("gpu", "trainer", "calibration", "host_memory")
# Names of options of `estimate` with values that are no default: words are not checked where they are parsed.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{name: st.booleans() for name in FLAGS},
    **{name: st.sampled_from([0.25, 0.5, 1e-3]) for name in NUMBERS},
    **dict.fromkeys(NAMES, st.sampled_from(["h100", "trl", "a b's.json"])),
    **{name: st.sampled_from(CHOICES[name]) for name in USUAL if name in CHOICES},
    **{
        name: st.integers(9, 10**6)
        for name in USUAL
        if name not in (*FLAGS, *NUMBERS, *NAMES) and name not in CHOICES
    },
}


MORE = {"report": ("-o", "out.pdf")}


def parsed(line: str) -> dict[str, Any]:
    """The options of a printed line as the command line reads them."""
    words = shlex.split(line, comments=True)
    assert words[0] == "lora-plan"
    # A command keeps the help option of its first context.
    program = click.Context(cli, **cli.context_settings)
    command = cli.get_command(program, words[1])
    assert command
    return command.make_context(words[1], words[2:], parent=program).params


@settings(max_examples=25, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES), st.sampled_from(["estimate", "report"]))
def test_what_is_printed_is_read_as_it_was_said(options: dict[str, Any], command: str) -> None:
    said = {**options, "trainer": options.get("trainer", "trl")}
    found = parsed(command_of("gpt2", said, command, more=MORE.get(command, ())))
    assert found["model"] == "gpt2"
    for name, value in options.items():
        assert found[name] == value, name


def test_every_option_of_an_estimate_is_one_of_its_command() -> None:
    command = cli.get_command(click.Context(cli), "estimate")
    assert command
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {f"--{name.replace('_', '-')}" for name in _typed() - {"variant"}} <= flags


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", [*FLAGS, "trust_remote_code", "use_rslora"])
def test_flags_that_are_off_have_a_form_or_are_left_out(name: str, value: bool) -> None:
    for command in ("estimate", "report", "export trl-sft"):
        line = command_of("gpt2", {name: value, "trainer": "trl"}, command, more=MORE.get(command, ()))
        assert parsed(line)[name] is value


def test_a_plan_prints_what_the_command_line_has() -> None:
    """A trainer's own TF32 switched off, and a field that only programs can say."""
    asked: dict[str, Any] = {"tokens": "1M", "gpu": "l4", "gpus": 1, "precision": "fp32", "quantize": "none"}
    found = planner.plan("gpt2", **asked, trainer="trl", tf32=False, eval_batch=2, reentrant=True)
    read = parsed(found.command())
    assert read["tf32"] is False and read["eval_batch"] == 2
    assert "reentrant=True, which only Python takes" in found.command()
    assert "--eval-batch" not in found.command(command="export peft")
    for plan in (found.best, *found.alternatives):
        assert parsed(found.command(plan, "export peft"))["rank"] == plan.choice.rank


def test_remedies_are_options_of_the_command_line() -> None:
    for changes in (dict(CHANGES), dict.fromkeys(LAYOUT, 2)):
        said = {name: 1 if value is None else value for name, value in changes.items()}
        assert parsed(f"lora-plan estimate {typed(said)}").keys() >= said.keys()
