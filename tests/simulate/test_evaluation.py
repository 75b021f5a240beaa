"""A step as a named trainer runs it, and an evaluation beside it: simulated, estimated, and real on the CPU."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch

from planner import simulate
from planner.errors import InputError
from planner.estimator import load
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.running import running
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.simulate.request import METHODS
from planner.simulate.setups import setups_of
from planner.trainers import names
from tools.measured_memory import CPU, LORA, allocated, real
from tools.tiny_models import CONFIGS

MODEL = "Qwen/Qwen3-0.6B"
UNSAID: dict[str, Any] = dict.fromkeys(
    ("seq_len", "checkpointing", "trainer", "eval_batch", "precision", "autocast", "upcast_small", "optimizer",
     "attention_kernel", "packing", "loss", "objective", "reference", "prompt_tokens", "lora_dropout", "quantize",
     "base_dtype", "outputs_held", "expandable_segments", "gpu")
)  # fmt: skip


def asked(model: str = MODEL, methods: tuple[str, ...] = METHODS, named: bool = True, **options: Any) -> Any:
    usual = {**UNSAID, "batch": 1, "accumulation": 1, "adapter_dtype": "float32"}
    return setups_of(methods, {**usual, **options}, load(model)[1], named=named)


@pytest.mark.parametrize(
    ("trainer", "method"),
    [("hf-trainer-4.46", "lora"), ("trl-1.14", "qlora"), ("trl-1.12", "lora"), ("torchtune", "full"),
     ("hf-trainer-2022", "full"), ("llama-recipes-2024", "full")],
)  # fmt: skip
def test_what_an_estimate_says_of_a_trainer_can_be_simulated(trainer: str, method: str) -> None:
    """Peaks of the step and of the evaluation, by the trainer's own loss, checkpointing, types and optimizer."""
    options: dict[str, Any] = {"layers": "attention,mlp", "rank": 16, "seq_len": 512, "trainer": trainer}
    old = trainer.startswith("hf-trainer-4")  # whose evaluation fills a cache, which is not simulated
    options |= {"batch": 2, "eval_batch": None if old else 4}
    step = simulate(MODEL, methods=method, **options).steps[method]
    found = running(MODEL, {k: v for k, v in {**options, "method": method}.items() if v is not None}).memory()
    without = WORKSPACES * WORKSPACE_BYTES
    assert found.allocated_bytes - without == pytest.approx(step.peak_bytes, rel=0.005)
    assert step.setup.trainer == trainer
    if old:
        with pytest.raises(InputError, match="eval-batch"):
            simulate(MODEL, methods=method, **{**options, "eval_batch": 4})
        return
    evaluation = max(each.bytes for each in found.moments if each.phase == "evaluation")
    assert evaluation - without == pytest.approx(step.moments["evaluation"].bytes, rel=0.01)


@pytest.mark.parametrize("loss", ["full", "fused"])
def test_an_evaluation_is_a_real_models_forward_pass(loss: Any) -> None:
    """Of the CPU, where the fused loss takes no kernel's place: it is left out there."""
    setup = Setup(
        precision="fp32", attention_kernel="eager", seq_len=64, micro_batch=1, eval_batch=6, loss=loss
    )
    config = CONFIGS["llama"]
    found = simulate_step(config, LORA, setup, block_bytes=1, how=CPU)
    without = simulate_step(config, LORA, setup, block_bytes=1, how=CPU).moments["optimizer"].parts
    held = sum(without[:2]) + without[3]
    model = real(config, LORA, setup).model.eval()
    ids = torch.zeros(6, 64, dtype=torch.long)
    given = {"labels": ids} if loss == "full" else {}
    with torch.no_grad():
        top, _ = allocated(lambda: model(input_ids=ids.clone(), **given))
    beside = 0 if loss == "full" else ids.nbytes * 2  # labels, and those moved by one
    assert found.moments["evaluation"].bytes - held == pytest.approx(top + beside, rel=0.02)
    assert found.moments["evaluation"].place.phase == "evaluation"


def test_gradients_that_are_kept_wait_beside_every_pass() -> None:
    config = CONFIGS["llama"]
    step = [
        simulate_step(config, None, Setup(method="full", eval_batch=1, gradients_kept=kept), block_bytes=1)
        for kept in (False, True)
    ]
    gradients = 2 * step[0].trained
    assert step[1].moments["forward"].bytes - step[0].moments["forward"].bytes == gradients
    assert step[1].moments["evaluation"].bytes - step[0].moments["evaluation"].bytes == gradients


def test_most_trainers_can_be_simulated() -> None:
    """LoRA of 27 profiles; those with kernels of their own are refused."""
    able = []
    for name in names():
        with suppress(InputError):
            able += [name for _ in asked("Qwen/Qwen3-0.6B", methods=("lora",), trainer=name)[0]]
    assert len(able) >= 27 and {"unsloth", "litgpt"}.isdisjoint(able)


def test_usual_methods_that_cannot_be_run_are_left_out_and_said() -> None:
    """Experts quantised as transformers 4 had them are not simulated; of methods that are named, that is an error."""
    found, notes = asked("Qwen/Qwen1.5-MoE-A2.7B", named=False, trainer="hf-trainer-4")
    assert [setup.method for setup in found] == ["lora", "full"]
    assert [note.code for note in notes] == ["method-not-simulated"] and "quantize-experts" in notes[
        0
    ].message
    with pytest.raises(InputError, match="quantize-experts"):
        asked("Qwen/Qwen1.5-MoE-A2.7B", methods=("qlora",), trainer="hf-trainer-4")


def test_what_is_said_stands_before_what_a_trainer_does() -> None:
    (trl,), _ = asked(methods=("lora",), trainer="trl")
    assert (trl.checkpointing, trl.loss, trl.autocast, trl.micro_batch) == ("layer", "tiled", True, 1)
    (own,), _ = asked(methods=("lora",), trainer="trl", checkpointing="none", loss="full", autocast=False)
    assert (own.checkpointing, own.loss, own.autocast) == ("none", "full", False)
    (offloaded,), _ = asked(methods=("lora",), checkpointing="layer-offload", batch=2, accumulation=4)
    assert (offloaded.checkpointing, offloaded.micro_batch, offloaded.accumulation) == ("layer-offload", 2, 4)


def test_tiles_of_the_unembedding_that_are_copied_are_two_at_a_time() -> None:
    """Norms and the unembedding in float32 beside hidden states that autocast lowers: TRL's loss copies each tile."""
    options: dict[str, Any] = {"layers": "attention,mlp", "rank": 8, "seq_len": 256, "loss": "tiled"}
    options |= {"autocast": True, "upcast_small": True}
    step = simulate(MODEL, methods="qlora", **options).steps["qlora"]
    found = running(MODEL, {**options, "method": "qlora"}).memory()
    assert found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES == pytest.approx(step.peak_bytes, rel=0.01)
