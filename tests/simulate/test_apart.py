"""Steps of several methods in processes of their own against the same in one, and what is told of them."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Any

import pytest
from rich.console import Console

from planner import process, workers
from planner.architecture.meta import watch
from planner.cli.simulate_page import Doing
from planner.errors import InputError
from planner.setup import Setup
from planner.simulate.apart import each

SETUPS = [Setup(), Setup(method="full"), Setup(method="qlora", quantize="nf4")]
forked = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


class Teller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, what: str) -> None:
        """Keep it."""
        self.told.append(what)

    def pause(self) -> None:
        """Keep that too."""
        self.told.append("(pause)")


@pytest.fixture
def of_the_command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process of the command's own with so many cores."""

    def made(cores: int, ends_soon: bool = True) -> None:
        monkeypatch.setattr(process, "ends_soon", ends_soon)
        monkeypatch.setattr(workers, "cores", lambda: cores)

    return made


@forked
@pytest.mark.parametrize("cores", [2, 3, 8])
def test_results_come_in_order_from_several_processes(cores: int, of_the_command: Any) -> None:
    of_the_command(cores)
    tell = Teller()
    found = each(lambda setup: (setup.method, os.getpid()), SETUPS, tell)
    assert [method for method, _ in found] == ["lora", "full", "qlora"]
    assert len({number for _, number in found}) == min(cores, 3) and found[0][1] == os.getpid()
    told = "running LoRA, full fine-tuning and QLoRA side by side"
    assert tell.told[0] == "(pause)" and set(tell.told[1:]) == {told}


def test_a_program_of_others_or_one_core_runs_them_in_turn(of_the_command: Any) -> None:
    for cores, ends_soon in ((8, False), (1, True)):
        of_the_command(cores, ends_soon)
        tell = Teller()
        assert set(each(lambda setup: os.getpid(), SETUPS, tell)) == {os.getpid()}
        assert tell.told == [
            *["(pause)"] * ends_soon, "running LoRA", "running full fine-tuning", "running QLoRA",
        ]  # fmt: skip


@forked
def test_what_fails_in_another_process_fails_here_as_alone(of_the_command: Any) -> None:
    """Even what cannot be handed from one process to another."""
    of_the_command(2)
    here = os.getpid()
    ran = []

    class LocalError(Exception):
        pass

    def fails(setup: Setup) -> int:
        ran.append(setup.method)
        if setup.method == "qlora":
            raise LocalError(lambda: None)
        return os.getpid()

    with pytest.raises(LocalError):
        each(fails, SETUPS, lambda _: None)
    assert ran == ["lora", "full", "qlora"]

    def fails_there(setup: Setup) -> int:
        if os.getpid() != here:
            raise InputError("method", setup.method, "another")
        return here

    assert each(fails_there, SETUPS, lambda _: None) == [here] * 3


@forked
def test_another_process_allows_a_build_as_long_as_this_one(of_the_command: Any) -> None:
    """The bound on a build is a share of the processor time before it, of which a forked process has none."""
    of_the_command(2)
    x = 0
    while process.spent_before_s + os.times().user < 1:
        x += 1
    before, there = each(lambda setup: process.spent_before_s, [SETUPS[0], SETUPS[2]], lambda _: None)
    assert before == 0.0 and there >= 1 > watch.LEAST_S / watch.SHARE_OF_BEFORE - 1


def test_a_pause_ends_the_thread_that_turns_until_something_is_told() -> None:
    among = frozenset(threading.enumerate())
    console = Console(file=io.StringIO(), force_terminal=True)
    with console.status("reading") as status:
        doing = Doing(status, among)
        assert set(threading.enumerate()) - among
        doing.pause()
        assert not set(threading.enumerate()) - among
        doing("running")
        assert set(threading.enumerate()) - among
    assert "running" in str(status.status)
