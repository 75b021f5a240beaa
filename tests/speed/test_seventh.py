"""What the seventh gathering of published steps taught of products: a T4's float32, and workstation cards."""

from __future__ import annotations

import numpy as np
import pytest

from planner.hardware import find, matmul_flops_per_s
from planner.speed import roofline
from planner.speed.efficiency import constants, reach_of
from tools.speed_later import SEVENTH, blind, later, said_of
from tools.speed_reach import reached

from .gathered import agreement


def test_what_it_is_since_is_said() -> None:
    for adapters, words in ((False, "mended since: "), (True, "(LoRA and QLoRA ")):
        now = [said_of(c) for c in later(SEVENTH) if c.stated and (c.method != "full" or not adapters)]
        shown = f"{np.median([one.error for one in now]):.1%}, {np.mean([one.inside for one in now]):.0%}"
        assert f"{words}{shown}" in agreement("seventh").split("float32 on a T4")[1]


def test_what_products_reach() -> None:
    """A T4 half of float32's peak as measured, a third of float16's; workstation cards less than GeForce's."""
    assert reach_of("T4", "float32") == pytest.approx(4.17 / 8.1, abs=1e-3)
    assert reach_of("T4", "float16") == reach_of("T4", "bfloat16") == reach_of("T4") == 0.369
    assert reach_of("A100 SXM 80GB", "float32") == reach_of("A100 SXM 80GB")
    known = constants()
    made = known.efficiency
    t4, v100 = (find(name) for name in ("t4", "v100-32gb"))
    for form in ("float32", "tfloat32"):
        assert roofline.matmul_share(t4, form, made) == pytest.approx(made.matmul * reach_of("T4", "float32"))
    assert roofline.matmul_share(v100, "float32", made) == made.matmul * reach_of(v100.name)
    assert roofline.matmul_share(find("rtx-3090"), "float32", made) == made.matmul_cards
    ada = find("rtx-6000-ada")
    assert (
        roofline.matmul_share(ada, "bfloat16", made) == made.matmul * reach_of(ada.name) < made.matmul_cards
    )
    smaller, larger = (
        roofline.matmul_share(card, "bfloat16", made) * matmul_flops_per_s(card, "bfloat16")
        for card in (find("rtx-5000-ada"), ada)
    )
    assert (
        smaller < larger and roofline.matmul_share(find("rtx-a6000"), "bfloat16", made) == made.matmul_cards
    )
    assert known.reached_float32 == {
        one["accelerator"]: one["share"] for one in reached() if one.get("format") == "float32"
    }


def test_two_runs_on_a_t4_since() -> None:
    """The two set-ups in float32: 1.38 and 1.48 times what was measured at first, within an eighth of it now."""
    cases = [c for c in later(SEVENTH) if c.gpu == "t4" and "--precision fp32" in c.options]
    first = blind(SEVENTH)
    ratios = [[said.seconds / said.measured for said in (first[c.number], said_of(c))] for c in cases]
    assert [round(then, 2) for then, _ in ratios] == [1.38, 1.48]
    assert [round(now, 2) for _, now in ratios] == [1.03, 1.11]
