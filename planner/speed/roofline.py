"""Time of a step by roofline: each part takes as long as the slower of its arithmetic and its memory traffic.

    product:      max(c, m) + stall x min(c, m), c = FLOPs / (peak x matmul), m = bytes / (bandwidth x memory)
    attention:    the same with c = FLOPs / (peak x attention)
    scan:         FLOPs / (peak x scan)
    elementwise:  bytes / (bandwidth x memory)
    dequantising: bytes / (bandwidth x dequantise)
    phase:        max(sum of its parts, operations x host)

The shares (matmul, memory, ...) are what programs reach of a peak: constants fitted on published runs and kept in
data/speed.toml. What is neglected: that products and passes overlap on one GPU, the clock's throttling, the loader.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..hardware import Cluster, arithmetic_of, matmul_flops_per_s
from ..moments import Traffic
from ..setup import Setup
from .communication import exposed_s, total_s
from .work import PHASES, Gemm, Work


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peaks that programs reach, and times that no peak explains.

    `attention_hopper` replaces `attention` where kernels do not use the matrix units of chips since H100 (flash
    attention 2). `host_s` is the host's time for one operation, `start_s` the GPU's.
    """

    matmul: float
    matmul_cards: float
    attention: float
    attention_hopper: float
    attention_native: float
    scan: float
    memory: float
    dequantise: float
    link: float
    overlap: float
    stall: float
    host_s: float
    unit_s: float
    module_s: float
    start_s: float


@dataclass(frozen=True)
class Rates:
    """What one accelerator reaches: rates by format, attention's share of them, bytes a second."""

    flops_per_s: dict[str, float]
    matmul: float
    attention: float
    bytes_per_s: float


PARTS = (
    "matmul", "adapter", "attention", "scan", "memory_bound", "dequantise", "host", "communication", "optimizer",
    "bubble",
)  # fmt: skip


def rates(machine: Cluster, dtypes: Iterable[str], efficiency: Efficiency, trainer: str = "") -> Rates:
    """The rates of a machine's accelerator. Raises InputError where a peak or the bandwidth is not known."""
    accelerator = machine.accelerator
    peaks = {dtype: matmul_flops_per_s(accelerator, dtype) for dtype in dtypes}
    hopper = bool(accelerator.fp8_dense_flops_per_s) and (accelerator.bf16_dense_flops_per_s or 0) > 7e14
    bandwidth = accelerator.bandwidth_bytes_per_s or 0.0
    attention = efficiency.attention
    if hopper:
        attention = efficiency.attention_native if trainer == "nemo-automodel" else efficiency.attention_hopper
    matmul = efficiency.matmul_cards if accelerator.name.startswith("RTX") else efficiency.matmul
    return Rates(peaks, matmul, attention, bandwidth)


def gemm_s(gemm: Gemm, batch: float, rates: Rates, efficiency: Efficiency) -> float:
    """Seconds of all calls of a product."""
    share = rates.matmul
    if gemm.kind == "attention":
        share = rates.attention
    elif gemm.kind == "scan":
        share = efficiency.scan
    arithmetic = gemm.flops.at(batch) / (rates.flops_per_s[gemm.dtype] * share)
    moving = gemm.bytes.at(batch) / (rates.bytes_per_s * efficiency.memory)
    return gemm.calls * (max(arithmetic, moving) + efficiency.stall * min(arithmetic, moving))


def step_parts(
    work: Work, setup: Setup, machine: Cluster, traffic: Iterable[Traffic], efficiency: Efficiency, units: float = 0.0
) -> dict[str, float]:
    """Seconds of an optimizer step by part; they add up to the step."""
    parts = dict.fromkeys(PARTS, 0.0)
    known = rates(machine, {gemm.dtype for gemm in work.gemms}, efficiency, setup.trainer)
    batch, stages = setup.micro_batch, setup.pipeline_parallel
    names = {"base": "matmul", "adapter": "adapter", "attention": "attention", "scan": "scan"}
    for phase in PHASES:
        busy = work.operations[phase] * efficiency.start_s
        parts["memory_bound"] += busy
        for gemm in work.gemms:
            if gemm.phase == phase:
                seconds = gemm_s(gemm, batch, known, efficiency)
                parts[names[gemm.kind]] += seconds
                busy += seconds
        for sweep in work.sweeps:
            if sweep.phase == phase:
                quant = sweep.what == "dequantise"
                share = efficiency.dequantise if quant else efficiency.memory
                seconds = sweep.bytes.at(batch) / (known.bytes_per_s * share)
                parts["dequantise" if quant else "memory_bound"] += seconds
                busy += seconds
        parts["host"] += max(0.0, work.operations[phase] * efficiency.host_s - busy)
    micro_steps = setup.accumulation
    parts = {name: seconds * micro_steps / stages for name, seconds in parts.items()}
    moved = work.accumulate_bytes * (micro_steps - 1) + work.optimizer_bytes
    parts["optimizer"] = moved / (known.bytes_per_s * efficiency.memory)
    computing = sum(parts.values())
    parts["bubble"] = computing * (stages - 1) / micro_steps if stages > 1 else 0.0
    parts["communication"] = exposed_s(
        computing, total_s(traffic, machine, efficiency.link), efficiency.overlap
    ) + units * micro_steps * (efficiency.module_s if setup.sharding == "zero3" else efficiency.unit_s)
    return parts
