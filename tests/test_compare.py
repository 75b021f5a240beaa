"""Calibrating on a measured step, and methods side by side: library and command line."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

import planner
from planner import hardware, units
from planner.cli.compare_page import show
from planner.cli.main import cli
from planner.comparing import compare
from planner.errors import InputError, UnsupportedArchitectureError
from planner.measuring import calibrate
from planner.running import Running, running
from planner.trainers import names, usual

LLAMA = "meta-llama/Llama-3.1-8B"
STEP: dict[str, Any] = {"gpu": "h100", "rank": 16, "layers": "all-linear", "batch": 8, "seq_len": 2048}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, arguments, prog_name="lora-plan")


# compare


def test_columns_side_by_side() -> None:
    found = compare(LLAMA, gpu="h100", tokens="50M", batch=8, checkpointing=True, ranks="8,64")
    assert [c.label.removeprefix(f"{LLAMA} ") for c in found.columns] == [
        "lora r8", "lora r64", "qlora r8", "qlora r64", "full",
    ]  # fmt: skip
    lora, wide, qlora, _, full = found.columns
    assert lora.run.params < wide.run.params < full.run.params == 8_030_261_248
    assert qlora.memory.parts()["weights"] < lora.memory.parts()["weights"] == full.memory.parts()["weights"]
    assert qlora.memory.per_gpu_bytes < lora.memory.per_gpu_bytes < full.memory.per_gpu_bytes
    assert lora.flops_per_token and full.flops_per_token and lora.flops_per_token < full.flops_per_token
    assert lora.regret and wide.regret and lora.regret.value > wide.regret.value and full.regret is None
    for column in found.columns:
        assert column.time and column.cost and column.time.steps == math.ceil(50e6 / (8 * 2048))
        assert column.fewest and column.fewest.gpus in (1, 2)
    assert found.to_dict()["columns"][0]["memory"]["fits"] is True


def test_full_fine_tuning_needs_more_gpus() -> None:
    found = compare("meta-llama/Llama-3.1-70B", gpu="h100", checkpointing=True)
    smallest = {column.method: column.fewest.gpus for column in found.columns if column.fewest}
    assert smallest["qlora"] == 1 < smallest["lora"] < smallest["full"]


@pytest.mark.parametrize("trainer", ["torchtune", "trl", "unsloth", "axolotl", None])
def test_the_fewest_gpus_are_an_estimate_that_fits_and_half_of_them_none(trainer: str | None) -> None:
    """A layout has the memory that is said where it is typed, with what the trainer does on so many."""
    room = hardware.find("rtx 4090").memory_bytes or 0
    options: dict[str, Any] = {
        "seq_len": 1024,
        "checkpointing": "layer",
        **({"trainer": trainer} if trainer else {}),
    }
    models = ("Qwen/Qwen3-8B", "Qwen/Qwen2.5-32B-Instruct", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-30B-A3B")
    for column in compare(",".join(models), gpu="rtx 4090", **options).columns:
        least = column.fewest

        def needed(gpus: int, apart: int, shared: int = 1, run: Running = column.run) -> int:
            said = {"method": run.setup.method, "gpus": gpus, "expert_parallel": apart, "gpu": "rtx 4090"}
            said |= {"sequence_parallel": shared}
            sharded = {} if gpus == 1 else {"sharding": "fsdp"}
            return running(run.model, {**options, **said, **sharded}).memory().per_gpu_bytes

        if least is None:  # transformers 5 loads a 4-bit base whole onto every GPU, before FSDP divides it
            assert (trainer, column.method) == ("trl", "qlora") and needed(4096, 1) > room
            continue
        said = needed(least.gpus, least.expert_parallel, least.sequence_parallel)
        assert said == least.per_gpu_bytes <= room, column.label
        if least.gpus > 1:
            half = least.gpus // 2
            assert min(needed(half, apart) for apart in {1, math.gcd(half, column.run.arch.n_experts)}) > room


def test_the_fewest_gpus_of_what_steps_in_its_backward_pass_on_one() -> None:
    """torchtune's full fine-tuning does on one GPU, where a step has one micro-step."""
    options: dict[str, Any] = {
        "gpu": "rtx 3090",
        "gpus": 2,
        "sharding": "fsdp",
        "batch": 16,
        "accumulation": 4,
    }
    found = planner.estimate(
        "Qwen/Qwen3-4B", trainer="torchtune", quantize="nf4", checkpointing=True, **options
    )
    assert found.to_dict()["memory"]["full"]["fewest"]["gpus"] >= 1


@pytest.mark.parametrize("trainer", [name for name in names() if usual({"trainer": name}, "sharding")])
def test_a_column_on_one_gpu_is_the_estimate_of_its_method(trainer: str) -> None:
    """What a trainer does on several GPUs alone is left out by both."""
    options: dict[str, Any] = {"gpu": "h100", "seq_len": 256, "trainer": trainer}
    alone = planner.estimate("Qwen/Qwen2.5-0.5B", **options).memory or {}
    for column in compare(
        "Qwen/Qwen2.5-0.5B", **options, sharding=None
    ).columns:  # None: as the command line says it
        assert column.run.memory().per_gpu_bytes == alone[column.method]["per_gpu_bytes"]


def test_layers_run_again_as_the_trainer_has_it_for_each_method() -> None:
    """Of QLoRA alone: `estimate` had its column, and what it said of a four-bit base, without."""
    options: dict[str, Any] = {"gpu": "h100", "seq_len": 1024, "batch": 8, "trainer": "llama-recipes-2024"}
    found = planner.estimate("Qwen/Qwen2.5-7B", **options).memory or {}
    again = {method: column["setup"]["checkpointing"] for method, column in found.items()}
    assert again == {"lora": "none", "qlora": "layer", "full": "none"}
    for column in compare("Qwen/Qwen2.5-7B", **options).columns:
        assert column.run.memory().per_gpu_bytes == found[column.method]["per_gpu_bytes"]
    kept = planner.estimate("Qwen/Qwen2.5-7B", **options, checkpointing="none").memory or {}
    assert kept["qlora"]["setup"]["checkpointing"] == "none"


def test_models_side_by_side_and_without_a_gpu() -> None:
    found = compare("Qwen/Qwen3-4B,Qwen/Qwen3-8B", methods="lora")
    assert [c.run.model for c in found.columns] == ["Qwen/Qwen3-4B", "Qwen/Qwen3-8B"]
    assert all(c.time is c.cost is c.fewest is None for c in found.columns)
    assert found.to_dict()["columns"][0]["memory"]["fits"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gpu": "H1000"}, "gpu: found 'H1000'.*Did you mean"),
        (
            {"methods": "lora,ful"},
            "methods: found 'ful', expected one of lora, qlora, full.*Did you mean full",
        ),
        ({"ranks": "0"}, "ranks: found '0'"),
        ({"batch": 3, "gpus": 2}, "batch: found 3, expected a multiple of 2"),
        ({"presicion": "bf16"}, "presicion: .*Did you mean precision"),
        ({"price": -1}, "price"),
        ({"gpus": 0}, "gpus"),
        ({"calibration": "/nowhere.json"}, "calibration"),
    ],
)
def test_bad_input_to_compare(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        compare(LLAMA, **{"methods": "lora", **options})


def test_methods_that_do_not_go_with_the_options_are_left_out() -> None:
    """But those that somebody named, and the one that an estimate would be of."""
    found = compare(LLAMA, checkpointing="selective", attention_kernel="flash", layers="attention,mlp")
    assert [column.method for column in found.columns] == ["lora", "full"]
    (said,) = [notice.message for notice in found.warnings if notice.code == "method-left-out"]
    assert said.startswith("qlora is left out") and "on a quantised base" in said
    with pytest.raises(InputError, match="on a quantised base"):
        compare(LLAMA, methods="qlora,lora", checkpointing="selective", attention_kernel="flash")
    with pytest.raises(InputError, match="quantize: found 'int4'"):
        compare(LLAMA, quantize="int4")
    with pytest.raises(UnsupportedArchitectureError, match="memory of clip is not known"):
        compare("openai/clip-vit-large-patch14")


def test_a_step_of_grpo_is_that_of_an_estimate() -> None:
    """Its batch, where none is given, and what it refuses."""
    options: dict[str, Any] = {"objective": "grpo", "gpus": 2, "accumulation": 2}
    alone = planner.estimate("Qwen/Qwen3-0.6B", **options).memory or {}
    for column in compare("Qwen/Qwen3-0.6B", **options).columns:
        assert column.run.setup.global_batch == 32
        assert column.memory.per_gpu_bytes == alone[column.method]["per_gpu_bytes"]
    with pytest.raises(InputError, match="a multiple of the group of 8"):
        compare("Qwen/Qwen3-0.6B", objective="grpo", batch=4)
    with pytest.raises(InputError, match="expected --episodes"):
        compare("Qwen/Qwen3-0.6B", objective="grpo", tokens="1M")


def test_compare_on_the_command_line() -> None:
    page = run("compare", "-m", LLAMA, "--gpu", "h100", "--tokens", "50M", "--batch", "8")
    assert page.exit_code == 0, page.output
    assert "fewest GPUs" in page.output and "the run" in page.output and "full" in page.output
    data = json.loads(run("compare", "-m", LLAMA, "--ranks", "8,16", "--methods", "lora", "--json").output)
    assert [column["rank"] for column in data["columns"]] == [8, 16]
    assert run("compare").exit_code == 2


# calibrate


def test_a_measured_step_moves_later_estimates(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    first = calibrate(LLAMA, tokens_per_s=6000, out=path, **STEP)
    assert first.before and first.after and first.measurement
    assert first.before.seconds < first.after.seconds < first.measurement.measured_s
    assert first.measurement.measured_s == pytest.approx(8 * 2048 / 6000)
    second = calibrate(LLAMA, step_time=first.measurement.measured_s, add_to=path, out=path, **STEP)
    assert len(second.calibration.measurements) == 2 and second.after
    assert second.after.high / second.after.low < first.after.high / first.after.low
    plain = compare(LLAMA, methods="lora", **{k: v for k, v in STEP.items() if k != "rank"}).columns[0]
    mine = compare(LLAMA, methods="lora", calibration=path, **{k: v for k, v in STEP.items() if k != "rank"})
    assert plain.time and mine.columns[0].time
    assert mine.columns[0].time.step.seconds > plain.time.step.seconds
    assert mine.columns[0].time.calibrated and not plain.time.calibrated
    found = planner.plan(LLAMA, tokens="5M", gpu="h100", gpus=1, calibration=path)
    assert found.best.run.calibrated


def test_a_record_of_a_run(tmp_path: Path) -> None:
    """What a validation run writes: its configuration, seconds of a step, and torch's name of the device."""
    record = {
        "config": {"model": LLAMA, "rank": 16, "layers": "all-linear", "batch": 8, "seq_len": 2048,
                   "optimizer": "adam", "precision": "bfloat16", "method": "lora", "checkpointing": False},
        "step_s": 2.5, "hardware": {"accelerator": "NVIDIA H100 80GB HBM3"},
    }  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    found, other = calibrate(record=path), calibrate(LLAMA, step_time=1.0, **STEP)
    assert found.measurement and found.before and other.before
    assert found.measurement.gpu == "H100 SXM 80GB" and found.measurement.measured_s == 2.5
    assert found.before.seconds == other.before.seconds
    typed = calibrate(record=path, tokens_per_s=8 * 2048).measurement
    assert typed and typed.measured_s == pytest.approx(1.0)
    for text in ("", "[]", "{"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="record|model"):
            calibrate(record=path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "step-time: found None, expected one of"),
        (
            {"step_time": 1.0, "tokens_per_s": 5.0},
            "tokens-per-s: found 5.0, expected nothing beside step-time",
        ),
        ({"step_time": 0}, "step-time: found 0"),
        ({"tokens_per_s": -5}, "tokens-per-s: found -5"),
        ({"step_time": 1.0, "gpu": None}, "gpu: found None"),
        ({"step_time": 1.0, "out": "/nowhere/x.json"}, "out: found '/nowhere/x.json'"),
        ({"step_time": 1.0, "kernels": "cuda"}, "kernels: found 'cuda'"),
    ],
)
def test_bad_input_to_calibrate(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        calibrate(LLAMA, **{**STEP, **options})


def test_calibrate_on_the_command_line(tmp_path: Path) -> None:
    path = str(tmp_path / "mine.json")
    arguments = (
        "calibrate",
        "-m",
        LLAMA,
        "--gpu",
        "h100",
        "--rank",
        "16",
        "--batch",
        "8",
        "--step-time",
        "3",
    )
    page = run(*arguments, "-o", path)
    assert page.exit_code == 0, page.output
    assert "predicted after" in page.output and "1 measurement" in page.output
    data = json.loads(run(*arguments, "--add-to", path, "--json").output)
    assert data["measurements"] == 2 and data["after"]["low"] > data["before"]["low"]


# plan


def test_plan_on_the_command_line() -> None:
    arguments = ("plan", "-m", LLAMA, "--tokens", "20M", "--gpu", "rtx4090,h100", "--gpus", "1,2")
    page = run(*arguments, "--budget", "20", "--deadline", "12h")
    assert page.exit_code == 0, page.output
    for words in ("Next best", "Frontier", "Why not", "over", "plans keep the limits"):
        assert words in page.output
    data = json.loads(run(*arguments, "--json").output)
    assert data["candidates"] >= data["feasible"] > 0


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_page_of_many_columns_cuts_nothing(width: int) -> None:
    found = compare(LLAMA, gpu="rtx4090", tokens="50M", ranks="1,8,64,256")
    console = Console(width=width, record=True, file=io.StringIO())
    show(found, console)
    lines = console.export_text().splitlines()
    shown = [line for line in lines if line.startswith("trained")]
    figures = [figure for line in shown for figure in re.findall(r"[\d.,]+ [MB]", line)]
    assert figures == [units.count(column.run.params) for column in found.columns]
    assert "…" not in "".join(lines) and max(map(len, lines)) <= width


def test_a_way_without_a_time_says_why() -> None:
    """No source states a float32 rate of Google's chips: an adapter in float32 has no time there, full fine-tuning
    in 16 bits has."""
    found = planner.compare("Qwen/Qwen3-8B", gpu="tpu-v5e", methods="lora,full")
    lora, full = found.columns
    assert lora.time is None and lora.untimed and full.time and full.untimed is None
    said = [notice.message for notice in found.warnings if notice.code == "no-time"]
    assert len(said) == 1 and "lora r32" in said[0] and "float32 rate" in said[0] and "full" not in said[0]
    assert not [n for n in planner.compare("Qwen/Qwen3-8B", methods="lora").warnings if n.code == "no-time"]


def test_the_host_of_every_way() -> None:
    """AdamW's two states of a full fine-tune are in the type of its weights; an estimate says the same of LoRA."""
    options: dict[str, Any] = {"offload": "optimizer", "gpu": "h100"}
    lora, full = planner.compare("Qwen/Qwen3-8B", methods="lora,full", **options).columns
    assert full.run.setup.precision == "bf16" and full.host.node_bytes == 2 * 2 * full.run.params
    plan = planner.estimate("Qwen/Qwen3-8B", **options)
    assert plan.memory and plan.memory["lora"] and plan.memory["lora"]["host"] == lora.host.to_dict()
    short = planner.compare("Qwen/Qwen3-8B", methods="lora,full", **options, host_memory=lora.host.node_bytes)
    assert [c.host.fits for c in short.columns] == [True, False]
    said = [n for n in short.warnings if n.code.startswith("host-memory")]
    assert [n.code for n in said] == ["host-memory-short"] and "full" in said[0].message
    assert short.to_dict()["columns"][1]["memory"]["host"]["fits"] is False


def test_a_gpu_without_a_price_says_so_where_there_would_be_a_cost() -> None:
    options: dict[str, Any] = {"gpu": "gaudi-2", "adapter_dtype": "bfloat16"}

    def said(found: Any) -> list[str]:
        return [n.message for n in found.warnings if n.code == "no-price"]

    priced, free = planner.compare("gpt2", tokens="5M", **options), planner.compare("gpt2", **options)
    assert priced.columns[0].time and priced.columns[0].cost is None
    assert len(said(priced)) == 1 and "--price" in said(priced)[0] and not said(free)
    assert not said(planner.compare("gpt2", tokens="5M", price=1.0, **options))
    assert len(said(planner.estimate("gpt2", tokens="5M", **options))) == 1
    assert not said(planner.estimate("gpt2", **options))
