"""What fits into an adapter: the article's worked cases, a known data set's, and data read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner import capacity, estimate, facts, regret
from planner.cli.main import cli
from planner.errors import InputError

LLAMA = "meta-llama/Llama-3.1-8B"
MOE = "Qwen/Qwen3-30B-A3B"
# Parameters per unit of rank, by hand: 32 layers of q, k, v, o, gate, up, down, and 4096 + 128256 of the unembedding.
LINEAR, UNEMBEDDING = 2_621_440, 132_352


@pytest.mark.parametrize(
    ("rank", "without", "with_unembedding"), [(1, 0.78, 0.82), (2, 1.56, 1.64), (8, 6.24, 6.56)]
)
def test_alpaca(rank: int, without: float, with_unembedding: float) -> None:
    """3.36 million completion tokens (Wang et al. 2023, Table 1: 64.6 an example, 52,002 examples)."""
    for layers, expected in (("all-linear", without), ("all", with_unembedding)):
        found = estimate(LLAMA, rank=rank, layers=layers, dataset="alpaca").capacity
        assert found.params_per_unit == pytest.approx(expected, abs=0.005)


def test_tulu_3() -> None:
    """290 million: one parameter a token takes rank 110.6 without the unembedding and 105.3 with it."""
    for layers, rank, ratio in (("all-linear", 111, 2.31), ("all", 106, 2.43)):
        found = estimate(
            LLAMA, rank=256, layers=layers, dataset="tulu-3-sft-mixture", bits_per_param=1
        ).capacity
        assert (found.required_rank, found.basis) == (rank, "measured")
        assert found.params_per_unit == pytest.approx(ratio, abs=0.005)


def test_openthoughts_is_too_much_for_any_rank_in_use() -> None:
    found = estimate(LLAMA, rank=256, dataset="openthoughts3")
    assert found.capacity.params_per_unit == pytest.approx(0.04, abs=0.001)
    assert found.capacity.verdict == "exceeded"
    assert found.regret is not None and found.regret.regret.value > 0.05 and found.regret.regret.extrapolated


@pytest.mark.parametrize(
    ("bits", "layers", "rank", "holds"),
    [
        (1, "all", 1, False), (1, "all-linear", 1, False), (1, "all", 2, True), (1, "all-linear", 2, False),
        (2, "all", 1, True), (2, "all-linear", 1, False),
    ],
)  # fmt: skip
def test_r1_zero_the_layer_set_decides(bits: int, layers: str, rank: int, holds: bool) -> None:
    """10,400 steps x 32 prompts x 16 samples, 1 bit each, against 2 x 2,621,440 = 5,242,880 and 2 x 2,753,792."""
    found = estimate(
        LLAMA, rank=rank, layers=layers, dataset="deepseek-r1-zero", bits_per_param=bits
    ).capacity
    params = rank * (LINEAR + (UNEMBEDDING if layers == "all" else 0))
    assert (bits * params >= 10_400 * 32 * 16) == holds
    assert (found.verdict != "exceeded") == holds
    assert (found.required_rank is not None and found.required_rank <= rank) == holds


def test_math_has_room_sixteenfold_in_rank_1() -> None:
    found = estimate(LLAMA, rank=1, layers="all-linear", dataset="math-rl-article")
    assert found.information is not None and found.information.bits == 320_000
    assert 1 / (found.capacity.utilisation or 1) == pytest.approx(16.4, abs=0.05)
    assert found.capacity.verdict == "ample" and found.regret is None


def test_prompts_are_sampled_in_groups() -> None:
    once = estimate(LLAMA, dataset="gsm8k").information
    grouped = estimate(LLAMA, dataset="gsm8k", group_size=8, success_rate=0.5).information
    assert once is not None and (once.units, once.bits) == (7473, 7473)
    assert grouped is not None and grouped.units == 8 * 7473 and grouped.groups is not None
    # All alike in 2 of 2^8 outcomes, which become one: 8 - 2/256 bits a group, by hand.
    assert grouped.bits == pytest.approx(7473 * (8 - 2 / 256))


@given(st.integers(1, 10**12), st.floats(0.1, 8))
def test_the_required_rank_s_interval_holds_it(bits: int, per_param: float) -> None:
    known = capacity.bits_per_param()
    found = capacity.required_ranks((bits, bits, bits), lambda rank: 1000 * rank, known)
    assert found.low is not None and found.value is not None and found.high is not None
    assert found.low <= found.value <= found.high
    own = capacity.required_ranks(
        (bits, bits, bits), lambda rank: 1000 * rank, capacity.bits_per_param(per_param)
    )
    assert own.low == own.value == own.high
    assert own.value is not None and (own.value - 1) * 1000 * per_param < bits


def test_the_counted_bits_are_the_sourced_ones() -> None:
    known = facts.capacities()
    assert known["knowledge"].bits_per_param == capacity.BITS_PER_PARAM == 2
    assert known["memorisation"].bits_per_param == 3.6
    assert all(fact.low <= fact.bits_per_param <= fact.high for fact in known.values())
    for bad in (0, -1, 100, True, "2"):
        with pytest.raises(InputError, match="bits-per-param"):
            capacity.bits_per_param(bad)  # type: ignore[arg-type]


def test_curves_cover_every_layer_set_and_convention() -> None:
    found = estimate(MOE, tokens="31M", curves=True).capacity.curves
    assert found is not None
    names = {(curve.layers, curve.experts) for curve in found}
    conventions = {"scaled", "per-expert", "shared-outer", "peft", "none"}
    assert {experts for _, experts in names} == conventions
    assert {layers for layers, experts in names if experts == "scaled"} == {
        "attention", "mlp", "unembedding", "all", "all-linear",
    }  # fmt: skip
    shared = next(c for c in found if (c.layers, c.experts) == ("mlp", "shared-outer"))
    assert shared.params_per_rank == 14_450_688  # tinker-cookbook's table
    for curve in found:
        assert [p.params for p in curve.points] == sorted(p.params for p in curve.points)
        alone = estimate(MOE, rank=32, layers=curve.layers, experts=curve.experts, tokens="31M")
        point = next(p for p in curve.points if p.rank == 32)
        assert (point.params, point.verdict) == (alone.adapter.params, alone.capacity.verdict)
        assert curve.required is not None and curve.required.value == alone.capacity.required_rank
        assert alone.regret is not None and point.regret == alone.regret.regret


def test_the_price_of_a_rank_is_the_law_s() -> None:
    """The law's constants by hand: 0.581 % x ratio^-0.895, and the noise of 0.085 %."""
    found = estimate(LLAMA, rank=8, tokens=30_826_598, batch=128, seq_len=1024).to_dict()["regret"]
    ratio = 8 * (LINEAR + UNEMBEDDING) / 30_826_598
    assert found["value"] == pytest.approx(0.00581 * ratio**-0.895, rel=5e-3)
    assert found["low"] < found["value"] < found["high"] and not found["within_noise"]
    by_rank = {entry["rank"]: entry for entry in found["ranks"]}
    assert by_rank[256]["within_noise"] and by_rank[8]["value"] == found["value"]
    left = found["departure"]
    tokens = 8 * (LINEAR + UNEMBEDDING) / (0.581 / 0.085) ** (1 / 0.895)
    assert left["loss_tokens"] == pytest.approx(tokens, rel=5e-3)
    assert (
        left["step"] == round(left["loss_tokens"] / (128 * 1024))
        or abs(left["step"] * 131_072 - tokens) < 131_072
    )
    assert left["within_data"] and left["step_low"] <= left["step"] <= left["step_high"]
    assert found["leave_one_out"]["law"] < found["leave_one_out"]["rule_of_thumb"]


def test_the_price_is_shown_in_words() -> None:
    shown = CliRunner(env={"COLUMNS": "90"}).invoke(
        cli,
        ["estimate", "-m", LLAMA, "--tokens", "31M", "--rank", "8", "--batch", "128", "--seq-len", "1024"],
    )
    assert shown.exit_code == 0, shown.output
    assert "+0.79% loss (0.46 to 1.4)" in shown.output and "within noise" in shown.output
    assert "about step" in shown.output
    plan = CliRunner(env={"COLUMNS": "100"}).invoke(
        cli, ["plan", "-m", LLAMA, "--tokens", "1M", "--gpus", "1"]
    )
    assert plan.exit_code == 0 and "within noise" in plan.output, plan.output


def rows(path: Path) -> Path:
    said = [
        [
            {"role": "user", "content": f"Say {i}"},
            {"role": "assistant", "content": f"number {i * i} and so on"},
        ]
        for i in range(40)
    ]
    lines = [json.dumps({"messages": turns}) for turns in (*said, said[0])]
    path.write_text("\n".join([*lines, "broken"]) + "\n")
    return path


def test_an_estimate_reads_a_file(tmp_path: Path) -> None:
    data = rows(tmp_path / "rows.jsonl")
    found = estimate(LLAMA, data=data, tokenizer=None).to_dict()
    report = found["data"]
    assert (report["examples"], report["broken"], report["duplicates_exact"]) == (41, 1, 1)
    assert found["workload"]["dataset"] == str(data)
    assert found["information"]["units"] == report["distinct_loss_tokens"]
    assert found["information"]["bits_low"] < found["information"]["bits"] < found["information"]["bits_high"]
    assert {"broken-rows", "tokens-from-bytes"} <= {note["code"] for note in found["warnings"]}
    once = planner.dataset(data)
    assert estimate(LLAMA, data=once).to_dict()["information"] == found["information"]


def test_the_model_s_own_tokenizer_is_used_and_a_length_cuts(tmp_path: Path) -> None:
    from tests.dataset.tokenizers_of import write

    folder = write(tmp_path / "model", "chatml-marked")
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 4, "vocab_size": 700}
    (folder / "config.json").write_text(json.dumps(config))
    data = rows(tmp_path / "rows.jsonl")
    whole = estimate(folder, data=data, nats=0.9, batch=4).to_dict()
    report = whole["data"]
    assert report["tokenizer"] == str(folder) and report["mask"] == "generation"
    assert (whole["information"]["basis"], whole["workload"]["total_tokens"]) == (
        "measured",
        report["tokens"],
    )
    cut = estimate(folder, data=data, seq_len=20, batch=4).to_dict()
    kept = cut["data"]
    assert kept["truncated"] == 41 and "data-truncated" in {note["code"] for note in cut["warnings"]}
    assert cut["workload"]["total_tokens"] == 41 * 20
    assert cut["information"]["units"] < whole["information"]["units"]
    assert cut["information"]["units"] <= kept["loss_tokens"] - kept["truncated_loss_tokens"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "x.jsonl", "tokens": 5}, "Give one of them"), ({"tokenizer": "x"}, "--data beside it"),
        ({"group_size": 4, "tokens": 5}, "give --episodes"), ({"nats": 1.0}, "supervised data"),
        ({"nats": 1.0, "dataset": "gsm8k"}, "RL run"),
        ({"group_size": 4, "dataset": "alpaca"}, "supervised training"),
        ({"data": "nowhere.jsonl"}, "expected a file"),
    ],
)  # fmt: skip
def test_ways_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        estimate(LLAMA, **options)


def test_the_law_is_shown_with_its_error_on_models_left_out() -> None:
    for moe in (False, True):
        factors = regret.law_for(moe).leave_one_out
        assert factors["law"] < factors["rule_of_thumb"] < factors["no_law"]
