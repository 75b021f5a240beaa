"""Bits three ways, and those of reinforcement learning against every outcome of a group."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import dataset, facts, information
from planner.errors import InputError

RATES = st.floats(0.001, 0.999)


def entropy(chances: list[float]) -> float:
    return -sum(p * math.log2(p) for p in chances if p > 0)


@given(RATES, st.integers(1, 8))
def test_a_group_s_bits_are_those_of_its_advantages(p: float, size: int) -> None:
    """Every outcome of a group, its centred advantages, and the entropy of those."""
    chances: dict[tuple[float, ...], float] = {}
    for rewards in itertools.product((0, 1), repeat=size):
        mean = sum(rewards) / size
        advantages = tuple(round(reward - mean, 9) for reward in rewards)
        won = sum(rewards)
        chances[advantages] = chances.get(advantages, 0.0) + p**won * (1 - p) ** (size - won)
    nothing = chances.get((0.0,) * size, 0.0)
    found = information.group_of(p, size)
    assert found.bits == pytest.approx(entropy(list(chances.values())), abs=1e-9)
    assert found.informative == pytest.approx(1 - nothing, abs=1e-9)
    alone = entropy([nothing, 1 - nothing])
    assert found.bits_informative == pytest.approx(found.bits - alone, abs=1e-8)
    # Centring makes more values of advantage, never more bits than the rewards have.
    assert found.bits <= size * information.entropy(p) + 1e-12 <= size + 1e-9


@pytest.mark.parametrize(("p", "bits"), [(0.5, 1.0), (0.1, 0.469), (0.01, 0.0808), (0.0, 0.0), (1.0, 0.0)])
def test_the_realistic_figure_is_the_entropy_of_the_pass_rate(p: float, bits: float) -> None:
    assert information.policy_gradient(1000, p).bits_per_unit == pytest.approx(bits, abs=5e-4)


def test_groups_that_all_win_or_lose_teach_nothing() -> None:
    for p in (0.0, 1.0):
        assert information.policy_gradient(3200, p, 16).bits == 0
        assert information.group_of(p, 16).informative == 0
    assert information.policy_gradient(3200, 0.5, 1).bits == 0  # alone, its advantage is 0
    assert information.group_of(0.5, 64).bits == pytest.approx(64, rel=1e-3)


def test_rates_that_differ_teach_less_than_their_mean() -> None:
    mixed = information.by_success_rates(1000, {0.0: 50, 1.0: 50}, 8)
    assert mixed.bits == 0 and mixed.groups is not None and mixed.groups.informative == 0
    some = information.by_success_rates(1000, {0.1: 1, 0.9: 3})
    assert some.bits_per_unit == pytest.approx(information.entropy(0.1))


def test_measured_bits_are_nats_over_ln_2() -> None:
    found = information.measured(1000, math.log(2))
    assert (found.bits, found.basis) == (1000, "measured")
    for bad in (-1, math.inf, math.nan):
        with pytest.raises(InputError, match="nats per token"):
            information.measured(1, bad)


def rows(path: Path, count: int = 50) -> Path:
    path.write_text(
        "".join(json.dumps({"text": f"sentence {i} about {i * i} things"}) + "\n" for i in range(count))
    )
    return path


def test_three_ways_side_by_side(tmp_path: Path) -> None:
    found = dataset(rows(tmp_path / "rows.jsonl"), loss=1.4, near_duplicates=False).to_dict()
    info, units = found["information"], found["distinct_loss_tokens"]
    assert info["rule"]["bits"] == units
    assert info["measured"]["bits"] == pytest.approx(units * 1.4 / math.log(2))
    assert (info["kind"], info["basis"], info["units"]) == ("sft", "measured", units)
    assert info["bits"] == pytest.approx(info["measured"]["bits"])
    assert 0 < info["compression"]["bits"] < 8 * found["loss_bytes"]
    assert info["compression"]["bound"] == "upper"


def test_the_loss_of_a_run_record_is_the_first_epoch_s(tmp_path: Path) -> None:
    data, record = rows(tmp_path / "rows.jsonl"), tmp_path / "run.json"
    config = {"kind": "sft", "examples": 8, "batch": 4}
    record.write_text(json.dumps({"config": config, "curve": [3.0, 2.0, 0.5, 0.1]}))
    found = dataset(data, run=record).to_dict()["information"]["measured"]
    assert found["nats_per_token"] == 2.5  # two steps of four see the eight examples for the first time
    record.write_text(json.dumps({"config": {"kind": "rl"}, "curve": [0.1]}))
    with pytest.raises(InputError, match="kind sft"):
        dataset(data, run=record)
    record.write_text(json.dumps({"config": config, "curve": [3.0, None]}))
    with pytest.raises(InputError, match="diverged"):
        dataset(data, run=record)
    for bad in ("", "[]", "{}", '{"curve": []}'):
        record.write_text(bad)
        with pytest.raises(InputError, match="run record"):
            dataset(data, run=record)
    with pytest.raises(InputError, match="Give one of them"):
        dataset(data, run=record, loss=1.0)


def test_a_record_that_validate_wrote_can_be_given(tmp_path: Path) -> None:
    """The shipped ones."""
    data, record = rows(tmp_path / "rows.jsonl"), tmp_path / "run.json"
    with (facts.data_dir() / "runs" / "records.jsonl").open(encoding="utf-8") as lines:
        kept = next(found for line in lines if (found := json.loads(line))["config"]["kind"] == "sft")
    record.write_text(json.dumps(kept))
    found = dataset(data, run=record).to_dict()["information"]["measured"]["nats_per_token"]
    config, curve = kept["config"], kept["curve"]
    steps = config["examples"] // config["batch"] if config["examples"] else len(curve)
    stated = kept["measured"].get("first_epoch_loss", sum(curve[:steps]) / len(curve[:steps]))
    assert found == pytest.approx(stated)
    assert stated == pytest.approx(sum(curve) / len(curve), rel=0.1)  # every tenth step's, as packed


def test_prompts_with_their_own_pass_rates(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    told = [0.0, 0.5, 0.5, 1.0]
    path.write_text(
        "".join(
            json.dumps({"prompt": f"What is {i} squared?", "answer": i * i, "pass_rate": p}) + "\n"
            for i, p in enumerate(told)
        )
    )
    found = dataset(path, group_size=16, near_duplicates=False)
    assert (found.kind, found.information.kind, found.information.units) == ("rl", "rl", 64)
    assert found.information.bits == pytest.approx(2 * information.group_of(0.5, 16).bits)
    assert found.information.groups is not None
    assert found.information.groups.informative == pytest.approx(0.5, abs=1e-4)
    assert dataset(
        path, group_size=16, success_rate=0.1, near_duplicates=False
    ).information.bits == pytest.approx(4 * information.group_of(0.1, 16).bits)
    assert found.to_dict()["information"]["rule"] is None


def test_a_preference_pair_says_at_most_one_bit(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"{i}?", "chosen": f"yes {i}", "rejected": f"no {i}"}) + "\n"
            for i in range(9)
        )
    )
    found = dataset(path, near_duplicates=False).to_dict()
    assert (found["kind"], found["examples"], found["sequences"]) == ("preference", 9, 18)
    assert found["information"]["pairs"]["bits"] == 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss_on": "user"}, "loss-on"), ({"batch": 0}, "batch"), ({"seq_len": -1}, "seq-len"),
        ({"loss": -1}, "loss"), ({"success_rate": 2}, "success-rate"),
        ({"format": "mesages"}, "Did you mean messages"),
        ({"eos": True, "tokenizer": "nowhere/"}, "tokenizer"), ({"chat_template": "x.jinja"}, "chat-template"),
        ({"encoding": "klingon"}, "encoding"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_one_sentence(
    options: dict[str, object], words: str, tmp_path: Path
) -> None:
    from planner.errors import PlannerError

    with pytest.raises(PlannerError, match=words):
        dataset(rows(tmp_path / "rows.jsonl"), **options)  # type: ignore[arg-type]
