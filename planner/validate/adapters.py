"""What is trained: every parameter, or a LoRA through PEFT that holds exactly what the planner counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, PlannerError
from ..estimator import estimate
from ..exports import peft_config
from . import experts
from .records import RunConfig
from .require import require

ALL_LAYERS = ("attention", "mlp", "unembedding")
# What PEFT is told beyond the plain adapter's options. LoRA+ changes rates alone.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {}, "loraplus": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
}  # fmt: skip
# LoRA+ (Hayou et al. 2024): B's rate over A's; the rate that is swept is A's.
LORAPLUS_RATIO = 16.0


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
        batch=config.batch, checkpointing=config.checkpointing, experts=config.experts,
        variant="dora" if config.variant == "dora" else "lora",
    )  # fmt: skip


def attach(model: Any, config: RunConfig, shape: Mapping[str, Any]) -> Any:
    """The model with its trainable parameters set: all of them, or PEFT's adapter from the planner's export, with one
    pair an expert of our own on fused experts.

    A is drawn uniformly within p/sqrt(d_in), B is zero, as in the article (p = 1); PiSSA keeps what it takes from the
    weights. Raises PlannerError where another number of parameters is trained than the planner counts.
    """
    if config.method == "full":
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
    if config.variant not in VARIANTS:
        raise InputError("variant", config.variant, f"one of {', '.join(VARIANTS)}")
    layers = config.layers
    mixture = experts.has_experts(model)
    if mixture:
        layers, adapt_experts = without_experts(layers)
    adapted = _peft_model(model, config, shape, layers, mixture) if layers else _frozen(model)
    if mixture and adapt_experts:
        experts.attach_experts(adapted, config, int(shape["num_experts_per_tok"]))
    expected = planned(config, shape).adapter.params
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if trained != expected:
        raise PlannerError(f"The run trains {trained:,} parameters, the planner counts {expected:,}.")
    if config.variant != "pissa":
        draw(adapted, config)
    return adapted


def without_experts(layers: str) -> tuple[str, bool]:
    """A layer set of a mixture of experts without the experts, and whether it had them."""
    names = ALL_LAYERS if layers == "all" else tuple(part.strip() for part in layers.split(","))
    return ",".join(name for name in names if name != "mlp"), "mlp" in names


def _frozen(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _peft_model(model: Any, config: RunConfig, shape: Mapping[str, Any], layers: str, mixture: bool) -> Any:
    """PEFT's adapter on every layer of the set."""
    from peft import LoraConfig, get_peft_model

    alpha = config.alpha / (config.p * config.q)
    choice = {"experts": "none"} if mixture else {}
    options = peft_config(dict(shape), rank=config.rank, layers=layers, alpha=alpha, **choice)
    kept = {
        key: value for key, value in options.items() if key not in ("peft_type", "base_model_name_or_path")
    }
    with warnings.catch_warnings():  # of transformers' own renaming, which PEFT has not followed yet
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, LoraConfig(**{**kept, **VARIANTS[config.variant]}))


def pairs(model: Any) -> Iterator[Pair]:
    """Every adapted matrix's pair, in the model's order; experts have one each."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            yield Pair(
                name.removeprefix("base_model.model."), module.lora_A["default"].weight,
                module.lora_B["default"].weight, module.scaling["default"],
            )  # fmt: skip
    for name, pair in experts.expert_pairs(model):
        count = max(pair.a.shape[1], pair.b.shape[1])
        a, b = (factor.expand(-1, count, -1, -1).flatten(0, 1) for factor in (pair.a, pair.b))
        for number in range(len(a)):
            yield Pair(f"{name.removeprefix('base_model.model.')}.{number}", a[number], b[number], pair.scale)


def factors(model: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """The parameters that are trained: those of A, those of B, and others (DoRA's magnitudes)."""
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = name.split(".")
            kind = (
                0
                if parts[-1] == "a" or "lora_A" in parts
                else 1
                if parts[-1] == "b" or "lora_B" in parts
                else 2
            )
            found[kind].append(parameter)
    return found


def draw(model: Any, config: RunConfig) -> None:
    """A ~ U(-p/sqrt(d_in), p/sqrt(d_in)) from the run's seed, the same on every device; B = 0."""
    torch = require()
    generator = torch.Generator().manual_seed(1_000_003 * (config.seed + 1))
    with torch.no_grad():
        for _, module in model.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                a = module.lora_A["default"].weight
                bound = 1 / math.sqrt(a.shape[1])
                values = torch.empty(a.shape).uniform_(-bound, bound, generator=generator)
                a.copy_(values * config.p)
                module.lora_B["default"].weight.zero_()
    experts.draw_experts(model, config.p, generator)


def groups(model: Any, config: RunConfig) -> list[dict[str, Any]]:
    """Adam's parameter groups: one, or A and B with rates p lr and q lr and epsilons eps/p and eps/q; LoRA+
    multiplies B's rate.

    By the article's transform A's gradient scales by 1/p and B's by 1/q, so that each epsilon must follow its own.
    """
    plus = LORAPLUS_RATIO if config.variant == "loraplus" else 1.0
    if config.method == "full" or (config.p == 1 and config.q == 1 and plus == 1):
        trained = [p for p in model.parameters() if p.requires_grad]
        return [{"params": trained, "lr": config.lr, "eps": config.eps}]
    a, b, others = factors(model)
    found = [
        {"params": a, "lr": config.lr * config.p, "eps": config.eps / config.p},
        {"params": b, "lr": config.lr * config.q * plus, "eps": config.eps / config.q},
        {"params": others, "lr": config.lr, "eps": config.eps},
    ]
    return [group for group in found if group["params"]]


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
