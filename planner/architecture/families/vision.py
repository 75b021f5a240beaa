"""Towers that encode images, as inventories: a text-only step runs none of them, so they have no operations.

Here: a small notation for writing a tower down, and the towers of CLIP's kind (CLIP, SigLIP, Pixtral). Every
field of a nested vision config may be absent: the class's default stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from ...dataclass import dataclass
from ...schema import Part, Role
from ..fields import Fields
from ..trace import Trace


@dataclass(frozen=True)
class Tower:
    """A place in a module tree: weights noted through it carry its prefix, role and layer numbers."""

    trace: Trace
    prefix: str
    role: Role = "vision"
    layers: tuple[int, ...] = (0,)

    def at(self, suffix: str, layers: Iterable[int] | None = None, role: Role | None = None) -> Tower:
        """A place further down; `layers` are the numbers that the `{}` in it stands for."""
        numbers = self.layers if layers is None else tuple(layers)
        return replace(self, prefix=self.prefix + suffix, layers=numbers, role=role or self.role)

    def linear(
        self, name: str, d_in: int, d_out: int, bias: bool = False, parts: tuple[Part, ...] = ()
    ) -> None:
        """A Linear module."""
        self.trace.weight(
            self.prefix + name, self.role, d_in, d_out, bias=bias, layers=self.layers, parts=parts
        )

    def conv(self, name: str, channels: int, out: int, kernel: Iterable[int], bias: bool = False) -> None:
        """A convolution over `channels` input channels a group."""
        d_in = channels * prod(kernel)
        self.trace.weight(
            self.prefix + name, self.role, d_in, out, kind="convolution", bias=bias, layers=self.layers
        )

    def vector(self, name: str, size: int) -> None:
        """Parameters that are no matrix of a product."""
        self.trace.vector(self.prefix + name, size, self.layers)

    def norm(self, name: str, size: int, bias: bool = False) -> None:
        """A norm's weight, and its bias where it has one."""
        self.vector(f"{name}.weight", size)
        if bias:
            self.vector(f"{name}.bias", size)

    def table(self, name: str, n: int, d: int) -> None:
        """A look-up table of positions."""
        self.trace.embedding(self.prefix + name, n, d, role=self.role)


def split(cfg: Fields, key: str, width: int, default: int) -> int:
    """The number of heads, which must divide the width."""
    n: int = cfg.int(key, default)
    if width % n:
        raise cfg.fail(key, f"a divisor of the tower's width ({width})")
    return n


def patches(cfg: Fields, image: int, patch: int) -> int:
    """Patches of a square image."""
    side: int = cfg.int("image_size", image) // cfg.int("patch_size", patch)
    if side < 1:
        raise cfg.fail("image_size", "at least patch_size")
    return side * side


def qkv_parts(d: int) -> tuple[Part, ...]:
    """The logical matrices of a fused projection to queries, keys and values."""
    return tuple(Part(name, d, d) for name in ("q_proj", "k_proj", "v_proj"))


def clip_layers(tower: Tower, d: int, width: int) -> None:
    """The encoder layers that CLIP and SigLIP share: biased projections, LayerNorms, a plain MLP."""
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        tower.linear(f"self_attn.{name}", d, d, bias=True)
    tower.linear("mlp.fc1", d, width, bias=True)
    tower.linear("mlp.fc2", width, d, bias=True)
    for name in ("layer_norm1", "layer_norm2"):
        tower.norm(name, d, bias=True)


def clip(tower: Tower, cfg: Fields) -> int:
    """CLIP's vision model; returns its width."""
    d: int = cfg.int("hidden_size", 768)
    split(cfg, "num_attention_heads", d, 12)
    patch = cfg.int("patch_size", 32)
    tower.vector("embeddings.class_embedding", d)
    tower.conv("embeddings.patch_embedding", cfg.int("num_channels", 3), d, (patch, patch))
    tower.table("embeddings.position_embedding", patches(cfg, 224, 32) + 1, d)
    # The misspelling is the module's name.
    tower.norm("pre_layrnorm", d, bias=True)
    layers = range(cfg.int("num_hidden_layers", 12))
    clip_layers(tower.at("encoder.layers.{}.", layers), d, cfg.int("intermediate_size", 3072))
    tower.norm("post_layernorm", d, bias=True)
    return d


def siglip(tower: Tower, cfg: Fields) -> int:
    """SigLIP's vision model, with its pooling head where it has one; returns its width."""
    d: int = cfg.int("hidden_size", 768)
    width = cfg.int("intermediate_size", 3072)
    split(cfg, "num_attention_heads", d, 12)
    patch = cfg.int("patch_size", 16)
    tower.conv("embeddings.patch_embedding", cfg.int("num_channels", 3), d, (patch, patch), bias=True)
    tower.table("embeddings.position_embedding", patches(cfg, 224, 16), d)
    layers = range(cfg.int("num_hidden_layers", 12))
    clip_layers(tower.at("encoder.layers.{}.", layers), d, width)
    tower.norm("post_layernorm", d, bias=True)
    if cfg.bool("vision_use_head", True):
        tower.vector("head.probe", d)
        # torch's MultiheadAttention keeps this one as a bare parameter, without a module of its own.
        tower.vector("head.attention.in_proj_weight", 3 * d * d)
        tower.vector("head.attention.in_proj_bias", 3 * d)
        tower.linear("head.attention.out_proj", d, d, bias=True)
        tower.norm("head.layernorm", d, bias=True)
        tower.linear("head.mlp.fc1", d, width, bias=True)
        tower.linear("head.mlp.fc2", width, d, bias=True)
    return d


def pixtral(tower: Tower, cfg: Fields) -> int:
    """Pixtral's encoder: rotary positions, no biases, a gated MLP; returns its width."""
    d: int = cfg.int("hidden_size", 1024)
    width, patch = cfg.int("intermediate_size", 4096), cfg.int("patch_size", 16)
    split(cfg, "num_attention_heads", d, 16)
    tower.conv("patch_conv", cfg.int("num_channels", 3), d, (patch, patch))
    tower.norm("ln_pre", d)
    layer = tower.at("transformer.layers.{}.", range(cfg.int("num_hidden_layers", 24)))
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        layer.linear(f"attention.{name}", d, d)
    gated(layer.at("feed_forward."), d, width)
    layer.norm("attention_norm", d)
    layer.norm("ffn_norm", d)
    return d


def gated(tower: Tower, d: int, width: int, bias: bool = False, suffix: str = "") -> None:
    """A gated MLP's three matrices; `suffix` goes after each name."""
    tower.linear(f"gate_proj{suffix}", d, width, bias)
    tower.linear(f"up_proj{suffix}", d, width, bias)
    tower.linear(f"down_proj{suffix}", width, d, bias)


TowerBuilder = Callable[[Tower, Fields], int]
TOWERS: dict[str, TowerBuilder] = {
    "clip_vision_model": clip,
    "siglip_vision_model": siglip,
    "pixtral": pixtral,
}


def named(trace: Trace, cfg: Fields, default: str, defaults: Mapping[str, Any], prefix: str) -> int:
    """The tower that `vision_config.model_type` names, `default` where absent; `defaults` are the family's
    fields where it has no vision config at all. Returns the tower's width."""
    vision = cfg.sub("vision_config", {"model_type": default, **defaults})
    kind = vision.str("model_type", default)
    if kind not in TOWERS:
        raise vision.fail("model_type", f"one of {', '.join(TOWERS)}")
    return TOWERS[kind](Tower(trace, prefix), vision)
