"""One LoRA an expert on fused expert tensors, by torch's parametrisation: what PEFT has no place for.

A fused tensor W [experts, parts x d_out, d_in] (gate and up together are two parts) is read as W + scale x B A, with
one pair for each part of each expert. The change is written out in full, so that a step costs more FLOPs than the
planner counts; what is learnt is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..errors import InputError
from .records import RunConfig
from .require import require

CONVENTIONS = ("scaled", "per-expert", "shared-outer")
# transformers' names of fused expert tensors laid out [experts, d_out, d_in], with the matrices in each and whether
# the model's hidden side is the input.
FUSED = {"gate_up_proj": (2, True), "down_proj": (1, False)}


def expert_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Every module of fused experts by name."""
    for name, module in model.named_modules():
        shapes = [getattr(getattr(module, key, None), "ndim", 0) for key in FUSED]
        if shapes == [3, 3]:
            yield name, module


def has_experts(model: Any) -> bool:
    """Whether a model has fused experts."""
    return any(True for _ in expert_modules(model))


def _module_class() -> Any:
    torch = require()

    base: Any = torch.nn.Module

    class ExpertLora(base):  # type: ignore[misc]
        """W + scale x B A for each part of each expert. A [parts, experts, rank, d_in] and B [parts, experts, d_out,
        rank] have 1 in place of experts where all of them share the factor."""

        def __init__(
            self, weight: Any, parts: int, rank: int, scale: float, shared: tuple[bool, bool]
        ) -> None:
            super().__init__()
            experts, d_out, d_in = weight.shape
            counts = [1 if one else experts for one in shared]
            kept = {"device": weight.device, "dtype": torch.float32}
            self.a = torch.nn.Parameter(torch.zeros(parts, counts[0], rank, d_in, **kept))
            self.b = torch.nn.Parameter(torch.zeros(parts, counts[1], d_out // parts, rank, **kept))
            self.scale = scale

        def forward(self, weight: Any) -> Any:
            """The tensor with its change."""
            change = self.scale * (self.b @ self.a)
            return weight + change.transpose(0, 1).reshape(weight.shape).to(weight.dtype)

    return ExpertLora


def rank_of(config: RunConfig, top_k: int) -> int:
    """An expert's rank by the convention: the article's rank / active experts, at least 1, or the whole rank."""
    return max(1, config.rank // top_k) if config.experts == "scaled" else config.rank


def attach_experts(model: Any, config: RunConfig, top_k: int) -> None:
    """Give every expert its pairs; all other weights stay as they are. Raises InputError for another convention."""
    from torch.nn.utils import parametrize

    if config.experts not in CONVENTIONS:
        raise InputError("experts", config.experts, f"one of {', '.join(CONVENTIONS)}")
    rank, made = rank_of(config, top_k), _module_class()
    scale = config.alpha / (config.p * config.q) / rank
    for _, module in list(expert_modules(model)):
        for key, (parts, hidden_in) in FUSED.items():
            outer = config.experts == "shared-outer"
            weight = getattr(module, key)
            weight.requires_grad_(False)
            pair = made(weight, parts, rank, scale, (outer and hidden_in, outer and not hidden_in))
            parametrize.register_parametrization(module, key, pair)


def expert_pairs(model: Any) -> Iterator[tuple[str, Any]]:
    """Every parametrisation of ours by name."""
    for name, module in model.named_modules():
        if type(module).__name__ == "ExpertLora":
            yield name, module


def draw_experts(model: Any, p: float, generator: Any) -> None:
    """A ~ U(-p/sqrt(d_in), p/sqrt(d_in)), B = 0."""
    torch = require()
    with torch.no_grad():
        for _, pair in expert_pairs(model):
            bound = 1 / math.sqrt(pair.a.shape[-1])
            pair.a.copy_(p * torch.empty(pair.a.shape).uniform_(-bound, bound, generator=generator))
            pair.b.zero_()
