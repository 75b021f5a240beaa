"""A measured peak: what it corrects and narrows, what it leaves alone, its file and its command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner import units
from planner.cli.main import cli
from planner.errors import InputError
from planner.measuring import calibrate
from planner.memory.calibration import FIXED, Peak, figures, log_ratio, scaled
from planner.memory.constants import constants
from planner.memory.interval_kinds import KINDS, MEASURED
from planner.memory.overhead import within_kind
from planner.moments import MemoryEstimate
from planner.running import running
from planner.speed import Calibration
from planner.speed.calibration import read
from planner.validate.adapters import VARIANTS

LLAMA = "meta-llama/Llama-3.2-1B"
RUN: dict[str, Any] = {"rank": 16, "layers": "all-linear", "batch": 8, "seq_len": 2048}
GIB = 2**30


def memory(model: str = LLAMA, **options: Any) -> MemoryEstimate:
    return running(model, {**RUN, **options}).memory()


def peak(size: float, of: str = "allocated", **options: Any) -> Peak:
    found = calibrate(LLAMA, peak=size, peak_of=of, **{**RUN, **options}).peak
    assert found
    return found


def estimated(calibration: Calibration | Path, **options: Any) -> planner.Plan:
    return planner.estimate(LLAMA, **{**RUN, **options}, calibration=calibration)


def lora(plan: planner.Plan) -> dict[str, Any]:
    assert plan.memory and plan.memory["lora"]
    return dict(plan.memory["lora"])


def test_the_correction_by_hand() -> None:
    """Of Llama 3.2 1B, LoRA of rank 16: weights 2 bytes and an adapter of 12 bytes a parameter (float32, and two
    states of AdamW) are fixed; the rest of the peak, measured 1.5 times, is taken exp(0.85 ln 1.5) times."""
    before = memory()
    lead = (
        16
        * 16
        * (  # rank x layers x (d_in + d_out) of q, o, k, v, gate, up and down
            2 * 4096 + 2 * (2048 + 512) + 3 * (2048 + 8192)
        )
    )
    fixed = 2 * 1_235_814_400 + 12 * lead
    rest = before.allocated_bytes - fixed
    found = calibrate(LLAMA, peak=fixed + 1.5 * rest, peak_of="allocated", **RUN)
    assert found.peak and found.peak.fixed_bytes == fixed and found.memory_after
    assert found.peak.predicted_bytes == before.allocated_bytes
    factor = math.exp(0.85 * math.log(1.5))
    assert constants().measured_share == 0.85
    needed = fixed + rest * factor + (before.per_gpu_bytes - before.allocated_bytes)
    after = found.memory_after
    assert after.per_gpu_bytes == pytest.approx(needed, abs=8)
    assert after.corrected and after.corrected.factor == pytest.approx(factor) and after.basis == "fitted"
    own = constants().of_kind(MEASURED)
    assert after.within == own and after.low == pytest.approx(own.low * needed, abs=20)
    assert after.high == pytest.approx(
        own.high * (needed + own.extra_bytes) + before.cached_bytes * factor, abs=40
    )


def test_ratios_by_hand() -> None:
    """(30 - 10) / (20 - 10) is 2; what is less than 5% of what was predicted beside the fixed counts as 5%, and the
    fixed as 95% at the most."""
    assert log_ratio(30, 20, 10) == pytest.approx(math.log(2))
    assert log_ratio(10.1, 20, 10) == log_ratio(3, 20, 10) == pytest.approx(math.log(0.05))
    assert log_ratio(21, 20, 20) == pytest.approx(math.log((21 - 19) / (20 - 19)))


def test_a_peak_as_predicted_narrows_and_moves_nothing() -> None:
    before = memory()
    for of in ("allocated", "reserved", "device"):
        found = calibrate(LLAMA, peak=getattr(before, f"{of}_bytes"), peak_of=of, **RUN)
        after = found.memory_after
        assert after and after.moments == before.moments and after.cached_bytes == before.cached_bytes
        assert before.low < after.low < after.per_gpu_bytes < after.high < before.high and not found.notices


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 8.0), st.sampled_from(KINDS), st.booleans())
def test_what_follows_from_the_set_up_stays(factor: float, kind: str, trained: bool) -> None:
    """Parts add up, fixed ones stay, and the ends lie no further out than the kind's own around the same bytes."""
    options: dict[str, Any] = (
        {"trainer": "hf-trainer", "quantize": "nf4", "method": "qlora"} if trained else {}
    )
    before = within_kind(memory(**options), kind)
    after = scaled(before, factor)
    assert sum(after.parts().values()) == after.per_gpu_bytes
    for old, new in zip(before.moments, after.moments, strict=True):
        pairs = [(a, b) for a, b in zip(old.items, new.items, strict=True)]
        early = old.phase in ("loading", "preparing", "placing")
        assert all(a == b for a, b in pairs if a.part in FIXED or early)
        others = [(a.bytes, b.bytes) for a, b in pairs if a.part not in FIXED and not early]
        assert all(b == pytest.approx(a * factor, abs=1) for a, b in others)
    wide = within_kind(after, kind)
    assert wide.low <= after.low <= after.per_gpu_bytes <= after.high <= wide.high
    assert (after.per_gpu_bytes >= before.per_gpu_bytes) == (factor >= 1) or early


def test_it_is_of_the_same_model_and_set_up_alone() -> None:
    """Batch, length, rank, checkpointing and precision may differ; another method, loss or model, or several GPUs
    not, of which a note says so."""
    mine = Calibration(peaks=(peak(1.3 * memory().allocated_bytes),))
    for change in (
        {"batch": 2},
        {"seq_len": 512},
        {"rank": 64},
        {"checkpointing": "layer"},
        {"precision": "autocast"},
    ):
        assert lora(estimated(mine, **change))["corrected"]
    for change in ({"loss": "fused"}, {"gpus": 2}, {"trainer": "hf-trainer"}, {"offload": "optimizer"}):
        plan = estimated(mine, **change)
        assert lora(plan) == lora(planner.estimate(LLAMA, **{**RUN, **change}))
        assert "peak-elsewhere" in [notice.code for notice in plan.warnings]
    assert estimated(mine).memory["qlora"] == planner.estimate(LLAMA, **RUN).memory["qlora"]  # type: ignore[index]
    other = planner.estimate("Qwen/Qwen3-0.6B", calibration=mine)
    assert lora(other)["corrected"] is None
    four = Calibration(peaks=(peak(30 * GIB, gpus=4),))
    assert lora(estimated(four, gpus=2))["corrected"] and not lora(estimated(four))["corrected"]
    assert not lora(estimated(four, gpus=4, tensor_parallel=2))["corrected"]


def test_several_peaks_are_averaged() -> None:
    """By their logarithms: twice and half as much of the rest leave it as it is."""
    fixed = peak(1e10).fixed_bytes
    rest = memory().allocated_bytes - fixed
    both = tuple(peak(round(fixed + factor * rest)) for factor in (2, 0.5))
    found = lora(estimated(Calibration(peaks=both)))
    assert found["corrected"]["peaks"] == 2 and found["corrected"]["factor"] == pytest.approx(1.0)


def test_a_full_gpu_says_no_more_than_it_has() -> None:
    """An allocator that ran out of room gave back what it kept: a card of 46 GB, of which torch keeps more than is
    left beside the context, shows 46 GB."""
    whole, room = memory(batch=5), 46 * 10**9
    context = round(constants().context_bytes)
    assert whole.allocated_bytes + context < room < whole.device_bytes
    assert figures(whole, "device", room)[0] == room and figures(whole, "reserved", room)[0] == room - context
    assert figures(whole, "allocated", room)[0] == whole.allocated_bytes
    assert figures(whole, "device", None)[0] == whole.device_bytes


def test_a_peak_outside_names_what_would_have_it() -> None:
    """Typed without checkpointing, run with it: the estimate of that set-up is the peak."""
    asked: dict[str, Any] = {"batch": 32, "trainer": "trl", "checkpointing": "none"}
    ran = memory(**{**asked, "checkpointing": "layer"}).allocated_bytes
    found = calibrate(LLAMA, peak=ran, peak_of="allocated", **{**RUN, **asked})
    [notice] = found.notices
    assert (
        notice.code == "peak-outside" and f"--checkpointing layer: {units.byte_size(ran)}" in notice.message
    )
    told = calibrate(LLAMA, peak=2 * GIB, peak_of="device", **{**RUN, **asked}).notices[0].message
    assert "outside" in told and "--" not in told
    again = estimated(found.calibration, **asked)
    assert "peak-outside" in [warning.code for warning in again.warnings]


def test_plan_and_compare_take_it(tmp_path: Path) -> None:
    """The best plan's memory is that of an estimate with its options, and a column's too."""
    path = tmp_path / "mine.json"
    calibrate(LLAMA, peak=1.4 * memory().allocated_bytes, peak_of="allocated", out=path, **RUN)
    asked = {"tokens": "20M", "gpu": "rtx4090", "gpus": 1, "quantize": "none", "seq_len": 2048}
    best = planner.plan(LLAMA, **asked, calibration=path).best
    choice = best.choice
    same = planner.estimate(
        LLAMA, rank=choice.rank, layers=choice.layers, batch=choice.batch, accumulation=choice.accumulation,
        checkpointing=choice.checkpointing, seq_len=2048, calibration=path,
    )  # fmt: skip
    assert best.memory.corrected and best.memory.within and best.memory.within.kind == MEASURED
    assert (best.memory.per_gpu_bytes, best.memory.high) == (lora(same)["per_gpu_bytes"], lora(same)["high"])
    assert best.memory.per_gpu_bytes <= best.memory_bytes
    options = {name: value for name, value in RUN.items() if name != "rank"}
    columns = planner.compare(LLAMA, ranks=16, calibration=path, **options).columns
    assert [column.memory.corrected is not None for column in columns] == [True, False, False]
    assert columns[0].memory.per_gpu_bytes == lora(estimated(path))["per_gpu_bytes"]


def test_the_file_comes_back_and_old_ones_load(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    first = calibrate(LLAMA, gpu="h100", step_time=1.0, out=path, **RUN)
    assert "peaks" not in json.loads(path.read_text(encoding="utf-8")) and read(path) == first.calibration
    both = calibrate(LLAMA, peak="20GiB", peak_of="device", add_to=path, out=path, **RUN)
    assert read(path) == both.calibration and (len(read(path).measurements), len(read(path).peaks)) == (1, 1)
    assert both.measurement is None and both.to_dict()["before"] is None
    raw = json.loads(path.read_text(encoding="utf-8"))
    for change in ({"of": "used"}, {"params": 1.5}, {"trainer": None}, {"measured_bytes": 0}, {"gpus": True}):
        odd = {**raw, "peaks": [{**raw["peaks"][0], **change}]}
        path.write_text(json.dumps(odd), encoding="utf-8")
        with pytest.raises(InputError, match="calibration"):
            read(path)
    path.write_text(json.dumps({**raw, "peaks": {}}), encoding="utf-8")
    with pytest.raises(InputError, match="peaks"):
        read(path)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("21.4GiB", round(21.4 * GIB)),
        ("23 GB", 23 * 10**9),
        ("21913MiB", 21913 * 2**20),
        (5, 5),
        ("1e9", 10**9),
    ],
)
def test_sizes(value: Any, size: int) -> None:
    assert units.parse_bytes("peak", value) == size


@pytest.mark.parametrize("value", ["", "12G", "-3GiB", "0", 0, True, None, "many", float("nan"), "1e99GB"])
def test_odd_sizes_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"peak.*21\.4GiB"):
        units.parse_bytes("peak", value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peak": "20GiB"}, "peak-of.*allocated, reserved, device"),
        ({"peak": "20GiB", "peak_of": "used"}, "peak-of.*nvidia-smi"),
        ({"peak_of": "device"}, "peak: found None"),
        ({"peak": "20GiB", "peak_of": "device", "offload": "optimizer"}, "offload"),
        ({}, "gpu"),
    ],
)
def test_what_is_no_measurement_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        calibrate(LLAMA, **{**RUN, **options})


def test_a_peak_before_the_first_step_tells_nothing() -> None:
    """transformers 5.3 puts all weights onto the GPU in 16 bits while it quantises them: 2 bytes of 8.03 billion."""
    asked: dict[str, Any] = {"trainer": "hf-trainer-5.3", "quantize": "nf4", "batch": 1, "seq_len": 64}
    found = running("meta-llama/Llama-3.1-8B", asked).memory()
    assert found.peak.phase == "loading" and found.allocated_bytes == pytest.approx(2 * 8.03e9, rel=0.001)
    for of in ("allocated", "reserved", "device"):
        with pytest.raises(InputError, match="before the first step"):
            calibrate("meta-llama/Llama-3.1-8B", peak="16GiB", peak_of=of, **asked)


def test_records_give_their_peak(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    config = {"model": LLAMA, **RUN, "method": "lora"}
    own = {"config": config, "step_s": 1.5, "peak_memory_bytes": 12 * GIB}
    cases = (
        ({**own, "hardware": {"accelerator": "h100"}}, ("allocated", 12 * GIB)),
        ({**own, "hardware": {"device": "cpu"}, "gpu": "h100"}, None),
        ({"config": config, "max_memory_reserved": 13 * GIB}, ("reserved", 13 * GIB)),
    )
    for record, expected in cases:
        path.write_text(json.dumps(record), encoding="utf-8")
        found = calibrate(record=path)
        assert (found.peak and (found.peak.of, found.peak.measured_bytes)) == expected
        assert (found.measurement is not None) == ("step_s" in record)
    typed = calibrate(record=path, peak="14GiB", peak_of="device").peak
    assert typed and (typed.of, typed.measured_bytes) == ("device", 14 * GIB)
    with pytest.raises(InputError, match="peak-of"):
        calibrate(record=path, peak="14GiB")
    shown = calibrate(record=path, peak_of="device").peak  # the record's, which was read elsewhere
    assert shown and (shown.of, shown.measured_bytes) == ("device", 13 * GIB)


@pytest.mark.parametrize(
    "also",
    [
        {"objective": "dpo"}, {"variant": "dora"}, {"eval_batch": 16}, {"sequence_parallel": 2, "gpus": 2},
        {"exclude_modules": "down_proj"}, {"pipeline_parallel": 2, "gpus": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_is_read_as_the_same_options_are(tmp_path: Path, also: dict[str, Any]) -> None:
    """Whatever of a set-up it says; of offloading no peak tells, also where a record says so."""
    path = tmp_path / "run.json"
    options = {"model": LLAMA, **RUN, **also}

    def put(**more: Any) -> None:
        path.write_text(json.dumps({"config": {**options, **more}, "max_memory_allocated": 30 * GIB}))

    put()
    found, typed = calibrate(record=path), calibrate(peak=30 * GIB, peak_of="allocated", **options)
    assert found.memory_before == typed.memory_before != memory()
    put(offload="optimizer")
    with pytest.raises(InputError, match="offload"):
        calibrate(record=path)


def test_variants_of_a_record(tmp_path: Path) -> None:
    """A step of those that `validate` trains is LoRA's but DoRA's; of another nothing is known."""
    path = tmp_path / "run.json"
    for variant in (*VARIANTS, "vera"):
        record = {"model": LLAMA, **RUN, "variant": variant, "max_memory_allocated": 30 * GIB}
        path.write_text(json.dumps(record))
        if variant == "vera":
            with pytest.raises(InputError, match="variant"):
                calibrate(record=path)
        else:
            assert (calibrate(record=path).memory_before == memory()) == (variant != "dora")


def test_an_evaluation_may_have_the_peak() -> None:
    """Which the command takes as `estimate` does, and how the base is loaded."""
    words = [
        "calibrate",
        "-m",
        LLAMA,
        "--rank",
        "16",
        "--layers",
        "all-linear",
        "--batch",
        "8",
        "--eval-batch",
        "64",
    ]
    words += [
        "--loading",
        "host",
        "--placing",
        "broadcast",
        "--peak",
        "60GiB",
        "--peak-of",
        "allocated",
        "--json",
    ]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0, found.output
    evaluated = memory(eval_batch=64)
    assert evaluated.peak.phase == "evaluation"
    assert json.loads(found.stdout)["peak"]["predicted_bytes"] == evaluated.allocated_bytes


def test_the_pages_say_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    options = ["-m", LLAMA, "--rank", "16", "--layers", "all-linear", "--batch", "8", "--seq-len", "2048"]

    def run(*words: str) -> str:
        found = CliRunner().invoke(cli, list(words))
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    own = constants().of_kind(MEASURED)
    held = f"{own.held:.0%} of {own.judged} sources"
    size = f"{1.5 * memory().allocated_bytes / GIB:.2f}GiB"
    said = run("calibrate", *options, "--peak", size, "--peak-of", "allocated", "-o", str(path))
    assert f"measured peak: it holds {held}" in said and said.endswith(f"wrote {path}: 1 measured peak")
    factor = f"{lora(estimated(path))['corrected']['factor']:.3g}"
    page = run("estimate", *options, "--calibration", str(path), "--explain")
    assert (
        f"what a step adds x {factor}" in page and "by 1 measured peak of your own" in page and held in page
    )
    assert (
        "Memory of a GPU fitted and analytic" in page
    )  # of LoRA, and of the methods that it does not tell of
    assert f"rest x {factor}" in run("compare", *options[:2], *options[4:], "--calibration", str(path))
    plan = run(
        "plan", "-m", LLAMA, "--tokens", "5M", "--gpu", "h100", "--gpus", "1", "--quantize", "none", "--seq-len",
        "2048", "--calibration", str(path),
    )  # fmt: skip
    assert f"rest x {factor}" in plan and f"measured peak: it holds {held}" in plan


def test_a_report_says_it() -> None:
    from planner.report.numbers import Material
    from planner.report.sections.running import memory as section

    mine = Calibration(peaks=(peak(1.3 * memory().allocated_bytes),))
    data = json.loads(json.dumps({"plan": estimated(mine).to_dict()}))
    text = repr(section(Material(data)))
    assert "what a step adds, by measured peaks" in text and "measured peak" in text


def test_it_holds_on_after_a_replaced_set_up() -> None:
    """What is tried beside a run (fewer sequences, fewer GPUs) is corrected as it is."""
    run = running(LLAMA, RUN)
    mine = replace(run, peaks=(peak(1.5 * memory().allocated_bytes),))
    other = replace(mine, setup=replace(run.setup, micro_batch=2))
    assert other.memory().corrected and other.memory().per_gpu_bytes > memory(batch=2).per_gpu_bytes
