"""The interval of memory: by kind of set-up, wider where less is known, and what it is made of."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import planner
from planner.errors import FactError
from planner.facts import read_data
from planner.memory import constants as memory_constants
from planner.memory import with_open_lengths
from planner.memory.constants import KINDS
from planner.memory.overhead import kind_of
from planner.moments import MemoryEstimate
from planner.running import running
from tools.interval_fit import HARDER_THAN, Ratio, held_by_others, rule_of, share_of, widened

LLAMA = "meta-llama/Llama-3.1-8B"


def memory(**options: Any) -> MemoryEstimate:
    return running(LLAMA, {"rank": 8, "seq_len": 1024, **options}).memory()


SETUPS: dict[str, dict[str, Any]] = {
    "alone": {},
    "open": {"lengths_vary": True},
    "shared": {"gpus": 4, "sharding": "zero3", "batch": 4},
    "shared-open": {"gpus": 4, "sharding": "zero3", "batch": 4, "lengths_vary": True},
    "split": {"gpus": 4, "tensor_parallel": 4},
    "offloaded": {"gpus": 4, "sharding": "zero3", "batch": 4, "offload": "all"},
}


def test_a_set_up_tells_its_kind() -> None:
    assert list(SETUPS) == list(KINDS)
    for kind, options in SETUPS.items():
        found = memory(**options)
        assert kind_of(found.setup) == kind
        assert found.within == memory_constants.constants().of_kind(kind)


def test_nobody_said_how_long_sequences_are() -> None:
    """What is exact stays, and the interval is that of measurements whose lengths are not stated."""
    for options in ({}, {"gpus": 4, "sharding": "ddp", "batch": 4}):
        typed, untyped = memory(**options, seq_len=2048), memory(**options, seq_len=None)
        assert (untyped.moments, untyped.per_gpu_bytes) == (typed.moments, typed.per_gpu_bytes)
        assert untyped.low < typed.low < typed.per_gpu_bytes < typed.high < untyped.high
        assert untyped == with_open_lengths(typed)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(["lora", "full"]), st.sampled_from([64, 512]),
    st.sampled_from(["none", "layer"]),
)  # fmt: skip
def test_ends_lie_around_the_estimate(kind: str, method: str, seq_len: int, checkpointing: str) -> None:
    options = {**SETUPS[kind], "method": method, "seq_len": seq_len, "checkpointing": checkpointing}
    found = memory(**options)
    assert 0 < found.low <= found.per_gpu_bytes <= found.high
    opened = with_open_lengths(found)
    assert opened.low <= found.low and opened.high >= found.high
    assert (opened.moments, opened.cached_bytes) == (found.moments, found.cached_bytes)


def test_harder_kinds_have_no_narrower_interval() -> None:
    known = memory_constants.constants()
    for harder, easier in HARDER_THAN.items():
        for name in easier:
            (low, high), (least, most) = known.bounds(harder), known.bounds(name)
            assert low <= least and high >= most


def test_estimate_says_what_its_interval_rests_on() -> None:
    plan = planner.estimate(LLAMA, seq_len=512, gpu="h100")
    known = memory_constants.constants().of_kind("alone")
    assert plan.memory and plan.memory["lora"]["interval"] == {
        "kind": "alone", "coverage": 0.9, "sources": known.sources, "runs": known.runs, "held": known.held,
        "length": "typed",
    }  # fmt: skip
    assumed = planner.estimate(LLAMA, gpu="h100").memory
    assert assumed and assumed["lora"]["interval"]["kind"] == "open"
    assert assumed["lora"]["interval"]["length"] == "assumed"
    packed = planner.estimate(LLAMA, seq_len=512, packing="packed").memory
    assert packed and packed["lora"]["interval"]["length"] == "packed"


def test_the_longest_of_the_data_tells_whether_a_length_is_reached(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    rows = [json.dumps({"text": "word " * (10 + number)}) for number in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    files: dict[str, Any] = {"data": tmp_path / "data.jsonl", "tokenizer": tmp_path / "tokenizer.json"}
    lengths = {}
    for seq_len in (32, 2048):
        plan = planner.estimate(LLAMA, **files, seq_len=seq_len)
        assert plan.memory
        lengths[seq_len] = plan.memory["lora"]["interval"]["length"]
        noted = [each.message for each in plan.warnings if each.code == "shorter-than-length"]
        assert bool(noted) == (seq_len == 2048)
    assert lengths == {32: "reached", 2048: "shorter"}
    assert "the data's longest has" in noted[0]


@pytest.mark.parametrize("seq_len", [None, 512])
def test_a_plan_that_surely_fits_has_its_upper_end_below_the_gpu(seq_len: int | None) -> None:
    options: dict[str, Any] = {"tokens": "1M", "gpu": "h100", "gpus": 1, "ranks": 8, "seq_len": seq_len}
    found = planner.plan(LLAMA, **options, fit="sure").best
    assert found.memory.high <= found.memory_bytes
    assert found.memory.within is not None
    assert found.memory.within.kind == ("open" if seq_len is None else "alone")


def made(sources: int, spread: float, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> list[Ratio]:
    """Measurements of sources that are each off by as much as they are, and their rows a little more."""
    draw = random.Random(seed)
    found = []
    for kind in kinds:
        for source in range(sources):
            off = draw.gauss(0, spread)
            for _ in range(draw.choice((1, 2, 8))):
                at = math.exp(off + draw.gauss(0, spread / 3))
                found.append(Ratio(f"{kind} {source}", kind, at, at * draw.uniform(0.9, 1)))
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.02, 0.5))
def test_rule_has_its_properties(seed: int, sources: int, spread: float) -> None:
    found = made(max(sources, 6), spread, ("alone", "open"), seed) + made(
        sources, spread, tuple(k for k in KINDS if k not in ("alone", "open")), seed
    )
    rule = rule_of(found)
    for kind in KINDS:
        low, high = rule.bounds(kind)
        assert 0 < low <= 1 <= high
        for easier in HARDER_THAN.get(kind, ()):
            assert rule.widths[kind] >= rule.widths[easier]
    # A source that publishes the same figures again says nothing new: sources count the same.
    assert rule_of([*found, *[each for each in found if each.origin == "open 0"]]) == rule


def test_of_fewer_sources_an_interval_is_wider() -> None:
    """Of the same largest error, by what order statistics say: ln 10 / ln 2 of one source, nothing from nine."""
    shape = (0.3, 0.5)

    def width(number: int) -> float:
        return widened([Ratio(f"s{n}", "split", 1.2, 1.2) for n in range(number)], shape)

    most = math.log(1.2) / 0.5
    assert width(1) == pytest.approx(most * math.log(10) / math.log(2))
    widths = [width(number) for number in range(1, 12)]
    assert widths == sorted(widths, reverse=True)
    assert widths[8:] == pytest.approx([most] * 3)


def test_intervals_hold_sources_that_they_have_not_met() -> None:
    """Planted: sources of a known spread, as many new ones."""
    held = []
    for seed in range(12):
        rule = rule_of(made(8, 0.2, seed=seed))
        new = [replace(each, source=f"new {each.source}") for each in made(20, 0.2, seed=1000 + seed)]
        share = share_of([(each, rule.holds(each)) for each in new])
        assert share
        held.append(share.of_sources)
    assert 0.86 <= sum(held) / len(held) <= 0.97


def test_every_source_is_judged_by_all_others() -> None:
    """One source far off: an interval that it gave would hold it, those of the others do not."""
    found = [*made(5, 0.05, ("alone", "shared")), Ratio("far", "shared", 9.0, 9.0)]
    judged = {each.origin: held for each, held in held_by_others(found)}
    assert judged["far"] is False


def test_a_table_without_a_kind_is_refused() -> None:
    table = json.loads(read_data("compiled", "memory.json"))
    with pytest.raises(FactError, match="one interval of each kind"):
        memory_constants.parse({**table, "interval": table["interval"][1:]})
    for field, value in (("low", 1.2), ("held", 2), ("sources", 0)):
        entries = [{**table["interval"][0], field: value}, *table["interval"][1:]]
        with pytest.raises(FactError, match="alone"):
            memory_constants.parse({**table, "interval": entries})
