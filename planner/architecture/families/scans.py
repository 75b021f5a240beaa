"""State-space mixers: Mamba, Mamba-2, and the causal convolution they share with linear attention.

Counted as transformers runs them without kernels: Mamba reads its state out position by position, Mamba-2
works in padded chunks and passes states between every pair of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...schema import Part
from ..fields import Fields
from ..trace import Layer


def flag(cfg: Fields, key: str, default: bool) -> bool:
    """A switch of the config."""
    return bool(cfg.bool(key, default))


def layer_kinds(cfg: Fields, key: str, names: dict[str, str], count: int | None) -> list[str]:
    """Each layer's kind, from a list of `count` names out of `names`."""
    kinds = cfg.list(key)
    if (count is not None and len(kinds) != count) or any(str(kind) not in names for kind in kinds):
        length = "" if count is None else f"{count} items, "
        raise cfg.fail(key, f"a list of {length}each one of {', '.join(names)}")
    return [names[str(kind)] for kind in kinds]


def causal_convolution(
    layer: Layer, name: str, width: int, kernel: int, x: int, *, bias: bool = False, cached: bool = True
) -> int:
    """A convolution along the sequence with one filter a channel; what runs over its end is computed too.
    `cached` layers fill a shorter sequence up to the kernel."""
    return layer.linear(
        name, "other", kernel, width, x, bias=bias, kind="convolution", extra=kernel - 1, groups=width,
        at_least=kernel if cached else 0,
    )  # fmt: skip


@dataclass(frozen=True)
class Mamba:
    """Shape of a Mamba mixer. `heads` above 1 is Zamba's: the inner projections are one tensor over heads."""

    hidden: int
    inner: int
    state: int
    kernel: int
    rank: int
    bias: bool
    conv_bias: bool
    heads: int = 1
    inner_norms: bool = False
    cached: bool = True


def time_step_rank(cfg: Fields, key: str, hidden: int) -> int:
    """The rank of the time step's projection; "auto" is hidden / 16, rounded up."""
    if cfg.data.get(key, "auto") == "auto":
        return -(-hidden // 16)
    return int(cfg.int(key))


def mamba(layer: Layer, shape: Mamba, x: int, prefix: str) -> int:
    """The selective scan. The forward multiplies by dt_proj's weight itself, so no adapter on it works."""
    h, inner, state, rank = shape.hidden, shape.inner, shape.state, shape.rank
    parts = (Part("in_proj_x", h, inner), Part("in_proj_z", h, inner))
    gate = layer.linear(prefix + "in_proj", "state_space", h, 2 * inner, x, bias=shape.bias, parts=parts)
    x = causal_convolution(
        layer, prefix + "conv1d", inner, shape.kernel, gate, bias=shape.conv_bias, cached=shape.cached
    )
    if shape.heads > 1:
        selected = layer.linear(
            prefix + "x_proj_weight", "other", inner, rank + 2 * state, x, kind="parameter"
        )
        step = layer.linear(prefix + "dt_proj_weight", "other", rank, inner, selected, kind="parameter")
        layer.vector(prefix + "dt_proj_bias", inner)
    else:
        skipped = (Part("x_proj", inner, rank + 2 * state, tinker=False),)
        selected = layer.linear(prefix + "x_proj", "state_space", inner, rank + 2 * state, x, parts=skipped)
        skipped = (Part("dt_proj", rank, inner, tinker=False),)
        step = layer.linear(
            prefix + "dt_proj", "state_space", rank, inner, selected, bias=True, parts=skipped, bypassed=True
        )
    layer.vector(prefix + "A_log", inner * state)
    layer.vector(prefix + "D", inner)
    if shape.inner_norms:
        layer.norm(prefix + "dt_layernorm", rank)
        layer.norm(prefix + "b_layernorm", state)
        layer.norm(prefix + "c_layernorm", state)
    read = layer.scan(layer.join(x, selected, step), selected, inner * state, 1, apart=shape.heads)
    return layer.linear(
        prefix + "out_proj", "state_space", inner, h, layer.join(read, x, gate), bias=shape.bias
    )


@dataclass(frozen=True)
class Mamba2:
    """Shape of a Mamba-2 mixer."""

    hidden: int
    heads: int
    d_head: int
    groups: int
    state: int
    kernel: int
    chunk: int
    in_bias: bool = False
    out_bias: bool = False
    conv_bias: bool = True
    norm: bool = True
    cached: bool = True

    @property
    def inner(self) -> int:
        """Width of all heads."""
        return self.heads * self.d_head


def check_groups(cfg: Fields, shape: Mamba2, heads_field: str) -> Mamba2:
    """The shape itself, where its groups divide its heads."""
    if shape.heads % shape.groups:
        raise cfg.fail(heads_field, f"a multiple of the number of groups ({shape.groups})")
    return shape


def mamba2(layer: Layer, shape: Mamba2, x: int, prefix: str) -> int:
    """The chunked state-space dual: attention within chunks, states between them."""
    h, inner, selected = shape.hidden, shape.inner, 2 * shape.groups * shape.state
    parts = (
        Part("in_proj_z", h, inner),
        Part("in_proj_x", h, inner),
        Part("in_proj_bc", h, selected, tinker=False),
        Part("in_proj_dt", h, shape.heads, tinker=False),
    )
    width = 2 * inner + selected + shape.heads
    u = layer.linear(prefix + "in_proj", "state_space", h, width, x, bias=shape.in_bias, parts=parts)
    for name in ("dt_bias", "A_log", "D"):
        layer.vector(prefix + name, shape.heads)
    if shape.norm:
        layer.norm(prefix + "norm", inner)
    c = causal_convolution(
        layer, prefix + "conv1d", inner + selected, shape.kernel, u, bias=shape.conv_bias, cached=shape.cached
    )
    chunk, stepped = shape.chunk, layer.join(c, u)
    scores = layer.scan(c, c, shape.heads * shape.state, chunk, power=2)
    within = layer.scan(layer.join(scores, u), stepped, inner, chunk, power=2)
    size = inner * shape.state
    states = layer.scan(stepped, stepped, size, chunk)
    passed = layer.scan(
        u, states, size, chunk, power=0, forward="pairs", left_grad="pairs", right_grad="pairs"
    )
    across = layer.scan(c, passed, size, chunk)
    mixed = layer.join(within, across, u)
    return layer.linear(prefix + "out_proj", "state_space", inner, h, mixed, bias=shape.out_bias)
