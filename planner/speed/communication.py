"""Time of collectives between GPUs, by the ring formulas.

A ring over n GPUs moves a tensor of b bytes in (n - 1) / n x b a GPU for an all-gather or a reduce-scatter, and twice
that for an all-reduce; an all-to-all sends (n - 1) / n of what each GPU holds. Trees, hierarchies and in-switch
reductions, which beat the ring on many machines, are neglected.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..hardware import Cluster, pcie_bytes_per_s
from ..moments import Traffic

CALL_LATENCY_S = 20e-6  # starting one NCCL collective, assumed


def ring_share(collective: str, group: int) -> float:
    """Bytes that a GPU sends for each byte of the tensor."""
    if collective in ("send", "host_copy"):
        return 1.0
    return (2.0 if collective == "all_reduce" else 1.0) * (group - 1) / group


def rate_of(entry: Traffic, machine: Cluster) -> float:
    """Bytes a second of the link that a collective uses. Tensor- and expert-parallel groups lie inside a machine as
    far as they fit; data-parallel ones span what is left."""
    if entry.group == "host":
        return pcie_bytes_per_s(machine.accelerator)
    spans = entry.group_size if entry.group in ("tensor", "expert", "sequence") else machine.count
    if entry.group == "shard" and entry.group_size <= machine.per_node:
        spans = entry.group_size
    return machine.rate_between(spans)


def collective_s(entry: Traffic, machine: Cluster, link: float) -> float:
    """Seconds of all calls of a collective in an optimizer step, at a share `link` of the links' rates."""
    if entry.group_size < 2 and entry.group != "host":
        return 0.0
    moved = entry.bytes * ring_share(entry.collective, entry.group_size)
    return moved / (rate_of(entry, machine) * link) + entry.calls * CALL_LATENCY_S


def exposed_s(computing: float, communicating: float, overlap: float) -> float:
    """What communication adds to a step: the share `overlap` of it hides behind computing, as far as that lasts."""
    return communicating - overlap * min(computing, communicating)


def total_s(traffic: Iterable[Traffic], machine: Cluster, link: float) -> float:
    """Seconds of all collectives one after another."""
    return sum(collective_s(entry, machine, link) for entry in traffic)
