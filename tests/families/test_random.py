"""Families of random_configs: a few seeds each, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from random import Random

import pytest

from planner.architecture.build import build

from ..family_checks import check_flops, check_inventory
from .random_configs import CONFIGS, flag, targets

NO_CHECKPOINTS = ("albert",)  # its class refuses it


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("seed", range(3))
def test_inventory(name: str, seed: int) -> None:
    config = CONFIGS[name](Random(seed))
    assert not build(config).built_by
    check_inventory(config)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("seed", range(2))
def test_flops(name: str, seed: int) -> None:
    pick = Random(seed + 100)
    config = CONFIGS[name](pick)
    batch, seq_len, chosen = pick.randint(1, 3), pick.randint(3, 9), pick.choice(targets(name))
    checkpointing = flag(pick) and name not in NO_CHECKPOINTS
    check_flops(config, batch, seq_len, targets=[chosen], checkpointing=checkpointing)
