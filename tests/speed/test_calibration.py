"""Calibration: what a measured step moves and narrows, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from planner import hardware
from planner.adapter import AdapterSpec, adapt
from planner.cli.main import cli
from planner.errors import InputError
from planner.estimator import load
from planner.setup import Setup
from planner.speed import Calibration, Measurement, step_time
from planner.speed.calibration import read
from planner.speed.efficiency import constants
from planner.speed.kinds import KINDS, MEASURED

ARCH = load("meta-llama/Llama-3.2-1B")[1]
PAIRS = adapt(ARCH, AdapterSpec(16))
H100 = hardware.cluster(hardware.find("h100"))


def measured(ratio: float, **change: Any) -> Measurement:
    values = {
        "gpu": "H100 SXM 80GB", "trainer": "plain", "log_ratio": math.log(ratio), "thin_share": 0.1,
        "measured_s": ratio, "predicted_s": 1.0,
    }  # fmt: skip
    return Measurement(**{**values, **change})


def test_a_measurement_moves_and_narrows_the_interval() -> None:
    setup = Setup(micro_batch=4)
    before = step_time(ARCH, setup, H100, PAIRS)
    after = step_time(ARCH, setup, H100, PAIRS, calibration=Calibration((measured(1.3),)))
    assert before.seconds < after.seconds < 1.3 * before.seconds
    assert after.high / after.low < before.high / before.low
    many = step_time(ARCH, setup, H100, PAIRS, calibration=Calibration((measured(1.3),) * 50))
    assert many.seconds == pytest.approx(1.3 * before.seconds, rel=0.02)
    assert many.high / many.low < after.high / after.low


@pytest.mark.parametrize("ratio", [2.0, 0.8])
def test_the_update_by_hand(ratio: float) -> None:
    """Posterior of a normal mean: prior N(0, b^2), one y with noise v: mean y b^2 / (b^2 + v). A new set-up's
    deviations are `measured` times as wide as it says, on either side no wider than before."""
    spread = replace(constants().any_spread, below=0.1, above=9.0)
    noise, prior = spread.noise(0.1), spread.between
    shift, below, above = Calibration((measured(ratio),)).correction("H100 SXM 80GB", "plain", 0.3, spread)
    assert shift == pytest.approx(prior**2 / (prior**2 + noise) * math.log(ratio))
    left = prior**2 * noise / (prior**2 + noise)
    assert above == pytest.approx(spread.measured * math.sqrt(left + spread.noise(0.3)))
    assert below == pytest.approx(math.sqrt(0.1**2 + spread.noise(0.3))) and below < above
    assert Calibration().correction("x", "y", 0.0, spread) == pytest.approx(
        (0.0, math.hypot(spread.below, spread.within), math.hypot(spread.above, spread.within))
    )


@given(st.floats(-1.0, 1.5), st.floats(0.0, 1.0))
def test_the_mode_of_the_posterior_is_its_mode(log: float, thin: float) -> None:
    """Found by search over the density itself: no b is likelier than the shift."""
    spread = constants().any_spread
    shift = Calibration((measured(math.exp(log), thin_share=thin),)).correction(
        "H100 SXM 80GB", "plain", 0.0, spread
    )[0]

    def density(b: float) -> float:
        return -((b / spread.between) ** 2) - (log - b) ** 2 / spread.noise(thin)

    assert all(density(b) <= density(shift) + 1e-9 for b in np.linspace(-1.2, 1.7, 59))


@pytest.mark.parametrize("kind", KINDS)
def test_a_measured_step_never_widens(kind: str) -> None:
    spread = constants().spreads[kind]
    for thin in (0.0, 0.3, 0.9):
        before = Calibration().correction("H100 SXM 80GB", "plain", thin, spread)
        after = Calibration((measured(1.4),)).correction("H100 SXM 80GB", "plain", thin, spread)
        assert after[1] <= before[1] and after[2] <= before[2]


def test_a_step_says_whose_interval_it_has() -> None:
    """Its ends are those of its kind's deviations, by hand; after a measured step those of measured ones."""
    setup = Setup(micro_batch=4)
    step = step_time(ARCH, setup, H100, PAIRS)
    rests = constants().grounds["one"]
    assert (
        step.interval() == {**vars(rests), "coverage": 0.9}
        and rests.judged >= 10
        and (rests.held or 0) >= 0.9
    )
    thin = sum(step.parts[name] for name in ("host", "communication", "bubble")) / step.seconds
    spread = constants().spreads["one"]
    high = 1.645 * math.sqrt(spread.above**2 + spread.within**2 + (spread.thin * thin) ** 2)
    assert math.log(step.high / step.seconds) == pytest.approx(high)
    own = step_time(ARCH, setup, H100, PAIRS, calibration=Calibration((measured(1.1),)))
    assert own.grounds == constants().grounds[MEASURED] and (own.grounds.held or 0) >= 0.9
    small = step_time(ARCH, Setup(seq_len=1024), H100, PAIRS)
    assert small.grounds.kind == "small"


def test_a_calibration_holds_for_its_trainer_and_gpu() -> None:
    elsewhere = Calibration((measured(1.5, gpu="T4"),))
    step = step_time(ARCH, Setup(), H100, PAIRS, calibration=elsewhere)
    assert step.seconds == step_time(ARCH, Setup(), H100, PAIRS).seconds
    assert [notice.code for notice in step.notices] == ["calibration-elsewhere"]
    far = step_time(ARCH, Setup(), H100, PAIRS, calibration=Calibration((measured(5.0),)))
    assert [notice.code for notice in far.notices] == ["calibration-far"]


def test_a_calibration_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    mine = Calibration((measured(1.2), measured(1.1, description="batch 4")))
    path.write_text(json.dumps(mine.to_dict()), encoding="utf-8")
    assert read(path) == mine


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"lora_plan_calibration": 2}',
        '{"lora_plan_calibration": 1}',
        '{"lora_plan_calibration": 1, "measurements": [3]}',
        '{"lora_plan_calibration": 1, "measurements": [{"gpu": "T4"}]}',
    ],
)
def test_an_odd_calibration_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="calibration"):
        read(path)
    with pytest.raises(InputError, match="calibration"):
        read(tmp_path / "none.json")


def test_the_command_says_what_is_not_kept_and_what_keeps_it(tmp_path: Path) -> None:
    asked = ["calibrate", "-m", "gpt2", "--peak", "3GiB", "--peak-of", "allocated"]
    last = CliRunner().invoke(cli, asked).output
    assert "not kept: 1 measured peak; -o FILE keeps that" in last
    path = tmp_path / "mine.json"
    kept = CliRunner().invoke(cli, [*asked, "-o", str(path)]).output
    assert "not kept" not in kept and f"wrote {path}" in kept.replace("\n", "")
