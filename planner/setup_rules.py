"""What a set-up may say: words, counts, groups of GPUs, and choices that exclude each other."""

from __future__ import annotations

from typing import Any

from .choices import CHOICES, COUNTS
from .errors import InputError, hint
from .objective_rules import NOT_MODELLED

NONE_TOO = ("adapter_dtype", "base_dtype")  # words that may be left open
_OTHER_SPLITS = {
    word: f"That is --{way}-parallel N."
    for way, words in (("tensor", "tp tensor"), ("pipeline", "pp pipeline"), ("expert", "ep expert"),
                       ("sequence", "sp cp context sequence ulysses ring"))
    for word in words.split()
}  # fmt: skip

_OTHER_FORMATS = {"tf32": "That is --precision fp32 with --tf32."}


def check_setup(setup: Any) -> None:
    """Refuse what cannot be run, naming the field and what would do. Raises InputError."""
    _check_choices(setup)
    _check_counts(setup)
    _check_groups(setup)
    _check_together(setup)
    _check_base(setup)


def _label(name: str) -> str:
    return name.replace("_", "-")


def _check_choices(setup: Any) -> None:
    for name, choices in CHOICES.items():
        value = getattr(setup, name)
        if name == "objective" and value in NOT_MODELLED:
            raise InputError("objective", value, f"one of {', '.join(choices)}", "It is not modelled.")
        if value not in choices and not (value is None and name in NONE_TOO):
            beside = {"sharding": _OTHER_SPLITS, "precision": _OTHER_FORMATS}.get(name, {})
            remedy = beside.get(str(value).lower(), "") or hint(str(value), choices)
            raise InputError(_label(name), value, f"one of {', '.join(choices)}", remedy.strip())


def _check_counts(setup: Any) -> None:
    for name in (*COUNTS, "loss_chunk"):
        value = getattr(setup, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(_label(name), value, "a whole number of at least 1")
    evaluated = setup.eval_batch
    if isinstance(evaluated, bool) or not isinstance(evaluated, int) or evaluated < 0:
        raise InputError("eval-batch", evaluated, "a whole number, or 0 for no evaluation")
    dropout = setup.lora_dropout
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise InputError("lora-dropout", dropout, "a number from 0 to below 1")


def _check_groups(setup: Any) -> None:
    """GPUs must divide into their groups, and sequences over theirs."""
    group = setup.tensor_parallel * setup.pipeline_parallel * setup.sequence_parallel
    if setup.gpus % group:
        raise InputError(
            "gpus", setup.gpus, f"a multiple of {group}: tensor x pipeline x sequence parallel",
            f"The nearest is {max(group, round(setup.gpus / group) * group)}.",
        )  # fmt: skip
    spread = setup.data_parallel * setup.sequence_parallel
    if spread % setup.expert_parallel:
        raise InputError(
            "expert-parallel", setup.expert_parallel, f"a divisor of the {spread} GPUs that share no layer",
            f"The nearest is {_nearest_divisor(spread, setup.expert_parallel)}.",
        )  # fmt: skip
    if setup.seq_len % setup.sequence_parallel:
        raise InputError(
            "sequence-parallel", setup.sequence_parallel, f"a divisor of the {setup.seq_len} tokens of a sequence",
            f"The nearest is {_nearest_divisor(setup.seq_len, setup.sequence_parallel)}.",
        )  # fmt: skip
    if (size := setup.shard_size) is not None:
        if setup.sharding != "fsdp-hybrid":
            raise InputError("shard-size", size, "sharding fsdp-hybrid beside it")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or spread % size:
            raise InputError(
                "shard-size", size, f"a divisor of the {spread} data-parallel GPUs",
                f"The nearest is {_nearest_divisor(spread, size if isinstance(size, int) else 1)}.",
            )  # fmt: skip


def _check_together(setup: Any) -> None:
    """Choices that exclude each other."""
    if setup.method == "qlora" and setup.quantize == "none":
        raise InputError("quantize", "none", "nf4, nf4-double, int8 or fp8 for qlora", "Or take method lora.")
    if setup.method == "full" and setup.quantize != "none":
        raise InputError("quantize", setup.quantize, "none for full fine-tuning: what is quantised is frozen")
    if setup.gpus > 1 and setup.data_parallel > 1 and setup.sharding == "none":
        known = "ddp, zero1, zero2, zero3, fsdp or fsdp-hybrid"
        raise InputError("sharding", "none", f"{known} on {setup.gpus} GPUs")
    if setup.autocast and setup.precision == "fp32":
        raise InputError("autocast", True, "a 16-bit precision, or precision autocast for float32 weights")
    if setup.optimizer_in_backward and setup.accumulation > 1:
        raise InputError(
            "accumulation", setup.accumulation, "1 where the optimizer steps inside the backward pass"
        )


def _check_base(setup: Any) -> None:
    """A base in other 16 bits than those that are computed in: what autocast makes of it is known of adapters, by
    transformers' code, on GPUs that each hold all of it."""
    held = setup.base_dtype
    if held in (None, setup.compute_dtype):
        return
    expected = "16 bits under autocast in the other 16 (--autocast with --precision fp16 or bf16)"
    if held == "float32" or setup.precision not in ("fp16", "bf16") or not setup.autocast:
        remedy = "Float32 under autocast is --precision autocast." if held == "float32" else ""
        raise InputError("base-dtype", held, expected, remedy)
    if setup.method == "full" or setup.kernels != "transformers" or setup.parameters_sharded:
        raise InputError(
            "base-dtype", held, "an adapter by transformers' kernels, parameters not sharded, beside it"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: (abs(d - wanted), d))
