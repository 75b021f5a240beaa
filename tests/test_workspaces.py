"""What matrix products work in, by the kind of GPU: which entry of data/workspaces.toml names which chip, what an
estimate and a search add of it."""

from __future__ import annotations

import pytest

from planner import facts, hardware
from planner.errors import InputError
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.running import running
from planner.search import plan
from planner.setup import Setup

MODEL = "Qwen/Qwen3-0.6B"
MIB = 2**20
USUAL = 2 * 4 * MIB + 8 * 16 * 2**10


@pytest.mark.parametrize(
    ("gpu", "each"),
    [
        ("A100 SXM 80GB", USUAL), ("RTX 4090", USUAL), ("L40S", USUAL), ("T4", USUAL), ("RTX A6000", USUAL),
        ("H100 SXM 80GB", 32 * MIB), ("H200 SXM 141GB", 32 * MIB), ("H20 96GB", 32 * MIB), ("GH200 96GB", 32 * MIB),
        ("B200 SXM 180GB", 32 * MIB), ("RTX 5090", 32 * MIB), ("RTX PRO 6000 Blackwell Server", 32 * MIB),
        ("GB10", 32 * MIB), ("MI250X", 32 * MIB), ("RX 7900 XTX", 32 * MIB), ("MI300X", 128 * MIB),
        ("MI355X", 128 * MIB),
    ],
)  # fmt: skip
def test_torch_s_defaults_by_compute_capability(gpu: str, each: int) -> None:
    """CUBLAS_WORKSPACE_CONFIG's defaults: :4096:2:16:8; 32 MiB of capabilities 9, 10 and 12 and on ROCm; 128 MiB of
    gfx94x and gfx95x."""
    assert (hardware.workspace_bytes(hardware.find(gpu).name) or WORKSPACE_BYTES) == each


def test_every_entry_names_a_chip() -> None:
    names = [accelerator.name for accelerator in facts.accelerators()]
    for entry in hardware.workspaces():
        for chip in entry.chips:
            assert any(name.startswith(chip) for name in names), chip


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_step_holds_them_at_every_moment(method: str) -> None:
    """Beside an A100 each moment of a step on an H100 has 2 x (32 MiB - 8.1 MiB) more, and nothing else."""
    own, other = (running(MODEL, {"method": method, "gpu": gpu}).memory() for gpu in ("h100", "a100-80gb"))
    more = 2 * (32 * MIB - USUAL)
    steps = [moment.bytes - beside.bytes for moment, beside in zip(own.moments, other.moments, strict=True)
             if moment.phase not in ("loading", "preparing")]  # fmt: skip
    assert steps and set(steps) == {more} and more == WORKSPACES * 25_034_752
    assert own.allocated_bytes - other.allocated_bytes == more


def test_a_search_holds_what_an_estimate_of_its_plan_does() -> None:
    """On both kinds of GPU in one search, whose screen has counted memory for one of them."""
    found = plan(MODEL, gpu="h100,a100-80gb", gpus=1, tokens="1M")
    seen = set()
    for own in (found.best, *found.alternatives, *found.frontier):
        hopper, each = "H100" in own.choice.accelerator.name, own.memory.setup.workspace_bytes
        assert each == (32 * MIB if hopper else USUAL)
        seen.add(each)
    assert len(seen) == 2


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(InputError, match="workspace-bytes"):
        Setup(workspace_bytes=0)
