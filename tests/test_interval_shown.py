"""What memory's interval rests on, as the web page and reports show it."""

from __future__ import annotations

import re
from typing import Any

from planner import estimate, units
from planner.memory.interval_kinds import KIND_WORDS
from planner.report.gather import gather, moment
from planner.report.make import compose, render
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
