"""LLaVA's features of any of its tower's layers: closed form against a simulated step, and what has no account."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import planner
from planner import flops
from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.architecture.images import with_images
from planner.errors import ConfigError
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.setup import Setup
from planner.simulate.core import simulate_step

from .small import CONFIGS

EVERYWHERE = AdapterSpec(rank=4, layers=("all-linear",))
DEPTH = 3


def llava_of(layer: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CONFIGS["llava"]), "vision_feature_layer": layer}


@pytest.mark.parametrize("checkpointing", ["none", "layer"])
@pytest.mark.parametrize("layer", [-1, -2, -3, 1, 3])
def test_a_step_takes_what_is_simulated(layer: int, checkpointing: Any) -> None:
    config = llava_of(layer)
    arch = with_images(build(config), config, 2, None)
    setup = Setup(checkpointing=checkpointing, micro_batch=2, seq_len=832)
    seen = simulate_step(config, EVERYWHERE, setup, arch=arch, block_bytes=1).peak.bytes
    found = max(m.bytes for m in estimate_memory(arch, setup, adapt(arch, EVERYWHERE)).moments)
    assert found - WORKSPACES * WORKSPACE_BYTES == pytest.approx(seen, rel=0.01)


def test_layers_behind_the_features_have_no_backward_pass() -> None:
    """The last layer's features, by either sign, have the most; every layer before it one layer's less."""
    found = {}
    for layer in (-1, 3, -2, 2, -3, 1):
        config = llava_of(layer)
        arch = with_images(build(config), config, 2, None)
        pairs = adapt(arch, EVERYWHERE)
        found[layer] = flops.step_macs(arch, flops.Step(2, 832), pairs).backward
    assert (found[-1], found[-2], found[-3]) == (found[3], found[2], found[1])
    assert found[-1] - found[-2] == found[-2] - found[-3] > 0


@pytest.mark.parametrize("layer", [0, -DEPTH - 1, DEPTH + 1, -DEPTH - 2, [-2, -1]])
def test_features_before_and_behind_the_layers_have_no_account(layer: Any) -> None:
    """Refused with images, by the field's name; text alone is not concerned."""
    with pytest.raises(ConfigError, match="vision_feature_layer"):
        planner.estimate(llava_of(layer), images=2, seq_len=832)
    assert planner.estimate(llava_of(layer), seq_len=832).memory
