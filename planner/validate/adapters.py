"""What is trained: every parameter, or a LoRA through PEFT that holds exactly what the planner counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PlannerError
from ..estimator import estimate
from ..exports import peft_config
from .records import RunConfig
from .require import require


@dataclass(frozen=True)
class Pair:
    """An adapted module's A [rank, d_in], B [d_out, rank] and scale alpha / rank."""

    name: str
    a: Any
    b: Any
    scale: float


def planned(config: RunConfig, shape: Mapping[str, Any]) -> Any:
    """The planner's own Plan of a run: parameters, FLOPs of a step, learning rate."""
    return estimate(
        dict(shape), rank=max(1, config.rank), alpha=config.alpha, layers=config.layers, seq_len=config.seq_len,
        batch=config.batch, checkpointing=config.checkpointing,
    )  # fmt: skip


def attach(model: Any, config: RunConfig, shape: Mapping[str, Any]) -> Any:
    """The model with its trainable parameters set: all of them, or PEFT's adapter from the planner's export.

    A is drawn uniformly within p/sqrt(d_in), B is zero, as in the article (p = 1). Raises PlannerError where PEFT
    trains another number of parameters than the planner counts.
    """
    if config.method == "full":
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model

    alpha = config.alpha / (config.p * config.q)
    options = peft_config(dict(shape), rank=config.rank, layers=config.layers, alpha=alpha)
    kept = {
        key: value for key, value in options.items() if key not in ("peft_type", "base_model_name_or_path")
    }
    with warnings.catch_warnings():  # of transformers' own renaming, which PEFT has not followed yet
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, LoraConfig(**kept))
    expected = planned(config, shape).adapter.params
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if trained != expected:
        raise PlannerError(f"PEFT trains {trained:,} parameters, the planner counts {expected:,}.")
    draw(adapted, config)
    return adapted


def pairs(model: Any) -> Iterator[Pair]:
    """Every adapted module's pair, in the model's order."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            yield Pair(
                name.removeprefix("base_model.model."), module.lora_A["default"].weight,
                module.lora_B["default"].weight, module.scaling["default"],
            )  # fmt: skip


def draw(model: Any, config: RunConfig) -> None:
    """A ~ U(-p/sqrt(d_in), p/sqrt(d_in)) from the run's seed, the same on every device; B = 0."""
    torch = require()
    generator = torch.Generator().manual_seed(1_000_003 * (config.seed + 1))
    with torch.no_grad():
        for pair in pairs(model):
            bound = 1 / math.sqrt(pair.a.shape[1])
            values = torch.empty(pair.a.shape).uniform_(-bound, bound, generator=generator)
            pair.a.copy_(values * config.p)
            pair.b.zero_()


def groups(model: Any, config: RunConfig) -> list[dict[str, Any]]:
    """Adam's parameter groups: one, or A and B with rates p lr and q lr and epsilons eps/p and eps/q.

    By the article's transform A's gradient scales by 1/p and B's by 1/q, so that each epsilon must follow its own.
    """
    if config.method == "full" or (config.p == 1 and config.q == 1):
        trained = [p for p in model.parameters() if p.requires_grad]
        return [{"params": trained, "lr": config.lr, "eps": config.eps}]
    found = list(pairs(model))
    return [
        {"params": [pair.a for pair in found], "lr": config.lr * config.p, "eps": config.eps / config.p},
        {"params": [pair.b for pair in found], "lr": config.lr * config.q, "eps": config.eps / config.q},
    ]


def norms(model: Any) -> dict[str, dict[str, float]]:
    """Spectral and Frobenius norms of A, of B and of the change that they make, by module."""
    torch = require()
    found = {}
    with torch.no_grad():
        for pair in pairs(model):
            a, b = pair.a.float().cpu(), pair.b.float().cpu()
            found[pair.name] = {
                "a": _spectral(a), "b": _spectral(b), "a_frobenius": float(a.norm()), "b_frobenius": float(b.norm()),
                "change": abs(pair.scale) * float((b @ a).norm()),
            }  # fmt: skip
    return found


def _spectral(matrix: Any) -> float:
    """The largest singular value."""
    torch = require()
    return float(torch.linalg.matrix_norm(matrix, 2))


def changes(model: Any) -> list[Any]:
    """What each pair adds to its weight: scale x B A."""
    torch = require()
    with torch.no_grad():
        return [pair.scale * (pair.b @ pair.a) for pair in pairs(model)]
