"""Serving adapters beside their base model: bytes, time to load one, how many stay resident.

    adapter   = parameters x bytes of the base's compute type
    load      = adapter / rate of the host's bus, at its marketed rate: no load is quicker
    cache     = tokens x sum over layers of n_kv_heads (d_qk + d_v) x bytes; a latent's width under MLA
    resident  = floor((share x memory - server - (base + cache) / n) / (place (1 + 1/n) / 2)) on n GPUs that share
                matrices; a place is as large as an adapter of the next rank that the server knows

`server` is what vLLM keeps free for its pass, and its graphs, as planner/memory/engine.py counts them: of 4,096
tokens and 256 sequences. With passes of more tokens less is left: on a small card much less (docs/serving.md). Left
out: what a server takes beside torch, up to 2 GB on several GPUs. From disk and through Python a load takes far
longer than from the host's memory over the bus.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .adapter import Adapted
from .choices import Method, Quantize
from .dataclass import dataclass
from .hardware import Cluster, pcie_bytes_per_s
from .memory.cache import cached_width
from .memory.engine import GRAPHS, PROFILED, profiled_bytes
from .memory.states import base_weights
from .schema import Architecture, Basis, Source
from .setup import Setup

UTILISATION = 0.9  # of a GPU's memory, for weights, adapters and cache; assumed
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # for which vLLM reserves room
SOURCE = Source(
    "vLLM 0.27.1", "https://github.com/vllm-project/vllm", "vllm/config/lora.py, MaxLoRARanks",
    "2026-08-17", "documentation",
)  # fmt: skip
SERVED_BYTES = 2  # bfloat16 or float16
MOST_GPUS = 1024
SEQUENCES = 256  # at a time, for which vLLM samples in its pass (max_num_seqs)


@dataclass(frozen=True)
class Serving:
    """How an adapter is served: on `gpus` of the named ones, the fewest that hold the base, `cache_tokens` of context
    and one adapter. `resident` counts the adapters that fit beside, each in a place of the reserved rank; None where
    the base fits on no number. `server_bytes` of each GPU are the server's own."""

    adapter_bytes: int
    load_s: float
    base_bytes: int
    cache_bytes_per_token: int
    cache_tokens: int
    gpus: int | None
    resident: int | None
    reserved_rank: int | None
    server_bytes: int
    utilisation: float = UTILISATION
    basis: Basis = "assumed"

    def to_dict(self) -> dict[str, Any]:
        """The contract's `serving`."""
        return dict(vars(self))


def cache_bytes_per_token(arch: Architecture) -> int:
    """Bytes of keys and values that the decoder keeps of each token, windows not counted: 2 bytes a value."""
    return SERVED_BYTES * sum(
        cached_width(arch, block) * len(block.layers) for block in arch.blocks if block.stack == "decoder"
    )


def resident_adapters(
    room_bytes: float, base_bytes: int, cache_bytes: int, adapter_bytes: int, gpus: int
) -> int:
    """How many adapters fit beside the base and its cache on `gpus` GPUs of `room_bytes` usable bytes each.

    Matrices and cache are divided evenly; of each pair one factor is divided and the other one copied to every
    GPU (vLLM's default), taken as half of the adapter each. Negative room is no adapter.
    """
    left = room_bytes - (base_bytes + cache_bytes) / gpus
    each = adapter_bytes * (1 + 1 / gpus) / 2
    return max(0, int(left // each)) if each else 0


def base_bytes(arch: Architecture, quantize: Quantize = "none") -> int:
    """Bytes of the base in 16 bits, or quantised."""
    method: Method = "lora" if quantize == "none" else "qlora"
    weights = base_weights(arch, Setup(method=method, quantize=quantize))
    return sum(weights.layers) + weights.before + weights.behind


def server_bytes(arch: Architecture, gpus: int, tokens: int = PROFILED) -> int:
    """What vLLM keeps of each of `gpus` GPUs for its pass of so many tokens, and its graphs."""
    return profiled_bytes(arch, SEQUENCES, gpus, tokens) + GRAPHS


def reserved_rank(rank: int) -> int | None:
    """The rank for which vLLM reserves room for an adapter of this rank; None above what it takes."""
    return next((size for size in RANKS if size >= rank), None)


def place_params(adapted: Iterable[Adapted]) -> int:
    """Parameters of the place that vLLM has for an adapter: every pair in the next rank that it knows of the largest
    one's (vllm/lora/layers, create_lora_weights: tensors of max_lora_rank for each of max_loras)."""
    items = tuple(adapted)
    rank = max((pair.rank for item in items for pair in item.pairs), default=0)
    wide = reserved_rank(rank) or rank
    return sum(
        len(item.layers) * wide * (pair.n_in * pair.d_in + pair.n_out * pair.d_out)
        for item in items
        for pair in item.pairs
    )


def serving(
    arch: Architecture, params: int, rank: int, machine: Cluster, *, tokens: int, quantize: Quantize = "none",
    place: int = 0,
) -> Serving | None:  # fmt: skip
    """An adapter of `params` parameters, in a place of `place` where that is larger, beside its base in 16 bits (or
    quantised), with `tokens` of context; None where the accelerator's memory is not known."""
    if machine.accelerator.memory_bytes is None:
        return None
    base = base_bytes(arch, quantize)
    adapter, per_token = SERVED_BYTES * params, cache_bytes_per_token(arch)
    room, each = UTILISATION * machine.accelerator.memory_bytes, SERVED_BYTES * max(params, place)
    gpus, resident = 1, 0
    while gpus <= MOST_GPUS:
        resident = resident_adapters(room - server_bytes(arch, gpus), base, per_token * tokens, each, gpus)
        if resident:
            break
        gpus *= 2
    return Serving(
        adapter, adapter / pcie_bytes_per_s(machine.accelerator), base, per_token, tokens,
        gpus if resident else None, resident or None, reserved_rank(rank),
        server_bytes(arch, gpus if resident else 1),
    )  # fmt: skip
