"""The steps that are run on a real GPU: each can be predicted, and a record becomes a page."""

from __future__ import annotations

import pytest

from tools import compare_gpu
from tools.gpu_cases import first

CASES = first()


def test_every_case_was_predicted_before_the_first_run_and_no_two_are_alike() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    known = compare_gpu.blind()
    assert set(known) == {tuple(compare_gpu.named(case).values()) for case in CASES}
    assert all(found["allocated_bytes"] > 1e9 and found["step_s"] > 0 for found in known.values())


@pytest.mark.parametrize("number", range(0, len(CASES), 12))
def test_a_case_is_still_predicted(number: int) -> None:
    case = CASES[number]
    now = compare_gpu.predicted(case)
    assert now["allocated_bytes"] < now["reserved_bytes"] < now["device_bytes"]
    assert now["low_s"] < now["step_s"] < now["high_s"]


def test_a_record_becomes_a_page() -> None:
    case = CASES[0]
    before = compare_gpu.blind()[tuple(compare_gpu.named(case).values())]
    ran = {
        "model": case.model, "options": case.options, "changes": case.changes, "status": "ok",
        "peak_bytes": int(before["allocated_bytes"] / 1.02), "reserved_bytes": int(before["reserved_bytes"]),
        "step_s": before["step_s"] / 0.9,
    }  # fmt: skip
    failed = {"model": "a/b", "options": {}, "changes": {}, "status": "failed", "reason": "ValueError: no"}
    about = {"gpu": "A GPU", "versions": {"torch": "2.11"}}
    text = compare_gpu.page([{"about": about}, ran, failed])
    assert "| allocated | before | 1 | 2.00% | 2.00% | 1 |" in text
    assert "| step time | before | 1 | 10.00% | 10.00% | 0 |" in text
    assert "before 1 of 1" in text
    assert "- a/b: ValueError: no" in text
    assert "on A GPU (torch 2.11)" in text
