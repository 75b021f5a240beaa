"""From a step to a run's time and cost, with arithmetic by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import facts, hardware
from planner.cost import cost_of, list_price, own_price, run_time
from planner.errors import InputError
from planner.hardware import arithmetic_of, cluster, matmul_flops_per_s, peak_flops_per_s
from planner.speed import StepTime
from planner.speed.kinds import Grounds

H100 = facts.accelerator("h100")
RESTS = Grounds("one", 19, 220, 13, 0.97)


def step(seconds: float = 2.0, tokens: int = 1000, gpus: int = 4) -> StepTime:
    return StepTime(
        seconds, seconds / 2, seconds * 2, {"matmul": seconds}, tokens, gpus, 1e15, 1e15, 0.9, RESTS
    )


def test_a_run_by_hand() -> None:
    """2,500 tokens at 1,000 a step are 3 steps of 2 s on 4 GPUs: 24 GPU-seconds; at 3 dollars an hour 2 cents."""
    run = run_time(step(), 2500)
    assert (run.steps, run.seconds, run.low, run.high) == (3, 6.0, 3.0, 12.0)
    cost = cost_of(run, own_price(3.0))
    assert (
        cost.usd == pytest.approx(0.02)
        and cost.low == pytest.approx(0.01)
        and cost.high == pytest.approx(0.04)
    )
    assert run.to_dict()["gpu_hours"] == pytest.approx(24 / 3600)
    assert run.to_dict()["step"]["mfu"] == pytest.approx(1e15 / 2 / 4 / 1e15)


def test_without_data_there_is_a_step_and_no_run() -> None:
    run = run_time(step(), None)
    assert run.seconds is run.low is run.high is run.steps is None
    assert run.to_dict()["step"]["seconds"] == 2.0
    assert cost_of(run, own_price(3.0)).usd is None


@given(st.floats(0.01, 100), st.floats(1.01, 10), st.integers(1, 10**9))
def test_cost_is_linear_in_price_and_grows_with_tokens(price: float, factor: float, tokens: int) -> None:
    run, more = run_time(step(), tokens), run_time(step(), tokens + 1000)
    one, other = (cost_of(run, own_price(p)).usd for p in (price, price * factor))
    assert one and other == pytest.approx(one * factor)
    assert (cost_of(more, own_price(price)).usd or 0) > one
    assert run.steps == max(1, math.ceil(tokens / 1000))


def test_list_prices_are_each_providers_newest() -> None:
    price = list_price(H100)
    assert price and price.low <= price.usd_per_gpu_hour <= price.high and price.dates
    newest: dict[str, Any] = {}
    for entry in facts.prices_of("h100", "on-demand"):
        newest.setdefault(entry.provider, entry)
    assert price.providers == len(newest)
    assert (price.low, price.high) == (
        min(p.usd_per_gpu_hour for p in newest.values()),
        max(p.usd_per_gpu_hour for p in newest.values()),
    )
    assert list_price(facts.accelerator("H20")) is None


@pytest.mark.parametrize("bad", [0, -1.0, True, "2", math.nan, math.inf, 1e6])
def test_an_odd_price_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="price"):
        own_price(bad)


# Machines


def test_a_clusters_links() -> None:
    nvlink, cards = cluster(H100, 16), cluster(facts.accelerator("l40s"), 4)
    assert (nvlink.per_node, nvlink.link_bytes_per_s, nvlink.network_bytes_per_s) == (8, 450e9, 50e9)
    assert nvlink.switched and not cards.switched and cards.link_bytes_per_s == 32e9
    bridged = facts.accelerator("rtx 3090")
    assert cluster(bridged, 2).link_bytes_per_s == 56.25e9
    assert cluster(bridged, 4).link_bytes_per_s == 32e9  # a bridge joins two
    assert cluster(bridged, 2, link="pcie").link_bytes_per_s == 32e9


@pytest.mark.parametrize("bad", [0, -2, 1.5, True])
def test_odd_counts_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="gpus"):
        cluster(H100, bad)
    with pytest.raises(InputError, match="gpus-per-node"):
        cluster(H100, 8, per_node=bad)


def test_rates_by_format() -> None:
    assert matmul_flops_per_s(H100, "bfloat16") == 989e12
    assert matmul_flops_per_s(H100, "float32") == 67e12
    t4 = facts.accelerator("t4")
    assert peak_flops_per_s(t4, "bfloat16") is None and arithmetic_of(t4, "bfloat16") == "float32"
    assert matmul_flops_per_s(t4, "float16") == 65e12
    with pytest.raises(InputError, match="gpu: found 'H1000'"):
        hardware.find("H1000")
