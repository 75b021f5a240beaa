"""What a page says first and how surely: whether the run fits, how long it takes, of which method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from planner import estimate, hardware, plan, report, review
from planner.cli.main import cli
from planner.cli.plan_page import target_of
from planner.moments import FIT_WORDS, Fit
from planner.remedies import typed

QWEN = "Qwen/Qwen3-8B"
RUN: dict[str, Any] = {"gpu": "rtx4090", "trainer": "unsloth", "layers": "attention,mlp", "tokens": "5M"}
ARGUMENTS = [word for name, value in RUN.items() for word in (f"--{name}", str(value))]


def said(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(cli, [*arguments], terminal_width=100)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("gpu", "batch", "fit"),
    [("a100", 1, "yes"), ("rtx4090", 1, "likely"), ("rtx3080", 1, "no"), ("rtx4090", 24, "unlikely")],
)
def test_how_surely_a_run_fits_goes_by_its_interval(gpu: str, batch: int, fit: Fit) -> None:
    found = (estimate(QWEN, **{**RUN, "gpu": gpu, "batch": batch}).memory or {})["lora"]
    room = hardware.find(gpu).memory_bytes
    assert room and found["fit"] == fit and found["fits"] == (found["per_gpu_bytes"] <= room)
    assert (found["high"] <= room) == (fit == "yes") and (found["low"] > room) == (fit == "no")
    assert FIT_WORDS[fit] in said("estimate", "-m", QWEN, *ARGUMENTS, "--gpu", gpu, "--batch", str(batch))


def test_the_first_lines_answer_of_the_run_that_was_asked_for() -> None:
    """Of a base in four bits the memory of QLoRA, with the time that the tables below have."""
    found = estimate(QWEN, **RUN, quantize="nf4").to_dict()
    assert found["method"] == "qlora" and estimate(QWEN, **RUN).to_dict()["method"] == "lora"
    lines = said("estimate", "-m", QWEN, *ARGUMENTS, "--quantize", "nf4").splitlines()
    gib = 2**30
    peak = f"{found['memory']['qlora']['per_gpu_bytes'] / gib:.3g}"
    first = next(line for line in lines[:7] if line.startswith("fits 1 x RTX 4090: "))
    assert f": {peak} GiB of 23.6 GiB (" in first and lines[1].startswith("QLoRA rank 32")
    took = next(line for line in lines[:7] if line.startswith("takes "))
    assert f"{found['time']['seconds'] / 60:.3g} min" in took and f"costs ${found['cost']['usd']:.2f}" in took
    assert not any(
        line.startswith(("takes", "fits")) for line in said("estimate", "-m", QWEN).splitlines()[:7]
    )


def test_a_report_of_a_quantised_base_is_of_its_own_memory(tmp_path: Path) -> None:
    for quantize, method in ((None, "lora"), ("nf4", "qlora")):
        own = {**RUN, **({} if quantize is None else {"quantize": quantize})}
        report(QWEN, tmp_path / "r.md", **own)
        found = (estimate(QWEN, **own).memory or {})[method]
        text = (tmp_path / "r.md").read_text()
        size = f"{found['per_gpu_bytes'] / 2**30:.3g}".ljust(4, "0")
        row = next(line for line in text.splitlines() if line.startswith("| Memory |"))
        assert f"| {size} GiB a GPU | {FIT_WORDS[found['fit']]} the card" in row
        assert f"| Memory of one GPU | {size} GiB | analytic" in text


def test_a_review_says_what_would_fit_and_it_does() -> None:
    config = {"base_model": QWEN, "adapter": "qlora", "load_in_4bit": True, "lora_target_linear": True, "lora_r": 32,
              "sequence_len": 8192, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "sample_packing": True,
              "gradient_checkpointing": True, "flash_attention": True, "bf16": True}  # fmt: skip
    found = review(config, format="axolotl", gpu="rtx4090", tokens="5M", lr=4e-4)
    [finding] = [each for each in found.findings if each.code == "does-not-fit"]
    changes = (found.plan.memory or {})["qlora"]["would_fit"][0]["options"]
    assert (
        finding.advice.startswith(f"{typed(changes)} (1 in a micro-step, ") and changes["accumulation"] == 8
    )
    again = review(config, format="axolotl", gpu="rtx4090", tokens="5M", lr=4e-4, **changes)
    assert not [each for each in again.findings if each.code == "does-not-fit"]


def test_a_plan_says_first_how_many_gpus_were_tried() -> None:
    few: dict[str, Any] = {
        "dataset": "alpaca",
        "gpu": "rtx4090",
        "trainer": "axolotl",
        "ranks": "8",
        "layers": "mlp",
    }
    words = [word for name, value in few.items() for word in (f"--{name}", value)]
    page, found = said("plan", "-m", QWEN, *words), plan(QWEN, **few)
    tried = [each.message for each in found.warnings if each.code == "gpus-tried"]
    assert (len(tried) == 1) == (found.best.choice.layout.gpus > 1)
    head = " ".join(" ".join(page.splitlines()[:4]).split())
    assert all(message in head for message in tried)
    assert "the same with `export axolotl` for `estimate`" in page


def test_a_plan_says_where_its_file_would_be_refused(tmp_path: Path) -> None:
    """Pairs on experts at scaled ranks, which PEFT has not; and of data in a file, which is not read again
    (forty answers of a byte, one of them distinct: no token that carries loss, and no regret)."""
    few = ("--gpu", "h100", "--gpus", "1", "--ranks", "8", "--layers", "mlp", "--trainer", "trl")
    page = " ".join(said("plan", "-m", "Qwen/Qwen3-30B-A3B", "--tokens", "5M", *few).split())
    assert "`export trl-sft` refuses it: experts: found 'scaled'" in page and "the same with" not in page
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 40)
    page = said("plan", "-m", QWEN, "--data", str(tmp_path / "a.jsonl"), "--epochs", "2", *few)
    assert "the same with `export trl-sft` for `estimate`" in page


def test_each_trainer_has_its_file() -> None:
    names = {"unsloth-2026-06": "unsloth", "llama-factory": "llamafactory", "llama-recipes-2024": "trl-sft",
             "axolotl-2025": "axolotl", "torchtune": "torchtune", "trl-0.24": "trl-sft", None: "trl-sft"}  # fmt: skip
    assert {name: target_of(name) for name in names} == names


def test_the_frontier_on_the_page_leaves_out_what_looks_alike() -> None:
    """A few thousand tokens: every rank takes the same time and money and loses nothing that could be measured."""
    found = plan(QWEN, tokens="30k", gpu="rtx4090", gpus=1, trainer="axolotl")
    page = said(
        "plan", "-m", QWEN, "--tokens", "30k", "--gpu", "rtx4090", "--gpus", "1", "--trainer", "axolotl"
    )
    block = page.partition("Frontier")[2].partition("\n\n")[0]
    rows = [line for line in block.splitlines() if line.startswith("rank ")]
    assert len({line.split(" GiB ")[1].strip() for line in rows}) == len(rows) < len(found.frontier)
    assert f"{len(found.frontier) - len(rows)} alike left out: --json" in block
