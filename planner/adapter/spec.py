"""AdapterSpec: what the user asks for, in the words of PEFT's LoraConfig where it has them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, get_args

from ..choices import DTYPE_BYTES
from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Role
from .peft_names import compiled

ExpertConvention = Literal["scaled", "per-expert", "shared-outer", "peft", "none"]
Layout = Literal["modules", "tinker"]
Variant = Literal["lora", "dora"]
Bias = Literal["none", "all", "lora_only"]

LAYER_SETS: dict[str, tuple[Role, ...]] = {
    "attention": ("attention", "state_space"),
    "mlp": ("mlp", "expert", "shared_expert"),
    "unembedding": ("unembedding",),
    "embedding": ("embedding",),
    "router": ("router",),
    "vision": ("vision",),
    "audio": ("audio",),
    "projector": ("projector",),
}
PRESETS: dict[str, tuple[str, ...]] = {"all": ("attention", "mlp", "unembedding")}
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSpec:
    """What the user asks for: one of `layers` (names of layer sets), `targets` (module names) and `target_regex`,
    or `target_parameters` alone. The fields that PEFT has mean what PEFT makes of them; ranks in `rank_pattern` are
    taken as they stand under every expert convention. With `strict`, a name that matches nothing is an error, as
    for what a user types; without, it is passed over as PEFT does.
    """

    rank: int = 32
    alpha: float = 32.0
    layers: tuple[str, ...] | None = ("all",)
    targets: tuple[str, ...] | None = None
    experts: ExpertConvention = "scaled"
    layout: Layout = "modules"
    variant: Variant = "lora"
    dtype: str = "float32"
    target_regex: str | None = None
    target_parameters: tuple[str, ...] = ()
    layers_to_transform: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()
    exclude_modules: tuple[str, ...] = ()
    exclude_regex: str | None = None
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    modules_to_save: tuple[str, ...] = ()
    bias: Bias = "none"
    use_rslora: bool = False
    strict: bool = True


def expand_layers(names: Iterable[str]) -> frozenset[str]:
    """Layer set names with presets resolved; an unknown name is an error with the nearest valid ones."""
    known = [*LAYER_SETS, *PRESETS, ALL_LINEAR]
    found: set[str] = set()
    for name in names:
        if name in PRESETS:
            found.update(PRESETS[name])
        elif name in LAYER_SETS or name == ALL_LINEAR:
            found.add(name)
        else:
            raise InputError("layers", name, f"a comma list of {', '.join(known)}", hint(name, known).strip())
    if not found:
        raise InputError("layers", "", f"a comma list of {', '.join(known)}")
    return frozenset(found)


def check_spec(spec: AdapterSpec) -> None:
    """Raise InputError where a field of the spec is outside its choices."""
    for name, value, choices in (
        ("experts", spec.experts, get_args(ExpertConvention)),
        ("layout", spec.layout, get_args(Layout)),
        ("variant", spec.variant, get_args(Variant)),
        ("adapter-dtype", spec.dtype, tuple(DTYPE_BYTES)),
        ("bias", spec.bias, get_args(Bias)),
    ):
        if value not in choices:
            raise InputError(name, value, f"one of {', '.join(choices)}", hint(str(value), choices).strip())
    if isinstance(spec.rank, bool) or not isinstance(spec.rank, int) or spec.rank < 1:
        raise InputError("rank", spec.rank, "a whole number of at least 1")
    if not 0 < spec.alpha < math.inf:
        raise InputError("alpha", spec.alpha, "a number above 0")
    _check_patterns(spec)


def _check_patterns(spec: AdapterSpec) -> None:
    if spec.target_regex is not None:
        compiled("target-regex", spec.target_regex)
    if spec.exclude_regex is not None:
        compiled("exclude-modules", spec.exclude_regex)
    for name in spec.modules_to_save:
        compiled("modules-to-save", name)
    for key, rank in spec.rank_pattern:
        compiled("rank-pattern", key)
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise InputError("rank-pattern", f"{key}={rank}", "whole ranks of at least 1")
    for key, alpha in spec.alpha_pattern:
        compiled("alpha-pattern", key)
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
            raise InputError("alpha-pattern", f"{key}={alpha}", "numbers above 0")
    if spec.layers_to_transform is not None and spec.experts == "peft" and spec.layers == (ALL_LINEAR,):
        raise InputError(
            "layers-to-transform", list(spec.layers_to_transform), "module names beside it: PEFT refuses it with "
            "all-linear", "Give --targets, or another --experts.",
        )  # fmt: skip
    if spec.layers_to_transform is not None and spec.target_regex is not None:
        raise InputError(
            "layers-to-transform", list(spec.layers_to_transform), "module names beside it: PEFT refuses it with a "
            "regular expression", "Name the layers in the expression.",
        )  # fmt: skip
