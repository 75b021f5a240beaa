"""Steps and time of samples that are padded and not packed."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import compare, estimate, export, plan, review
from planner.dataset.lengths import expected_longest, padding_efficiency, records
from planner.memory.constants import constants
from planner.memory.overhead import KEPT_OF_RECORDS, times_kept
from planner.pacing import by_data
from planner.samples import Samples
from planner.setup import Setup

QWEN = "Qwen/Qwen3-8B"
RUN: dict[str, Any] = {"gpu": "rtx4090", "trainer": "unsloth", "quantize": "nf4", "batch": 8, "seq_len": 512}


def test_the_longest_of_two_by_hand() -> None:
    """Of 10 and 30 tokens, equally often: both are short one time in four, 0.25 x 10 + 0.75 x 30 = 25."""
    assert expected_longest({10: 4, 30: 4}, 2) == 25
    assert padding_efficiency({10: 4, 30: 4}, 2) == pytest.approx(20 / 25)
    found = Samples(8, 20.0, {10: 4, 30: 4})
    assert [found.padded(n, 512) for n in (1, 2, 1000)] == [20, 25, 30]
    assert found.padded(1000, 24) == 24 and Samples(8, 20.0).padded(4, 512) == 20
    assert Samples(8, 20.0, {38: 4, 114: 4}, 10 / 38).padded(2, 512) == 25  # counted in bytes


@given(
    counts=st.dictionaries(st.integers(1, 400), st.integers(1, 9), min_size=1, max_size=8),
    batch=st.integers(1, 6),
)
def test_the_longest_as_drawn(counts: dict[int, int], batch: int) -> None:
    drawn = random.Random(0)
    population = [length for length, count in counts.items() for _ in range(count)]
    seen = fmean(max(drawn.choices(population, k=batch)) for _ in range(400))
    assert expected_longest(counts, batch) == pytest.approx(
        seen, abs=0.2 * (max(counts) - min(counts)) + 1e-6
    )


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_records_are_those_of_all_orders(lengths: list[int]) -> None:
    """One sample a micro-step: the mean over every order of the lengths that were longest so far, but the last."""
    sums = []
    for order in permutations(lengths):
        longest: list[int] = []
        for length in order:
            longest += [length] if not longest or length > longest[-1] else []
        sums.append(sum(longest[:-1]) / max(lengths))
    assert records(Counter(lengths), 1) == pytest.approx(fmean(sums))


def test_records_by_hand() -> None:
    """A sample of 10 tokens and three of 30: the short one comes first one time in four. Of two at a time it is alone
    one time in sixteen; of cut lengths that are all alike there is none."""
    samples = Samples(4, 25.0, {10: 1, 30: 3})
    assert samples.records(100)[:2] == pytest.approx((1 / 4 / 3, 1 / 16 / 3)) and samples.records(10)[0] == 0
    assert len(samples.records(100)) == 9 and Samples(4, 25.0).records(100) == ()
    setup = Setup(packing="padded", micro_batch=2)
    known = by_data(setup, samples, {})
    assert known.lengths_vary and known.length_records == samples.records(setup.seq_len)
    assert times_kept(known, constants()) == pytest.approx(KEPT_OF_RECORDS / 16 / 3)
    three = times_kept(replace(known, micro_batch=3), constants())
    assert three == pytest.approx(KEPT_OF_RECORDS * (known.length_records[1] + known.length_records[2]) / 2)
    most = times_kept(replace(known, micro_batch=999), constants())
    assert most == KEPT_OF_RECORDS * known.length_records[-1]
    assert not by_data(replace(setup, seq_len=10), samples, {}).lengths_vary
    alone: tuple[tuple[Setup, dict[str, Any]], ...] = (
        (replace(setup, packing="full"), {}), (setup, {"lengths_vary": False}),
    )  # fmt: skip
    assert all(by_data(own, samples, said) is own for own, said in alone)
    assert by_data(replace(setup, packing="full", lengths_vary=True), samples, {}).length_records
    grown = replace(known, expandable_segments=True)
    assert times_kept(grown, constants()) == 0


def test_an_estimate_keeps_what_its_data_leave(tmp_path: Path) -> None:
    """The same by an estimate, a comparison and a plan; more of evenly spread lengths than of those that are cut."""
    found = {}
    for name, most in (("even", 2000), ("cut", 300)):
        rows = [{"text": "word " * (10 + 9 * number)} for number in range(64)]  # up to 760 tokens
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run: dict[str, Any] = {
            **RUN, "seq_len": most, "batch": 2, "data": data, "packing": "padded", "trainer": "trl-0.21",
            "gpu": "h200",
        }  # fmt: skip
        own = estimate(QWEN, **run)
        assert own.memory
        memory = own.memory["qlora"]
        assert memory["setup"]["lengths_vary"] and memory["interval"]["kind"] == "open"
        column = compare(QWEN, methods="qlora", **run).columns[0].memory
        assert (column.reserved_bytes, column.high) == (memory["reserved_bytes"], memory["high"])
        alike = estimate(QWEN, **run, lengths_vary=False).memory["qlora"]  # type: ignore[index]
        assert alike["allocated_bytes"] == memory["allocated_bytes"]
        found[name] = (memory["reserved_bytes"] - alike["reserved_bytes"]) / most
    assert 0 < 2 * found["cut"] < found["even"]
    best = plan(
        QWEN, data=data, packing="padded", gpu="h200", gpus=1, ranks=8, layers="mlp", trainer="trl-0.21"
    )
    assert best.best.memory.setup.length_records and "--length" not in best.command()
    again = estimate(**best.options()).memory
    assert again and again["lora"]["high"] == best.best.memory.high


def test_samples_that_are_not_packed_make_a_step_for_each_batch_of_them() -> None:
    """Alpaca's 52,002 samples of 4,804,985 tokens: 6,501 steps of 8, where packed they are 1,174."""
    padded = estimate(QWEN, dataset="alpaca", packing="padded", **RUN)
    packed = estimate(QWEN, dataset="alpaca", packing="packed", **RUN)
    assert padded.time and packed.time
    assert padded.time["steps"] == 6501 and packed.time["steps"] == 1174
    assert padded.time["seq_len"] == 92 and packed.time["seq_len"] is None
    again = estimate(QWEN, dataset="alpaca", packing="padded", **{**RUN, "seq_len": 92})
    assert again.time
    assert padded.time["step"]["seconds"] == again.time["step"]["seconds"]
    longer = estimate(QWEN, dataset="alpaca", packing="padded", **{**RUN, "seq_len": 4096})
    assert longer.time and longer.time["seconds"] == padded.time["seconds"]
    assert longer.time["high"] > padded.time["high"]  # where all are padded to 4,096
    column = compare(QWEN, dataset="alpaca", packing="padded", methods="qlora", **RUN).columns[0]
    assert column.time and (column.time.steps, column.time.seconds) == (6501, padded.time["seconds"])
    assert "padding-not-counted" in {each.code for each in padded.warnings}
    assert (
        padded.learning_rate.factors
        == estimate(QWEN, dataset="alpaca", packing="padded", **{**RUN, "seq_len": 92}).learning_rate.factors
    )  # of as many steps


def test_a_files_lengths_say_how_much_is_padding(tmp_path: Path) -> None:
    rows = [{"text": "word " * (4 if number % 2 else 76)} for number in range(64)]  # 20 and 380 bytes
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = estimate(QWEN, data=tmp_path / "a.jsonl", packing="padded", **RUN)
    assert found.time and found.workload.examples == 64 and found.time["steps"] == 8
    longest = 20 * 0.5**8 + 380 * (1 - 0.5**8)
    assert found.time["seq_len"] == pytest.approx(longest / 3.8, abs=2)
    assert "padding-not-counted" not in {each.code for each in found.warnings}


def test_short_samples_are_said_to_be_taken_as_packed() -> None:
    def told(**options: Any) -> bool:
        plan = estimate(QWEN, **{**RUN, "seq_len": None, **options})
        return "taken-as-packed" in {each.code for each in plan.warnings}

    assert told(dataset="alpaca") and not told(dataset="alpaca", packing="full")
    assert not told(tokens="5M") and not told(dataset="alpaca", seq_len=128)
    assert not told(dataset="alpaca", packing="padded")


def test_a_comparison_says_of_its_steps_what_an_estimate_does() -> None:
    def told(**options: Any) -> set[str]:
        of_steps = {"taken-as-packed", "few-steps"}
        found = compare(QWEN, methods="lora,qlora", gpu="h100", batch=8, **options).warnings
        assert len({each.message for each in found}) == len(found)
        return of_steps & {each.code for each in found}

    assert told(dataset="alpaca") == {"taken-as-packed"} and told(dataset="alpaca", packing="full") == set()
    assert told(tokens="36k", seq_len=512) == {"few-steps"} and told(tokens="42k", seq_len=512) == set()


def test_a_run_of_few_steps_is_said_to_be_one(tmp_path: Path) -> None:
    def told(tokens: str, batch: int) -> list[str]:
        found = estimate(QWEN, tokens=tokens, **{**RUN, "batch": batch})
        return [each.message for each in found.warnings if each.code == "few-steps"]

    assert told("4k", 8) == [
        "The whole run is 1 step, too few to learn much: smaller batches or more epochs."
    ]
    assert told("36k", 8) and not told("42k", 8)  # 9 and 11 steps of 4,096 tokens
    best = plan(QWEN, tokens="30k", gpu="h100", gpus=1, ranks=8, layers="mlp")
    assert "few-steps" in {each.code for each in best.warnings}
    assert "1 step, too few" in export("trl-sft", QWEN, tokens="30k", layers="attention,mlp").text


def test_a_config_without_packing_has_its_samples_steps() -> None:
    config = {"model_name_or_path": QWEN, "dataset_name": "tatsu-lab/alpaca", "use_peft": True, "lora_r": 16,
              "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "learning_rate": 2e-4}  # fmt: skip
    found = review(config, format="trl-sft", gpu="h100", dataset="alpaca").plan
    assert found.time and found.time["steps"] == -(-3 * 52002 // 16)  # its Trainer's 3 epochs
