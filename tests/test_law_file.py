"""A fitted law in a file: `fit --out` writes it, `lr --law` and `estimate --law` use it, a damaged one is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from planner import estimate, lr
from planner.cli.main import cli
from planner.errors import InputError
from planner.learning_rate.fit import Estimate, FitResult, fit
from planner.learning_rate.fit.as_law import law_of, write_law
from planner.learning_rate.law_file import read_law
from planner.learning_rate.lookup import Point, evaluate
from tools.plant_sweep import Planted, best_rate, plant

LLAMA, QWEN, MISTRAL = "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B", "mistralai/Mistral-7B-v0.1"
LAW = Planted(models=8, noise=0.0, missing=0.0, model_pow={"llama": 0.5, "qwen3": 0.1}, m_lora=12.0)
ALL = "width_by_family+lora_width+rank"


@cache
def both() -> FitResult:
    return fit(plant(LAW, 0), form=ALL, draws=40)


def written(result: FitResult, folder: Path, name: str = "mine.json") -> Path:
    path = folder / name
    write_law(result, path, "sweep.csv")
    return path


def with_set_up(models: int = 6) -> pd.DataFrame:
    """LoRA runs of one family whose best rate is 4e-4 (batch / 64)^0.5 (steps / 500)^-0.2 (alpha / 16)^-0.4."""
    rows = []
    for number in range(models):
        for batch, steps, alpha in (
            (16, 250, 16),
            (64, 500, 16),
            (64, 1000, 32),
            (256, 250, 32),
            (16, 1000, 64),
        ):
            best = 4e-4 * (batch / 64) ** 0.5 * (steps / 500) ** -0.2 * (alpha / 16) ** -0.4
            for factor in (0.2, 0.45, 1.1, 2.2, 5.0):
                loss = 0.7 * (1 + 0.01 * math.log(factor) ** 2)
                rows.append({
                    "model": f"m{number}", "family": "llama", "hidden_size": 4096, "method": "lora", "rank": 16,
                    "lr": best * factor, "loss": loss, "batch": batch, "steps": steps, "alpha": alpha,
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_the_file_gives_the_planted_rates(tmp_path: Path) -> None:
    """Every cell's rate is the planted law's, by both methods, with the law's own multiplier instead of ten."""
    path = written(both(), tmp_path)
    law = read_law(path)
    assert set(law.methods) == {"lora", "full"} and law.lora_multiplier == pytest.approx(12, rel=2e-3)
    for family, width, rank in (("llama", 4096, 4), ("qwen3", 1024, 128), ("llama", 8192, 32)):
        for method in ("lora", "full"):
            found = evaluate(law, Point(family, width, rank, method))
            assert found.value == pytest.approx(best_rate(LAW, family, width, method, rank), rel=5e-3)
    for method, rank in (("lora", 4), ("full", 32)):
        advice = lr(LLAMA, law=path, method=method, rank=rank)
        assert advice.value == pytest.approx(best_rate(LAW, "llama", 4096, method, rank), rel=5e-3)
        assert advice.low is not None and advice.high is not None and advice.low < advice.value < advice.high
        assert advice.law == "mine" and not advice.factors


def test_the_file_gives_the_fit_s_rates_cell_by_cell(tmp_path: Path) -> None:
    for form in ("family+rank_sat", "width+rank", "constant", "width_by_family"):
        result = fit(plant(Planted(models=6, methods=("lora",)), 1), form=form, draws=20)
        law = read_law(written(result, tmp_path))
        for row in result.to_frame().itertuples():
            at = Point(str(row.family), int(row.hidden_size), int(row.rank))
            assert evaluate(law, at).value == pytest.approx(row.law_lr, rel=1e-9), form


def test_batch_steps_and_alpha_are_the_law_s_own(tmp_path: Path) -> None:
    path = written(fit(with_set_up(), form="batch+steps+alpha", draws=40), tmp_path)
    for batch, steps, alpha in ((64, 500, 16), (256, 250, 32)):
        advice = lr(LLAMA, law=path, rank=16, batch=batch, steps=steps, alpha=alpha)
        truth = 4e-4 * (batch / 64) ** 0.5 * (steps / 500) ** -0.2 * (alpha / 16) ** -0.4
        assert advice.value == pytest.approx(truth, rel=0.01) and not advice.factors
    far = lr(LLAMA, law=path, rank=16, batch=4096, steps=500)
    assert "Batch 4,096 lies outside of 16 to 256" in " ".join(note.message for note in far.extrapolates)
    notes = {note.code: note.message for note in lr(LLAMA, law=path).extrapolates}
    assert notes["learning-rate-batch"].startswith("No batch given: the rate is for batch 64")


def test_alpha_that_went_with_the_rank_and_what_was_swept_without_effect(tmp_path: Path) -> None:
    """Runs at alpha = 2 rank and two batches of one best rate: no factor where the plan is as the sweep was."""
    frame = plant(Planted(models=6, methods=("lora",), ranks=(8, 64), noise=0.0, model_pow={"llama": 0.0}), 0)
    frame = frame.assign(
        alpha=2.0 * frame["rank"], batch=np.where(frame["model"].isin(["m0", "m1"]), 32, 128)
    )
    path = written(fit(frame, form="rank", draws=20), tmp_path)
    assert not lr(LLAMA, law=path, rank=16, alpha=32, batch=64).factors
    moved = {one.name: one.value for one in lr(LLAMA, law=path, rank=16, alpha=8, batch=512).factors}
    assert moved == {
        "alpha": pytest.approx(2.0),
        "batch": pytest.approx(2.0),
    }  # roots of 32 / 8 and 512 / 128
    assert not estimate(LLAMA, rank=64, alpha=128, law=path).learning_rate.factors


def test_a_sweep_that_does_not_say_its_batch(tmp_path: Path) -> None:
    advice = lr(LLAMA, law=written(both(), tmp_path), batch=512, steps=50)
    assert not advice.factors
    notes = {note.code: note.message for note in advice.extrapolates}
    assert "not moved to batch 512" in notes["learning-rate-batch"]


def test_an_unknown_family_and_one_family_alone(tmp_path: Path) -> None:
    known, unknown = (lr(model, law=written(both(), tmp_path)) for model in (QWEN, MISTRAL))
    assert "learning-rate-family" in {note.code for note in unknown.extrapolates}
    assert "learning-rate-family" not in {note.code for note in known.extrapolates}
    one = written(fit(with_set_up(), draws=20), tmp_path, "one.json")
    assert lr(LLAMA, law=one).low is not None
    other = lr(MISTRAL, law=one)
    assert other.low is None and other.high is None and other.level is None and len(other.grid) == 5
    text = CliRunner().invoke(cli, ["lr", "-m", MISTRAL, "--law", str(one)])
    assert text.exit_code == 0 and "best rate within" not in text.output


def test_full_runs_alone_give_lora_by_the_multiplier_and_say_so(tmp_path: Path) -> None:
    law = Planted(methods=("full",), ranks=(), noise=0.0, missing=0.0, model_pow={"llama": 0.5, "qwen3": 0.1})
    path = written(fit(plant(law, 0), form="article", draws=40), tmp_path)
    full, lora = lr(LLAMA, law=path, method="full"), lr(LLAMA, law=path)
    assert (
        full.value == pytest.approx(best_rate(law, "llama", 4096, "full", 0), rel=5e-3) and not full.factors
    )
    assert lora.value == pytest.approx(10 * full.value) and [one.name for one in lora.factors] == ["method"]
    plan = estimate(LLAMA, law=path).learning_rate
    assert plan.value == pytest.approx(lora.value) and plan.full_finetune == pytest.approx(full.value)
    assert plan.low == pytest.approx(lora.low) and plan.high == pytest.approx(lora.high)


def test_estimate_takes_the_file_and_says_so(tmp_path: Path) -> None:
    path = written(both(), tmp_path)
    plan = estimate(LLAMA, rank=4, law=path)
    rate = plan.to_dict()["learning_rate"]
    assert {"value", "low", "high", "full_finetune", "law", "basis"} <= set(rate)
    assert rate["value"] == pytest.approx(lr(LLAMA, rank=4, law=path).value) and rate["law"] == "mine"
    assert rate["full_finetune"] == pytest.approx(lr(LLAMA, method="full", law=path).value)
    assert (
        rate["about"]["form"].startswith("lr = base")
        and "8 models of 2 families" in rate["about"]["fitted_on"]
    )
    assert any(use == "learning rate" and "sweep.csv" in source.title for use, source in plan.sources)


def test_a_fit_in_doubt_passes_its_doubt_on(tmp_path: Path) -> None:
    frame = plant(Planted(methods=("lora",), model_pow={"llama": 0.0, "qwen": 0.0}), 0)
    bound = fit(frame[frame["lr"] < 2.5e-4], form="constant", draws=20)
    advice = lr(LLAMA, law=written(bound, tmp_path))
    assert any("lower bound" in note.message for note in advice.extrapolates)
    assert (
        advice.low is None and advice.high is None
    )  # a bound says nothing of how far above it the best rate lies
    base = bound.terms["base_lora"]
    assert isinstance(base, Estimate) and base.low is None and base.high is None


def test_the_commands(tmp_path: Path) -> None:
    sweep, out = tmp_path / "sweep.csv", tmp_path / "mine.json"
    plant(LAW, 0).to_csv(sweep, index=False)
    run = CliRunner().invoke(cli, ["fit", str(sweep), "--form", ALL, "--draws", "40", "-o", str(out)])
    assert run.exit_code == 0 and f"wrote {out}" in run.output
    for command in ("lr", "estimate"):
        used = CliRunner().invoke(cli, [command, "-m", LLAMA, "--law", str(out), "--json"])
        assert used.exit_code == 0 and json.loads(used.output)["learning_rate"]["value"] > 0
    before = sorted(tmp_path.iterdir())
    for more in (["-o", "law.toml"], ["-o", str(tmp_path / "no" / "law.json")], ["--figure", "x.gif"]):
        with pytest.raises(InputError, match=r"ends in|folder that exists"):
            CliRunner().invoke(
                cli, ["fit", str(sweep), "--table", str(tmp_path / "t.csv"), *more], catch_exceptions=False
            )
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


def _law(data: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**data, "law": {**data["law"], **change}}


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another kind": (lambda d: {**d, "kind": "x"}, "holds no law"),
    "another schema": (lambda d: {**d, "schema": 99}, "schema: found 99"),
    "a list": (lambda d: [d], "holds no law"),
    "no base": (lambda d: _law(d, base=None), "base"),
    "a negative base": (lambda d: _law(d, base=-1.0), "base: found -1.0"),
    "a text for an exponent": (lambda d: _law(d, rank_pow="0.1"), "rank_pow: found '0.1'"),
    "an infinite spread": (lambda d: _law(d, spread={"known_family": math.inf}), "spread"),
    "a range of three": (lambda d: _law(d, ranges={"hidden_size": [1, 2, 3]}), "ranges.hidden_size"),
    "ranges as a list": (lambda d: _law(d, ranges=[1]), "ranges"),
    "no families": (lambda d: _law(d, families=[]), "families"),
    "families as a text": (lambda d: _law(d, families="llama"), "families"),
    "an unknown method": (lambda d: _law(d, methods=["qlora"]), "methods"),
    "an unknown field": (lambda d: _law(d, speed=1.0), "speed"),
    "a covariance of texts": (lambda d: _law(d, covariance={"base": {"base": "x"}}), "covariance.base"),
    "no source": (lambda d: _law(d, source={}), "source"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files_are_refused(case: str, tmp_path: Path) -> None:
    change, message = DAMAGE[case]
    path = written(both(), tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_law(path)


def test_no_file_no_json_and_no_law(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    for name, message in (
        (tmp_path / "x.json", "no JSON"),
        (tmp_path / "y.json", "No such file"),
        ("nolaw", "known"),
    ):
        with pytest.raises(InputError, match=message):
            lr(LLAMA, law=name)


def test_two_writings_are_the_same() -> None:
    assert law_of(both(), id="a", sweep="s.csv") == law_of(both(), id="a", sweep="s.csv")
