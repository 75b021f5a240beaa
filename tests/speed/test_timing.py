"""Step times: the formula's properties, its constants, calibration, and published runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import facts, hardware
from planner.adapter import AdapterSpec, adapt
from planner.errors import FactError, InputError
from planner.estimator import load
from planner.memory.traffic import traffic as traffic_of
from planner.moments import Traffic
from planner.setup import Setup
from planner.speed import step_time
from planner.speed.communication import call_s, collective_s, exposed_s
from planner.speed.efficiency import constants, evidence_of, parse
from planner.speed.roofline import PARTS
from planner.speed.step import work_of
from planner.trainers import filled
from tools.speed_fit import LeftOut, even, halves, log_ratios
from tools.speed_later import GATHERED, LATER, LATEST, NEWEST, Said, blind, later, said_of
from tools.speed_left_out import held
from tools.speed_outliers import far, reason_of
from tools.speed_pages import COLUMNS, _cells, within
from tools.speed_runs import Run, runs

ROOT = Path(__file__).resolve().parents[2]
ARCH = load("meta-llama/Llama-3.2-1B")[1]
PAIRS = adapt(ARCH, AdapterSpec(16))
H100 = hardware.cluster(hardware.find("h100"))


@pytest.fixture(scope="module")
def published() -> list[Run]:
    return runs()


def seconds(setup: Setup, machine: hardware.Cluster = H100, **more: Any) -> float:
    return step_time(ARCH, setup, machine, PAIRS, **more).seconds


# Published runs


def test_errors_on_judged_runs(published: list[Run]) -> None:
    ratios = log_ratios(published, constants().efficiency)[0]
    judged = np.array([not run.fitted for run in published])
    errors = np.abs(np.expm1(-ratios))
    assert len(published) > 400 and 100 < judged.sum() < 250
    assert np.median(errors[judged]) < 0.2
    lora = np.array([run.setup.method != "full" for run in published])
    assert np.median(errors[judged & lora]) < 0.2


def test_the_interval_holds_what_it_states(published: list[Run]) -> None:
    """It is as wide as sources that the constants have not seen need; the judged rows' sources they have."""
    known = constants()
    ratios, thin = log_ratios(published, known.efficiency)
    inside = within(published, ratios, thin)
    judged = np.array([not run.fitted for run in published])
    lora = judged & np.array([run.setup.method != "full" for run in published])
    assert np.mean(inside[judged]) >= known.any_spread.coverage <= np.mean(inside[lora])


def test_sources_left_out_lie_within_widths_of_others() -> None:
    """As the page has them, sources counting the same; and the rows of LoRA and QLoRA. The formula has been taught by
    them all, so that they are held no less often than is stated."""
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    for kind in ("accelerator known", "accelerator not known", "LoRA and QLoRA"):
        row = next(line for line in text.splitlines() if line.startswith(f"| {kind} | "))
        rows, each = (float(cell.strip(" %")) / 100 for cell in row.split("|")[-3:-1])
        assert min(rows, each) >= 0.85


def test_an_interval_goes_as_far_as_its_deviations() -> None:
    """By hand, and sources count the same whatever their runs."""
    deviations = replace(
        constants().any_spread, below=0.1, above=0.2, within=0.1, thin=0.4, staged_spread=1.0
    )
    below, above = halves(0.5, 0.25, deviations)
    assert below == pytest.approx(1.645 * math.sqrt(0.01 + 0.01 + 0.04 + 0.0625))
    assert above == pytest.approx(1.645 * math.sqrt(0.04 + 0.01 + 0.04 + 0.0625))
    run, far = SimpleNamespace(source="a"), SimpleNamespace(source="b")
    found: Any = [LeftOut(run, 0.1, 0.0, True), LeftOut(run, -0.1, 0.0, True), LeftOut(far, 0.5, 0.2, True)]  # type: ignore[arg-type]
    assert held(found, {id(found[0]): True, id(found[1]): False, id(found[2]): True}) == (2 / 3, 0.75)
    assert list(even(found)) == [0.5, 0.5, 1.0]


def test_accelerators_without_a_fitted_run_say_so() -> None:
    for gpu, evidence in (("a100", "known"), ("l4", "unseen")):
        machine = hardware.cluster(hardware.find(gpu))
        assert evidence_of(machine.accelerator.name) == evidence
        step = step_time(ARCH, Setup(micro_batch=8), machine, PAIRS)
        assert ("gpu-not-calibrated" in [n.code for n in step.notices]) == (evidence == "unseen")
    cases = [case for name in GATHERED for case in later(name) if case.stated]
    for evidence, least in (("known", 0.9), ("unseen", 0.85)):
        inside = [said_of(case).inside for case in cases if case.evidence == evidence]
        assert len(inside) >= 30 and np.mean(inside) >= least


def test_whatever_is_far_off_is_explained() -> None:
    cases = [case for name in (LATER, LATEST, NEWEST) for case in later(name)]
    found = [case for case in cases if far(said_of(case).seconds / said_of(case).measured)]
    assert 0 < len(found) <= 0.12 * len(cases) and all(reason_of(case) for case in found)


@pytest.mark.parametrize(
    ("name", "rows", "now", "before", "held"), [(LATEST, 21, 0.25, 0.35, 0.8), (NEWEST, 24, 0.15, 0.2, 0.9)]
)
def test_steps_that_were_predicted_blind_improved(
    name: str, rows: int, now: float, before: float, held: float
) -> None:
    """LoRA and QLoRA whose set-up is stated: the first predictions and those of now, as the page has them."""
    first = blind(name)
    mine = [case for case in later(name) if case.stated and case.method != "full"]
    then, today = [first[case.number].error for case in mine], [said_of(case) for case in mine]
    assert len(mine) == rows and np.median([said.error for said in today]) < now < np.median(then) < before
    assert np.mean([said.inside for said in today]) >= held


def _shown(found: list[Said]) -> str:
    held = sum(said.inside for said in found) / len(found)
    return f"{np.median([said.error for said in found]):.1%}, {held:.0%} within"


def test_steps_collected_afterwards() -> None:
    """What was predicted first stands beside what is predicted now, and docs/agreement.md says both."""
    stated = [case for case in later() if case.stated]
    first = blind()
    before, now = [first[case.number] for case in stated], [said_of(case) for case in stated]
    assert len(stated) == 31 and not any(said.problem for said in now)
    assert np.median([said.error for said in now]) < 0.15
    assert sum(said.inside for said in now) / len(now) >= 0.85
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(
        line for line in text.splitlines() if line.startswith("| the same, on steps found afterwards |")
    )
    assert f"blind: median error {_shown(before)}" in row and f"since: {_shown(now)}" in row


def test_the_table_states_the_figures(published: list[Run]) -> None:
    known = constants()
    ratios, thin = log_ratios(published, known.efficiency)
    inside = within(published, ratios, thin)
    judged = np.array([not run.fitted for run in published])
    lora = judged & np.array([run.setup.method != "full" for run in published])
    errors, held = np.abs(np.expm1(-ratios)), np.mean(inside[judged])
    every, adapters = np.median(errors[judged]), np.median(errors[lora])
    said = f"median error {every:.1%}; LoRA and QLoRA {adapters:.1%}; {held:.0%} within"
    assert said in (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")


def test_experts_are_launched_as_one_by_kernels_of_their_own() -> None:
    arch = load("Qwen/Qwen3-30B-A3B")[1]
    fused = Setup(method="full", seq_len=4096, kernels="fused")
    one, loops = (work_of(arch, setup) for setup in (fused, replace(fused, kernels="transformers")))
    assert one.flops(2) == pytest.approx(loops.flops(2), rel=1e-9)
    assert loops.operations["forward"] > 10 * one.operations["forward"]


def test_the_page_shows_the_shipped_constants(published: list[Run]) -> None:
    """Run `python -m tools.fit_speed --page` where this fails."""
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    known = constants()
    ratios, thin = log_ratios(published, known.efficiency)
    inside = within(published, ratios, thin)
    judged = np.array([not run.fitted for run in published])
    assert COLUMNS in text
    assert _cells("**all**", ratios[judged], inside[judged]) in text
    for name in known.basis:
        assert f"| `{name}` |" in text


def test_published_runs_are_whole(published: list[Run]) -> None:
    for run in published:
        assert run.measured_s > 0 and run.quality in "AB"
        assert run.work.gemms and run.machine.count == run.setup.gpus


# The formula


def test_parts_add_up_and_throughput_follows() -> None:
    setup = Setup(micro_batch=4, seq_len=1024, accumulation=2)
    step = step_time(ARCH, setup, H100, PAIRS)
    assert sum(step.parts.values()) == pytest.approx(step.seconds)
    assert tuple(step.parts) == PARTS
    assert step.tokens == 8192 and step.tokens_per_s == pytest.approx(8192 / step.seconds)
    assert step.low < step.seconds < step.high
    assert step.mfu is not None and 0.05 < step.mfu < 0.8


def test_no_gpu_does_more_than_its_peak() -> None:
    """Nor a laptop's, whose clock is above the listed one."""
    arch = load("meta-llama/Llama-3.1-8B")[1]
    setup, pairs, found = Setup(micro_batch=4, adapter_dtype="bfloat16"), adapt(arch, AdapterSpec(16)), []
    for name in (*constants().clocks, "H100", "RTX 4090", "L4"):
        step = step_time(arch, setup, replace(H100, accelerator=hardware.find(name)), pairs)
        found.append(step.mfu or 0)
    assert len(found) > 5 and min(found) > 0.1 and max(found) < constants().efficiency.matmul_cards


@given(st.integers(1, 8), st.integers(64, 4096), st.integers(1, 8))
def test_more_tokens_take_no_less_time(batch: int, length: int, accumulation: int) -> None:
    setup = Setup(micro_batch=batch, seq_len=length, accumulation=accumulation)
    base = seconds(setup)  # small steps wait for the host, whatever their tokens
    for more in ({"micro_batch": batch + 1}, {"seq_len": length + 64}, {"accumulation": accumulation + 1}):
        assert seconds(replace(setup, **more)) >= base * (1 - 1e-9)  # type: ignore[arg-type]


@given(st.sampled_from([("none", "layer"), ("none", "layer-offload")]), st.integers(1, 4))
def test_recompute_costs_time(pair: tuple[str, str], batch: int) -> None:
    kept, again = (Setup(micro_batch=batch, checkpointing=name) for name in pair)  # type: ignore[arg-type]
    assert seconds(again) > seconds(kept)


def test_lora_is_faster_than_full_and_slower_with_rank() -> None:
    """Of 8 billion parameters: of 1, the kernels around an adapter cost what the frozen weights' gradients do."""
    setup, arch = Setup(micro_batch=4), load("meta-llama/Llama-3.1-8B")[1]
    full = step_time(arch, replace(setup, method="full"), H100).seconds
    low, high = (step_time(arch, setup, H100, adapt(arch, AdapterSpec(rank))).seconds for rank in (1, 256))
    assert low < high and low < full


def test_a_faster_gpu_is_faster() -> None:
    times = [
        seconds(Setup(micro_batch=4), hardware.cluster(hardware.find(n))) for n in ("a10", "a100", "h100")
    ]
    assert times == sorted(times, reverse=True)


def test_two_gpus_share_the_step() -> None:
    both = replace(H100, count=2, per_node=2)
    alone = step_time(ARCH, Setup(micro_batch=4, accumulation=2), H100, PAIRS)
    shared = step_time(ARCH, Setup(micro_batch=4, gpus=2, sharding="ddp"), both, PAIRS)
    assert alone.tokens == shared.tokens
    assert alone.seconds / 2 < shared.seconds < alone.seconds


def test_chips_without_bfloat16_say_so() -> None:
    step = step_time(ARCH, Setup(), hardware.cluster(hardware.find("t4")), PAIRS)
    assert [notice.code for notice in step.notices] == ["no-16-bit-units", "gpu-not-calibrated"]
    half = step_time(ARCH, Setup(precision="fp16"), hardware.cluster(hardware.find("t4")), PAIRS)
    assert [notice.code for notice in half.notices] == ["float16-units", "gpu-not-calibrated"]
    with pytest.raises(InputError, match=r"gpu: found 'Apple M3', expected .* rate is known"):
        seconds(Setup(), hardware.cluster(hardware.find("Apple M3")))


@pytest.mark.parametrize(
    ("gpu", "asked", "code"),
    [
        ("t4", {"precision": "fp16", "attention_kernel": "flash"}, "no-flash-kernels"),
        ("h100", {"precision": "fp32", "attention_kernel": "flash"}, "no-flash-kernels"),
        ("rtx 3090", {"method": "qlora", "quantize": "fp8"}, "no-fp8-units"),
        ("a100", {"attention_kernel": "flash"}, None),
        ("mi300x", {"method": "qlora", "quantize": "fp8", "attention_kernel": "flash"}, None),
        ("rtx 4070 ti super", {"method": "qlora", "quantize": "fp8"}, None),
    ],
)
def test_what_a_chip_has_no_kernels_for_is_said(gpu: str, asked: dict[str, Any], code: str | None) -> None:
    found = step_time(ARCH, Setup(**asked), hardware.cluster(hardware.find(gpu)), PAIRS).notices
    ours = {notice.code for notice in found} & {"no-flash-kernels", "no-fp8-units"}
    assert ours == ({code} if code else set())


# Communication


def test_a_ring_by_hand() -> None:
    """8 GB all-reduced over 8 GPUs at 450 GB/s: 2 x 7/8 x 8 / 450 s, and 10 calls of 8.4 + 2 x 7 x 3.4 us."""
    machine = hardware.cluster(hardware.find("h100"), 8)
    entry = Traffic("gradients", "all_reduce", "data", 8, 8 * 10**9, 10)
    assert collective_s(entry, machine, 1.0) == pytest.approx(2 * 7 / 8 * 8 / 450 + 5.6e-4)
    assert collective_s(replace(entry, collective="all_gather"), machine, 0.5) == pytest.approx(
        7 / 8 * 8 / 225 + 3.22e-4
    )
    assert collective_s(replace(entry, group_size=1), machine, 1.0) == 0.0
    across = hardware.cluster(hardware.find("h100"), 16)  # 15 steps, 2 of them through the network
    assert call_s(replace(entry, group_size=16), across) == pytest.approx(
        8.4e-6 + 2 * (13 * 3.4e-6 + 2 * 14e-6)
    )
    cards = hardware.cluster(hardware.find("rtx 4090"), 2)
    assert call_s(replace(entry, group_size=2), cards) == pytest.approx(8.4e-6 + 2 * 5.7e-6)


def test_machines_share_their_adapters() -> None:
    machine = hardware.cluster(hardware.find("a100 80gb"), 16)
    assert machine.rate_between(8) == 300e9
    assert machine.rate_between(16) == 8 * 25e9


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 1))
def test_overlap_hides_no_more_than_there_is(computing: float, moving: float, overlap: float) -> None:
    left = exposed_s(computing, moving, overlap)
    assert 0 <= left <= moving
    assert computing + left >= max(computing, moving * (1 - overlap))


def test_frozen_weights_have_no_gradients_to_send() -> None:
    trained = sum(item.params for item in PAIRS)
    ddp = traffic_of(ARCH, Setup(gpus=4, sharding="ddp"), trained)
    assert [(t.collective, t.bytes) for t in ddp] == [("all_reduce", 2 * trained)]
    full = traffic_of(ARCH, Setup(method="full", gpus=4, sharding="ddp"), ARCH.params)
    assert full[0].bytes == 2 * ARCH.params
    fsdp = {t.collective: t.bytes for t in traffic_of(ARCH, Setup(gpus=4, sharding="fsdp"), trained)}
    assert fsdp["reduce_scatter"] == 2 * trained
    assert 2 * ARCH.params <= fsdp["all_gather"] <= 2 * 2 * (ARCH.params + trained)
    assert traffic_of(ARCH, Setup(), trained) == ()
    for sharding, times in (("zero1", 1), ("zero2", 4), ("zero3", 4), ("fsdp", 4)):
        often = Setup(gpus=4, sharding=sharding, accumulation=4)  # type: ignore[arg-type]
        sent = next(t for t in traffic_of(ARCH, often, trained) if t.what == "gradients")
        assert sent.bytes == 2 * trained * times
        whole = sharding in ("zero1", "zero2")  # DeepSpeed sums whole buckets and keeps its part
        assert sent.collective == ("all_reduce" if whole else "reduce_scatter")
    megatron = Setup(gpus=4, sharding="zero1", trainer="megatron")
    assert "reduce_scatter" in {t.collective for t in traffic_of(ARCH, megatron, trained)}


# Constants


def entry(name: str, **change: Any) -> dict[str, Any]:
    source = {"title": "t", "url": "https://x", "locator": "l", "date": "2026", "kind": "derived"}
    return {"name": name, "value": 0.5, "basis": "fitted", "source": source, **change}


def test_constants_are_checked() -> None:
    table = json.loads(facts.read_data("compiled", "speed.json"))
    assert parse(table) == constants()
    with pytest.raises(FactError, match="matmul"):
        parse({"constant": [e for e in table["constant"] if e["name"] != "matmul"]})
    for change in ({"below": 0.0}, {"held": 1.2}, {"judged": 0}, {"kind": "odd"}, {"more": 1}):
        with pytest.raises(FactError, match="interval"):
            parse({**table, "interval": [{**table["interval"][0], **change}, *table["interval"][1:]]})
    with pytest.raises(FactError, match="one interval of each kind"):
        parse({**table, "interval": table["interval"][1:]})
    for bad in (entry("matmul", value=-1.0), entry("matmul", value="x"), entry("matmul", source=None)):
        with pytest.raises(FactError):
            parse({"constant": [bad, *table["constant"]]})


def test_a_trainer_in_float32_has_no_autocast() -> None:
    setup = Setup(**filled({"trainer": "trl-0.13", "precision": "fp32", "method": "lora"}))
    assert not setup.under_autocast and setup.compute_dtype == "float32"
    assert Setup(**filled({"trainer": "trl-0.13", "method": "lora"})).under_autocast
