"""What the eighth gathering of published steps taught: laptops' cards run above their listed clocks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from planner.errors import FactError
from planner.facts import read_data
from planner.hardware import cluster, find, matmul_flops_per_s
from planner.setup import Setup
from planner.speed import roofline
from planner.speed.efficiency import clock_of, constants, parse
from planner.speed.step import work_of
from tests.speed.test_parts import ARCH
from tools.speed_later import EIGHTH, blind, later, said_of
from tools.speed_reach import reached

from .gathered import agreement


def test_what_it_is_since_is_said() -> None:
    for adapters, words in ((False, "mended since: "), (True, "(LoRA and QLoRA ")):
        now = [said_of(c) for c in later(EIGHTH) if c.stated and (c.method != "full" or not adapters)]
        shown = f"{np.median([one.error for one in now]):.1%}, {np.mean([one.inside for one in now]):.0%}"
        assert f"{words}{shown}" in agreement("eighth").split("laptops' cards")[1]


def test_what_laptops_reach() -> None:
    """Their owners' TFLOP/s (zzc0721/torch-performance-test-data), as far as GeForce cards reach theirs."""
    made = constants().efficiency
    for name, measured in (
        ("RTX 5080 Laptop", 77.11),
        ("RTX 4060 Laptop", 30.87),
        ("RTX 3070 Laptop", 33.14),
    ):
        card = find(name)
        rate = roofline.matmul_share(card, "bfloat16", made) * matmul_flops_per_s(card, "bfloat16")
        assert rate == pytest.approx(made.matmul_cards * measured * 1e12, rel=2e-3)
    assert clock_of("RTX 4090") == clock_of("A100 SXM 80GB") == clock_of("RTX 4070 Laptop") == 1.0
    assert constants().clocks == {
        one["accelerator"]: one["share"] for one in reached() if one.get("format") == "clock"
    }


def test_dequantising_runs_at_their_clock_too() -> None:
    """Bytes a second of a multiprocessor and listed clock, against a laptop's that nobody measured."""
    setup = Setup(method="qlora", quantize="nf4", seq_len=256)
    work, found = work_of(ARCH, setup), []
    for name in ("RTX 5080 Laptop", "RTX 4070 Laptop"):
        fast = replace(find(name), bandwidth_bytes_per_s=1e15)  # so that integer units are what it waits for
        known = roofline.rates(cluster(fast), work, constants().efficiency, setup)
        found.append(known.dequantise_bytes_per_s / ((fast.units or 0) * (fast.tensor_clock_hz or 0.0)))
    assert found[0] / found[1] == pytest.approx(77.11 / 46.1, rel=2e-3)


def test_a_laptop_since() -> None:
    """1.27 times what was measured at first, within a thirtieth of it now."""
    (case,) = [c for c in later(EIGHTH) if c.gpu == "RTX 5080 Laptop"]
    said = (blind(EIGHTH)[case.number], said_of(case))
    assert [round(one.seconds / one.measured, 2) for one in said] == [1.27, 0.97]


@pytest.mark.parametrize(
    ("form", "share", "words"),
    [("clock", 2.5, "up to 2"), ("", 1.2, "up to 1"), ("int8", 0.5, "expected float32 or clock")],
)
def test_shares_that_cannot_be(form: str, share: float, words: str) -> None:
    table = json.loads(read_data("compiled", "speed.json"))
    entry = {**table["reached"][0], "share": share, **({"format": form} if form else {})}
    with pytest.raises(FactError, match=words):
        parse({**table, "reached": [entry]})
