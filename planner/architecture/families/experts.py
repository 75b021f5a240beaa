"""Routed experts: the layer that most mixtures share, as a router, two expert tensors and a weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dataclass import dataclass
from ...schema import Kind, Part
from ..fields import Fields
from ..trace import Layer


@dataclass(frozen=True)
class Experts:
    """How many experts there are, how many see a token, and their inner width."""

    n: int
    active: int
    width: int


@dataclass(frozen=True)
class ExpertFields:
    """Names of the fields (the first that is present counts) and what the class takes where hub configs omit one.
    `active_always`: so many experts see a token, whatever the config says."""

    n: tuple[str, ...] = ("num_experts", "num_local_experts")
    active: tuple[str, ...] = ("num_experts_per_tok",)
    width: tuple[str, ...] = ("moe_intermediate_size",)
    n_default: int | None = None
    active_default: int | None = None
    width_default: int | None = None
    active_always: int | None = None


def pick(cfg: Fields, names: Sequence[str], default: Any = None, minimum: int = 1) -> int:
    """A whole number under the first of these names that is present; without a default one must be."""
    name = next((name for name in names if cfg.has(name)), names[0])
    if default is None:
        return int(cfg.int(name, minimum=minimum))
    return int(cfg.int(name, default, minimum=minimum))


def check_active(cfg: Fields, names: Sequence[str], n: int, active: int) -> None:
    """Raise ConfigError where more experts see a token than there are."""
    if active > n:
        name = next((name for name in names if cfg.has(name)), names[0])
        raise cfg.fail(name, f"at most the number of experts ({n})")


def read_experts(cfg: Fields, fields: ExpertFields, minimum: int = 1) -> Experts:
    """The experts; with `minimum=0` a model may have none."""
    n = pick(cfg, fields.n, fields.n_default, minimum)
    active = pick(cfg, fields.active, fields.active_default)
    if n:
        check_active(cfg, fields.active, n, active)
    return Experts(n, fields.active_always or active, pick(cfg, fields.width, fields.width_default))


def read_routed(cfg: Fields, n: int, width: int, active_default: int) -> Experts:
    """`n` experts of a known width, with the class's number of active ones as default."""
    active = cfg.int("num_experts_per_tok", active_default)
    check_active(cfg, ("num_experts_per_tok",), n, active)
    return Experts(n, active, width)


def routed(
    layer: Layer, hidden: int, experts: Experts, x: int, *, prefix: str = "mlp.", router: str = "gate",
    router_kind: Kind = "parameter", bias: bool = False,
) -> int:  # fmt: skip
    """The sum of the chosen experts' results, weighted by the router; `bias` is on router and experts alike."""
    route = layer.linear(prefix + router, "router", hidden, experts.n, x, kind=router_kind, bias=bias)
    parts = (Part("gate_proj", hidden, experts.width), Part("up_proj", hidden, experts.width))
    inner = layer.linear(
        prefix + "experts.gate_up_proj", "expert", hidden, 2 * experts.width, x, kind="experts", bias=bias,
        parts=parts, experts=experts.n, active=experts.active,
    )  # fmt: skip
    result = layer.linear(
        prefix + "experts.down_proj", "expert", experts.width, hidden, inner, kind="experts", bias=bias,
        experts=experts.n, active=experts.active, outer="out",
    )  # fmt: skip
    layer.open_end = False
    return layer.join(result, route)
