"""The facts that the estimate of a plain model does not need: accelerators, prices, datasets, parametrisations, the
law of excess loss.

Apart from facts.py because making their classes takes a noticeable share of a cold start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .dataclass import dataclass
from .schema import Basis, Source

DatasetKind = Literal["sft", "rl"]
FactBasis = Literal["measured", "derived", "assumed"]


@dataclass(frozen=True)
class Accelerator:
    """One accelerator. Rates are dense peaks; a figure that no source states is None.

    `memory_bytes` is what programs find: as PyTorch reports it where that was quoted, else the GiB it is sold as
    times the least share quoted of NVIDIA cards of its kind; of other makers the marketed gigabytes times 1e9.
    `tensor_clock_hz`, `units` and `fma_per_unit_per_clock` multiply to half the 16-bit peak where
    `peak_check` is "holds"; "derived" means that the peak was computed so, and "exception" that the maker's
    figure differs. `pcie_peer_access`: whether cards may read each other's memory over PCIe.
    """

    name: str
    vendor: str
    aliases: tuple[str, ...]
    source: Source
    more_sources: tuple[str, ...] = ()
    memory_gb_marketed: float | None = None
    memory_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    bf16_dense_flops_per_s: float | None = None
    fp16_dense_flops_per_s: float | None = None
    tf32_dense_flops_per_s: float | None = None
    fp32_flops_per_s: float | None = None
    fp8_dense_flops_per_s: float | None = None
    bf16_matmul_measured_flops_per_s: float | None = None
    interconnect: str | None = None
    interconnect_bytes_per_s_each_way: float | None = None
    pcie_peer_access: bool = True
    tdp_w: float | None = None
    tensor_clock_hz: int | None = None
    units: int | None = None
    fma_per_unit_per_clock: int | None = None
    peak_check: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Int8Rate:
    """How many times its dense 16-bit rate an int8 rate is, of chips whose names begin so."""

    id: str
    chips: tuple[str, ...]
    times_16bit: float
    what: str
    source: Source


@dataclass(frozen=True)
class Workspace:
    """What torch allocates for a thread's matrix products to work in, on chips whose names begin so."""

    id: str
    chips: tuple[str, ...]
    bytes: int
    what: str
    source: Source


@dataclass(frozen=True)
class Price:
    """What one accelerator costs per hour at one provider on one date. `kind` is on-demand or spot."""

    accelerator: str
    provider: str
    usd_per_gpu_hour: float
    kind: str
    date: str
    source: Source


@dataclass(frozen=True)
class DatasetFact:
    """The size of a dataset in examples and tokens, or of an RL run in episodes.

    `loss_tokens` are the completion tokens that carry loss, None where nobody counted them.
    """

    name: str
    kind: DatasetKind
    basis: FactBasis
    source: Source
    aliases: tuple[str, ...] = ()
    examples: int | None = None
    total_tokens: int | None = None
    loss_tokens: int | None = None
    episodes: int | None = None
    tokenizer: str | None = None
    notes: str = ""


@dataclass(frozen=True)
class CapacityFact:
    """Bits that a trainable parameter was found to hold, with the spread that its source gives."""

    id: str
    bits_per_param: float
    low: float
    high: float
    statement: str
    source: Source
    notes: str = ""


@dataclass(frozen=True)
class RegretFact:
    """A fitted law of excess loss: percent = coefficient_percent * (parameters per loss token) ** -exponent.

    `spread` is the root mean square of log(predicted / seen) over models left out of the fit; `noise_percent` what
    the sweep could not tell apart; `ratio_low` to `ratio_high` the range fitted on, at `tokens` loss tokens;
    `ceiling_percent` the base model's excess. `leave_one_out`: the median factor of error by way of predicting.
    """

    id: str
    moe: bool
    coefficient_percent: float
    exponent: float
    spread: float
    noise_percent: float
    ceiling_percent: float
    ratio_low: float
    ratio_high: float
    tokens: int
    cells: int
    models: int
    leave_one_out: Mapping[str, float]
    fitted_on: str
    source: Source
    notes: str = ""


@dataclass(frozen=True)
class RateContext:
    """One thing that moves a best learning rate: `value` with `low` to `high` is a factor, an exponent or a rate, as
    `statement` says."""

    id: str
    statement: str
    value: float
    low: float
    high: float
    basis: Basis
    source: Source


@dataclass(frozen=True)
class Convention:
    """How a trainer parametrises LoRA: the product's scale (alpha / rank, alpha / sqrt(rank), or 1), its default
    rank, alpha (None: it has no default) and rate ratio LR_B / LR_A, how A is drawn, Adam's epsilon. B starts at
    zero.

    `single_rate` says that one learning rate serves A and B. `init` is kaiming-uniform (bound 1/sqrt(d_in)),
    xavier-normal (variance 2/(d_in + rank)) or gaussian (standard deviation 1/rank).
    """

    id: str
    title: str
    scaling: Literal["alpha/rank", "alpha/sqrt(rank)", "none"]
    init: Literal["kaiming-uniform", "xavier-normal", "gaussian"]
    single_rate: bool
    source: Source
    rank: int | None = None
    alpha: float | None = None
    alpha_rule: str = ""
    lr_ratio: float = 1.0
    eps: float = 1e-8
    aliases: tuple[str, ...] = ()
    notes: str = ""
