"""8-bit optimizers under transformers' Trainer, which has bitsandbytes keep the states of embeddings in float32."""

from __future__ import annotations

import pytest

from planner.estimator import load
from planner.memory.optimizers import wide_tables
from planner.memory.peak import WORKSPACES
from planner.running import Running, running

MODEL = "Qwen/Qwen3-0.6B"  # tied
TABLE = 151936 * 1024


def ran(trainer: str, optimizer: str, **others: object) -> Running:
    asked = {
        "method": "full",
        "optimizer": optimizer,
        "batch": 1,
        "seq_len": 256,
        "trainer": trainer,
        **others,
    }
    return running(MODEL, asked)


def states(run: Running) -> int:
    return run.memory().peak.parts()["optimizer"]


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "lion-8bit"])
def test_tables_have_states_of_four_bytes(optimizer: str) -> None:
    """transformers 5.23, trainer.py: manager.register_module_override(module, "weight", {"optim_bits": 32}), of every
    nn.Embedding; a loop of one's own tells bitsandbytes nothing."""
    number = 2 if optimizer == "adamw-8bit" else 1
    more = number * (4 * TABLE - TABLE - 4 * TABLE // 256)
    assert states(ran("hf-trainer", optimizer)) - states(ran("hf-loop", optimizer)) == more


def test_whose_programs_are_around_the_trainer() -> None:
    around = ("trl", "trl-1.14", "axolotl", "llama-factory-2023", "unsloth", "ms-swift", "firefly", "oumi")
    for name in around:
        assert wide_tables(ran(name, "adamw-8bit").setup), name
    for name in ("hf-loop", "torchtune", "litgpt", "accelerate-loop", "plain"):
        assert not wide_tables(ran(name, "adamw-8bit").setup), name
    assert not wide_tables(ran("hf-trainer", "adamw").setup)


def test_sharded_parameters_are_not_met() -> None:
    """FSDP hands over other tensors than the modules' weights."""
    assert not wide_tables(ran("hf-trainer", "adamw-8bit", gpus=2, batch=2, sharding="fsdp").setup)
    assert wide_tables(ran("hf-trainer", "adamw-8bit", gpus=2, batch=2, sharding="ddp").setup)


@pytest.mark.parametrize("trainer", ["hf-trainer", "hf-loop"])
def test_as_it_is_simulated(trainer: str) -> None:
    pytest.importorskip("torch")
    from planner.simulate.core import simulate_step

    run = ran(trainer, "adamw-8bit")
    found = simulate_step(load(MODEL)[0].config, None, run.setup, arch=run.arch).peak.bytes
    ours = run.memory().allocated_bytes - WORKSPACES * run.setup.workspace_bytes
    assert ours == pytest.approx(found, rel=0.01)
