"""DPO, KTO and samples by TRL's versions, against what their own trainers allocated."""

from __future__ import annotations

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective_rules import CHOSEN, SELECTED
from planner.running import running
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.trainers import for_objective
from tests.tiny import TINY, VOCAB

# Bytes a logit at the most beyond what is held throughout, by torch's profiler, of DPOTrainer and KTOTrainer on a
# CPU (where 1.14 has no kernel) with bf16=True: two prompts of 128 tokens with answers of 128, padded, LoRA,
# transformers of then.
RUN: dict[str, dict[str, float]] = {
    "trl-0.9": {"dpo": 22.03, "kto": 24.03}, "trl-0.11": {"dpo": 21.94, "kto": 24.03},
    "trl-0.13": {"dpo": 16.04, "kto": 23.95}, "trl-0.14": {"dpo": 12.09, "kto": 23.95},
    "trl-0.15": {"dpo": 12.08, "kto": 20.01}, "trl-0.21": {"dpo": 12.08, "kto": 16.02},
    "trl-0.24": {"dpo": 12.08, "kto": 16.02}, "trl-0.28": {"dpo": 12.08, "kto": 16.02},
    "trl-0.29": {"dpo": 17.49, "kto": 16.02},
    "trl-1.2": {"dpo": 17.49, "kto": 16.02}, "trl-1.5": {"dpo": 17.49, "kto": 16.02},
    "trl-1.6": {"dpo": 13.52, "kto": 21.95}, "trl-1.7": {"dpo": 13.52, "kto": 14.02},
    "trl-1.8": {"dpo": 13.52, "kto": 19.0}, "trl-1.9": {"dpo": 13.52, "kto": 15.02},
    "trl-1.12": {"dpo": 13.52, "kto": 15.02},
}  # fmt: skip
# ORPOTrainer's; LLaMA-Factory's has no cross-entropy of its own.
for version in ("0.9", "0.12", "0.14", "0.15", "0.21", "0.28", "1.5", "1.9", "1.16"):
    RUN.setdefault(f"trl-{version}", {})["orpo"] = 14.0
# LLaMA-Factory's trainers have their own functions: 0.9.3, 0.9.4 and 0.9.5.
RUN |= {name: {"dpo": 20.03, "kto": 24.03} for name in ("llama-factory-0.9.4", "llama-factory-0.9.5")}


@pytest.mark.parametrize(
    ("trainer", "objective"), [(name, each) for name, told in RUN.items() for each in told]
)
def test_what_its_own_trainers_allocated(trainer: str, objective: str) -> None:
    options = {
        "trainer": trainer, "method": "lora", "precision": "bf16", "objective": objective, "batch": 2, "seq_len": 256,
        "rank": 4, "targets": "q_proj,v_proj", "checkpointing": "none", "packing": "padded",
    }  # fmt: skip
    logits = 2 * 256 * VOCAB * (1 if objective == "kto" else 2)
    moments = running(TINY, options).memory().moments
    held = max(moment.parts()["logits"] + moment.parts()["activations"] for moment in moments) / logits
    assert held == pytest.approx(RUN[trainer][objective], rel=0.02)


# SFTTrainer's, of eight sequences of 256 tokens.
OF_SAMPLES = {
    "trl-0.24": 12.08, "trl-0.29": 12.08, "trl-1.2": 12.08, "trl-1.5": 16.05, "trl-1.6": 12.81, "trl-1.13": 2.08,
    "trl-1.14": 2.08,
}  # fmt: skip


@pytest.mark.parametrize("trainer", OF_SAMPLES)
def test_what_sfttrainer_allocated(trainer: str) -> None:
    """12.81 has entropies of 128 rows of 2,048 in it, which are not counted. Of 1.7 to 1.12, which take log-softmax
    of 16-bit logits, a CPU's autocast keeps less than a GPU's."""
    options = {
        "trainer": trainer, "method": "lora", "precision": "bf16", "batch": 8, "seq_len": 256, "rank": 4,
        "targets": "q_proj,v_proj", "checkpointing": "none", "packing": "padded",
    }  # fmt: skip
    moments = running(TINY, options).memory().moments
    held = max(moment.parts()["logits"] + moment.parts()["activations"] for moment in moments)
    assert held / (2048 * VOCAB) == pytest.approx(
        OF_SAMPLES[trainer], rel=0.06 if trainer == "trl-1.6" else 0.02
    )


# GRPOTrainer's, of eight prompts of 64 tokens with completions of 64, which models of transformers made.
OF_COMPLETIONS = {
    "trl-0.21": 12.17, "trl-0.29": 12.16, "trl-1.2": 16.28, "trl-1.5": 16.28, "trl-1.6": 16.28, "trl-1.7": 16.28,
    "trl-1.8": 16.28, "trl-1.9": 16.28, "trl-1.12": 12.16,
}  # fmt: skip
SAMPLED = {"objective": "grpo", "seq_len": 128, "prompt_tokens": 64, "packing": "padded"}


@pytest.mark.parametrize("trainer", OF_COMPLETIONS)
def test_what_grpotrainer_allocated(trainer: str) -> None:
    options = {
        "trainer": trainer, "method": "lora", "precision": "bf16", "batch": 8, "rank": 4, "targets": "q_proj,v_proj",
        "checkpointing": "none", "generation": "transformers", **SAMPLED,
    }  # fmt: skip
    moments = running(TINY, options).memory().moments
    held = max(moment.parts()["logits"] + moment.parts()["activations"] for moment in moments)
    assert held / (8 * 64 * VOCAB) == pytest.approx(OF_COMPLETIONS[trainer], rel=0.02)


def test_a_slice_divided_in_place_as_it_is_simulated() -> None:
    spec, arch = AdapterSpec(rank=4, layers=("attention",)), build(TINY)
    setup = Setup(
        precision="bf16", autocast=True, outputs_widened=True, attention_kernel="sdpa", micro_batch=8,
        reference="none", loss="by-sequence-in-place", **SAMPLED,  # type: ignore[arg-type]
    )  # fmt: skip
    seen = simulate_step(TINY, spec, setup, block_bytes=1).peak.bytes
    found = max(moment.bytes for moment in estimate_memory(arch, setup, adapt(arch, spec)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize("loss", ["full-freed", "by-sequence-copied", "by-sequence-unlogged", "full-chosen"])
@pytest.mark.parametrize("reference", ["base", "precomputed"])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_simulated_step_takes_as_much(loss: str, reference: str, autocast: bool) -> None:
    spec, arch = AdapterSpec(rank=4, layers=("attention",)), build(TINY)
    setup = Setup(
        precision="bf16", autocast=autocast, outputs_widened=autocast, attention_kernel="sdpa", micro_batch=2,
        seq_len=256, objective="dpo", loss=loss, reference=reference, packing="padded",  # type: ignore[arg-type]
    )  # fmt: skip
    seen = simulate_step(TINY, spec, setup, block_bytes=1).peak.bytes
    found = max(moment.bytes for moment in estimate_memory(arch, setup, adapt(arch, spec)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.002)


@pytest.mark.parametrize("loss", SELECTED)
@pytest.mark.parametrize("reference", ["base", "precomputed"])
@pytest.mark.parametrize("autocast", [True, False])
def test_answers_as_they_are_simulated(loss: str, reference: str, autocast: bool) -> None:
    spec, arch = AdapterSpec(rank=4, layers=("attention",)), build(TINY)
    setup = Setup(
        precision="bf16", autocast=autocast, outputs_widened=autocast, attention_kernel="sdpa", micro_batch=4,
        seq_len=256, objective="kto", loss=loss, reference=reference, packing="padded",  # type: ignore[arg-type]
    )  # fmt: skip
    seen = simulate_step(TINY, spec, setup, block_bytes=1).peak.bytes
    found = max(moment.bytes for moment in estimate_memory(arch, setup, adapt(arch, spec)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.002)


# By the version of TRL that each version of axolotl asks for: DPO, KTO, GRPO.
OF_AXOLOTL = {
    "0.19": ("trl-1.9", "trl-1.9", "trl-1.9"), "0.18": ("trl-1.8", "trl-1.8", "trl-1.8"),
    "0.17": ("trl-1.5", "trl-1.5", "trl-1.5"), "0.16": ("trl-0.29", "trl-0.29", "trl-0.29"),
    "0.15": ("trl-0.29", "trl-0.29", "trl-0.29"), "0.14": ("trl-0.27", "trl-0.27", "trl-0.27"),
    "0.13": ("trl-0.25", "trl-0.25", "trl-0.25"), "0.12": ("trl-0.21", "trl-0.21", "trl-0.21"),
    "0.8": ("trl-0.16", "trl-0.16", "trl-0.16"), "0.7": ("trl-0.15", "trl-0.15", None),
    "0.6": ("trl-0.12", "trl-0.12", None), "0.4": ("trl-0.8", "trl-0.8", None),
}  # fmt: skip


@pytest.mark.parametrize("version", OF_AXOLOTL)
def test_axolotl_has_the_losses_of_its_trl(version: str) -> None:
    for objective, trl in zip(("dpo", "kto", "grpo"), OF_AXOLOTL[version], strict=True):
        if trl:
            own = for_objective(objective, f"axolotl-{version}")
            assert own["loss"] == for_objective(objective, trl)["loss"], objective


@pytest.mark.parametrize("loss", CHOSEN)
@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("pairs", [1, 2])
def test_chosen_answers_as_they_are_simulated(loss: str, autocast: bool, pairs: int) -> None:
    spec, arch = AdapterSpec(rank=4, layers=("attention",)), build(TINY)
    setup = Setup(
        precision="bf16", autocast=autocast, outputs_widened=autocast, attention_kernel="sdpa", micro_batch=pairs,
        seq_len=256, objective="orpo", loss=loss, packing="padded",  # type: ignore[arg-type]
    )  # fmt: skip
    seen = simulate_step(TINY, spec, setup, block_bytes=1).peak.bytes
    found = max(moment.bytes for moment in estimate_memory(arch, setup, adapt(arch, spec)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.005)
