"""What a memory estimate says: items of bytes at named moments of a step, and the traffic between GPUs.

Bytes are those of one GPU, the one that holds most. `allocated_bytes` is what torch.cuda.max_memory_allocated
shows; `per_gpu_bytes` adds what no run does without (the CUDA context, buffers of communication) and is what must
fit. `reserved_bytes` is what the caching allocator takes where it has room (torch.cuda.max_memory_reserved), and
`device_bytes` what nvidia-smi then shows of the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

from .dataclass import dataclass
from .schema import Basis, Notice
from .setup import Setup

MemoryPart = Literal[
    "weights", "adapter", "gradients", "optimizer", "activations", "logits", "temporary", "overhead", "vllm"
]
PARTS: tuple[MemoryPart, ...] = get_args(MemoryPart)[:-1]  # of every set-up; `VLLM` where one runs beside
VLLM: MemoryPart = "vllm"
BEFORE = ("loading", "preparing", "placing")  # phases before the first step
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "host_copy"]
# Before the first step (`BEFORE`), of the completions before a step, of an evaluation between steps, and of a step.
Phase = Literal[
    "loading", "preparing", "placing", "generation", "evaluation", "forward", "loss", "backward", "optimizer"
]  # fmt: skip
Fit = Literal["yes", "likely", "unlikely", "no"]
FIT_WORDS: dict[Fit, str] = {
    "yes": "fits", "likely": "likely fits", "unlikely": "likely does not fit", "no": "does not fit",
}  # fmt: skip
Group = Literal["data", "shard", "replica", "tensor", "pipeline", "expert", "sequence", "host"]


def parts_of(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the parts that any of several estimates has, as the contract's entries hold them (`parts`)."""
    return list(dict.fromkeys(part for each in found for part in each["parts"]))


@dataclass(frozen=True)
class Item:
    """Bytes of one thing: its part of the total, and a name such as "base weights" or "logits in float32"."""

    part: MemoryPart
    name: str
    bytes: int


@dataclass(frozen=True)
class Moment:
    """One moment of a step ("forward", "loss", "backward", "optimizer" with the layer where there is one), of the
    "generation" of completions before it, of an "evaluation" between steps, or of what comes before the first step
    (`BEFORE`)."""

    phase: Phase
    where: str
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """The phase, and of what."""
        return f"{self.phase} {self.where}".strip()

    @cached_property
    def bytes(self) -> int:
        """Everything held at this moment."""
        return sum(item.bytes for item in self.items)

    def parts(self) -> dict[MemoryPart, int]:
        """Bytes by part, every part of `PARTS` named."""
        found: dict[MemoryPart, int] = dict.fromkeys(PARTS, 0)
        for item in self.items:
            found[item.part] = found.get(item.part, 0) + item.bytes
        return found


@dataclass(frozen=True)
class Traffic:
    """One collective of a step: `calls` of it in an optimizer step, together with `bytes` of payload a GPU (the
    size of the full tensor for all_reduce, all_gather and reduce_scatter; what leaves a GPU for the others),
    among `group_size` GPUs. Under a ring a GPU sends bytes x (n - 1) / n for a gather or a scatter, twice that for
    all_reduce."""

    what: str
    collective: Collective
    group: Group
    group_size: int
    bytes: int
    calls: int


@dataclass(frozen=True)
class Interval:
    """How far measured peaks of a kind of set-up lie from the formula's: from `low` times what is needed to `high`
    times that and `extra_bytes`, what is cached on top of it. It rests on `runs` measurements of so many `sources`,
    as they were predicted before anybody had looked at them; `held` is the mean, over the `judged` sources of this
    very kind, of the share of each that an interval of all others holds."""

    kind: str
    low: float
    high: float
    sources: int
    runs: int
    judged: int
    held: float
    extra_bytes: float = 0.0


@dataclass(frozen=True)
class Corrected:
    """How measured peaks of one's own correct an estimate: what of a step does not follow from the set-up is taken
    `factor` times, by so many `peaks`."""

    factor: float
    peaks: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak bytes of one GPU with their interval, by which kind's figures it was found (`within`), and the share of
    peaks that it is to hold (`coverage`). `moments` hold what torch allocates; `overhead` comes on top.
    `cached_bytes` are what the allocator keeps for later where there is room. It follows from `apart_bytes`
    (transient bytes of the phases but the largest), `gathered_bytes` (units gathered whole), `varied_bytes` (what
    grows with the length), `streams_bytes` (what stays with streams of FSDP's own), and `before_bytes`: what the
    allocator has taken before the first step, 0 where it is not known how the program loads. `paged_bytes` are
    states in managed memory, which no allocator of torch's hands out and which stand on the GPU as far as there is
    room. `corrected`: how measured peaks of one's own changed it, None where none did."""

    setup: Setup
    moments: tuple[Moment, ...]
    overhead: tuple[Item, ...]
    low: int
    high: int
    traffic: tuple[Traffic, ...] = ()
    host_bytes: int = 0
    cached_bytes: int = 0
    notices: tuple[Notice, ...] = ()
    basis: Basis = "analytic"
    apart_bytes: int = 0
    gathered_bytes: int = 0
    varied_bytes: int = 0
    streams_bytes: int = 0
    before_bytes: int = 0
    paged_bytes: int = 0
    within: Interval | None = None
    coverage: float = 0.9
    corrected: Corrected | None = None

    @cached_property
    def peak(self) -> Moment:
        """The moment at which most is held (the earliest of equals)."""
        return max(self.moments, key=lambda moment: moment.bytes)

    @property
    def loading_peak(self) -> Moment | None:
        """The moment before the first step at which most is held; None where nothing is known of loading."""
        before = [moment for moment in self.moments if moment.phase in BEFORE]
        return max(before, key=lambda moment: moment.bytes) if before else None

    @property
    def step_bytes(self) -> int:
        """Bytes that torch's allocator has handed out at the peak of what follows loading."""
        return max((moment.bytes for moment in self.moments if moment.phase not in BEFORE), default=0)

    @property
    def allocated_bytes(self) -> int:
        """Bytes that torch's allocator has handed out at the peak."""
        return self.peak.bytes

    @property
    def reserved_bytes(self) -> int:
        """Allocated, and what the allocator keeps beyond it where there is room."""
        return self.allocated_bytes + self.cached_bytes

    @property
    def device_bytes(self) -> int:
        """What the driver shows where there is room."""
        return self.per_gpu_bytes + self.cached_bytes + self.paged_bytes

    def device_within(self, memory_bytes: int | None) -> int:
        """`device_bytes` on a GPU of so many bytes: states in managed memory stand there as far as there is room."""
        found = self.reserved_within(memory_bytes) + sum(item.bytes for item in self.overhead)
        if memory_bytes is None:
            return found + self.paged_bytes
        return max(found, min(found + self.paged_bytes, memory_bytes))

    def reserved_within(self, memory_bytes: int | None) -> int:
        """`reserved_bytes` on a GPU of so many bytes: an allocator that runs out of room gives back what it
        cached.
        """
        if memory_bytes is None:
            return self.reserved_bytes
        room = memory_bytes - sum(item.bytes for item in self.overhead)
        return max(self.allocated_bytes, min(self.reserved_bytes, room))

    @property
    def per_gpu_bytes(self) -> int:
        """What must fit."""
        return self.allocated_bytes + sum(item.bytes for item in self.overhead)

    def parts(self) -> dict[MemoryPart, int]:
        """Bytes by part at the peak; they add up to per_gpu_bytes."""
        found = self.peak.parts()
        for item in self.overhead:
            found[item.part] += item.bytes
        return found

    def fits(self, memory_bytes: int | None) -> bool | None:
        """Whether the peak fits; None where no GPU is named."""
        return None if memory_bytes is None else self.per_gpu_bytes <= memory_bytes

    def fit(self, memory_bytes: int | None) -> Fit | None:
        """How surely the peak fits: "yes" up to the interval's upper end, "likely" as it is estimated, "unlikely" at
        the lower end alone, or "no"; None where no GPU is named."""
        if memory_bytes is None:
            return None
        if self.per_gpu_bytes <= memory_bytes:
            return "yes" if self.high <= memory_bytes else "likely"
        return "unlikely" if self.low <= memory_bytes else "no"

    def to_dict(self, memory_bytes: int | None = None) -> dict[str, Any]:
        """The contract's entry of `memory`, on a GPU of so many bytes."""
        reserved = self.reserved_within(memory_bytes)
        return {
            "per_gpu_bytes": self.per_gpu_bytes,
            "low": self.low,
            "high": self.high,
            "interval": self.interval(),
            "corrected": dict(vars(self.corrected)) if self.corrected else None,
            "allocated_bytes": self.allocated_bytes,
            "reserved_bytes": reserved,
            "device_bytes": self.device_within(memory_bytes),
            "parts": self.parts(),
            "moment": self.peak.name,
            "moments": [{"name": m.name, "bytes": m.bytes, "items": _items(m.items)} for m in self.moments],
            "overhead": _items(self.overhead),
            "loading": self.loading(),
            "host_bytes": self.host_bytes,
            "traffic": [dict(vars(entry)) for entry in self.traffic],
            "fits": self.fits(memory_bytes),
            "fit": self.fit(memory_bytes),
            "setup": self.setup.to_dict(),
            "basis": self.basis,
        }

    def loading(self) -> dict[str, Any] | None:
        """What comes before the first step, for JSON."""
        found = self.loading_peak
        if found is None:
            return None
        beyond = sum(item.bytes for item in self.overhead)
        return {
            "moment": found.name,
            "per_gpu_bytes": found.bytes + beyond,
            "allocated_bytes": found.bytes,
            "reserved_bytes": self.before_bytes,
        }

    def interval(self) -> dict[str, Any] | None:
        """What the interval rests on, for JSON."""
        within = self.within
        if within is None:
            return None
        return {
            "kind": within.kind,
            "coverage": self.coverage,
            "sources": within.sources,
            "runs": within.runs,
            "judged": within.judged,
            "held": within.held,
        }


def _items(items: Iterable[Item]) -> list[dict[str, Any]]:
    return [dict(vars(item)) for item in items if item.bytes]
