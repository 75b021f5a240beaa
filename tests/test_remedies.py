"""What to change so that a run fits, against whole estimates with those options."""

from __future__ import annotations

import re
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import estimate, hardware, remedies
from planner.cli.main import cli
from planner.running import running
from planner.setup import Setup

ROOM = {"rtx4090": 24_000_000_000, "h100": 80_000_000_000, "a100-40gb": 40_000_000_000, "t4": 16_000_000_000}
QWEN = "Qwen/Qwen3-8B"


def column(options: dict[str, Any]) -> str:
    return "lora" if options.get("quantize", "none") == "none" else "qlora"


def told(options: dict[str, Any]) -> tuple[list[dict[str, Any]] | None, bool, int]:
    """The remedies of an estimate, whether it fits, and its peak."""
    found = estimate(**options).memory or {}
    main = found[column(options)]
    return main["would_fit"], main["fits"], main["per_gpu_bytes"]


@settings(max_examples=25)
@given(
    model=st.sampled_from([QWEN, "meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "google/gemma-2-9b"]),
    gpu=st.sampled_from(list(ROOM)), batch=st.sampled_from([1, 2, 6, 16]),
    layers=st.sampled_from(["attention,mlp", "attention"]), quantize=st.sampled_from([None, "nf4"]),
    trainer=st.sampled_from([None, "trl", "unsloth"]), checkpointing=st.sampled_from([None, "layer"]),
)  # fmt: skip
def test_what_is_said_to_fit_does_as_the_estimate_with_these_options_has_it(**options: Any) -> None:
    options = {name: value for name, value in options.items() if value is not None}
    others, fits, _ = told(options)
    assert (others is None) == fits
    seen: list[set[str]] = []
    for other in others or ():
        changed = {**options, **other["options"]}
        plan = estimate(**changed)
        again = (plan.memory or {})[column(changed)]
        assert again["fits"] and again["per_gpu_bytes"] == other["per_gpu_bytes"]
        assert plan.time and plan.time["step"]["seconds"] == pytest.approx(other["step_s"])
        assert plan.workload.batch == options["batch"]
        names = set(other["options"]) - {"accumulation"}
        assert not any(fewer <= names for fewer in seen)
        seen.append(names)


@pytest.mark.parametrize("options", [
    {"model": QWEN, "gpu": "rtx4090", "trainer": "unsloth", "batch": 2},
    {"model": "meta-llama/Llama-3.1-8B", "gpu": "a100-40gb", "trainer": "trl", "batch": 8, "layers": "attention,mlp"},
    {"model": QWEN, "gpu": "h100", "batch": 2, "checkpointing": "layer"},
    {"model": "Qwen/Qwen2.5-7B", "gpu": "a100", "batch": 4, "trainer": "llama-recipes-2024", "seq_len": 512},
])  # fmt: skip
def test_what_surely_fits_does_up_to_the_upper_end(options: dict[str, Any]) -> None:
    found = (estimate(**options).memory or {})["lora"]
    room = hardware.find(options["gpu"]).memory_bytes or 0
    others = found["would_surely_fit"]
    assert (others is None) == (found["fit"] != "likely") and found["fits"] and found["would_fit"] is None
    for other in others or ():
        changed = {**options, **other["options"]}
        again = (estimate(**changed).memory or {})["qlora" if changed.get("quantize") else "lora"]
        assert again["fit"] == "yes" and again["high"] == other["high"] <= room


def test_no_change_is_larger_than_need_be() -> None:
    options: dict[str, Any] = {
        "model": QWEN,
        "gpu": "h100",
        "batch": 8,
        "layers": "attention,mlp",
        "seq_len": 1024,
    }
    others, fits, _ = told(options)
    assert not fits and others
    for other in others:
        steps = other["options"].get("accumulation", 1)
        assert told({**options, **other["options"]})[1]
        if steps > 1:  # the next larger micro-batch is too much
            fewer = max(n for n in (1, 2, 4) if n < steps)
            assert not told({**options, **other["options"], "accumulation": fewer})[1]
        for name in set(other["options"]) - {"accumulation"}:
            left = {key: value for key, value in other["options"].items() if key != name}
            assert not told({**options, **left, "accumulation": 8})[1]


def test_an_adapted_unembedding_has_no_fused_loss() -> None:
    for layers, said in (("all", False), ("attention,mlp", True)):
        options = {"model": "meta-llama/Llama-3.2-1B", "gpu": "rtx4090", "seq_len": 16384, "layers": layers}
        others = told(options)[0] or []
        assert any("loss" in other["options"] for other in others) == said, layers


def test_experts_that_preparing_widens_are_better_not_quantised() -> None:
    others, fits, peak = told({
        "model": "Qwen/Qwen3-30B-A3B", "gpu": "h100", "batch": 1, "checkpointing": "layer", "quantize": "nf4",
    })  # fmt: skip
    assert not fits and peak > 80e9 and others and others[0]["options"] == {"quantize": "none"}


def test_any_number_of_sequences_is_thinned_in_no_time() -> None:
    for number in (1, 2, 12, 97, 120, 4096, 99991):
        steps = remedies._thinner(Setup(micro_batch=number, accumulation=3))
        assert steps == [3 * each for each in range(1, number + 1) if number % each == 0]
    others, fits, _ = told({"model": "Qwen/Qwen2.5-0.5B", "gpu": "h100", "seq_len": 128, "batch": 10**15})
    assert not fits and others and others[0]["options"]["accumulation"] > 10**12


def test_where_nothing_helps_it_says_so() -> None:
    plan = estimate("meta-llama/Llama-3.1-70B", gpu="rtx4090")
    assert (plan.memory or {})["lora"]["would_fit"] == []
    assert plan.warnings[0].code == "does-not-fit" and "Nor would it" in plan.warnings[0].message
    assert (estimate(QWEN).memory or {})["lora"]["would_fit"] is None


def test_the_page_shows_what_to_type() -> None:
    shown = CliRunner().invoke(cli, ["estimate", "-m", QWEN, "--gpu", "rtx4090", "--batch", "8"])
    assert shown.exit_code == 0
    assert "What would fit" in shown.output and "--checkpointing layer --accumulation 8" in shown.output
    assert "It does not fit:" in shown.output


@settings(max_examples=15)
@given(
    model=st.sampled_from(["meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-405B", "Qwen/Qwen3-235B-A22B", QWEN]),
    gpu=st.sampled_from(list(ROOM)), batch=st.sampled_from([None, 1, 3, 8, 96]), gpus=st.sampled_from([1, 4]),
    seq_len=st.sampled_from([2048, 65_536, 120_000]), accumulation=st.sampled_from([None, 1, 3]),
)  # fmt: skip
def test_more_gpus_that_are_said_to_do_do_as_typed(**options: Any) -> None:
    options = {name: value for name, value in options.items() if value is not None}
    if "batch" in options:
        options["batch"] *= options["gpus"] * options.get("accumulation", 1)
    plan = estimate(**options)
    text = next((each.message for each in plan.warnings if each.code == "does-not-fit"), "")
    typed = re.findall(r"--([a-z-]+) (\w+)", text.partition("four bits.")[2])
    if not typed:
        return
    changed = {name.replace("-", "_"): int(value) if value.isdigit() else value for name, value in typed}
    again = estimate(**{**options, **changed})
    assert (again.memory or {})["lora"]["fits"]
    assert again.workload.batch >= plan.workload.batch


def test_experts_are_shared_by_the_gpus_there_are_where_that_is_enough() -> None:
    options: dict[str, Any] = {
        "model": "moonshotai/Kimi-K2-Instruct", "gpu": "h100", "gpus": 64, "batch": 64, "checkpointing": "layer",
        "sharding": "fsdp", "layers": "attention",
    }  # fmt: skip
    plan = estimate(**options)
    told = next(notice.message for notice in plan.warnings if notice.code == "does-not-fit")
    assert "--expert-parallel 32 would" in told
    assert (estimate(**options, expert_parallel=32).memory or {})["lora"]["fits"]
    page = CliRunner().invoke(cli, ["estimate", *_typed(options)]).output
    assert "32 share the experts" in page


def _typed(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_sequences_that_no_gpu_can_hold_are_shared() -> None:
    options: dict[str, Any] = {
        "model": "meta-llama/Llama-3.1-8B", "gpu": "h100", "seq_len": 128_000, "checkpointing": "layer",
    }  # fmt: skip
    alone = estimate(**options, gpus=4, sharding="fsdp")
    least = (alone.memory or {})["lora"]["fewest"]
    assert (least["gpus"], least["sequence_parallel"]) == (4, 4) and not (alone.memory or {})["lora"]["fits"]
    assert "--sequence-parallel 4 --accumulation 4 would" in alone.warnings[0].message
    for share, fits in ((4, True), (2, False)):
        again = estimate(**options, gpus=share, sharding="fsdp", sequence_parallel=share)
        assert (again.memory or {})["lora"]["fits"] == fits
    odd = estimate(**{**options, "seq_len": 128_001})
    assert (odd.memory or {})["lora"]["fewest"] is None


def test_a_loss_of_preferences_is_not_changed_for_one_of_tokens() -> None:
    """`fused` is one kernel over logits in supervised training, and TRL 1.14's of log-probabilities in DPO."""
    for objective, trainer in (("sft", "hf-trainer"), ("dpo", "llama-factory")):
        run = running(QWEN, {"trainer": trainer, "objective": objective, "layers": "attention,mlp"})
        assert run.setup.loss == "full"
        assert ("loss" in dict(remedies._open(run))) is (objective == "sft")
