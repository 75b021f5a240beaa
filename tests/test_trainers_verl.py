"""GRPO's actor of verl and OpenRLHF, and verl's SFT trainer, by versions."""

from __future__ import annotations

from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.errors import InputError
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective import scored_of
from planner.planning import estimate
from planner.running import Running, running
from planner.search.api import plan
from planner.setup import Setup
from planner.simulate.core import simulate_step
from tests.tiny import TINY, VOCAB

VERSIONS = ("verl-0.3", "verl-0.5", "verl-0.6", "verl-0.8", "verl")
LENGTHS: dict[str, Any] = {"objective": "grpo", "seq_len": 128, "prompt_tokens": 64}
# Bytes a logit up to the loss and behind it, by torch's profiler, of eight prompts of 64 tokens with answers of 64:
# verl's own code (dp_actor.py, _forward_micro_batch, with use_remove_padding; since 0.8 transformer_impl.py,
# prepare_model_outputs) with what flash-attn's cross-entropy allocates, on a CPU; of OpenRLHF 0.7.5 to 0.11.2
# models/actor.py, Actor.forward, whose output stands to the step's end. verl 0.3 takes entropies, whose compiled
# function on a CPU makes 4 more on the way there, on a GPU none.
ALLOCATED = {"verl-0.4": (2.05, 8.04), "verl-0.6": (2.05, 8.04), "verl-0.7": (2.05, 8.04), "verl-0.8": (2.05, 8.04),
             "verl-0.9": (4.05, 4.04), "openrlhf-0.7": (6.04, 10.04), "openrlhf-0.11": (6.04, 10.04)}  # fmt: skip


def actor(trainer: str, **more: Any) -> Running:
    """GRPO of a small model by a trainer."""
    return running(TINY, {**LENGTHS, "trainer": trainer, "method": "full", "batch": 8, **more})


@pytest.mark.parametrize("trainer", ALLOCATED)
def test_what_its_own_code_allocated(trainer: str) -> None:
    moments = actor(trainer, precision="bf16", autocast=True).memory().moments
    found = (
        max(m.parts()["logits"] for m in moments if m.phase == phase) / (8 * 128 * VOCAB)
        for phase in ("loss", "backward")
    )
    assert tuple(found) == pytest.approx(ALLOCATED[trainer], rel=0.025)


def test_padded_micro_steps_take_most_where_they_are_scored() -> None:
    """By dp_actor.py of 0.4.1 and 0.6.1 without use_remove_padding 4.02 bytes a logit on the way back, 8.00 while
    it scores with entropies, of which 2 are copies that a product makes of its 16-bit factor on a CPU alone."""
    asked: dict[str, Any] = {
        "loss": "sliced-fused",
        "packing": "padded",
        "precision": "bf16",
        "autocast": True,
    }
    held = {
        (m.phase, m.where): m.parts()["logits"] / (8 * 128 * VOCAB)
        for m in actor("verl-0.6", **asked).memory().moments
    }
    assert held["loss", "reference"] == pytest.approx(8.00 - 2, rel=0.01)
    assert held["backward", "unembedding"] == pytest.approx(4.02, rel=0.01)


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        *((o, f"{loss}-fused") for o in ("sft", "grpo") for loss in ("scaled", "scaled-in-place", "widened")),
        ("grpo", "sliced-fused"),
    ],
)
@pytest.mark.parametrize("batch", [1, 8])
def test_a_simulated_step_takes_as_much(objective: str, loss: str, batch: int) -> None:
    spec, arch = AdapterSpec(rank=4, layers=("attention",)), build(TINY)
    own = {**LENGTHS, "reference": "none"} if objective == "grpo" else {"seq_len": 128}
    setup = Setup(precision="bf16", autocast=True, micro_batch=batch, checkpointing="layer", loss=loss, **own)  # type: ignore[arg-type]
    seen = simulate_step(TINY, spec, setup, block_bytes=1).peak.bytes
    moments = estimate_memory(arch, setup, adapt(arch, spec)).moments
    of_step = (m.bytes for m in moments if m.phase != "generation")
    assert max(of_step) - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.001)


def test_samples_are_joined_since_its_engines() -> None:
    asked = {"method": "full", "seq_len": 256, "gpus": 2, "batch": 2}
    found = {n: running(TINY, {**asked, "trainer": n}).setup for n in VERSIONS}
    said = {n: (s.packing, s.loss, s.fsdp_units, s.checkpointing) for n, s in found.items()}
    old, joined = ("padded", "shifted-narrow"), ("packed", "scaled-in-place-fused")
    assert said == {
        "verl-0.3": (*old, "flat", "none"),
        "verl-0.5": (*old, "layers", "layer"),
        "verl-0.6": (*old, "layers", "layer"),
        "verl-0.8": (*joined, "flat", "layer"),
        "verl": ("packed", "scaled-fused", "flat", "layer"),
    }
    assert {s.precision for s in found.values()} == {"autocast"}


@pytest.mark.parametrize("trainer", VERSIONS)
def test_the_actor_is_fsdp_1_beside_a_vllm_that_sleeps(trainer: str) -> None:
    for method, units in (("full", "flat"), ("lora", "pairs")):
        found = actor(trainer, method=method, gpus=8, gpu="h100").setup
        assert (found.fsdp_units, found.checkpointing, found.packing) == (units, "layer", "full")
        assert (found.generation, found.vllm_share, found.vllm_sleep) == ("colocate", 0.5, True)
        assert found.gpu_bytes > 0 and found.sharding == "fsdp" and found.reference == "none"
        assert found.expandable_segments == (trainer not in ("verl-0.3", "verl-0.5"))
        assert scored_of(found) is None  # logits of prompts too


def test_another_maker_of_completions_takes_no_share() -> None:
    found = actor("verl-0.6", gpus=8, generation="server").setup
    assert (found.vllm_memory, found.vllm_sleep) == (None, False)
    assert actor("verl-0.6", gpus=8, vllm_memory=0.7).setup.vllm_share == 0.7


def test_the_reference_lies_in_the_hosts_memory() -> None:
    more: dict[str, Any] = {"gpus": 4, "generation": "server"}
    without, beside = (actor("verl-0.8", reference=r, **more).memory().peak for r in ("none", "base"))
    assert beside.bytes == without.bytes
    copied = actor("verl-0.8", reference="base", reference_offloaded=False, **more).memory().peak
    assert copied.parts()["weights"] == 2 * beside.parts()["weights"]


def test_a_reference_keeps_nothing_for_gradients_in_one_flat_parameter() -> None:
    """Frozen weights beside trained ones in FSDP 1's flat parameter have gradients, those of a reference none."""
    asked: dict[str, Any] = {
        **LENGTHS, "seq_len": 4096, "gpus": 4, "batch": 16, "checkpointing": "layer", "sharding": "fsdp",
        "fsdp_units": "flat", "generation": "server", "reference_offloaded": True, "trainer": "trl",
    }  # fmt: skip
    for method in ("full", "lora"):
        alone, beside = (
            running("Qwen/Qwen2.5-7B", {**asked, "method": method, "reference": reference}).memory().peak
            for reference in ("none", "base")
        )
        assert beside.bytes == alone.bytes


def test_openrlhf_holds_its_float32_logits_while_layers_run_back() -> None:
    """Of a model whose layers are larger than its logits are wide, they stand beside the last layer's way back."""
    asked = {**LENGTHS, "method": "full", "batch": 8, "trainer": "openrlhf", "generation": "server"}
    small = {**TINY, "vocab_size": 100, "num_hidden_layers": 4}
    held, gone = (running(small, {**asked, "outputs_held": kept}).memory().peak for kept in (True, False))
    assert held.where.startswith("decoder layer")
    assert held.bytes - gone.bytes == 4 * 8 * 128 * 100
    setup = running(small, asked).setup
    assert (setup.packing, setup.checkpointing, setup.reference) == ("full", "layer", "base")
    assert running(small, {**asked, "generation": None}).setup.vllm_share == 0.6


def test_states_that_sleep_stand_on_the_gpu_for_the_update_alone() -> None:
    asked: dict[str, Any] = {
        **LENGTHS,
        "method": "full",
        "gpus": 8,
        "batch": 8,
        "gpu": "h100",
        "trainer": "verl",
    }
    found = {
        asleep: running("Qwen/Qwen2.5-7B", {**asked, "states_asleep": asleep}).memory()
        for asleep in ("none", "optimizer", "all")
    }
    peaks = {asleep: each.peak for asleep, each in found.items()}
    assert {each.phase for each in peaks.values()} == {"generation"}
    held = peaks["none"].parts()
    assert peaks["none"].bytes - peaks["optimizer"].bytes == held["optimizer"]
    assert peaks["optimizer"].bytes - peaks["all"].bytes == held["weights"]
    updating = {max(m.bytes for m in each.moments if m.phase != "generation") for each in found.values()}
    assert len(updating) == 1
    assert actor("openrlhf", gpus=2).setup.states_asleep == "optimizer"
    assert actor("openrlhf", gpus=2, generation="server").setup.states_asleep == "none"
    with pytest.raises(
        InputError, match="states-asleep: found 'all', expected generation colocate or shared"
    ):
        actor("verl", states_asleep="all", generation="server")


def test_estimates_and_plans_have_its_vllm() -> None:
    asked: dict[str, Any] = {"objective": "grpo", "seq_len": 256, "prompt_tokens": 64, "gpu": "h100"}
    found = estimate(TINY, **asked, trainer="verl-0.3", gpus=8, batch=8, checkpointing=None).to_dict()
    assert found["grpo"]["generation"] == "colocate" and found["grpo"]["vllm"]["share"] == 0.5
    assert found["workload"]["checkpointing"] is True
    assert any("GRPO as the profile verl-sft-0.3 runs it" in each["message"] for each in found["warnings"])
    for maker, says in ((None, "colocate"), ("server", "server")):
        plans = plan(TINY, **asked, trainer="verl-0.8", gpus=2, batch=8, episodes=64, generation=maker)
        assert {choice.choice.layout.generation for choice in plans.frontier} == {says}
