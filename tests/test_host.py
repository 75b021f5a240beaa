"""What is kept in the host's memory, by hand, and whether a machine has so much."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

import planner
from planner.cli.main import cli
from planner.errors import InputError
from planner.estimator import load

QWEN = "Qwen/Qwen2.5-0.5B"
RUN: dict[str, Any] = {"rank": 8, "layers": "attention,mlp", "seq_len": 512, "adapter_dtype": "float32"}


def entry(**options: Any) -> tuple[dict[str, Any], list[str]]:
    plan = planner.estimate(QWEN, **{**RUN, **options})
    assert plan.memory and plan.memory["lora"]
    return plan.memory["lora"]["host"], [w.code for w in plan.warnings if w.code.startswith("host-memory")]


def test_bytes_of_a_machine_by_hand() -> None:
    """AdamW's two float32 states of every parameter of the adapter; with all, the base in 16 bits too. Every GPU of a
    machine keeps its own copy under DDP, and eight of sixteen are in one machine."""
    plan = planner.estimate(QWEN, **RUN)
    states, base = 2 * 4 * plan.adapter.params, 2 * load(QWEN)[1].params
    none, said = entry()
    assert none["node_bytes"] == 0 and not said
    found, said = entry(offload="optimizer")
    assert (found["per_gpu_bytes"], found["gpus"], found["node_bytes"]) == (states, 1, states)
    assert found["fits"] is None and found["memory_bytes"] is None and said == ["host-memory-unknown"]
    found, _ = entry(offload="all")
    assert found["node_bytes"] == pytest.approx(base + states, rel=1e-3)
    found, _ = entry(offload="optimizer", gpus=16, sharding="ddp")
    assert (found["gpus"], found["node_bytes"]) == (8, 8 * states)
    found, _ = entry(offload="optimizer", gpus=16, sharding="ddp", gpus_per_node=4)
    assert (found["gpus"], found["node_bytes"]) == (4, 4 * states)


@pytest.mark.parametrize("offload", ["optimizer", "parameters", "all"])
def test_it_fits_where_the_machine_has_so_much(offload: str) -> None:
    needed = entry(offload=offload)[0]["node_bytes"]
    for room, fits, code in ((needed, True, []), (needed - 1, False, ["host-memory-short"])):
        found, said = entry(offload=offload, host_memory=room)
        assert (found["memory_bytes"], found["fits"], said) == (room, fits, code)
    short = planner.estimate(QWEN, **RUN, offload=offload, host_memory=1)
    assert short.warnings[0].code == "host-memory-short"


def test_the_page_shows_it() -> None:
    asked = ["estimate", "-m", QWEN, "--offload", "all"]
    page = CliRunner().invoke(cli, asked).output
    assert "on the host, a machine" in page and "--host-memory" in page and "fits there" not in page
    page = CliRunner().invoke(cli, [*asked, "--host-memory", "512GiB"]).output
    assert "fits there" in page and "--host-memory" not in page
    assert "on the host" not in CliRunner().invoke(cli, asked[:3]).output


@pytest.mark.parametrize("value", ["0", "many", -1, True, "12G?"])
def test_odd_sizes_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="host-memory"):
        planner.estimate(QWEN, **RUN, host_memory=value)
