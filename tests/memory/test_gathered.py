"""What is gathered of sharded weights: by matrix, and what stays to the backward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from planner import estimate
from planner.estimator import load
from planner.memory import estimate_memory
from planner.memory.sharding import buckets, end_unit, flat_gradients, gathered, kept_whole
from planner.setup import Setup
from planner.speed.communication import gathers
from planner.trainers import filled

ARCH = load("huggyllama/llama-7b")[1]
EMBEDDING, MLP = 32_000 * 4096 * 2, 4096 * 11_008 * 2
ZERO = Setup(method="full", precision="bf16-master", gpus=8, sharding="zero3", seq_len=1024)
FSDP = replace(ZERO, sharding="fsdp", fsdp_units="modules", precision="bf16")


@pytest.mark.parametrize("shape", [(4, 8), (2, 4, 8)])
def test_torch_refers_to_the_weight_that_was_there(shape: tuple[int, ...]) -> None:
    """A gathered weight is freed by giving its parameter other data; the product's node still points at it."""
    weight, x = torch.nn.Parameter(torch.randn(16, 8)), torch.randn(*shape, requires_grad=True)
    place, found = weight.data_ptr(), []
    nodes = [torch.nn.functional.linear(x, weight).grad_fn]
    weight.data = torch.empty(0)
    while nodes:
        if node := nodes.pop():
            saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
            found += [value.data_ptr() for value in saved if isinstance(value, torch.Tensor)]
            nodes += [other for other, _ in node.next_functions]
    assert place in found


def test_gathered_weights_that_stay() -> None:
    kept = replace(ZERO, gathered_kept=True)
    matrices = sum(m.d_in * m.d_out * m.copies for m in ARCH.matrices) * 2
    assert kept_whole(ARCH, kept) == matrices - EMBEDDING
    others: tuple[dict[str, Any], ...] = (
        {"gathered_kept": False}, {"checkpointing": "layer"}, {"sharding": "zero2"}, {"gpus": 1, "sharding": "none"},
    )  # fmt: skip
    for other in others:
        assert kept_whole(ARCH, replace(kept, **other)) == 0
    more, usual = (estimate_memory(ARCH, setup).per_gpu_bytes for setup in (kept, ZERO))
    live = 2 * gathered(ARCH, ZERO)[0]
    assert more - usual == pytest.approx(matrices - EMBEDDING - live, rel=0.01)
    again = [
        estimate_memory(ARCH, replace(setup, checkpointing="layer")).per_gpu_bytes for setup in (kept, ZERO)
    ]
    assert again[0] == again[1]


def test_a_buffer_of_gradients_that_is_made_whole() -> None:
    """Half a billion values by DeepSpeed's default, though pairs are a few million; on a single GPU too."""
    small = replace(ZERO, sharding="zero2")
    assert buckets(8 * 10**6, small) == 8 * 10**6
    for setup, two in ((small, 2), (replace(small, gpus=1), 2), (replace(small, sharding="zero3"), 1)):
        assert buckets(8 * 10**6, replace(setup, reduce_buckets="one")) == 10**9
        assert buckets(8 * 10**6, replace(setup, reduce_buckets="two")) == two * 10**9
    assert buckets(8 * 10**6, replace(small, sharding="none", gpus=1, reduce_buckets="two")) == 0


def test_a_profile_says_so() -> None:
    made = filled({"trainer": "deepspeed-initialize", "method": "full", "sharding": "zero3"})
    assert made["gathered_kept"] and made["placing"] == "whole" and made["trainer"] == "deepspeed-loop"
    assert "gathered_kept" not in filled({"trainer": "deepspeed", "method": "full"})


def test_every_matrix_a_unit() -> None:
    assert gathered(ARCH, FSDP) == (MLP, 0) and end_unit(ARCH, FSDP) == EMBEDDING
    layers = replace(FSDP, fsdp_units="flat")
    layer, root = gathered(ARCH, layers)
    assert layer == 2 * (4 * 4096**2) + 3 * MLP and root == 2 * EMBEDDING and end_unit(ARCH, layers) == 0
    for phase, bytes_ in (("backward", 2 * MLP), ("loss", EMBEDDING)):
        moment = next(m for m in estimate_memory(ARCH, FSDP).moments if m.phase == phase)
        held = sum(item.bytes for item in moment.items if item.name == "gathered units")
        assert held == bytes_ or (phase == "backward" and held == EMBEDDING)
    assert gathers(ARCH, FSDP, ()) == 2 * sum(m.copies for m in ARCH.matrices)
    assert filled({"trainer": "universal-llm-trainer", "sharding": "fsdp"})["fsdp_units"] == "modules"


def test_frozen_weights_in_one_flat_parameter_get_gradients() -> None:
    """All but the ends' (32,000 x 4,096 each, which the root holds, where nothing is trained) of 6,738,415,616
    parameters' (as the model's card counts them, its norms neglected); none where frozen weights are units apart."""
    lora = replace(FSDP, method="lora", fsdp_units="flat", accumulation=4)
    values = 6_738_415_616 - (2 * 32 + 1) * 4096 - 2 * 32_000 * 4096
    assert flat_gradients(ARCH, lora) == 2 * values
    assert flat_gradients(ARCH, replace(lora, fsdp_units="pairs")) == 0
    assert flat_gradients(ARCH, replace(lora, method="full")) == 0


def test_a_user_can_say_what_fsdp_gathers() -> None:
    """Whole layers in flat parameters keep, between micro-steps, a shard of gradients as large as the layers'
    weights, and at the peak those of one layer whole."""
    options: dict[str, Any] = {
        "gpus": 8, "sharding": "fsdp", "rank": 1, "layers": "attention", "seq_len": 128, "batch": 32,
        "accumulation": 4,
    }  # fmt: skip
    flat, layers = (
        estimate("huggyllama/llama-7b", fsdp_units=units, **options).to_dict()["memory"]["lora"]["parts"]
        for units in ("flat", "layers")
    )
    weights = 2 * (6_738_415_616 - (2 * 32 + 1) * 4096 - 2 * 32_000 * 4096)
    assert flat["gradients"] - layers["gradients"] == pytest.approx(weights / 8 + weights / 32, rel=1e-3)


def sent_of(setup: Setup) -> list[tuple[int, int]]:
    """Bytes and calls among GPUs that share matrices."""
    found = [each for each in estimate_memory(ARCH, setup).traffic if each.group == "tensor"]
    assert found
    return [(each.bytes, each.calls) for each in found]


def test_a_model_as_one_unit_ends_with_its_weights_gradients_and_a_copy_of_these() -> None:
    """6,738,415,616 parameters in 16 bits (norms neglected), whole: gathered throughout, and when all gradients are
    there these and the one that joins them, whatever is trained; LoRA's pairs beside."""
    weights = 2 * (6_738_415_616 - (2 * 32 + 1) * 4096)
    whole = replace(FSDP, fsdp_units="whole")
    assert gathered(ARCH, whole) == (0, weights) and gathers(ARCH, whole, ()) == 1
    last = [m for m in estimate_memory(ARCH, whole).moments if m.phase == "backward"]
    root = max(last, key=lambda m: m.parts()["gradients"])
    named = {item.name: item.bytes for item in root.items}
    assert named["gathered units"] == weights
    assert named["gradients"] == named["gradient buckets"] == pytest.approx(weights, rel=1e-4)
    # Shared matrices are summed in every layer all the same.
    both = replace(whole, gpus=16, tensor_parallel=2)
    assert sent_of(both) == sent_of(replace(both, fsdp_units="flat"))
    lora = replace(whole, method="lora")
    assert (
        flat_gradients(ARCH, lora) == weights and flat_gradients(ARCH, replace(lora, fsdp_units="pairs")) == 0
    )
