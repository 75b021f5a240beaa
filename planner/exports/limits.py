"""What a trainer cannot express is refused, with the nearest that it can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..adapter import params
from ..errors import InputError, nearest
from .training import Training

# Fields of LoraConfig that say something beside rank, alpha and names, with the option that sets each.
_PATTERNED = {
    "rank_pattern": "rank-pattern",
    "alpha_pattern": "alpha-pattern",
    "bias": "bias",
    "modules_to_save": "modules-to-save",
    "use_dora": "dora",
    "use_rslora": "use-rslora",
    "target_parameters": "target-parameters",
}
_REMEDY = {
    "rank_pattern": "The nearest has one rank for all. `export peft` writes every rank, for a script of your own.",
    "alpha_pattern": "The nearest has one alpha for all. `export peft` writes every alpha, for a script of your own.",
    "bias": "The nearest is bias none.",
    "modules_to_save": "The nearest is an adapter on them: --layers or --targets.",
    "use_dora": "The nearest is LoRA, without --dora.",
    "use_rslora": "The nearest is alpha / rank with alpha times the square root of the rank.",
    "target_parameters": "The nearest leaves them frozen: --experts none, and no --target-parameters.",
}
ONE_GPU_WORK = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel")


def lora_fields(config: Mapping[str, Any], trainer: str, has: Iterable[str]) -> None:
    """Raise InputError where the LoraConfig says what this trainer has no option for."""
    known = set(has)
    for name, option in _PATTERNED.items():
        value = config[name]
        if name in known or not value or value == "none":
            continue
        raise InputError(option, value, f"nothing: {trainer} has no option for it", _REMEDY[name])


def choose(t: Training, field: str, table: Mapping[str, Any], trainer: str) -> Any:
    """The trainer's word for a choice of the set-up. Raises InputError naming the nearest that it has."""
    value = getattr(t.setup, field)
    if value in table:
        return table[value]
    near = nearest(str(value), list(table), cutoff=0.0)
    raise InputError(
        field.replace("_", "-"), value, f"one of {', '.join(table)}, which {trainer} can run",
        f"The nearest is {near[0]}." if near else "",
    )  # fmt: skip


def of_own(t: Training, name: str, table: Mapping[Any, Any], trainer: str) -> Any:
    """The trainer's word for an option of the run. Raises InputError naming those that it has."""
    value = t.own[name]
    if value in table:
        return table[value]
    known = ", ".join(map(str, table))
    raise InputError(
        name.replace("_", "-"),
        value,
        f"one of {known}, which {trainer} has",
        f"The nearest is {next(iter(table))}.",
    )


def no_head(t: Training, why: str) -> None:
    """Raise InputError where a pair stands on the unembedding, whose weight a fused loss reads past its module."""
    found = next((i.matrix.leaf for i in t.adapted if i.matrix.role in ("unembedding", "embedding")), None)
    if found is not None:
        kept = [i for i in t.adapted if i.matrix.role not in ("unembedding", "embedding")]
        count = f" with {params(kept):,} parameters instead of {t.plan.adapter.params:,}" if kept else ""
        raise InputError(
            "layers", found, f"matrices inside the layers: {why}",
            f"The nearest is --layers attention,mlp{count}; with --modules-to-save it is trained in full.",
        )  # fmt: skip


def no_dropout(t: Training, config: Mapping[str, Any]) -> None:
    """Raise InputError where dropout stands before a bare parameter, on which PEFT has none."""
    if config["target_parameters"] and t.setup.lora_dropout:
        raise InputError(
            "lora-dropout",
            t.setup.lora_dropout,
            "0 with target-parameters: PEFT has none there",
            "The nearest is 0.",
        )


def refuse(t: Training, fields: Mapping[str, Any], trainer: str) -> None:
    """Raise InputError where a field of the set-up is not the one value that this trainer has."""
    for field, only in fields.items():
        value = getattr(t.setup, field)
        if value != only:
            raise InputError(
                field.replace("_", "-"), value, f"{only}: {trainer} has no other", f"The nearest is {only}."
            )


def whole_alpha(t: Training, trainer: str) -> int:
    """Alpha where the trainer takes whole numbers only."""
    if t.spec.alpha != int(t.spec.alpha):
        raise InputError(
            "alpha", t.spec.alpha, f"a whole number: {trainer} takes no other",
            f"The nearest is {max(1, round(t.spec.alpha))}.",
        )  # fmt: skip
    return int(t.spec.alpha)


def needs_task(t: Training, task: str, trainer: str, instead: str) -> None:
    """Raise InputError where the plan is of the other kind of training."""
    if t.task != task and t.plan.information is not None:
        kinds = {"sft": "tokens of supervised training", "rl": "episodes of reinforcement learning"}
        raise InputError(
            "target",
            trainer,
            f"a trainer for {kinds[t.task]}, which the plan is of",
            f"The nearest is {instead}.",
        )


def check_precision(t: Training, alone: tuple[str, ...], trainer: str) -> None:
    """Raise InputError for weights that this trainer would not hold so; `alone` are those without sharding."""
    has = {"zero": ("bf16-master",), "fsdp": ("autocast", "fp32")}.get(t.setup.sharding[:4], alone)
    if t.setup.precision not in has:
        where = f" under {t.setup.sharding}" if has is not alone else ""
        raise InputError(
            "precision", t.setup.precision,
            f"{' or '.join(has)}, as which {trainer}{where} holds trained weights", f"The nearest is {has[0]}.",
        )  # fmt: skip
