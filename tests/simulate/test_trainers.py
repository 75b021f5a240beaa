"""`simulate --trainer`: the step of a named program, as an estimate has it and as torch and transformers run it."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from planner.cli.main import cli
from planner.errors import InputError
from planner.estimator import load
from planner.running import running
from planner.simulate import simulate
from planner.simulate.setups import SAID, setup_of

MODEL = "Qwen/Qwen3-0.6B"
# Every profile whose code a simulation can run, but those that differ from one of these by more GPUs alone.
RUN = (
    "axolotl-0.9", "fsdp-qlora", "hf-trainer", "hf-trainer-4", "llama-factory", "llama-recipes-2024", "ms-swift",
    "peft-comparison", "qwen-finetune", "trl", "trl-0.7", "xtuner",
)  # fmt: skip


@pytest.mark.parametrize("trainer", ["hf-trainer-4", "llama-factory", "ms-swift", "qwen-finetune", "trl"])
def test_a_trainers_estimate_is_what_its_step_takes(trainer: str) -> None:
    """Five that differ in their loss or in what they keep; of all twelve the most was 1.7% (TRL's tiles, QLoRA)."""
    options: dict[str, Any] = {"batch": 2, "seq_len": 1024, "layers": "all-linear", "trainer": trainer}
    method = "qlora" if trainer in ("trl", "llama-factory", "peft-comparison") else "lora"
    found = simulate(MODEL, methods=method, **options).steps[method]
    said = running(MODEL, {**options, "method": method})
    assert found.setup.trainer == said.setup.trainer == trainer
    assert said.memory().step_bytes == pytest.approx(found.peak.bytes, rel=0.02)


def test_the_set_up_is_an_estimates() -> None:
    """What is not given is the trainer's, or usual, in both."""
    arch = load(MODEL)[1]
    nothing = {
        **dict.fromkeys((*SAID, "quantize")),
        "seq_len": 256, "batch": 2, "accumulation": 2, "adapter_dtype": "float32", "trainer": None,
    }  # fmt: skip
    for trainer in (None, "plain", *RUN):
        for method in ("lora", "qlora", "full"):
            options: dict[str, Any] = {"method": method, "batch": 4, "accumulation": 2, "seq_len": 256}
            if trainer is not None:
                options["trainer"] = trainer
            own = setup_of(method, {**nothing, "trainer": trainer}, arch)
            made = running(MODEL, options).setup
            assert {**vars(own), "quantize_experts": False} == {**vars(made), "quantize_experts": False}


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        (
            "unsloth",
            r"trainer: found 'unsloth', expected one that runs transformers' code.*kernels unsloth.*hf-trainer",
        ),
        ("megatron", r"trainer: found 'megatron'.*kernels fused"),
        ("axolot", r"trainer: found 'axolot'.*Did you mean.*axolotl"),
    ],
)
def test_a_trainer_that_cannot_be_simulated_is_said(trainer: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        simulate(MODEL, methods="lora", trainer=trainer)


def test_the_command_names_the_trainer() -> None:
    words = ["simulate", "-m", "gpt2", "--methods", "lora", "--seq-len", "16", "--trainer", "llama-factory"]
    done = CliRunner().invoke(cli, words)
    assert "layers checkpointed, as llama-factory runs it" in " ".join(done.output.split())
