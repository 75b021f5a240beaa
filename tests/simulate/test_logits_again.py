"""Losses that make logits again on the way back, and pass over pairs on the unembedding: TRL's own code on the CPU,
the simulation and the closed form count the same FLOPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from planner import estimate, simulate
from planner.choices import PAST_PAIRS, Checkpointing
from planner.setup import Setup
from planner.simulate.core import simulate_step
from tools.measured_memory import LORA, STEP, real
from tools.tiny_models import CONFIGS

LLAMA = CONFIGS["llama"]
LENGTH = 96
WHERE: dict[str, Any] = {"rank": 8, "experts": "none", "seq_len": LENGTH, "attention_kernel": "eager"}


def of_addmm(total: Any, a: tuple[int, int], b: tuple[int, int], *_: Any, **__: Any) -> int:
    """FLOPs of `addmm_`, which torch's counter passes over."""
    return 2 * a[0] * a[1] * b[1]


@pytest.mark.parametrize("checkpointing", ["none", "layer"])
def test_trls_own_loss_makes_every_logit_twice(checkpointing: Checkpointing) -> None:
    utils = pytest.importorskip("trl.trainer.utils")
    setup = replace(STEP, loss="tiled", seq_len=LENGTH, checkpointing=checkpointing)
    made = real(LLAMA, LORA, setup)
    model = made.model.train()
    if checkpointing != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    utils.add_fused_lm_head(model.get_base_model())
    ids = torch.ones(setup.sequences, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: of_addmm}) as counter:
        model(input_ids=ids, labels=ids, fused_lm_head=True).loss.backward()
    found = estimate(
        LLAMA, loss="tiled", layers="all-linear", batch=setup.sequences, checkpointing=checkpointing, **WHERE
    ).flops
    assert found is not None
    assert found.counted_lora == counter.get_total_flops()
    assert simulate_step(LLAMA, LORA, setup).total_flops == counter.get_total_flops()


@pytest.mark.parametrize("loss", PAST_PAIRS)
def test_pairs_on_the_unembedding_are_passed_over_by_both(loss: str) -> None:
    """With them and without, to the last FLOP; and the same note."""
    flops = {}
    for layers in ("all", "attention,mlp"):
        ran = simulate(LLAMA, methods="lora,full", layers=layers, loss=loss, batch=2, **WHERE)
        found = estimate(LLAMA, layers=layers, loss=loss, batch=2, **WHERE)
        assert found.flops is not None
        flops[layers] = ran.steps["lora"].flops
        assert found.flops.counted_lora == flops[layers]
        assert found.flops.counted_full == ran.steps["full"].flops
        said = [
            [each.message for each in of.warnings if each.code == "pairs-passed-over"] for of in (ran, found)
        ]
        assert said[0] == said[1] and len(said[0]) == (layers == "all")
    assert flops["all"] == flops["attention,mlp"]


@pytest.mark.parametrize("trainer", ["trl", "trl-1.14"])
def test_a_trainers_default_layers_run_as_they_are_estimated(trainer: str) -> None:
    ran = simulate(LLAMA, trainer=trainer, methods="lora", seq_len=LENGTH, batch=2).steps["lora"]
    found = estimate(LLAMA, trainer=trainer, seq_len=LENGTH, batch=2).to_dict()["memory"]["lora"]
    assert ran.parts["adapter"] == found["parts"]["adapter"]


def test_entries_of_the_vocabulary_make_the_frozen_unembeddings_gradient() -> None:
    """Four products of 2 x 96 x 64 x 320 multiply-adds, two of them beyond those of a plain loss."""
    counted = [
        simulate_step(LLAMA, LORA, Setup(seq_len=LENGTH, micro_batch=2, attention_kernel="eager", loss=loss))
        for loss in ("chunked-vocabulary", "full")
    ]
    assert counted[0].total_flops - counted[1].total_flops == 2 * 2 * (2 * LENGTH * 64 * 320)


def test_a_step_has_the_flops_of_all_its_micro_steps() -> None:
    ran = simulate(LLAMA, methods="lora", batch=2, accumulation=3, **WHERE).steps["lora"]
    found = estimate(LLAMA, batch=6, accumulation=3, **WHERE).flops
    assert found is not None and ran.flops == found.counted_lora
