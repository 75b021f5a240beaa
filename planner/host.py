"""What is kept in the host's memory, against what a machine has there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import units
from .dataclass import dataclass
from .moments import MemoryEstimate
from .schema import Notice


@dataclass(frozen=True)
class Host:
    """Bytes of states, weights and gradients that lie in the host's memory for each of the `gpus` of a machine, and
    how much it has (None: nobody said; no datasheet of a GPU states it).

    Neglects what else is there: inputs of layers that checkpointing with offload moves, buffers of transfers, data
    loaders, the system.
    """

    per_gpu_bytes: int
    gpus: int
    memory_bytes: int | None = None

    @property
    def node_bytes(self) -> int:
        """Bytes of a machine: those of each of its GPUs."""
        return self.per_gpu_bytes * self.gpus

    @property
    def fits(self) -> bool | None:
        """Whether the machine has so much; None where nobody said how much it has."""
        return None if self.memory_bytes is None else self.node_bytes <= self.memory_bytes

    @property
    def notice(self) -> Notice | None:
        """What to say of bytes that are kept there; None where none are, or where they fit."""
        if not self.per_gpu_bytes or self.fits:
            return None
        taken = f"{units.byte_size(self.node_bytes)} of each machine's host memory"
        of = f"for {self.gpus} GPUs, " if self.gpus > 1 else ""
        if self.memory_bytes is None:
            text = f"{taken} are taken, {of}beside all else there: --host-memory says how much there is."
            return Notice("host-memory-unknown", text)
        has = units.byte_size(self.memory_bytes)
        return Notice(
            "host-memory-short", f"{taken} would be taken, {of}and it has {has}: that does not fit."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "node_bytes": self.node_bytes, "fits": self.fits}


def host_of(found: MemoryEstimate, options: Mapping[str, Any]) -> Host:
    """The host of a machine with up to `gpus_per_node` GPUs, and `host_memory`: bytes or such as 512GiB. Raises
    InputError."""
    memory = options["host_memory"]
    room = None if memory is None else units.parse_bytes("host-memory", memory)
    return Host(found.host_bytes, min(options["gpus_per_node"], found.setup.gpus), room)
