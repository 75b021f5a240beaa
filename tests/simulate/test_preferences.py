"""Losses of preferences: TRL's own code on the CPU beside its simulation, and what references cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from planner import adapter, estimate
from planner.architecture.build import build
from planner.choices import Loss, Objective, Precision
from planner.errors import InputError
from planner.memory import estimate_memory
from planner.running import running
from planner.setup import Setup
from planner.simulate.core import Simulation, simulate_step
from tools.measured_memory import LORA, STEP, allocated, checkpointed, real, simulated
from tools.tiny_models import CONFIGS

LLAMA = CONFIGS["llama"]
DPO = replace(STEP, objective="dpo", loss="tiled")


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TRL's tiled loss as it runs on a GPU: labelled rows alone, tiles folded where they lie by a kernel, which is
    left out."""
    trl = pytest.importorskip("trl.trainer.utils")
    import trl.kernels.chunked_logprob as kernels

    monkeypatch.setattr(trl, "_use_triton", lambda device: True)
    monkeypatch.setattr(kernels, "_forward_tile", lambda *args, **kwargs: None)
    monkeypatch.setattr(kernels, "_backward_tile", lambda *args, **kwargs: None)
    return trl


def trainer(model: Any, reference: Any, precomputed: bool) -> Any:
    """What TRL's loss asks of its trainer."""
    return SimpleNamespace(
        model=model, ref_model=reference, aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=precomputed,
        f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0], beta=0.1, use_weighting=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None), _metrics={"train": defaultdict(list)},
        _total_train_tokens=0, _tp_size=1,
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), unwrap_model=lambda model: model, gather=lambda x: x,
            gather_for_metrics=lambda x: x,
        ),
    )  # fmt: skip


def measured(setup: Setup, utils: Any) -> tuple[int, int]:
    """Bytes that TRL's DPO leaves for the backward pass, and the most that a step holds beyond its inputs."""
    from trl import DPOTrainer

    made = real(LLAMA, LORA, setup)
    model, reference = made.model.train(), None
    fields = ("log_probs", "entropy", "mean_logits", "is_top1")
    utils.add_fused_lm_head(model.get_base_model() if setup.method != "full" else model, outputs=fields)
    if setup.copies_base:
        reference = real(LLAMA, LORA, setup).model
        utils.add_fused_lm_head(reference, outputs=fields)
    ids = torch.ones(setup.sequences, setup.seq_len, dtype=torch.long)
    batch = {
        "input_ids": ids,
        "completion_mask": torch.ones_like(ids),
        "attention_mask": torch.ones_like(ids),
    }
    if setup.reference == "precomputed":
        batch |= {f"ref_{name}_logps": torch.zeros(setup.micro_batch) for name in ("chosen", "rejected")}
    checkpointed(made, setup)
    own, losses = trainer(model, reference, setup.reference == "precomputed"), []
    forward, held = allocated(lambda: losses.append(DPOTrainer._compute_loss(own, model, batch, False)))
    backward, _ = allocated(lambda: losses.pop().backward())
    return held, max(forward, held + backward)


SETUPS = {
    "base": DPO,
    "precomputed": replace(DPO, reference="precomputed"),
    "checkpointed": replace(DPO, checkpointing="layer"),
    "full": replace(DPO, method="full"),
}


@pytest.mark.parametrize("name", sorted(SETUPS))
def test_trls_own_loss_takes_what_was_simulated(name: str, folding: Any) -> None:
    setup = replace(SETUPS[name], seq_len=96)
    held, top = measured(setup, folding)
    like_held, like_top = simulated(LLAMA, setup)
    assert like_held == pytest.approx(held, rel=0.01)
    assert like_top == pytest.approx(top, rel=0.01)


def measured_of_all(setup: Setup) -> tuple[int, int]:
    """The same of what TRL did before 1.14: all logits, which the output and a slice of it hold while the reference
    runs and entropies are logged, folded by TRL's own function."""
    utils = pytest.importorskip("trl.trainer.utils")
    fold = utils.selective_log_softmax
    made = real(LLAMA, LORA, setup)
    model = made.model.train()
    checkpointed(made, setup)
    ids, losses = torch.ones(setup.sequences, setup.seq_len, dtype=torch.long), []
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def forward() -> Any:
        outputs = model(**given)
        logits = outputs.logits[..., :-1, :]
        chances = fold(logits, ids[:, 1:]).sum(1)
        compared, beside = chances.detach(), None
        if setup.reference == "base":
            if setup.checkpointing != "none":
                model.gradient_checkpointing_disable()
            with torch.no_grad(), model.disable_adapter():
                beside = model(**given)
                compared = fold(beside.logits[..., :-1, :], ids[:, 1:]).sum(1)
            checkpointed(made, setup)
        utils.entropy_from_logits(logits.detach())
        del beside
        return (chances - compared).sum()

    before, held = allocated(lambda: losses.append(forward()))
    backward, _ = allocated(lambda: losses.pop().backward())
    return held, max(before, held + backward)


@pytest.mark.parametrize("name", ["base", "precomputed", "checkpointed"])
def test_all_logits_of_pairs_take_what_trls_function_takes_of_them(name: str) -> None:
    """Estimated, simulated and measured, in float32 on the CPU."""
    setup = replace(SETUPS[name], loss="by-sequence", seq_len=96)
    held, top = measured_of_all(setup)
    assert simulated(LLAMA, setup) == (pytest.approx(held, rel=0.01), pytest.approx(top, rel=0.01))
    ran = simulate_step(LLAMA, LORA, setup, block_bytes=1).peak.bytes
    assert estimated(setup) == pytest.approx(ran, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "precision", "objective"),
    [
        ("by-sequence", "bf16", "kto"), ("by-sequence", "autocast", "dpo"), ("fused", "bf16", "dpo"),
        ("fused", "autocast", "kto"),
    ],
)  # fmt: skip
def test_all_logits_of_pairs_in_16_bits_and_under_autocast(
    loss: Loss, precision: Precision, objective: Objective
) -> None:
    setup = replace(
        DPO, loss=loss, precision=precision, objective=objective, seq_len=96, attention_kernel="sdpa"
    )
    ran = simulate_step(LLAMA, LORA, setup, block_bytes=1).peak.bytes
    assert estimated(setup) == pytest.approx(ran, rel=0.01)


def estimated(setup: Setup) -> float:
    """The peak of an estimate without ids and the two workspaces of cuBLAS, as a simulation counts it."""
    found = estimate_memory(build(LLAMA), setup, adapter.adapt(build(LLAMA), LORA))
    return found.allocated_bytes - 3 * 8 * setup.tokens - 2 * 8_519_680


def test_a_version_of_trl_brings_its_loss_of_pairs() -> None:
    for name, loss in (
        ("trl-0.8", "full"),
        ("trl-0.9", "full-chosen"),
        ("trl-0.21", "by-sequence-unlogged"),
        ("trl-1.12", "by-sequence"),
        ("trl-1.14", "fused"),
        ("trl", "tiled"),
    ):
        made = running(LLAMA, {"objective": "dpo", "trainer": name, "batch": 4, "seq_len": 96})
        assert made.setup.loss == loss, name


def run(**fields: Any) -> Simulation:
    spec = None if fields.get("method") == "full" else LORA
    return simulate_step(LLAMA, spec, replace(Setup(seq_len=64, micro_batch=2), **fields), block_bytes=1)


def test_a_reference_is_a_forward_pass_of_the_base() -> None:
    """FLOPs: a reference adds one forward pass of the frozen model to two sequences a pair."""
    alone = run(micro_batch=4, objective="sft", loss="tiled")
    pairs = run(objective="dpo", loss="tiled", reference="precomputed")
    compared = run(objective="dpo", loss="tiled")
    frozen = 8 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 144) + 64 * 320 * 63 / 64
    scores = 8 * 2 * 64 * 64
    assert pairs.total_flops == alone.total_flops
    assert compared.total_flops - pairs.total_flops == pytest.approx(4 * 64 * 2 * (frozen + scores), rel=1e-6)


def test_a_copy_stands_beside_what_is_trained_in_full() -> None:
    full = run(method="full", objective="dpo", loss="tiled")
    alone = run(method="full", objective="dpo", loss="tiled", reference="precomputed")
    assert full.parts["weights"] == 2 * alone.parts["weights"]


def test_what_preferences_exclude_is_refused() -> None:
    with pytest.raises(InputError, match="full, full-freed, wide-fused or full-chosen with objective dpo"):
        Setup(objective="dpo", loss="shifted")
    with pytest.raises(InputError, match="another with objective sft"):
        Setup(loss="by-sequence")
    with pytest.raises(InputError, match="not modelled"):
        Setup(objective="ppo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="full or padded"):
        Setup(objective="dpo", loss="tiled", packing="packed")


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto"])
def test_an_estimate_counts_the_flops_of_every_pass(objective: str) -> None:
    """To the last FLOP where every logit is made once: unembeddings of all positions, as many as the simulation's."""
    options: dict[str, Any] = {
        "layers": "all-linear",
        "rank": 8,
        "experts": "none",
        "seq_len": 64,
        "batch": 2,
    }
    found = estimate(LLAMA, objective=objective, loss="full", **options)
    assert found.flops is not None
    ran = run(objective=objective, loss="full", attention_kernel="eager")  # a fused kernel makes scores twice
    assert found.flops.counted_lora == ran.total_flops
    assert found.flops.batch == (4 if objective == "dpo" else 2)


def test_data_of_preferences_say_that_an_objective_would_count_them(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a b", "chosen": "c d e", "rejected": "f"}\n' * 4, encoding="utf-8")
    codes = {
        objective: [each.code for each in estimate(LLAMA, data=data, objective=objective).warnings]
        for objective in (None, "dpo")
    }
    assert "preferences-as-examples" in codes[None] and "preferences-as-examples" not in codes["dpo"]
