"""The Plan: the request, every quantity, the warnings and the facts used. Exports, reports and the JSON output
see nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from .adapter import AdapterSpec
from .capacity import Verdict
from .dataclass import dataclass
from .information import Information
from .learning_rate.lookup import LearningRate
from .ranks import Curve, RankPrice
from .samples import Samples
from .schema import Basis, Notice, Source
from .version import __version__

if TYPE_CHECKING:
    from .dataset.result import DatasetReport

SCHEMA = 1


@dataclass(frozen=True)
class Workload:
    """What is trained on: either loss tokens or episodes, or neither; `total_tokens` are those that a step
    processes, prompts included. `seq_len` is assumed where `seq_len_given` is false."""

    batch: int
    seq_len: int
    seq_len_given: bool
    epochs: int
    checkpointing: bool
    dataset: str | None = None
    total_tokens: int | None = None
    examples: int | None = None


@dataclass(frozen=True)
class ModelSection:
    """Which model this is, and its size."""

    id: str
    source: str
    model_type: str
    hidden_size: int
    n_layers: int
    vocab_size: int
    params: int
    params_active: int
    published_params: int | None
    weight_bytes: int | None
    quantization: dict[str, Any] | None
    checkpoint: dict[str, Any] | None
    basis: Basis = "exact"

    def to_dict(self) -> dict[str, Any]:
        """The contract's `model`."""
        return dict(vars(self))


@dataclass(frozen=True)
class AdapterSection:
    """What the adapter holds. `params_saved` (copies of modules trained in full) and `params_bias` are part of
    `params`; `peft_line` is what PEFT would print of it, where PEFT can train it."""

    spec: AdapterSpec
    params: int
    params_per_rank: int
    by_role: dict[str, int]
    layer_sets: dict[str, int]
    bytes_by_dtype: dict[str, int]
    expert_rank: int | None
    params_saved: int = 0
    params_bias: int = 0
    peft_line: str | None = None
    basis: Basis = "exact"

    @property
    def bytes(self) -> int:
        """Bytes in the adapter's own dtype."""
        return self.bytes_by_dtype[self.spec.dtype]

    def to_dict(self) -> dict[str, Any]:
        """The contract's `adapter`."""
        spec, layers = self.spec, self.spec.layers_to_transform
        return {
            "rank": spec.rank,
            "alpha": spec.alpha,
            "layers": ",".join(spec.layers) if spec.layers else None,
            "targets": list(spec.targets) if spec.targets else None,
            "target_regex": spec.target_regex,
            "target_parameters": list(spec.target_parameters),
            "layers_to_transform": None if layers is None else list(layers),
            "exclude_modules": spec.exclude_regex or list(spec.exclude_modules),
            "rank_pattern": dict(spec.rank_pattern),
            "alpha_pattern": dict(spec.alpha_pattern),
            "modules_to_save": list(spec.modules_to_save),
            "bias": spec.bias,
            "use_rslora": spec.use_rslora,
            "experts": spec.experts,
            "expert_rank": self.expert_rank,
            "layout": spec.layout,
            "variant": spec.variant,
            "dtype": spec.dtype,
            "params": self.params,
            "params_saved": self.params_saved,
            "params_bias": self.params_bias,
            "peft_line": self.peft_line,
            "bytes": self.bytes,
            "bytes_by_dtype": dict(self.bytes_by_dtype),
            "params_per_rank": self.params_per_rank,
            "params_by_role": dict(self.by_role),
            "layer_sets": dict(self.layer_sets),
            "basis": self.basis,
        }


@dataclass(frozen=True)
class FlopsSection:
    """FLOPs of a step, full fine-tuning against LoRA; per-token figures divide them by its tokens.

    `counted_*` are what torch's counter shows: more than the work where a model has depthwise convolutions, whose
    weight gradient it takes for a dense one's. `masked_*` skip the pairs of positions that the causal or sliding
    mask hides, as fused kernels do.
    """

    full: int
    lora: int
    counted_full: int
    counted_lora: int
    masked_full: int
    masked_lora: int
    forward: int
    attention: int
    batch: int
    seq_len: int
    rule_ratio: float | None
    break_even_rank: int | None
    total_full: int | None
    total_lora: int | None
    checkpointing: bool
    basis: Basis = "exact"

    def to_dict(self) -> dict[str, Any]:
        """The contract's `flops`."""
        tokens = self.batch * self.seq_len
        totals = None
        if self.total_full is not None:
            totals = {"full": self.total_full, "lora": self.total_lora}
        return {
            "full_per_token": round(self.full / tokens),
            "lora_per_token": round(self.lora / tokens),
            "ratio": self.ratio,
            "rule_ratio": self.rule_ratio,
            "forward_per_token": round(self.forward / tokens),
            "attention_share": self.attention_share,
            "break_even_rank": self.break_even_rank,
            "totals": totals,
            "step": {
                "batch": self.batch,
                "seq_len": self.seq_len,
                "checkpointing": self.checkpointing,
                "full": self.counted_full,
                "lora": self.counted_lora,
            },
            "masked": {
                "full_per_token": round(self.masked_full / tokens),
                "lora_per_token": round(self.masked_lora / tokens),
                "ratio": self.masked_lora / self.masked_full,
            },
            "basis": self.basis,
        }

    @property
    def ratio(self) -> float:
        """LoRA's FLOPs over full fine-tuning's."""
        return self.lora / self.full

    @property
    def attention_share(self) -> float:
        """Scores and values over everything in LoRA's step."""
        return self.attention / self.lora if self.lora else 0.0


@dataclass(frozen=True)
class CapacitySection:
    """What the adapter can hold against what there is to learn. Without a dataset there are only bits.
    `curves` where they were asked for."""

    bits_per_param: float
    bits: float
    required_rank: int | None
    utilisation: float | None
    verdict: Verdict | None
    params_per_unit: float | None
    bits_per_param_low: float
    bits_per_param_high: float
    required_rank_low: int | None = None
    required_rank_high: int | None = None
    utilisation_low: float | None = None
    utilisation_high: float | None = None
    curves: tuple[Curve, ...] | None = None
    basis: Basis = "assumed"

    def to_dict(self) -> dict[str, Any]:
        """The contract's `capacity`."""
        found = dict(vars(self))
        found["curves"] = None if self.curves is None else [curve.to_dict() for curve in self.curves]
        found["bits"] = int(self.bits) if self.bits == int(self.bits) else self.bits
        return found


@dataclass(frozen=True)
class Plan:
    """The whole answer. `request` holds the options that were given, by their names in `estimate`;
    `samples` are those of the data, where they were counted."""

    model: ModelSection
    adapter: AdapterSection
    workload: Workload
    flops: FlopsSection | None
    information: Information | None
    capacity: CapacitySection
    learning_rate: LearningRate
    warnings: tuple[Notice, ...]
    sources: tuple[tuple[str, Source], ...]
    regret: RankPrice | None = None
    data: DatasetReport | None = None
    memory: dict[str, Any] | None = None
    time: dict[str, Any] | None = None
    cost: dict[str, Any] | None = None
    serving: dict[str, Any] | None = None
    grpo: dict[str, Any] | None = None
    images: dict[str, Any] | None = None
    request: Mapping[str, Any] = field(default_factory=dict, repr=False)
    samples: Samples | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """What time, cost and notes are of: "qlora" where the base is quantised, else "lora"."""
        return "lora" if self.request.get("quantize") in (None, "none") else "qlora"

    def with_grpo(
        self, found: dict[str, Any], notices: tuple[Notice, ...], source: tuple[str, Source]
    ) -> Plan:
        """The plan with what GRPO adds."""
        return replace(self, grpo=found, warnings=(*self.warnings, *notices), sources=(*self.sources, source))

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract, schema 1. Unknown is null."""
        info = self.information
        return {
            "schema": SCHEMA,
            "version": __version__,
            "model": self.model.to_dict(),
            "adapter": self.adapter.to_dict(),
            "workload": dict(vars(self.workload)),
            "method": self.method,
            "flops": self.flops.to_dict() if self.flops else None,
            "information": info.to_dict() if info else None,
            "capacity": self.capacity.to_dict(),
            "learning_rate": self.learning_rate.to_dict(),
            "regret": self.regret.to_dict() if self.regret else None,
            "data": self.data.to_dict() if self.data else None,
            "memory": self.memory,
            "time": self.time,
            "cost": self.cost,
            "serving": self.serving,
            "grpo": self.grpo,
            "images": self.images,
            "warnings": [dict(vars(notice)) for notice in self.warnings],
            "sources": [{"used_for": use, **vars(source)} for use, source in self.sources],
        }

    def __repr__(self) -> str:
        """The main figures, a line each: the whole of a plan would fill screens."""
        from .tables import text

        return text(self.to_dict())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from .tables import html

        return html(self.to_dict())

    def to_frame(self, table: str = "summary") -> Any:
        """A table of the plan as a pandas DataFrame: summary, params (by role), layer_sets, memory (by part) or
        warnings."""
        from .tables import frame

        return frame(self.to_dict(), table)
