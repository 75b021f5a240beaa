"""TF32: faster products in float32, and not a byte of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import estimate
from planner.errors import InputError
from planner.hardware import cluster, find
from planner.setup import Setup
from planner.speed import step_time
from planner.speed.efficiency import constants, reach_of
from planner.speed.roofline import rates
from planner.speed.step import work_of
from planner.trainers import filled
from tests.speed.test_parts import ARCH
from tools.speed_later import SIXTH, later, time_of

WIDE = Setup(method="full", precision="fp32", seq_len=256)
OPTIONS: dict[str, Any] = {
    "gpu": "a100-80gb",
    "batch": 2,
    "seq_len": 256,
    "precision": "fp32",
    "layers": "attention",
}


def test_products_run_at_the_peak_of_the_format() -> None:
    """156 of 19.5 TFLOP/s on an A100; attention in float32 asks for no switch; chips without it change nothing."""
    for gpu, faster in (("a100-80gb", 156 / 19.5), ("rtx-3090", 1.0), ("v100-32gb", 1.0), ("t4", 1.0)):
        machine = cluster(find(gpu))
        work = work_of(ARCH, replace(WIDE, packing="padded", micro_batch=2))
        off, on = (
            rates(machine, work, constants().efficiency, replace(WIDE, tf32=tf32)).products
            for tf32 in (False, True)
        )
        assert on["base", "float32"] / off["base", "float32"] == pytest.approx(faster), gpu
        assert on["masked", "float32"] == off["masked", "float32"]
    known = rates(cluster(find("a100-80gb")), work, constants().efficiency, replace(WIDE, tf32=True))
    reached = constants().efficiency.matmul * reach_of("A100 SXM 80GB")
    assert known.products["base", "float32"] == pytest.approx(156e12 * reached)


def test_sixteen_bits_are_as_they_were() -> None:
    for setup in (replace(WIDE, precision="bf16"), replace(WIDE, precision="autocast")):
        plain, switched = (
            step_time(ARCH, replace(setup, tf32=tf32), cluster(find("a100-80gb"))) for tf32 in (False, True)
        )
        assert plain.parts == switched.parts and plain.mfu == switched.mfu


def test_memory_is_that_of_float32_and_notices_say_what_it_does() -> None:
    off, on = (estimate("openai-community/gpt2", **OPTIONS, tf32=tf32) for tf32 in (False, True))
    assert off.memory and on.memory and off.time and on.time
    for method in ("lora", "full"):
        assert off.memory[method]["per_gpu_bytes"] == on.memory[method]["per_gpu_bytes"]
    assert on.time["step"]["seconds"] < off.time["step"]["seconds"]
    codes = [{notice.code for notice in plan.warnings} for plan in (off, on)]
    assert "tf32-off" in codes[0] and "tf32-off" not in codes[1]
    v100 = estimate("openai-community/gpt2", **{**OPTIONS, "gpu": "v100-32gb", "tf32": True})
    assert "no-tf32" in {notice.code for notice in v100.warnings}


def test_a_wrong_word_says_which_option_it_is() -> None:
    with pytest.raises(InputError, match="--precision fp32 with --tf32"):
        Setup(precision="tf32")  # type: ignore[arg-type]


def test_published_steps_with_and_without() -> None:
    """GPT-2 on an A100 (rasbt/LLMs-from-scratch, ch05/10): 12,526 tokens a second in float32, 27,648 once
    torch.set_float32_matmul_precision("high") stood there, 28,402 with a fused AdamW and pinned memory."""
    case = next(c for c in later(SIXTH) if "--tf32" in c.options)
    assert case.measured == 28402
    switched, plain = time_of(case), time_of(replace(case, options=case.options.replace("--tf32 ", "")))
    assert 1 / 1.35 < switched.tokens_per_s / 28402 < 1.35
    assert 1 / 1.35 < plain.tokens_per_s / 12526 < 1.35
    assert switched.low <= 8192 / 28402 <= switched.high and plain.low <= 8192 / 12526 <= plain.high


def test_trainers_that_switch_it_on() -> None:
    assert filled({"trainer": "litgpt"})["tf32"] and filled({"trainer": "prime-rl"})["tf32"]
    assert "tf32" not in filled({"trainer": "trl"})
