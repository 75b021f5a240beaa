"""Time of collectives between GPUs, by the ring formulas.

A ring over n GPUs moves a tensor of b bytes in (n - 1) / n x b a GPU for an all-gather or a reduce-scatter, and twice
that for an all-reduce; an all-to-all sends (n - 1) / n of what each GPU holds. Trees, hierarchies and in-switch
reductions, which beat the ring on many machines, are neglected.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import Adapted
from ..hardware import Cluster, pcie_bytes_per_s
from ..moments import Traffic
from ..schema import Architecture, Matrix
from ..setup import Setup
from ..trainers import one_of

# What starting a ring costs and each of its steps, s: by NVLink, PCIe and a network, as NCCL's own model has them
# for large messages (NVIDIA/nccl, src/graph/tuning.cc: baseLat and hwLat, ring, protocol Simple).
START_S, NVLINK_STEP_S, PCIE_STEP_S, NETWORK_STEP_S = 8.4e-6, 3.4e-6, 5.7e-6, 14e-6
# Trainers on FSDP 2, which gathers the next layers ahead.
GATHER_AHEAD = ("nemo-automodel", "torchtitan", "torchtune")
# Trainers that gather by layer. PEFT's own policy, which the others follow, makes an FSDP unit of every factor
# of every pair, since FSDP 1 wants units that are trained or frozen as a whole.
GATHER_BY_LAYER = (
    "fms-acceleration",
    "litgpt",
    "litgpt-2024",
    "llm-foundry",
    "unsloth",
    "megatron",
    "ms-swift-megatron",
)


def ring_share(collective: str, group: int) -> float:
    """Bytes that a GPU sends for each byte of the tensor."""
    if collective in ("send", "host_copy"):
        return 1.0
    return (2.0 if collective == "all_reduce" else 1.0) * (group - 1) / group


def rate_of(entry: Traffic, machine: Cluster) -> float:
    """Bytes a second of the link that a collective uses. Tensor-, expert- and sequence-parallel groups are taken
    to lie within a machine as far as they fit, the others to span what is left."""
    if entry.group == "host":
        return pcie_bytes_per_s(machine.accelerator)
    inside = entry.group in ("tensor", "expert", "sequence") or (
        entry.group == "shard" and entry.group_size <= machine.per_node
    )
    return machine.rate_between(entry.group_size if inside else machine.count)


def call_s(entry: Traffic, machine: Cluster) -> float:
    """Seconds that a collective takes beside its bytes: a ring over n GPUs goes n - 1 steps, an all-reduce twice as
    many, of which as many cross the network as there are machines. Copies to the host only start."""
    if entry.group == "host" or entry.collective == "send":
        return START_S
    steps = entry.group_size - 1
    machines = -(-entry.group_size // machine.per_node) if entry.group_size > machine.per_node else 0
    across = min(steps, machines)
    hop = NVLINK_STEP_S if machine.switched else PCIE_STEP_S
    times = 2 if entry.collective == "all_reduce" else 1
    return START_S + times * ((steps - across) * hop + across * NETWORK_STEP_S)


def collective_s(entry: Traffic, machine: Cluster, link: float, staged: float | None = None) -> float:
    """Seconds of all calls of a collective in an optimizer step, at a share `link` of the links' rates; `staged` of a
    machine's own where its cards send through the host's memory."""
    if stays(entry):
        return 0.0
    rate, each_s = pace_of(entry, machine, link, staged)
    return sent_bytes(entry) / rate + entry.calls * each_s


def stays(entry: Traffic) -> bool:
    """Whether nothing leaves the GPU."""
    return entry.group_size < 2 and entry.group != "host"


def sent_bytes(entry: Traffic) -> float:
    """Bytes that a GPU sends."""
    return entry.bytes * ring_share(entry.collective, entry.group_size)


def pace_of(
    entry: Traffic, machine: Cluster, link: float, staged: float | None = None
) -> tuple[float, float]:
    """Bytes a second of a collective, and seconds of each call beside them: neither hangs on how much is sent."""
    rate = rate_of(entry, machine) * link
    if staged is not None and machine.staged and entry.group != "host":
        rate = min(rate, machine.link_bytes_per_s * staged)
    return rate, call_s(entry, machine)


def total_s(traffic: Iterable[Traffic], machine: Cluster, link: float, staged: float | None = None) -> float:
    """Seconds of all collectives one after another."""
    return sum(collective_s(entry, machine, link, staged) for entry in traffic)


def exposed_s(computing: float, communicating: float, overlap: float) -> float:
    """What communication adds to a step: the share `overlap` of it hides behind computing, as far as that lasts."""
    return communicating - overlap * min(computing, communicating)


def gathers(arch: Architecture, setup: Setup, adapted: Iterable[Adapted]) -> float:
    """Units of the whole model that a micro-step gathers, each costing the host time beside the bytes: forward and
    backward.

    FSDP gathers layers (and each factor of each pair where PEFT's policy wraps them). DeepSpeed's ZeRO-3 puts hooks
    around every module that has parameters, each expert's matrices and factors apart where the library runs them one
    after another, and they run in every pass: forward, again where layers are computed again, and backward
    (deepspeed/runtime/zero/parameter_offload.py; what a hook finds at hand costs it less, which is neglected).
    """
    if not setup.parameters_sharded or setup.shards < 2 or one_of(setup.trainer, GATHER_AHEAD):
        return 0.0
    pairs = () if setup.method == "full" else tuple(adapted)
    if setup.sharding == "zero3":
        loops = setup.kernels in ("transformers", "litgpt", "pairs")

        def alike(matrix: Matrix, pieces: int) -> int:
            """Modules of a matrix, or of `pieces` pairs on it, in a layer: of each expert and of its parts apart."""
            apart = loops and matrix.kind == "experts"
            return matrix.experts * max(pieces, len(matrix.parts)) if apart else pieces

        modules = sum(m.copies * alike(m, 1) for m in arch.matrices)
        modules += sum(2 * len(i.layers) * alike(i.matrix, len(i.pairs)) for i in pairs)
        return (2.0 + (setup.checkpointing != "none")) * modules
    factors = sum(2 * len(item.layers) * len(item.pairs) for item in pairs)
    if setup.fsdp_units == "whole":  # the root, gathered for both passes
        return 1.0
    if setup.fsdp_units == "modules":
        return 2.0 * (sum(m.copies for m in arch.matrices) + factors)
    wrapped = 0 if one_of(setup.trainer, GATHER_BY_LAYER) else factors
    outside = 2 if setup.fsdp_units == "layers-ends" else 1
    return 2.0 * (arch.n_layers + outside + wrapped)
