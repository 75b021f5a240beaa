"""The interval of memory: by kind of set-up, wider where less is known, and what it is made of."""

from __future__ import annotations

import csv
import io
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
from planner.memory.interval_kinds import KIND_WORDS, KINDS, NAMED, NARROWER, UNNAMED
from planner.memory.overhead import kind_of
from planner.moments import MemoryEstimate
from planner.running import running
from planner.trainers import find, known
from tools.compare_published_memory import judge, shipped
from tools.interval_chain import CANDIDATES, in_order, score_of, share
from tools.interval_fit import (
    CHOSEN,
    HARDER_THAN,
    STATED,
    Ratio,
    held_by_others,
    intervals_of,
    rule_of,
    share_of,
    width_of,
)
from tools.memory_calibrated import measured_interval
from tools.published_memory_later import RESTS_ON, estimate_of, first_ratios, stands_in
from tools.published_memory_told import SETS

ROOT = Path(__file__).resolve().parents[1]
LLAMA = "meta-llama/Llama-3.1-8B"


def memory(**options: Any) -> MemoryEstimate:
    return running(LLAMA, {"rank": 8, "seq_len": 1024, **options}).memory()


TRL = {"trainer": "trl"}
SETUPS: dict[str, dict[str, Any]] = {
    "alone-lora": TRL,
    "alone": {**TRL, "quantize": "nf4", "method": "qlora"},
    "open": {**TRL, "lengths_vary": True},
    "shared": {**TRL, "gpus": 4, "sharding": "zero3", "batch": 4},
    "shared-open": {**TRL, "gpus": 4, "sharding": "zero3", "batch": 4, "lengths_vary": True},
    "split": {**TRL, "gpus": 4, "tensor_parallel": 4},
    "unnamed": {"lengths_vary": True},
    "unnamed-several": {"gpus": 4, "tensor_parallel": 4},
    "offloaded": {"gpus": 4, "sharding": "zero3", "batch": 4, "offload": "all"},
}


def test_a_set_up_tells_its_kind() -> None:
    assert list(SETUPS) == list(KINDS)
    for kind, options in SETUPS.items():
        found = memory(**options)
        assert kind_of(found.setup) == kind
        assert found.within == memory_constants.constants().of_kind(kind)


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_trainer_is_known_by_a_profile_of_its_own(gpus: int) -> None:
    """`plain` and profiles of a sort of programs name no trainer; an alias names one, and so does a config."""
    for trainer in (None, "plain", "hf-loop", "own-loop", "deepspeed"):
        assert kind_of(memory(trainer=trainer, gpus=gpus).setup) == ("unnamed", "unnamed-several")[gpus - 1]
    for trainer in ("trl", "sfttrainer", "axolotl", "hf-trainer-4.46"):
        assert kind_of(memory(trainer=trainer, gpus=gpus).setup) in NAMED
    narrower = {*UNNAMED, "shared-open"}
    assert all(bool(NARROWER[kind]) == (kind in narrower) and KIND_WORDS[kind] for kind in KINDS)


def test_naming_the_trainer_narrows_the_interval() -> None:
    known = memory_constants.constants()
    for kind in NAMED:
        (low, high), (least, most) = known.bounds(kind), known.bounds("unnamed")
        assert low > least and high < most
    shown = planner.estimate(LLAMA, seq_len=512, trainer="hf-trainer").memory
    assert shown and shown["lora"]["interval"]["kind"] == "alone-lora"


def test_stand_ins_are_judged_as_unknown_trainers() -> None:
    """Each line of the table is of figures that were predicted by the profile that it names, and counts as unknown;
    the others by their profile. A profile that has come since makes today's kind a known one."""
    near = {}
    for each, ratio in first_ratios((*RESTS_ON, "seventh", *SETS)):
        if stands_in(each, now=False):
            near[each.source.removesuffix(", reserved")] = each
            assert "trainer near" in ratio.about and ratio.kind in (*UNNAMED, "offloaded")
        named = each.options.partition("--trainer ")[2].split(" ")[0]
        profile = find(named) if named else None
        own = profile is not None and known(profile.name) and not stands_in(each, now=False)
        assert ratio.kind == "offloaded" or (ratio.kind in NAMED) == own
    text = (ROOT / "data" / "measured" / "memory_stand_ins.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert set(near) == {row["source"] for row in rows} and len(rows) == 42
    since = estimate_of(near["PrimeIntellect-ai/prime-rl"]).within
    assert since and since.kind in NAMED
    still = estimate_of(near["huggingface/peft, pull requests"]).within
    assert still and still.kind == "unnamed"


def test_nobody_said_how_long_sequences_are() -> None:
    """What is exact stays, and the interval is that of measurements whose lengths are not stated: no narrower."""
    known = ({**TRL, "quantize": "nf4", "method": "qlora"}, {**TRL, "gpus": 4, "sharding": "ddp", "batch": 4})
    for options in ({}, TRL, *known):
        typed, untyped = memory(**options, seq_len=2048), memory(**options, seq_len=None)
        assert (untyped.moments, untyped.per_gpu_bytes) == (typed.moments, typed.per_gpu_bytes)
        assert untyped.low <= typed.low < typed.per_gpu_bytes < typed.high <= untyped.high
        assert untyped == with_open_lengths(typed)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(KINDS), st.sampled_from(["lora", "full"]), st.sampled_from([64, 512]),
    st.sampled_from(["none", "layer"]),
)  # fmt: skip
def test_ends_lie_around_the_estimate(kind: str, method: str, seq_len: int, checkpointing: str) -> None:
    options = {"method": method, **SETUPS[kind], "seq_len": seq_len, "checkpointing": checkpointing}
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
    plan = planner.estimate(LLAMA, seq_len=512, gpu="h100", trainer="trl")
    known = memory_constants.constants().of_kind("alone-lora")
    assert plan.memory and plan.memory["lora"]["interval"] == {
        "kind": "alone-lora", "coverage": 0.9, "sources": known.sources, "runs": known.runs, "judged": known.judged,
        "held": known.held, "length": "typed",
    }  # fmt: skip
    assert [plan.memory[method]["interval"]["kind"] for method in ("qlora", "full")] == ["alone", "alone"]
    assumed = planner.estimate(LLAMA, gpu="h100", trainer="trl").memory
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


def test_only_lora_was_measured_apart() -> None:
    """Preferences and GRPO on one GPU have the interval of all else there."""
    for options in ({"objective": "dpo"}, {"objective": "grpo", "batch": 8}):
        assert kind_of(memory(**options, **TRL).setup) == "alone"


def test_ends_are_of_what_is_needed_and_a_constant() -> None:
    """By hand from the constants: what is not known of a program weighs more on a small model."""
    known = memory_constants.constants()
    for options in ({}, TRL, {"quantize": "nf4", "method": "qlora"}, {"seq_len": 64, "method": "full"}):
        found = memory(**options)
        low, high = known.bounds(kind_of(found.setup))
        assert found.low == round(low * found.per_gpu_bytes)
        assert found.high == round(high * (found.per_gpu_bytes + 3e9)) + found.cached_bytes
    found, high = memory(**SETUPS["offloaded"]), known.bounds("offloaded")[1]
    assert found.high == round(high * (found.per_gpu_bytes + 10e9)) + found.cached_bytes


@pytest.mark.parametrize("seq_len", [None, 512])
def test_a_plan_that_surely_fits_has_its_upper_end_below_the_gpu(seq_len: int | None) -> None:
    options: dict[str, Any] = {
        "tokens": "1M",
        "gpu": "h100",
        "gpus": 1,
        "ranks": 8,
        "seq_len": seq_len,
        **TRL,
    }
    found = planner.plan(LLAMA, **options, fit="sure").best
    assert found.memory.high <= found.memory_bytes
    assert found.memory.within is not None
    assert found.memory.within.kind.startswith("open" if seq_len is None else "alone")


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
    found = made(sources, spread, KINDS, seed)
    rule = rule_of(found)
    for kind in KINDS:
        ends = rule.ends[kind]
        assert 0 < ends.low < 1 < ends.high
        for easier in HARDER_THAN.get(kind, ()):
            assert ends.low <= rule.ends[easier].low and ends.high >= rule.ends[easier].high
    # A source that publishes the same figures again says nothing new: sources count the same.
    again = rule_of([*found, *[each for each in found if each.origin == "open 0"]])
    assert {kind: (ends.low, ends.high) for kind, ends in again.ends.items()} == {
        kind: (ends.low, ends.high) for kind, ends in rule.ends.items()
    }


def test_of_fewer_sources_an_interval_is_wider() -> None:
    """Of the same largest error, by what order statistics say: ln 10 / ln 2 of one source, nothing from nine."""
    shape = (0.3, 0.5)

    def width(number: int) -> float:
        return width_of([Ratio(f"s{n}", "split", 1.2, 1.2) for n in range(number)], shape, STATED)

    most = math.log(1.2) / 0.5
    assert width(1) == pytest.approx(most * math.log(10) / math.log(2))
    widths = [width(number) for number in range(1, 12)]
    assert widths == sorted(widths, reverse=True)
    assert widths[8:] == pytest.approx([most] * 3)


def test_a_quantile_of_sources_by_hand() -> None:
    """Nineteen sources of one figure each, 1% to 19% above: 0.9 x 20 / 19 of them are eighteen; a source's hundred
    figures weigh as one."""
    found = [Ratio(f"s{n}", "alone-lora", 1 + n / 100, 1 + n / 100) for n in range(1, 20)]
    found += [found[-1]] * 99
    rule = rule_of(found, STATED)
    assert rule.ends["alone-lora"].high == pytest.approx(1.18)
    assert (rule.ends["alone-lora"].sources, rule.ends["alone-lora"].runs) == (19, 118)
    # 0.92 x 20 / 19 of them are nineteen: of the level that ships the last one too.
    assert rule_of(found, replace(STATED, level=0.92)).ends["alone-lora"].high == pytest.approx(1.19)
    # A pool of too few sources gives way to all.
    assert rule.ends["split"].sources == 19


def test_what_is_added_is_taken_off_again() -> None:
    """Each source measured 2 GB above what was needed, of 1 to 40 GB: with 2 GB added nothing is left above."""
    found = [
        Ratio(f"s{n}", "open", (n * 1e9 + 2e9) / (n * 1e9), (n * 1e9 + 2e9) / (n * 1e9), n * 1e9)
        for n in range(1, 41)
    ]
    rule = rule_of(found, replace(CHOSEN, extra_bytes=2e9))
    assert rule.ends["open"].high == pytest.approx(1.0, abs=0.021)
    assert all(rule.holds(each) for each in found)
    assert not rule.holds(replace(found[0], high=4.0, low=4.0))
    assert rule_of(found, replace(CHOSEN, extra_bytes=0.0)).ends["open"].high > 1.4


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


def test_the_table_is_what_the_rule_makes_of_first_predictions() -> None:
    """The table says of intervals what `--fit` would write: no end and no share was typed."""
    made = intervals_of([each for _, each in first_ratios()])
    known = memory_constants.constants()
    assert known.intervals == (*made, measured_interval()[1])


def test_sets_that_came_later_are_held_as_is_stated() -> None:
    """Intervals of the sets that were known before, on the next ones: near the 90% that they state, and no candidate
    of a rule does clearly better."""
    sets = {name: [each for _, each in first_ratios((name,))] for name in RESTS_ON}
    found = in_order(sets)
    assert {one.found for one in found} == set(RESTS_ON[1:])
    assert 0.9 <= share(found) <= 0.95
    for kinds in (NAMED, UNNAMED, ("offloaded",)):
        assert share([one for one in found if one.each.kind in kinds]) >= 0.895
    least = min(score_of(in_order(sets, recipe)) for recipe in CANDIDATES.values())
    assert score_of(found) <= least + 0.05


def test_what_is_judged_in_order_of_time_is_not_known_before() -> None:
    """A set that is far off is not held, though those after it are, by intervals that know it."""
    first, far = made(10, 0.05, ("alone",)), made(10, 0.05, ("alone",), seed=1)
    far = [replace(each, source=f"far {each.source}", low=3 * each.low, high=3 * each.high) for each in far]
    again = [replace(each, source=f"again {each.source}") for each in far]
    judged = in_order({"a": first, "b": far, "c": again})
    assert share([one for one in judged if one.found == "b"]) == 0
    assert share([one for one in judged if one.found == "c"]) > 0.85
    assert not any(one.found == "a" for one in judged)


def test_a_set_that_the_interval_rests_on_judges_nothing() -> None:
    with pytest.raises(SystemExit, match="rests on the fifth"):
        judge("fifth")
    with pytest.raises(SystemExit, match="No set is called nobody"):
        judge("nobody")


def test_a_table_without_a_kind_is_refused() -> None:
    table = json.loads(read_data("compiled", "memory.json"))
    with pytest.raises(FactError, match="one interval of each kind"):
        memory_constants.parse({**table, "interval": table["interval"][1:]})
    for field, value in (("low", 1.2), ("held", 2), ("sources", 0), ("judged", 99)):
        entries = [{**table["interval"][0], field: value}, *table["interval"][1:]]
        with pytest.raises(FactError, match="alone-lora"):
            memory_constants.parse({**table, "interval": entries})


def _kinds_of_page() -> dict[str, list[str]]:
    """The table of how often the interval holds, cells by kind."""
    lines = (ROOT / "docs" / "memory-published.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].split("`")[1]: row[1:] for row in rows if row[0].startswith("`") and len(row) == 9}


def test_every_kind_is_held_by_intervals_of_other_sources() -> None:
    """The page, the constants and docs/agreement.md say the same."""
    known, shown = memory_constants.constants(), _kinds_of_page()
    assert list(shown) == list(KINDS)
    for kind, row in shown.items():
        found = known.of_kind(kind)
        made = f"{found.sources} sources, {found.runs}"
        ends = f"{found.low:.2f} to {found.high:.2f}, {found.extra_bytes / 1e9:g} GB"
        assert row[:3] == [ends, made, str(found.judged)]
        assert abs(float(row[5].rstrip("%")) / 100 - found.held) <= 0.0056
        assert found.held >= known.coverage
    page = (ROOT / "docs" / "memory-published.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| all |"))
    sources, runs, of_runs, of_sources = (cell.strip() for cell in line.split("|")[2:6])
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    said = next(line for line in text.splitlines() if line.startswith("| the 90% interval of memory |"))
    assert f"{runs} published figures of {sources} sources" in said
    assert f"holds {of_runs} of figures, {of_sources} where sources count the same" in said
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind in ("alone-lora", "shared-open", "unnamed", "offloaded"):
        low, high = known.bounds(kind)
        assert f"{low:.2f} to {high:.2f}" in said
        assert kind in ("shared-open", "offloaded") or f"{low:.2f} to {high:.2f}" in readme


def test_first_predictions_lie_in_the_interval_of_today() -> None:
    """Rows as they were predicted first, whatever is known of them since."""
    found = [each for _, each in first_ratios()]
    rule = shipped()
    assert len(found) == 542
    assert sum(rule.holds(each) for each in found) / len(found) >= 0.92
