"""A step with images: the account against transformers' own classes, simulated, and really run on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner import flops
from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.architecture.images import known_types, with_images
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective import step_tally
from planner.running import running
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.speed.step import work_of
from tools.measured_memory import measure, real, step

from .. import oracle
from .small import CONFIGS, with_some

LORA = AdapterSpec(rank=4, layers=("attention", "mlp"))
EVERYWHERE = AdapterSpec(rank=4, layers=("all-linear",))
# What is trained: the text's adapter, one in the tower too, everything.
TRAINED = {"text": LORA, "tower": EVERYWHERE, "all": None}
LENGTH = 832
WHOLE = ("qwen2_5_vl", "llava")
MEASURED = (
    ("qwen2_5_vl", "layer", EVERYWHERE), ("gemma3", "none", LORA), ("idefics3", "none", EVERYWHERE),
    ("mistral3", "layer", EVERYWHERE), ("mistral3", "none", EVERYWHERE), ("pixtral", "none", LORA),
    ("gemma4", "layer", EVERYWHERE), ("gemma4", "none", EVERYWHERE),
)  # fmt: skip


def _setup(trained: str, checkpointing: str, **more: object) -> Setup:
    given = {"attention_kernel": "eager", "precision": "fp32", "micro_batch": 2, "seq_len": LENGTH, **more}
    return Setup(
        method="full" if trained == "all" else "lora", checkpointing=checkpointing,  # type: ignore[arg-type]
        **given,  # type: ignore[arg-type]
    )  # fmt: skip


def test_every_account_has_a_small_model() -> None:
    assert set(CONFIGS) == set(known_types())


@pytest.mark.parametrize("kind", CONFIGS)
def test_flops_equal_those_of_the_model_s_own_code(kind: str) -> None:
    """Checkpointed, with an adapter on the text (so that gradients pass a frozen tower), and in full."""
    arch = with_some(kind)
    for trained in ("text", "all") if kind in WHOLE else ("text",):
        spec, setup = TRAINED[trained], _setup(trained, "layer")
        pairs = None if spec is None else adapt(arch, spec)
        found = flops.flops(flops.step_macs(arch, flops.Step(2, LENGTH, True), pairs))
        assert found == simulate_step(CONFIGS[kind], spec, setup, arch=arch).total_flops, trained
        assert work_of(arch, setup, pairs or ()).flops(2) == pytest.approx(found, rel=1e-9), trained


@pytest.mark.parametrize(
    "kind", [kind for kind in CONFIGS if "moe" not in kind]
)  # whose grouped products it omits
def test_flops_equal_those_of_a_real_step(kind: str) -> None:
    arch, setup = with_some(kind, 1), _setup("tower", "none")
    once = step(real(CONFIGS[kind], EVERYWHERE, setup, arch), setup)
    counted = oracle.flops_of(once)
    found = flops.flops(flops.step_macs(arch, flops.Step(2, LENGTH), adapt(arch, EVERYWHERE)))
    assert found == counted


@pytest.mark.parametrize(("kind", "checkpointing", "spec"), MEASURED)
def test_a_real_step_holds_what_was_simulated(kind: str, checkpointing: str, spec: AdapterSpec) -> None:
    """Bytes that autograd holds and the most that are allocated, by torch's profiler."""
    found = measure(CONFIGS[kind], _setup("tower", checkpointing, seq_len=448), spec, with_some(kind, 1))
    assert found.simulated_held == pytest.approx(found.held, rel=0.01)
    assert found.simulated_top == pytest.approx(found.top, rel=0.01)


@pytest.mark.parametrize("kind", CONFIGS)
def test_memory_in_closed_form_is_what_a_simulated_step_takes(kind: str) -> None:
    arch, setup = with_some(kind), _setup("tower", "none", attention_kernel="sdpa", precision="bf16")
    seen = simulate_step(CONFIGS[kind], EVERYWHERE, setup, arch=arch, block_bytes=1).peak.bytes
    found = max(m.bytes for m in estimate_memory(arch, setup, adapt(arch, EVERYWHERE)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("kind", CONFIGS)
def test_full_fine_tuning_that_leaves_towers_as_they_are(kind: str) -> None:
    """LLaMA-Factory's and ms-swift's, of transformers' own classes with the text model's parameters trained alone."""
    arch = with_some(kind)
    for checkpointing in ("none", "layer"):
        given = {"attention_kernel": "sdpa", "precision": "bf16", "autocast": True, "frozen_towers": True}
        setup = _setup("all", checkpointing, **given)
        seen = simulate_step(CONFIGS[kind], None, setup, arch=arch, block_bytes=1).peak.bytes
        found = max(m.bytes for m in estimate_memory(arch, setup).moments)
        assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.03)


def test_what_is_not_trained_stays_in_16_bits_under_autocast() -> None:
    """Of Qwen2.5-VL 7B 676,550,144 of 8,292,166,656 parameters are the tower's: 2 bytes each, and 16 of the rest."""
    memory = running(
        "Qwen/Qwen2.5-VL-7B-Instruct", {"method": "full", "trainer": "llama-factory-0.9.5"}
    ).memory()
    held = next(m for m in memory.moments if m.phase == "optimizer").parts()
    tower, all_of_it = 676_550_144, 8_292_166_656
    assert held["weights"] == pytest.approx(4 * (all_of_it - tower) + 2 * tower, rel=1e-4)
    assert held["gradients"] == pytest.approx(4 * (all_of_it - tower), rel=1e-4)
    assert held["optimizer"] == pytest.approx(8 * (all_of_it - tower), rel=1e-4)
    assert "towers-left" in {notice.code for notice in memory.notices}


def test_gemma_4_s_tower_beside_a_quantised_base_is_float32() -> None:
    """Its code leaves pixels as wide as they are where the first matrix holds whole numbers."""
    arch, taken = with_some("gemma4"), {}
    for kind in ("lora", "qlora"):
        setup = Setup(
            method=kind, quantize="nf4" if kind == "qlora" else "none", attention_kernel="sdpa", precision="bf16",
            micro_batch=2, seq_len=LENGTH,
        )  # fmt: skip
        seen = simulate_step(CONFIGS["gemma4"], EVERYWHERE, setup, arch=arch, block_bytes=1).peak.bytes
        found = max(m.bytes for m in estimate_memory(arch, setup, adapt(arch, EVERYWHERE)).moments)
        taken[kind] = found - WORKSPACES * WORKSPACE_BYTES
        assert taken[kind] == pytest.approx(seen, rel=0.02)
    assert taken["qlora"] > 1.2 * taken["lora"]


def test_masks_whose_rows_are_no_multiple_of_16_bytes_are_copied() -> None:
    """70 soft tokens of 9 patches: 630 float32 values a row, which the memory-efficient kernel gets as 632."""
    config = {**CONFIGS["gemma4"], "vision_soft_tokens_per_image": 70}
    arch = with_images(build(config), config, 4, "768x768")
    setup = Setup(method="qlora", quantize="nf4", attention_kernel="sdpa", precision="bf16", seq_len=LENGTH)
    assert arch.images and arch.images.length == 630
    seen = simulate_step(config, LORA, setup, arch=arch, block_bytes=1).peak.bytes
    found = max(m.bytes for m in estimate_memory(arch, setup, adapt(arch, LORA)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.03)


def test_a_reference_computed_before_asks_nothing_of_a_tower() -> None:
    """The tower is walked as if supervised, whatever the text compares."""
    arch = with_some("qwen2_5_vl")
    setup = _setup("text", "none", objective="dpo", reference="precomputed", packing="padded")
    seen = simulate_step(CONFIGS["qwen2_5_vl"], LORA, setup, arch=arch, block_bytes=1).peak.bytes
    found = max(m.bytes for m in estimate_memory(arch, setup, adapt(arch, LORA)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.03)


def test_a_frozen_tower_leaves_nothing_behind() -> None:
    """Only with checkpointing do gradients pass a tower in which nothing is trained."""
    arch = with_some("qwen2_5_vl")
    assert arch.images
    for checkpointing, through in (("none", False), ("layer", True)):
        pairs = adapt(arch, LORA)
        size = flops.Step(1, LENGTH, checkpointing != "none")
        whole = flops.step_macs(arch, size, pairs)
        alone = flops.step_macs(replace(arch, images=None), size, pairs)
        assert (whole.backward > alone.backward) == through
        assert whole.forward > alone.forward


@pytest.mark.parametrize("kind", ["mistral3", "pixtral"])
def test_images_that_pass_as_one_sequence_meet_each_other_unless_lengths_are_known(kind: str) -> None:
    """Scores and values by hand: of n images of p patches n p^2 pairs meet under a flash kernel, (n p)^2 otherwise,
    in each of the 3 layers of width 64; a text's adapter leaves the tower without a backward pass."""
    arch = with_some(kind)
    assert arch.images and arch.images.merged
    n, p, pairs = 2 * arch.images.units, arch.images.length, adapt(arch, LORA)
    found = [
        flops.step_macs(arch, flops.Step(2, LENGTH, ends_known=known), pairs).attention
        for known in (False, True)
    ]
    assert found[0] - found[1] == 3 * 2 * 64 * (n * n - n) * p * p
    for kernel, macs in (("sdpa", found[0]), ("flash", found[1])):
        setup = _setup("text", "none", attention_kernel=kernel, precision="bf16")
        work = work_of(arch, setup, pairs)
        ahead = sum(
            g.calls * g.flops.at(2)
            for g in work.gemms
            if g.phase == "forward" and g.kind in ("attention", "masked")
        )
        assert macs and ahead
        tower = ahead - sum(
            g.calls * g.flops.at(2)
            for g in work_of(replace(arch, images=None), setup, pairs).gemms
            if g.phase == "forward" and g.kind in ("attention", "masked")
        )
        assert tower == 2 * 3 * 2 * 64 * p * p * (n if kernel == "flash" else n * n)


@pytest.mark.parametrize("kernel", ["sdpa", "flash"])
@pytest.mark.parametrize("kind", ["mistral3", "qwen2_5_vl"])
def test_a_reference_sees_the_images_too(kind: str, kernel: Any) -> None:
    """What the base's pass adds to a step of DPO: FLOPs of a frozen forward pass, the tower's among them, and of time
    the tower's own products."""
    arch = with_some(kind)
    pairs = adapt(arch, LORA)
    counted, timed = {}, {}
    for reference in ("base", "precomputed"):
        setup = Setup(
            objective="dpo", reference=reference, seq_len=LENGTH, attention_kernel=kernel, precision="bf16",
            packing="padded",
        )  # fmt: skip
        counted[reference] = step_tally(arch, setup, pairs, batch=2).forward
        timed[reference] = [
            sum(g.calls * g.flops.at(2) for g in work_of(each, setup, pairs).gemms if g.phase == "forward")
            for each in (arch, replace(arch, images=None))
        ]
    size = flops.Step(2, LENGTH, ends_known=kernel == "flash")
    whole, text = (flops.step_macs(each, size, ()).forward for each in (arch, replace(arch, images=None)))
    assert counted["base"] - counted["precomputed"] == whole
    seen, unseen = (base - without for base, without in zip(timed["base"], timed["precomputed"], strict=True))
    assert seen - unseen == 2 * (whole - text)
