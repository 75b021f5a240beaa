"""What the intervals of memory and time rest on, as pages and reports show it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click.testing import CliRunner

from planner import estimate, units
from planner.cli.main import cli
from planner.memory.interval_kinds import KIND_WORDS
from planner.report.gather import gather, moment
from planner.report.make import compose, render
from planner.speed.efficiency import constants
from planner.speed.kinds import KIND_WORDS as TIME_WORDS
from planner.speed.kinds import MEASURED
from planner.web import views
from planner.web.answer import answer
from planner.web.state import Choices

LLAMA = "meta-llama/Llama-3.1-8B"
OPTIONS: dict[str, Any] = {"seq_len": 1024, "gpu": "h100"}
METHODS = ("lora", "qlora", "full")


def words(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def intervals() -> list[dict[str, Any]]:
    found = estimate(LLAMA, **OPTIONS).memory
    assert found
    return [found[method]["interval"] for method in METHODS]


def test_the_web_page_says_what_the_interval_rests_on() -> None:
    found = answer(Choices(model=LLAMA, **OPTIONS))
    shown = words(views.memory(found))
    for within in intervals():
        assert f"{within['held']:.0%} of {within['judged']} sources" in shown
        assert f"{within['runs']} figures of {within['sources']} sources" in shown
        assert KIND_WORDS[within["kind"]] in shown
    lora = intervals()[0]
    assert f"such intervals hold {lora['held']:.0%} of {lora['judged']} sources" in words(
        views.headline(found)
    )


def test_the_web_page_narrows_the_interval_by_a_trainer() -> None:
    unnamed, named = (answer(Choices(model=LLAMA, trainer=name, **OPTIONS)) for name in ("", "axolotl"))
    assert "narrower by naming the trainer" in words(views.memory(unnamed))
    assert "narrower by" not in words(views.memory(named))
    assert named.plan and named.plan["memory"]["lora"]["interval"]["kind"] == "alone-lora"
    assert "--trainer axolotl" in named.command and "trainer=axolotl" in named.query


def test_a_report_says_what_the_interval_rests_on() -> None:
    document = compose(gather(LLAMA, {**OPTIONS, "rank": 8}), moment(), True)
    shown = render(document, "md", "a4", moment()).decode("utf-8")
    for within in intervals():
        assert f"{units.percent(within['held'])} of {within['judged']} sources" in shown
        assert f"{within['runs']} figures of {within['sources']} sources" in shown
        assert KIND_WORDS[within["kind"]] in shown
    lora = intervals()[0]
    assert f"such intervals hold {units.percent(lora['held'])} of {lora['judged']} sources" in shown


TIMED: dict[str, Any] = {"seq_len": 4096, "gpu": "h100", "tokens": 10_000_000}


def timed() -> tuple[str, str, str]:
    """Whose interval the time has, how often it holds, and what it rests on, from the JSON."""
    found = estimate(LLAMA, **TIMED).time
    assert found
    within = found["interval"]
    assert within["kind"] == "one" and 0.9 <= within["held"] <= 1
    held = f"{units.percent(within['held'])} of {within['judged']} sources"
    return TIME_WORDS[within["kind"]], held, f"{within['runs']} steps of {within['sources']} sources"


def test_the_web_page_says_whose_interval_a_time_has() -> None:
    found = answer(Choices(model=LLAMA, gpu="h100", seq_len=4096, tokens="10M"))
    kind, _, _ = timed()
    within = (found.plan or {})["time"]["interval"]
    held = f"such intervals hold {within['held']:.0%} of {within['judged']} sources"
    shown = words(views.time_and_cost(found))
    assert kind in shown and held in shown
    assert held in words(views.headline(found))


def test_a_report_says_whose_interval_a_time_has() -> None:
    document = compose(gather(LLAMA, {**TIMED, "rank": 8}), moment(), True)
    shown = render(document, "md", "a4", moment()).decode("utf-8")
    for said in timed():
        assert said in shown


@pytest.mark.parametrize(
    "command",
    [
        ["estimate", "-m", LLAMA, "--gpu", "h100", "--seq-len", "4096"],
        ["compare", "-m", LLAMA, "--gpu", "h100", "--seq-len", "4096"],
        ["plan", "-m", LLAMA, "--gpu", "h100", "--gpus", "1", "--tokens", "10M", "--seq-len", "4096"],
        ["calibrate", "-m", LLAMA, "--gpu", "h100", "--seq-len", "4096", "--step-time", "1.5"],
    ],
)
def test_pages_say_whose_interval_a_time_has(command: list[str]) -> None:
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    shown = " ".join(done.output.split())
    grounds = constants().grounds[MEASURED if command[0] == "calibrate" else "one"]
    assert done.exit_code == 0 and TIME_WORDS[grounds.kind] in shown
    assert f"{grounds.held:.0%} of {grounds.judged}" in shown
