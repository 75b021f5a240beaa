"""Time of a step by roofline: each part takes as long as the slower of its arithmetic and its memory traffic.

    product:      max((FLOPs of whole tiles + wave x multiprocessors x FLOPs of a tile) / (peak x reached x matmul),
                      bytes / (bandwidth x memory))
    attention:    max(FLOPs / (peak x min(1, 1024 / multiply-adds a clock) x attention), bytes / (bandwidth x memory))
    masked:       the same over all pairs at half the pace, where a batch is padded under PyTorch's own attention
    scan:         FLOPs / (peak x scan)
    elementwise:  bytes / (bandwidth x memory)
    dequantising: bytes / min(bandwidth x memory, multiprocessors x clock x reached x dequantise)
    phase:        max(sum of its parts + kernels x start, kernels x host + sharded units gathered x unit)
    step:         micro-steps x (forward + backward + loop) + optimizer + pipeline bubble + exposed communication

The shares (matmul, memory, ...) are what programs reach of a peak: constants fitted on published runs and kept in
data/speed.toml. What is neglected: that kernels overlap on one GPU, the clock's throttling, loading data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..dataclass import dataclass
from ..hardware import Cluster, arithmetic_of, matmul_flops_per_s
from ..moments import Traffic
from ..setup import Setup
from ..trainers import one_of
from .communication import exposed_s, total_s
from .efficiency import Efficiency, clock_of, reach_of
from .work import PHASES, Gemm, Kind, Phase, Work

if TYPE_CHECKING:
    from ..fact_types import Accelerator

PARTS = (
    "matmul", "adapter", "attention", "scan", "memory_bound", "dequantise", "host", "optimizer", "bubble",
    "communication",
)  # fmt: skip
THIN = ("host", "communication", "bubble")  # parts that vary most between machines
# Trainers whose attention uses the matrix units since H100.
NATIVE_ATTENTION = ("nemo-automodel", "megatron", "nemo-1")
# Seconds a parameter of an optimizer's step on a machine's processors: 32 bytes (gradient, float32 parameter and two
# moments read and written, the 16-bit copy) at 125 GB/s, a third of what two sockets of DDR4-3200 have. Published
# steps allow from 0.17 ns (torchtune's README, Llama 3.1 70B on 8 A100s) to 2.5 ns (gist of chenyaofo on DeepSpeed).
CPU_STEP_S = 32 / 125e9
# DeepSpeed's step moves 46 bytes: Adam's 28 on float32, gradients that arrive in float32 (4) and are scaled in a pass
# of their own (8), a copy in 16 bits (6) (stage3.py: partition_grads, unscale_and_clip_grads,
# _reassign_or_swap_out_partitioned_parameters). Its ranks' threads run apart and get 70 GB/s of a machine: the middle
# of four published times, 0.55 to 0.91 ns (data/measured/offloaded_steps.csv).
DEEPSPEED_STEP_S = 46 / 70e9
# Multiply-adds a clock of an A100's multiprocessor. Kernels without the instructions that came later reach no more:
# FlashAttention-2 a third of an H100's peak and two thirds of an A100's (arXiv 2407.08608, 2307.08691).
A100_FMA = 1024
# What LLM.int8()'s products reach of what 16-bit ones do of theirs: of twice the peak 1.67 times the rate (arXiv
# 2208.07339, appendix on speed-ups).
INT8_REACHED = 1.67 / 2
LOOPS = ("litgpt", "litgpt-2024")  # trainers whose loop was seen to wait between micro-steps
OF_KIND = {
    "base": "matmul", "adapter": "adapter", "attention": "attention", "masked": "attention", "scan": "scan",
}  # fmt: skip
# What attention with a mask reaches of what flash attention 2 does: the memory-efficient kernel is xformers', which
# with the first flash attention reaches 25 to 40% of an A100's peak where the second reaches 50 to 73% (arXiv
# 2307.08691, introduction and figures 4 to 6).
MASKED = 0.5


@dataclass(frozen=True)
class Rates:
    """What one accelerator reaches: FLOP/s by kind of product and format, bytes/s of elementwise work and of
    dequantising; `idle_tiles` of the last wave of a product stand idle."""

    products: dict[tuple[Kind, str], float]
    bytes_per_s: float
    dequantise_bytes_per_s: float
    idle_tiles: float


def rates(machine: Cluster, work: Work, efficiency: Efficiency, setup: Setup) -> Rates:
    """The rates for the products of `work`. Raises InputError where a peak or the bandwidth is not known."""
    return rates_of({(gemm.kind, gemm.dtype) for gemm in work.gemms}, machine.accelerator, efficiency, setup)


def rates_of(
    kinds: Iterable[tuple[Kind, str]], accelerator: Accelerator, efficiency: Efficiency, setup: Setup
) -> Rates:
    """The rates for products of these kinds and formats."""
    share: dict[Kind, float] = {
        "attention": attention_share(accelerator, efficiency, setup),
        "masked": MASKED * plain_share(accelerator, efficiency),
        "scan": efficiency.scan,
    }
    products: dict[tuple[Kind, str], float] = {}
    for kind, dtype in kinds:
        form = format_of(kind, dtype, setup)
        reached = share[kind] if kind in share else matmul_share(accelerator, form, efficiency)
        reached *= INT8_REACHED if dtype == "int8" else 1.0
        products[kind, dtype] = matmul_flops_per_s(accelerator, form) * reached
    if ("masked", "float32") in products:  # on the ordinary units, which are no slower a clock than an A100's
        products["masked", "float32"] = (
            matmul_flops_per_s(accelerator, "float32") * MASKED * efficiency.attention
        )
    moving = (accelerator.bandwidth_bytes_per_s or 0.0) * efficiency.memory
    clocks = (accelerator.units or 0) * (accelerator.tensor_clock_hz or 0.0) * reach_of(accelerator.name)
    clocks *= clock_of(accelerator.name)
    dequantising = min(moving, clocks * efficiency.dequantise) if clocks else moving
    return Rates(products, moving, dequantising, efficiency.wave * (accelerator.units or 0))


def format_of(kind: Kind, dtype: str, setup: Setup) -> str:
    """The format whose peak a product has: float32 ones run as TF32 where that is switched on, of which programs are
    taken to reach as much as of 16 bits. PyTorch's memory-efficient attention does not ask for the switch: it splits
    float32 into three TF32 products (torch, mem_eff_attention/gemm_kernel_utils.h, DefaultGemmType)."""
    switched = setup.tf32 and dtype == "float32" and kind in ("base", "adapter", "scan")
    return "tfloat32" if switched else dtype


def is_workstation(name: str) -> bool:
    """Whether a card is a workstation's of the Ada generation or later, whose tensor cores are whole."""
    return name.startswith("RTX PRO") or name.endswith(" Ada")


def matmul_share(accelerator: Accelerator, form: str, efficiency: Efficiency) -> float:
    """What products of weights reach of the peak of their format; TF32 is float32 on chips without it. Cards whose
    tensor cores are halved reach nearly all of it (of laptops' what was measured, at clocks above those listed), and
    so do the RTX A ones on which constants were fitted; workstation cards since, which power holds down, what was
    measured, or what is usual."""
    if accelerator.name.startswith("RTX") and not is_workstation(accelerator.name):
        return efficiency.matmul_cards * clock_of(accelerator.name)
    run = arithmetic_of(accelerator, form) if form == "tfloat32" else form
    return efficiency.matmul * reach_of(accelerator.name, run)


def attention_share(accelerator: Accelerator, efficiency: Efficiency, setup: Setup) -> float:
    """What fused attention reaches of the peak: without the newer chips' instructions an A100's rate a clock.

    PyTorch's own attention (sdpa) runs cuDNN's kernels on H100 and newer since 2.5, flash attention 2 has none.
    """
    if newer(accelerator) and (one_of(setup.trainer, NATIVE_ATTENTION) or setup.attention_kernel == "sdpa"):
        return efficiency.attention_native
    return plain_share(accelerator, efficiency)


def newer(accelerator: Accelerator) -> bool:
    """Whether a chip has matrix instructions that came after the A100's."""
    return (accelerator.fma_per_unit_per_clock or 0) > A100_FMA and accelerator.vendor == "NVIDIA"


def plain_share(accelerator: Accelerator, efficiency: Efficiency) -> float:
    """What flash attention 2 reaches of the peak: where the chip has newer instructions, an A100's pace a clock."""
    if not newer(accelerator):
        return efficiency.attention
    return efficiency.attention * A100_FMA / (accelerator.fma_per_unit_per_clock or A100_FMA)


def loop_s(trainer: str, efficiency: Efficiency) -> float:
    """What a trainer's loop adds to each micro-step, s."""
    return efficiency.iteration_s if one_of(trainer, LOOPS) else 0.0


def gemm_s(gemm: Gemm, batch: float, known: Rates) -> float:
    """Seconds of all calls of a product."""
    product = gemm.product
    tiled, moved = product.tiled, product.bytes  # read out here: a fit of constants asks a million times
    covered = tiled.fixed + tiled.sequence * batch + product.tile * known.idle_tiles
    arithmetic = covered / known.products[gemm.kind, gemm.dtype]
    moving = (moved.fixed + moved.sequence * batch) / known.bytes_per_s
    return gemm.calls * (moving if moving > arithmetic else arithmetic)


def on_host_s(setup: Setup) -> float:
    """Seconds a parameter of an optimizer's step on a machine's processors."""
    return DEEPSPEED_STEP_S if setup.sharding.startswith("zero") else CPU_STEP_S


def gather_s(setup: Setup, efficiency: Efficiency) -> float:
    """The host's time for gathering one sharded unit, s: a module under ZeRO-3, else an FSDP unit. The GPU works on
    what was launched before meanwhile."""
    return efficiency.module_s if setup.sharding == "zero3" else efficiency.unit_s


def _phase(
    work: Work, phase: Phase, batch: float, known: Rates, efficiency: Efficiency, gather: float
) -> dict[str, float]:
    """Seconds by part of a phase of one micro-step; `gather` is the host's time for a sharded unit."""
    parts = dict.fromkeys(PARTS, 0.0)
    parts["memory_bound"] = work.operations[phase] * efficiency.start_s
    for gemm in work.of_phase[phase]:
        parts[OF_KIND[gemm.kind]] += gemm_s(gemm, batch, known)
    for sweep in work.sweeps:
        if sweep.phase == phase and sweep.what == "dequantise":
            parts["dequantise"] += sweep.bytes.at(batch) / known.dequantise_bytes_per_s
        elif sweep.phase == phase:
            parts["memory_bound"] += sweep.bytes.at(batch) / known.bytes_per_s
    host = work.operations[phase] * efficiency.host_s + work.gathers / len(PHASES) * gather
    parts["host"] = max(0.0, host - sum(parts.values()))
    return parts


def step_parts(
    work: Work, setup: Setup, machine: Cluster, traffic: Iterable[Traffic], efficiency: Efficiency
) -> dict[str, float]:
    """Seconds of an optimizer step by part; they add up to the step. Raises InputError where a rate is not known."""
    known = rates(machine, work, efficiency, setup)
    micro_steps, stages = setup.accumulation, setup.pipeline_parallel
    gather = gather_s(setup, efficiency)
    forward, backward = (_phase(work, phase, setup.sequences, known, efficiency, gather) for phase in PHASES)
    parts = {name: (forward[name] + backward[name]) * micro_steps / stages for name in PARTS}
    parts["host"] += loop_s(setup.trainer, efficiency) * micro_steps
    moved = work.accumulate_bytes * (micro_steps - 1) + work.optimizer_bytes
    parts["optimizer"] = moved / known.bytes_per_s + work.optimizer_operations * efficiency.start_s
    if setup.offload in ("optimizer", "all"):
        parts["host"] += work.stepped * machine.per_node * on_host_s(setup)
    computing = sum(parts.values())
    parts["bubble"] = computing * (stages - 1) / micro_steps
    moving = total_s(traffic, machine, efficiency.link, efficiency.staged)
    parts["communication"] = exposed_s(computing, moving, efficiency.overlap)
    return parts


def staged_share(parts: dict[str, float], machine: Cluster) -> float:
    """The share of a step that is communication through the host's memory, which differs most between machines."""
    return parts["communication"] / sum(parts.values()) if machine.staged else 0.0


def thin_share(parts: dict[str, float]) -> float:
    """The share of a step in parts that vary most between machines: host time, communication, bubbles."""
    return sum(parts[name] for name in THIN) / sum(parts.values())
