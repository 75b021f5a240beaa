"""What plans keep in the host's memory, by hand and by each plan in full, and a limit on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import planner
from planner.cli.main import cli
from planner.errors import InputError
from planner.estimator import load
from planner.search.screen import screen
from planner.search.select import Chooser
from planner.search.space import Limits

from .small import search_of

QWEN = "Qwen/Qwen2.5-0.5B"
ASKED: dict[str, Any] = {
    "tokens": "1M", "gpu": "rtx 4090", "gpus": (1, 2), "ranks": (8, 64), "layers": "mlp", "quantize": "none",
    "micro_batch": (1, 4), "batch": 8, "seq_len": 512, "checkpointing": "layer", "alternatives": 50, "frontier": 50,
}  # fmt: skip


def test_bytes_by_hand() -> None:
    """Under DDP each of two GPUs keeps AdamW's two float32 states of every parameter, with all the base in 16 bits
    too; alone it is once as much."""
    best = planner.plan(QWEN, **{**ASKED, "ranks": 8, "gpus": 2, "sharding": "ddp"}, offload="optimizer").best
    assert best.host.node_bytes == 2 * 2 * 4 * best.params
    both = planner.plan(QWEN, **{**ASKED, "ranks": 8, "gpus": 1}, offload="all").best
    assert both.host.node_bytes == pytest.approx(2 * 4 * both.params + 2 * load(QWEN)[1].params, rel=1e-3)
    assert planner.plan(QWEN, **ASKED).best.host.node_bytes == 0


@pytest.mark.parametrize("more", [{}, {"optimizer": "paged-adamw-8bit"}, {"gpu": "t4,l4"}], ids=str)
def test_every_cell_takes_what_its_plan_in_full_does(more: dict[str, Any]) -> None:
    options = {**ASKED, "ranks": (1, 2, 8, 16, 64), "sharding": "ddp,fsdp,zero3", "layers": "mlp,all", **more}
    cells = screen(*search_of(QWEN, {**options, "offload": "none,optimizer,parameters,all"}))
    chooser = Chooser(cells)
    for cell in np.flatnonzero(np.isfinite(cells.over))[::7]:
        assert chooser.host[cell] == pytest.approx(chooser.full(int(cell)).host.node_bytes, abs=64), cell


def test_a_limit_leaves_out_what_needs_more_and_binds() -> None:
    options = {**ASKED, "gpus": 1, "offload": "none,optimizer,all"}
    free = planner.plan(QWEN, **options)
    plans = [*free.alternatives, *free.frontier, free.best]
    most = max(plan.host.node_bytes for plan in plans)
    within = planner.plan(QWEN, **options, host_memory=most - 1)
    kept = [within.best, *within.alternatives, *within.frontier]
    assert all(plan.host.node_bytes < most for plan in kept) and within.feasible < free.feasible
    assert within.limits.host_bytes == most - 1 and "host-memory" in {item.kind for item in within.rejected}
    assert planner.plan(QWEN, **options, host_memory=most).best == free.best
    assert Limits(host_bytes=most).fit == "expected"


def test_without_the_limit_a_better_plan_is_said() -> None:
    """The host holds the states too, so that a rank of 64 needs more there than one of 1."""
    asked: dict[str, Any] = {**ASKED, "ranks": (1, 64), "offload": "all", "gpus": 1}
    small = planner.plan(QWEN, **{**asked, "ranks": 1}).best.host.node_bytes
    found = planner.plan(QWEN, **asked, host_memory=small)
    assert found.best.choice.rank == 1
    assert [item.limit for item in found.binding] == ["host-memory"]
    assert found.binding[0].message.startswith("With more of the host's memory")


def test_too_little_for_any_plan_is_an_error_with_the_least_that_does() -> None:
    asked: dict[str, Any] = {**ASKED, "offload": "all"}
    with pytest.raises(InputError, match="Nothing fits: the nearest is rank 8") as caught:
        planner.plan(QWEN, **asked, host_memory="100MB")
    assert caught.value.field == "host-memory"
    least = caught.value.expected.removeprefix("at least ")
    assert planner.plan(QWEN, **asked, host_memory=least).best.host.node_bytes > 0


def test_what_is_taken_is_said_where_nobody_says_how_much_there_is() -> None:
    codes = {w.code for w in planner.plan(QWEN, **ASKED, offload="all").warnings}
    assert "host-memory-unknown" in codes
    enough = planner.plan(QWEN, **ASKED, offload="all", host_memory="1TB")
    assert not {w.code for w in enough.warnings} & {"host-memory-unknown", "host-memory-short"}
    assert enough.options()["host_memory"] == "1TB" and "--host-memory 1TB" in enough.command()


def test_the_page_shows_it() -> None:
    page = CliRunner().invoke(
        cli,
        ["plan", "-m", QWEN, "--tokens", "1M", "--gpu", "rtx 4090", "--gpus", "1", "--offload", "all",
         "--host-memory", "64GiB"],
    ).output  # fmt: skip
    assert "of 64.0 GiB a machine" in page


@pytest.mark.parametrize("value", ["0", "many", -1, "64 parsecs"])
def test_odd_sizes_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="host-memory"):
        planner.plan(QWEN, **ASKED, host_memory=value)
    with pytest.raises(InputError, match="host-memory"):
        planner.compare(QWEN, host_memory=value)
