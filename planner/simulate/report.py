"""What a simulation says: for each method the peak, its parts and its moment, and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..adapter import AdapterSpec
from ..dataclass import dataclass
from ..memory.overhead import overhead
from ..memory.peak import WORKSPACES
from ..schema import Basis, Notice, Source
from ..setup import Setup
from ..version import __version__
from .orders import Orders
from .timeline import PARTS, Peak

if TYPE_CHECKING:
    from ..fact_types import Accelerator

SCHEMA = 1
WHERE = {"start": "embedding", "after": "after the layers", "head": "unembedding and loss", "step": "step"}


def context_bytes(setup: Setup) -> int:
    """What CUDA's context takes, as an estimate has it."""
    return sum(item.bytes for item in overhead(setup))


def beside_bytes(setup: Setup) -> int:
    """What a GPU holds beside the tensors of a step: CUDA's context, and workspaces of matrix products."""
    return context_bytes(setup) + WORKSPACES * setup.workspace_bytes


def moment_name(peak: Peak) -> str:
    """Where a peak is reached, in words: "backward layer 31", "forward unembedding and loss"."""
    place = peak.place
    if place.layer < 0:
        return f"{place.phase} {WHERE[place.part]}"
    side = next((name for name in ("encoder", "decoder") if name in place.stack.split(".")), "")
    return " ".join(filter(None, (place.phase, side, "layer", str(place.layer))))


@dataclass(frozen=True)
class SimulatedStep:
    """A step by one method. `moments` are the peaks of forward, loss, backward, optimizer, and of an evaluation where
    there is one; `flops_by_operator` those of forward and backward by phase and torch's operator; `layers_run` of
    `layers` were run; `reserved_bytes` is what torch.cuda.max_memory_reserved would show where the card has room, of
    steps as long as this one, or None where that is not told. `fits`: whether the GPU that was named serves it, None
    where none was. `varied`: what is reserved where micro-steps are as long as data has them."""

    setup: Setup
    peak: Peak
    moments: Mapping[str, Peak]
    flops_by_operator: Mapping[str, Mapping[str, int]]
    trained: int
    layers_run: int
    layers: int
    reserved_bytes: int | None = None
    fits: bool | None = None
    varied: Orders | None = None

    @property
    def peak_bytes(self) -> int:
        """What torch.cuda.max_memory_allocated would show."""
        return self.peak.bytes

    @property
    def per_gpu_bytes(self) -> int:
        """What a GPU needs, as an estimate has it: the peak, cuBLAS' workspaces and the context."""
        return self.peak_bytes + beside_bytes(self.setup)

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of the peak by part."""
        return dict(zip(PARTS, self.peak.parts, strict=True))

    @property
    def moment(self) -> str:
        """When the peak is reached."""
        return moment_name(self.peak)

    @property
    def flops(self) -> int:
        """FLOPs of forward and backward, of all micro-steps."""
        return sum(sum(by_operator.values()) for by_operator in self.flops_by_operator.values())

    def to_dict(self) -> dict[str, Any]:
        """The contract's entry of a method."""
        return {
            "peak_bytes": self.peak_bytes,
            "reserved_bytes": self.reserved_bytes,
            "per_gpu_bytes": self.per_gpu_bytes,
            "fits": self.fits,
            "by_data": None if self.varied is None else self.varied.to_dict(),
            "parts": self.parts,
            "moment": self.moment,
            "moments": {
                name: {
                    "where": moment_name(peak),
                    "bytes": peak.bytes,
                    "parts": dict(zip(PARTS, peak.parts, strict=True)),
                }
                for name, peak in self.moments.items()
            },
            "flops": self.flops,
            "flops_by_operator": {phase: dict(found) for phase, found in self.flops_by_operator.items()},
            "trained_params": self.trained,
            "layers_run": self.layers_run,
            "setup": self.setup.to_dict(),
        }


@dataclass(frozen=True)
class SimulatedSteps:
    """The steps of a model by the methods asked for, and what they rest on."""

    model_id: str
    origin: str
    model_type: str
    params: int
    spec: AdapterSpec
    gpu: Accelerator | None
    steps: Mapping[str, SimulatedStep]
    warnings: tuple[Notice, ...]
    sources: tuple[tuple[str, Source], ...]
    seconds: float
    basis: Basis = "simulated"

    @property
    def layers_simulated(self) -> int:
        """Layers that were run, the most of any method; the others are told from them."""
        return max(step.layers_run for step in self.steps.values())

    @property
    def layers(self) -> int:
        """Layers of the model, those of towers that a text step does not pass included."""
        return max(step.layers for step in self.steps.values())

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `lora-plan simulate --json`."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "model": {
                "id": self.model_id,
                "source": self.origin,
                "model_type": self.model_type,
                "params": self.params,
            },
            "gpu": None
            if self.gpu is None
            else {"name": self.gpu.name, "memory_bytes": self.gpu.memory_bytes},
            **{
                name: self.steps[name].to_dict() if name in self.steps else None
                for name in ("lora", "full", "qlora")
            },
            "layers_simulated": self.layers_simulated,
            "layers": self.layers,
            "seconds": self.seconds,
            "basis": self.basis,
            "warnings": [{"code": n.code, "message": n.message} for n in self.warnings],
            "sources": [{"used_for": use, **vars(source)} for use, source in self.sources],
        }
