"""Ranks compared: what each holds and what it is expected to cost, for every layer set and expert convention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

from . import adapter as adapters
from . import capacity
from .adapter import AdapterSpec, Slope
from .adapter.spec import ExpertConvention
from .dataclass import dataclass
from .information import Information
from .regret import Departure, Regret, departure, expected_regret, law_for
from .schema import Architecture, Notice

LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SUMMARY_SETS = ("attention", "mlp", "unembedding", "all", adapters.ALL_LINEAR)
# Those of the ladder that are shown beside a plan's own.
SHOWN = (1, 8, 64, 256)


@dataclass(frozen=True)
class Point:
    """An adapter of one rank against the data."""

    rank: int
    params: int
    utilisation: float | None
    verdict: capacity.Verdict | None
    params_per_unit: float | None
    regret: Regret | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "regret": self.regret.to_dict() if self.regret else None}


@dataclass(frozen=True)
class Curve:
    """The ranks of one layer set under one expert convention. A required rank is None where no rank is enough, or
    without data."""

    layers: str
    experts: str
    params_per_rank: int
    required: capacity.RankInterval | None
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        required = self.required
        return {
            "layers": self.layers,
            "experts": self.experts,
            "params_per_rank": self.params_per_rank,
            "required_rank": required.value if required else None,
            "required_rank_low": required.low if required else None,
            "required_rank_high": required.high if required else None,
            "points": [point.to_dict() for point in self.points],
        }


def regret_of(params: int, info: Information | None, moe: bool) -> Regret | None:
    """Expected excess loss of an adapter of this size; None without supervised data."""
    if info is None or info.kind != "sft" or not info.units or not params:
        return None
    return expected_regret(params / info.units, moe=moe)


def point(rank: int, params: int, info: Information | None, bits: capacity.Bits, moe: bool) -> Point:
    """What an adapter of `params` parameters holds of the data, and its price."""
    if info is None:
        return Point(rank, params, None, None, None, None)
    used = info.bits / capacity.capacity_bits(params, bits.value)
    per_unit = params / info.units if info.units else None
    return Point(rank, params, used, capacity.verdict(used), per_unit, regret_of(params, info, moe))


def _curve(
    line: Slope, layers: str, experts: str, info: Information | None, bits: capacity.Bits, top: int, moe: bool
) -> Curve:
    required = None
    if info is not None and line.params(2**30) > line.params(1):
        required = capacity.required_ranks(info.interval, line.params, bits)
    points = (point(rank, line.params(rank), info, bits, moe) for rank in LADDER if rank <= top)
    return Curve(layers, experts, line.per_rank, required, tuple(points))


def curves(
    arch: Architecture, spec: AdapterSpec, info: Information | None, bits: capacity.Bits
) -> tuple[Curve, ...]:
    """Every layer set, under every expert convention where the model has experts. Sets without a matrix are left out,
    as are ranks above the model's width."""
    moe = arch.has_experts
    conventions: Sequence[Any] = get_args(ExpertConvention) if moe else (spec.experts,)
    found = []
    for experts in conventions:
        for name in SUMMARY_SETS:
            line = adapters.slope(arch, replace(spec, experts=experts), (name,))
            if line.params(1):
                found.append(_curve(line, name, experts, info, bits, arch.hidden_size, moe))
    return tuple(found)


@dataclass(frozen=True)
class RankPrice:
    """The price of this plan's rank and of others: expected loss above an ample rank's, and where an adapter is
    expected to leave the curve that all ranks share: after so many distinct loss tokens, at so many steps (None where
    the tokens of a step are not known)."""

    regret: Regret
    params_per_loss_token: float
    others: tuple[tuple[int, Regret], ...]
    leaves: Departure
    loss_tokens: int
    loss_tokens_per_step: float | None
    moe: bool

    @property
    def within_data(self) -> bool:
        """Whether it leaves the curve before the data end."""
        return self.leaves.value < self.loss_tokens

    def step(self, tokens: float) -> int | None:
        """The step at which so many loss tokens are seen."""
        per_step = self.loss_tokens_per_step
        return None if not per_step else round(tokens / per_step)

    def to_dict(self) -> dict[str, Any]:
        """The contract's `regret`."""
        law, leaves = law_for(self.moe), self.leaves
        return {
            **self.regret.to_dict(),
            "params_per_loss_token": self.params_per_loss_token,
            "ranks": [{"rank": rank, **regret.to_dict()} for rank, regret in self.others],
            "departure": {
                "loss_tokens": round(leaves.value),
                "loss_tokens_low": round(leaves.low),
                "loss_tokens_high": round(leaves.high),
                "step": self.step(leaves.value),
                "step_low": self.step(leaves.low),
                "step_high": self.step(leaves.high),
                "within_data": self.within_data,
            },
            "law": law.id,
            "leave_one_out": dict(law.leave_one_out),
            "basis": "fitted",
        }


def _like_the_sweep(spec: AdapterSpec) -> bool:
    """Whether an adapter lies on attention and MLPs both, as those of the sweep do."""
    layers = set(spec.layers or ())
    return bool(layers & {"all", "all-linear"}) or {"attention", "mlp"} <= layers


def notices(spec: AdapterSpec, price: RankPrice | None) -> Iterator[Notice]:
    """Where the law of regret is stretched."""
    if price is None:
        return
    if price.regret.extrapolated and not price.regret.within_noise:
        law = law_for(price.moe)
        yield Notice(
            "regret-extrapolated",
            f"{price.params_per_loss_token:.3g} parameters per loss token lie outside the range that the law of "
            f"regret was fitted on ({law.ratio_low:.2g} to {law.ratio_high:.2g}).",
        )
    if spec.layers in (("attention",), ("unembedding",)):
        yield Notice(
            "regret-of-attention",
            f"The law of regret was fitted on adapters of all layers; {spec.layers[0]} alone lags behind it.",
        )
    elif not _like_the_sweep(spec):
        what = ",".join(spec.layers) if spec.layers else "named modules"
        yield Notice(
            "regret-of-layers",
            f"The law of regret was fitted on adapters of all layers; for {what} no sweep stands behind it: the "
            "parameters are counted as if they lay in all.",
        )
    if price.moe and spec.experts != "shared-outer":
        yield Notice(
            "regret-of-experts",
            "The law of regret for mixtures of experts was fitted on adapters that share the outer factor (--experts "
            f"shared-outer); this one counts parameters otherwise ({spec.experts}).",
        )


def rank_price(
    arch: Architecture, spec: AdapterSpec, params: int, fixed: int, info: Information | None,
    loss_tokens_per_step: float | None,
) -> RankPrice | None:  # fmt: skip
    """The price of the plan's rank; None without supervised data. `params` are the adapter's, `fixed` those of them
    that no rank changes."""
    moe = arch.has_experts
    own = regret_of(params, info, moe)
    if own is None or info is None:
        return None
    line = adapters.slope(arch, spec)
    ranks = sorted(rank for rank in {*SHOWN, spec.rank} if 1 <= rank <= arch.hidden_size)
    others = ((rank, regret_of(line.params(rank) + fixed, info, moe)) for rank in ranks)
    return RankPrice(
        own, params / info.units, tuple((rank, regret) for rank, regret in others if regret),
        departure(params, moe=moe), info.units, loss_tokens_per_step, moe,
    )  # fmt: skip
