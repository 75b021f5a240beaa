"""Step time with its interval: the roofline's seconds, spread as measured runs lie about it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass
from ..errors import UnsupportedArchitectureError
from ..flops import FLOPS_PER_MAC
from ..hardware import (
    Cluster,
    arithmetic_of,
    has_flash_attention,
    keeps_fp8,
    matmul_flops_per_s,
    only_float16,
    peak_flops_per_s,
)
from ..memory.traffic import traffic as traffic_of
from ..moments import Traffic
from ..objective import step_tally
from ..schema import Architecture, Basis, Notice
from ..setup import Setup
from .calibration import NOTHING_MEASURED, Calibration
from .efficiency import Efficiency, clock_of, constants, evidence_of
from .kinds import MEASURED, Grounds, kind_of
from .roofline import staged_share, step_parts, thin_share
from .step import work_of
from .styles import wide_between
from .trained import held
from .work import Work


@dataclass(frozen=True)
class StepTime:
    """An optimizer step: seconds with the interval, by part, and what follows from them. `grounds`: whose interval it
    is, and how often such intervals hold. `tokens` are those of all GPUs in a step; `model_flops` leave out what
    checkpointing computes again and what a mask hides."""

    seconds: float
    low: float
    high: float
    parts: dict[str, float]
    tokens: int
    gpus: int
    model_flops: float | None
    peak_flops_per_s: float
    coverage: float
    grounds: Grounds
    notices: tuple[Notice, ...] = ()
    basis: Basis = "fitted"
    phases: dict[str, float] | None = None  # of GRPO: its parts in order of time

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of all GPUs together."""
        return self.tokens / self.seconds

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: the model's FLOPs over what the GPUs could do at their peaks, of laptops at the
        clock at which they were seen to run."""
        if self.model_flops is None:
            return None
        return self.model_flops / self.seconds / self.gpus / self.peak_flops_per_s

    def to_dict(self) -> dict[str, Any]:
        """A step, for JSON."""
        return {
            "seconds": self.seconds,
            "low": self.low,
            "high": self.high,
            "tokens": self.tokens,
            "tokens_per_s": self.tokens_per_s,
            "tokens_per_s_per_gpu": self.tokens_per_s / self.gpus,
            "mfu": self.mfu,
            "parts": dict(self.parts),
            "phases": None if self.phases is None else dict(self.phases),
        }

    def interval(self) -> dict[str, Any]:
        """Whose interval it is and what that rests on, for JSON."""
        said = self.grounds
        return {
            "kind": said.kind,
            "coverage": self.coverage,
            "sources": said.sources,
            "runs": said.runs,
            "judged": said.judged,
            "held": said.held,
        }


def tokens_of(setup: Setup) -> int:
    """Tokens of an optimizer step over all GPUs."""
    return setup.global_batch * setup.sequences // setup.micro_batch * setup.seq_len


def time_gap(arch: Architecture, whole: Whole = NOTHING_WHOLE) -> str | None:
    """Why a model's step has no time, where it has none: its operations are not known."""
    if arch.flops_gap or whole.gap:
        return arch.flops_gap or whole.gap
    return None if arch.blocks else f"The operations of {arch.model_type} are not known."


def model_flops(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted], whole: Whole = NOTHING_WHOLE
) -> float | None:
    """FLOPs of an optimizer step without recompute and without what masks hide; None where no count exists."""
    if time_gap(arch, whole):
        return None
    pairs = None if setup.method == "full" else tuple(adapted)
    tally = step_tally(arch, setup, pairs, whole, setup.sequences, plain=True)
    macs = tally.total - tally.overcount - tally.hidden
    return float(FLOPS_PER_MAC * macs * setup.accumulation * setup.data_parallel)


@dataclass(frozen=True)
class Counted:
    """What a step does, whatever machine it runs on: the work of a micro-step, what GPUs send each other, and
    `model_flops`; of GRPO none, which are no measure of a step that makes completions too."""

    work: Work
    traffic: tuple[Traffic, ...]
    model_flops: float | None


def counted(
    arch: Architecture, setup: Setup, pairs: tuple[Adapted, ...], whole: Whole, known: dict[Setup, Counted] | None
) -> Counted:  # fmt: skip
    """What a step does. `known` holds what was counted of other set-ups with these pairs, and is added to."""
    if known is not None and setup in known:
        return known[setup]
    mine = held(arch, setup, pairs, whole)
    found = Counted(
        work_of(arch, setup, pairs, whole),
        tuple(traffic_of(arch, setup, math.ceil(mine.shared), math.ceil(mine.experts))),
        None if setup.objective == "grpo" else model_flops(arch, setup, pairs, whole),
    )
    if known is not None:
        known[setup] = found
    return found


def _of_float16(setup: Setup, machine: Cluster) -> Iterable[Notice]:
    """That float16 is taken where a chip has no bfloat16, and what of a base that is loaded in it."""
    if setup.precision != "fp16" or not only_float16(machine.accelerator):
        return
    cast = setup.method == "lora" and setup.autocast and setup.base_dtype is None
    yield Notice(
        "float16-units",
        f"{machine.accelerator.name} has no units for bfloat16: float16 is taken, whose range wants a scaled loss."
        + (" A base loaded in bfloat16 is cast for every product: --base-dtype bfloat16." if cast else ""),
    )


def _of_float32(setup: Setup, machine: Cluster, parts: dict[str, float], total: float) -> Iterable[Notice]:
    """What TF32 would do for float32 products, or does not do."""
    gpu = machine.accelerator
    wide, narrow = (peak_flops_per_s(gpu, dtype) for dtype in ("float32", "tfloat32"))
    if setup.tf32 and narrow is None:
        yield Notice("no-tf32", f"{gpu.name} has no TF32: products in float32 are taken at its float32 rate.")
    if setup.compute_dtype != "float32" or setup.tf32 or parts["matmul"] < 0.2 * total:
        return
    if wide and narrow and narrow > 1.5 * wide:
        yield Notice(
            "tf32-off",
            "Products are in float32, for which PyTorch leaves TF32 off unless told: --tf32 (tf32: true of "
            f"transformers' Trainer) would make them up to {narrow / wide:.0f} times as fast on {gpu.name}.",
        )


def _without_kernels(setup: Setup, machine: Cluster) -> Iterable[Notice]:
    """What a set-up asks for and its programs do not run on the GPU."""
    gpu = machine.accelerator
    if setup.attention_kernel == "flash" and not has_flash_attention(gpu):
        yield Notice(
            "no-flash-kernels",
            f"FlashAttention 2 has no kernels for {gpu.name} (Ampere and newer have): --attention-kernel sdpa runs.",
        )
    elif setup.attention_kernel == "flash" and setup.compute_dtype == "float32":
        text = "FlashAttention takes 16 bits, and products are in float32: --attention-kernel sdpa runs."
        yield Notice("no-flash-kernels", text)
    if setup.quantize == "fp8" and not keeps_fp8(gpu):
        yield Notice(
            "no-fp8-units",
            f"{gpu.name} has no units for FP8: transformers makes such a base 16 bits again there, which takes what "
            "--quantize none says.",
        )


def _notices(setup: Setup, machine: Cluster, parts: dict[str, float], total: float) -> Iterable[Notice]:
    name = machine.accelerator.name
    if (
        setup.compute_dtype != "float32"
        and arithmetic_of(machine.accelerator, setup.compute_dtype) == "float32"
    ):
        yield Notice(
            "no-16-bit-units",
            f"{name} has no units for {setup.compute_dtype}: products are taken at its float32 rate; "
            "--precision fp16 would use its float16 units.",
        )
    yield from _of_float32(setup, machine, parts, total)
    yield from _of_float16(setup, machine)
    yield from _without_kernels(setup, machine)
    wide = setup.method != "full" and setup.trained_dtype == "float32" and setup.compute_dtype != "float32"
    if wide and not setup.under_autocast:
        yield Notice(
            "adapter-in-float32",
            "The adapter is in float32 on 16-bit weights without autocast, as PEFT makes it: its products and the "
            "casts around them are slow, and float32 copies of what they read are kept. "
            f"--adapter-dtype {setup.compute_dtype} or --autocast avoids it.",
        )
    if wide_between(setup):
        yield Notice(
            "float32-between",
            "Without autocast all but the quantised products is float32, as PEFT prepares a quantised model: "
            "attention and the unembedding run at a fraction of their 16-bit rate. --autocast avoids it.",
        )
    if parts["scan"] > 0.2 * total:
        yield Notice(
            "scan-assumed",
            "A good part of the step lies in state-space or linear-attention cores, whose speed was "
            "assumed, not fitted.",
        )
    if evidence_of(name) == "unseen":
        yield Notice(
            "gpu-not-calibrated",
            f"No published step on {name} was among those that the formula was fitted on. "
            "`lora-plan calibrate` narrows the interval with a step of your own.",
        )
    if machine.staged:
        rate = machine.link_bytes_per_s * constants().efficiency.staged / 1e9
        yield Notice(
            "no-peer-access",
            f"{name}s reach each other through the host's memory: {rate:.1f} GB/s each way are taken, and machines "
            "differ tenfold (slow behind shared PCIe lanes or across sockets), for which the interval is wider. "
            "`lora-plan calibrate` takes a step of your own.",
        )
    if machine.count > machine.per_node:
        yield Notice(
            "network-assumed",
            f"{machine.count} GPUs span machines: {machine.network_bytes_per_s / 1e9:g} GB/s of network a GPU "
            "is assumed.",
        )


def step_time(
    arch: Architecture, setup: Setup, machine: Cluster, adapted: Iterable[Adapted] = (),
    whole: Whole = NOTHING_WHOLE, *,
    calibration: Calibration = NOTHING_MEASURED, efficiency: Efficiency | None = None,
    known: dict[Setup, Counted] | None = None,
) -> StepTime:  # fmt: skip
    """Seconds of an optimizer step of `setup` on `machine`.

    The interval holds a share `coverage` of measured set-ups; a calibration moves and narrows it. `known` is what was
    `counted` before of this model and these pairs. Raises InputError where a rate is not known,
    UnsupportedArchitectureError where the model's operations are not.
    """
    if gap := time_gap(arch, whole):
        raise UnsupportedArchitectureError(f"No step time: {gap}")
    facts, done = constants(), counted(arch, setup, tuple(adapted), whole, known)
    parts = step_parts(done.work, setup, machine, done.traffic, efficiency or facts.efficiency)
    total = sum(parts.values())
    name = machine.accelerator.name
    kind = kind_of(setup, machine, evidence_of(name))
    spread = facts.spreads[kind]
    shift, below, above = calibration.correction(
        name, setup.trainer, thin_share(parts), spread, staged_share(parts, machine)
    )
    seconds = total * math.exp(shift)
    return StepTime(
        seconds=seconds, low=seconds * math.exp(-spread.z * below), high=seconds * math.exp(spread.z * above),
        parts={name: part * math.exp(shift) for name, part in parts.items()}, tokens=tokens_of(setup),
        gpus=setup.gpus, model_flops=done.model_flops,
        peak_flops_per_s=matmul_flops_per_s(machine.accelerator, setup.product_format) * clock_of(name),
        coverage=spread.coverage,
        grounds=facts.grounds[MEASURED if calibration.of(name, setup.trainer) else kind],
        notices=(
            *_notices(setup, machine, parts, total),
            *calibration.notices(name, setup.trainer),
        ),
    )  # fmt: skip
