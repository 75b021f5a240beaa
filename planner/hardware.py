"""What a machine can do at best: rates by number format, links between GPUs, clusters.

Peaks are the makers' dense figures (data/accelerators.toml, each with its source); what programs reach of them is the
business of planner/speed. A GPU sends and receives at the same time: a link's rate is that of one direction.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from . import facts
from .dataclass import dataclass
from .errors import InputError

if TYPE_CHECKING:  # its classes are a share of a cold start
    from .fact_types import Accelerator, Int8Rate, Workspace

GPUS_PER_NODE = 8
# What a GPU gets of the network where nobody says: one 400 Gbit/s adapter a GPU beside NVLink 4 and newer, 200 Gbit/s
# beside older ones, as in NVIDIA's DGX H100 and DGX A100; one 100 Gbit/s adapter that the cards of a machine share.
NETWORK_FAST, NETWORK_A100, NETWORK_CARDS = 50e9, 25e9, 12.5e9
_COUNT_FIRST = re.compile(r"(\d{1,5})\s*(?:[x×*]|\s)\s*(\D.*|\d{4}.*)", re.IGNORECASE)
_COUNT_LAST = re.compile(r"(.+?)\s*[x×*:]\s*(\d{1,5})", re.IGNORECASE)
PCIE_EACH_WAY = {3: 16e9, 4: 32e9, 5: 64e9}  # x16, marketed
_PEAKS = {
    "float32": "fp32_flops_per_s",
    "tfloat32": "tf32_dense_flops_per_s",
    "bfloat16": "bf16_dense_flops_per_s",
    "float16": "fp16_dense_flops_per_s",
    "float8": "fp8_dense_flops_per_s",
}


@dataclass(frozen=True)
class Cluster:
    """`count` accelerators of one kind, `per_node` of them in a machine.

    `link_bytes_per_s` is what a GPU sends to those of its machine, `network_bytes_per_s` to others', one way each.
    `switched`: whether the link joins all GPUs of a machine directly (NVLink switches, xGMI); cards on PCIe go
    through the host, and where they have no access to each other (`staged`) through its memory.
    """

    accelerator: Accelerator
    count: int = 1
    per_node: int = GPUS_PER_NODE
    link_bytes_per_s: float = PCIE_EACH_WAY[4]
    network_bytes_per_s: float = NETWORK_CARDS / GPUS_PER_NODE
    switched: bool = False
    staged: bool = False

    def rate_between(self, group: int) -> float:
        """Bytes a second that a GPU sends in rings over `group` GPUs. Where they span machines, each of a machine's
        rings crosses the network at another GPU's adapter, so that all adapters together carry what one GPU sends."""
        if group <= self.per_node:
            return self.link_bytes_per_s
        return min(self.link_bytes_per_s, self.network_bytes_per_s * self.per_node)


def peak_flops_per_s(accelerator: Accelerator, dtype: str) -> float | None:
    """The dense peak of matrix products in this format, FLOP/s; None where no source states it."""
    found: float | None = getattr(accelerator, _PEAKS[dtype])
    return found


def arithmetic_of(accelerator: Accelerator, dtype: str) -> str:
    """The format in which products of `dtype` really run: bfloat16 runs at float32's rate on chips without it, and
    float32 stays float32 (PyTorch leaves TF32 off for matrix products). TF32 is float32 on chips without it: V100 and
    T4, where the switch does nothing."""
    if dtype == "tfloat32" and peak_flops_per_s(accelerator, dtype) is None:
        return "float32"
    if dtype in ("bfloat16", "float16") and peak_flops_per_s(accelerator, dtype) is None:
        other = "float16" if dtype == "bfloat16" else "bfloat16"
        if dtype == "float16" and peak_flops_per_s(accelerator, other) is not None:
            return other
        return "float32"
    return dtype


def only_float16(accelerator: Accelerator) -> bool:
    """Whether its 16-bit products are float16's alone, so that bfloat16 would run at float32's rate (T4, V100)."""
    return (
        arithmetic_of(accelerator, "bfloat16") == "float32"
        and peak_flops_per_s(accelerator, "float16") is not None
    )


def has_flash_attention(accelerator: Accelerator) -> bool:
    """Whether FlashAttention 2 has kernels for it: of NVIDIA's for Ampere and newer (its README), which have
    bfloat16."""
    return accelerator.vendor != "NVIDIA" or accelerator.bf16_dense_flops_per_s is not None


def keeps_fp8(accelerator: Accelerator) -> bool:
    """Whether transformers keeps a base in FP8 on it, not in 16 bits: on NVIDIA's from compute capability 8.9 on
    (transformers 5.23, quantizers/quantizer_finegrained_fp8.py, validate_environment). Of the RTX 40 series not every
    rate is known."""
    has_units = accelerator.fp8_dense_flops_per_s is not None or accelerator.name.startswith("RTX 40")
    return accelerator.vendor != "NVIDIA" or has_units


@cache
def int8_rates() -> tuple[Int8Rate, ...]:
    """Every entry of data/int8.toml; the first that names a chip holds."""
    from .fact_types import Int8Rate

    return facts.entries("int8.toml", "rate", Int8Rate, "id")


def int8_ratio(accelerator: Accelerator) -> float | None:
    """How many times its 16-bit rate a chip's int8 rate is (data/int8.toml); None where no source states it."""
    found = (fact for fact in int8_rates() if accelerator.name.startswith(fact.chips))
    first = next(found, None)
    return None if first is None else first.times_16bit


def knows_int8(accelerator: Accelerator) -> bool:
    """Whether the rate of products in int8 is known."""
    return int8_ratio(accelerator) is not None


@cache
def workspaces() -> tuple[Workspace, ...]:
    """Every entry of data/workspaces.toml; the first that names a chip holds."""
    from .fact_types import Workspace

    return facts.entries("workspaces.toml", "workspace", Workspace, "id")


def workspace_bytes(name: str) -> int | None:
    """What torch allocates for each thread's matrix products to work in on a chip by its name (an accelerator's, or
    one that begins as such do); None: as much as usual."""
    found = (fact for fact in workspaces() if name.startswith(fact.chips))
    first = next(found, None)
    return None if first is None else first.bytes


def matmul_flops_per_s(accelerator: Accelerator, dtype: str) -> float:
    """The rate at which products of this format could run at best. Raises InputError where it is not known."""
    if dtype == "int8":
        if (ratio := int8_ratio(accelerator)) is None:
            raise InputError(
                "gpu",
                accelerator.name,
                "an accelerator whose int8 rate is known",
                "--quantize nf4 needs none.",
            )
        return ratio * matmul_flops_per_s(accelerator, "float16")
    peak = peak_flops_per_s(accelerator, arithmetic_of(accelerator, dtype))
    if peak is None:
        remedy = "`lora-plan gpus` shows what is known."
        if dtype == "float32":
            remedy += " An adapter in 16 bits (--adapter-dtype bfloat16) needs no float32 products."
        raise InputError("gpu", accelerator.name, f"an accelerator whose {dtype} rate is known", remedy)
    return peak


def pcie_bytes_per_s(accelerator: Accelerator) -> float:
    """One way between a GPU and its host: its PCIe generation's rate (4 where none is named) for its lanes (16)."""
    found = re.search(r"PCIe Gen(\d)(?: x(\d+))?", accelerator.interconnect or "")
    generation = int(found[1]) if found else 5 if _newest(accelerator) else 4
    lanes = int(found[2]) if found and found[2] else 16
    return PCIE_EACH_WAY.get(generation, PCIE_EACH_WAY[4]) * lanes / 16


def _newest(accelerator: Accelerator) -> bool:
    """Whether it is of the H100's age or newer, by its having 8-bit rates and a link of its own."""
    return bool(accelerator.fp8_dense_flops_per_s) and "PCIe" not in (accelerator.interconnect or "PCIe")


def cluster(
    accelerator: Accelerator, count: int = 1, *, per_node: int = GPUS_PER_NODE, link: str | None = None,
    network_bytes_per_s: float | None = None,
) -> Cluster:  # fmt: skip
    """A cluster with the accelerator's own links; `link="pcie"` for cards without their bridge."""
    for name, value in (("gpus", count), ("gpus-per-node", per_node)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(name, value, "a whole number of at least 1")
    named = accelerator.interconnect or ""
    bridge = "bridge" in named
    switched = bool(named) and "PCIe" not in named and not bridge
    rate = accelerator.interconnect_bytes_per_s_each_way or PCIE_EACH_WAY[4]
    if link == "pcie" or (bridge and count > 2):
        switched, bridge, rate = False, False, pcie_bytes_per_s(accelerator)
    staged = min(per_node, count) > 1 and not (switched or bridge or accelerator.pcie_peer_access)
    if network_bytes_per_s is None:
        network_bytes_per_s = NETWORK_CARDS / per_node
        if switched:
            network_bytes_per_s = NETWORK_FAST if _newest(accelerator) else NETWORK_A100
    return Cluster(
        accelerator, count, min(per_node, count), rate, network_bytes_per_s, switched or bridge, staged
    )


def find(name: str) -> Accelerator:
    """The accelerator of this name; an unknown one is refused with the nearest names, as `gpu`."""
    try:
        return facts.accelerator(name)
    except InputError as error:
        remedy = str(error).split(". ", 1)[-1].replace("data/accelerators.toml", "`lora-plan gpus`")
        own = ""
        if several := _several(name):
            remedy = f"Give --gpu '{several[1]}' --gpus {several[0]}."
        elif "Did you mean" not in remedy:
            own = " Take the nearest of its memory and bandwidth, or add it (CONTRIBUTING.md)."
        raise InputError("gpu", name, "a known accelerator", f"{remedy}{own}") from None


def _several(name: object) -> tuple[int, str] | None:
    """How many of which: 8xH100 and H100 x 8 are 8 of the H100."""
    if not isinstance(name, str):
        return None
    first, last = _COUNT_FIRST.fullmatch(name.strip()), _COUNT_LAST.fullmatch(name.strip())
    found = (first[1], first[2]) if first else (last[2], last[1]) if last else None
    if found is None:
        return None
    try:
        return int(found[0]), facts.accelerator(found[1]).name
    except InputError:
        return None
