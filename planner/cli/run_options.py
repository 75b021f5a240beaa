"""The options that say how a fine-tune is run: fields of a set-up, and the machine; shared by several commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ..choices import CHOICES
from ..setup import Setup
from .options import Count, Function, Number, complete

MACHINE = ("gpu", "gpus", "gpus_per_node", "price", "calibration")
STEP = (
    "seq_len", "batch", "accumulation", "checkpointing", "no_checkpointing", "attention_kernel", "kernels", "loss",
    "objective", "reference", "prompt_tokens", "generation", "vllm_memory",
    "vllm_sleep", "states_asleep", "vllm_gpus", "vllm_tensor_parallel", "mean_completion", "packing",
)  # fmt: skip
HOST = ("host_memory",)  # what a machine has beside its GPUs
IMAGES = ("images", "image_size")
BESIDE = ("eval_batch",)  # what runs between steps
BEFORE = ("loading", "placing", "prepared_wide")  # what comes before the first
HELD = (
    "precision", "autocast", "base_dtype", "tf32", "quantize", "quantize_experts", "upcast_small", "optimizer",
    "optimizer_in_backward", "lora_dropout", "lengths_vary", "expandable_segments", "gradients_late", "outputs_held",
    "frozen_towers", "trainer",
)  # fmt: skip
SPREAD = (
    "sharding", "shard_size", "tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel",
    "offload",
)  # fmt: skip
UNITS = ("fsdp_units", "reduce_buckets")
_WORDS = {
    "attention_kernel": "How attention runs",
    "kernels": "Whose elementwise code runs",
    "loss": "How the loss is computed, and so what of the logits is held (each word: docs/methods.md)",
    "objective": "What is learnt; a batch of dpo or orpo is pairs",
    "reference": "What dpo and kto (base) and grpo (none) compare with",
    "generation": "grpo: who makes the completions: the model itself, vLLM on other GPUs (server) or beside the "
    "trainer (shared: with one base for both)",
    "states_asleep": "What of the trainer's waits in the host while such a vLLM runs (all: the weights too)",
    "packing": "What sequences are made of",
    "precision": "How weights are held and computed with",
    "base_dtype": "What the base is loaded in where that is not what autocast computes in: bfloat16 (transformers "
    "5's default) beside fp16, float16 beside bf16",
    "quantize": "How a frozen base is held",
    "optimizer": "The optimizer",
    "sharding": "How states are spread",
    "offload": "What is kept in the host's memory",
    "fsdp_units": "What FSDP gathers as a unit. pairs: PEFT's policy; flat: FSDP 1 by layers, whose frozen weights "
    "get gradients too; layers: FSDP 2; layers-ends: so too, embedding and unembedding apart; modules: by size, "
    "every matrix; whole: FSDP 1 without a policy, the model at once",
    "reduce_buckets": "Through what DeepSpeed's ZeRO reduces gradients. fitted: no more than they take; one: its "
    "reduce_bucket_size of half a billion values, 1 GB; two: so with overlap_comm, under ZeRO-1 and 2",
}
# What words of a choice mean that do not say it themselves.
_MEANT = {
    "precision": {
        "fp32": "all float32", "bf16": "all bfloat16",
        "bf16-master": "bfloat16, and float32 copies of what is trained in the optimizer", "fp16": "all float16",
        "autocast": "float32 weights, bfloat16 products",
    },
    "attention_kernel": {
        "eager": "the model's own code, which holds all scores", "sdpa": "PyTorch's, fused where it can be",
        "math": "PyTorch's, not fused", "flash": "flash attention 2",
    },
    "quantize": {
        "none": "as --precision has it", "nf4": "4 bits", "nf4-double": "4 bits, their scales quantised too",
        "int8": "LLM.int8()", "fp8": "8 bits",
    },
    "packing": {
        "full": "all of --seq-len", "padded": "shorter ones, with a mask", "packed": "documents one after another",
    },
    "offload": {
        "optimizer": "its states", "parameters": "the base's weights", "all": "both",
    },
    "sharding": {
        "ddp": "each has all", "zero1": "optimizer states divided", "zero2": "gradients too",
        "zero3": "weights too", "fsdp": "weights too, by PyTorch",
        "fsdp-hybrid": "fsdp inside a machine, copied between",
    },
}  # fmt: skip
_AGAIN = (
    "none; layer (each keeps what comes in); layer-offload (which waits in the host's memory); selective "
    "(torchtitan's, by operation)"
)
# How each word of what comes before the first step is meant: host (moved as it is held), ...
_EACH = {
    "loading": (
        "How the base gets onto a GPU, which may take more than a step",
        {
            "host": "moved as it is held", "in-turn": "tensor by tensor, quantised as it comes: transformers 5.4",
            "in-turn-ahead": "so too behind a block of half of what is not quantised: 4.57",
            "together": "all in 16 bits first: 5.0 to 5.3",
            "made-there": "quantised on the GPU in pieces, by torchao",
            "made-there-whole": "so too in whole matrices: torchao 0.1", "unknown": "left out",
        },
    ),
    "placing": (
        "How parameters are spread over GPUs",
        {
            "whole": "each has the whole model before it is divided: ZeRO-3 without zero.Init",
            "shards": "never more than a part and the unit that is divided", "broadcast": "DDP's, from the first GPU",
            "broadcast-kept": "so too, whose buckets stay: torch before 2.8", "unknown": "left out",
        },
    ),
}  # fmt: skip
_HELP = {
    "seq_len": "Tokens a sequence; of samples that are not packed the longest, not a trainer's cap. "
    "Default: 2048, or the model's context if shorter.",
    "batch": "Sequences in a step: a trainer's batch of a device x GPUs x accumulation. Default: one for each "
    "data-parallel GPU and micro-step.",
    "vllm_gpus": "grpo: those of a server's vLLM.",
    "vllm_tensor_parallel": "grpo: GPUs that run one vLLM together.",
    "mean_completion": "grpo: tokens of a completion on average. Default: all as long as they may be.",
    "prompt_tokens": "grpo: tokens of a sequence that are prompt. Default: 0; without --seq-len 512 follow.",
    "eval_batch": "Sequences that an evaluation takes at a time on a GPU, whose memory counts too; transformers' "
    "Trainer takes 8. Default: no evaluation.",
    "accumulation": "Micro-steps in a step.",
    "gpus": "How many GPUs.",
    "gpus_per_node": "GPUs in a machine.",
    "tensor_parallel": "GPUs that share every matrix.",
    "pipeline_parallel": "GPUs that share the layers.",
    "expert_parallel": "GPUs that share the experts.",
    "sequence_parallel": "GPUs that share every sequence.",
    "shard_size": "GPUs that share one copy under fsdp-hybrid. Default: those of a machine.",
}
_COUNTS: dict[str, int | None] = {
    **dict.fromkeys(_HELP, 1),
    "seq_len": None,
    "prompt_tokens": None,
    "mean_completion": None,
    "eval_batch": None,
    "batch": None,
    "shard_size": None,
    "gpus_per_node": 8,
}


def gpu_names() -> list[str]:
    """Every accelerator, for completion."""
    from .. import facts

    return [fact.name for fact in facts.accelerators()]


def trainer_names() -> list[str]:
    """Every trainer, for completion and help."""
    from ..trainers import names

    return names()


_HOST_MEMORY = {
    "metavar": "SIZE",
    "help": "Memory of a machine's host, such as 512GiB, which what is offloaded has to fit in. Default: not known.",
}


# Options that are on, off or as the trainer has it.
_SWITCHES = {
    "quantize_experts": "Experts quantised too, which transformers 5 with bitsandbytes does not do. "
    "Default: so with fp8, or as the trainer has it.",
    "upcast_small": "QLoRA: what is not quantised in float32, as PEFT's prepare_model_for_kbit_training leaves it. "
    "Default: so with nf4 or int8 where no --trainer is named.",
    "lengths_vary": "Batches of many lengths, --seq-len the longest: torch's allocator keeps blocks of each. Not "
    "where every batch has a sample as long as the cap. Default: as the data of --data have it where they are "
    "padded, else the trainer's.",
    "expandable_segments": "PYTORCH_ALLOC_CONF=expandable_segments:True: batches of many lengths leave no blocks of "
    "each. Default: off, or the trainer's.",
    "gradients_late": "zero_grad() stands between the forward pass and backward(), so that a step's gradients are "
    "held through the next forward pass. Default: off, or the trainer's.",
    "outputs_held": "The loop keeps the model's output, logits among it, to the end of the backward pass: out = "
    "model(...). Not where loss = model(...).loss. Default: off, or the trainer's.",
    "frozen_towers": "Full fine-tuning leaves towers of images and sounds alone. Default: off, or the trainer's.",
    "prepared_wide": "QLoRA: the rest of the base is float32 before the first step. Default: off, or the trainer's.",
    "autocast": "Autocast on 16-bit weights, as HF's Trainer runs them. Default: with nf4 or int8 where no "
    "--trainer is named.",
    "tf32": "Products in float32 run as TF32 (torch's allow_tf32, tf32 of HF's Trainer), which PyTorch "
    "leaves off. Default: off, or the trainer's.",
    "optimizer_in_backward": "Each weight is updated as soon as its gradient is there, which is then freed; one "
    "micro-step.",
}


def _switches() -> dict[str, dict[str, Any]]:
    """Their options."""
    return {name: {"is_flag": True, "default": None, "help": text} for name, text in _SWITCHES.items()}


def meant(name: str) -> str:
    """The words of a choice, with what they mean where that has to be said."""
    words = _MEANT.get(name)
    if words is None:
        return ", ".join(CHOICES[name])
    return "; ".join(f"{word} ({words[word]})" if word in words else word for word in CHOICES[name])


def _others() -> dict[str, dict[str, Any]]:
    """Options that are neither counts nor choices."""
    return {
        **_switches(),
        "vllm_memory": {
            "type": Number(), "metavar": "SHARE",
            "help": "grpo: of the GPU, for a vLLM beside the trainer. Default: 0.3, shared 0.5.",
        },
        "vllm_sleep": {
            "is_flag": True, "default": None, "help": "It gives its memory back before each training step.",
        },
        "images": {
            "type": Count(),
            "help": "Images in every sequence, part of its --seq-len. Default: text alone.",
        },
        "image_size": {
            "metavar": "WxH", "help": "Their pixels, where the model takes them as large as they are.",
        },
        "lora_dropout": {"type": Number(), "help": "Dropout before the pairs. Default: 0, or the trainer's."},
        "trainer": {
            "metavar": "NAME", "shell_complete": complete(trainer_names),
            "help": f"Whose code runs, which fills the options that are not given: {', '.join(trainer_names())}. "
            "Leave it out where none of these is yours: memory's interval is then the wider one of unknown trainers.",
        },
        "gpu": {"metavar": "NAME", "shell_complete": complete(gpu_names), "help": "The accelerator."},
        "host_memory": _HOST_MEMORY,
        "price": {"type": Number(), "metavar": "USD", "help": "Your price of a GPU and hour."},
        "calibration": {"type": click.Path(), "metavar": "FILE", "help": "From `lora-plan calibrate`."},
        "sharding": {
            "metavar": "NAME",
            "help": f"How states are spread over GPUs: {meant('sharding')}. Default: ddp; full: fsdp.",
        },
    }  # fmt: skip


def _take_back(ctx: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        ctx.params["checkpointing"] = "none"


def _checkpointing(function: Function) -> Function:
    """`--checkpointing` alone is by layer, a word says otherwise; `--no-checkpointing` takes it back."""
    off = click.option(
        "--no-checkpointing",
        is_flag=True,
        expose_value=False,
        callback=_take_back,
        help="Keep every activation.",
    )
    on = click.option(
        "--checkpointing", is_flag=False, flag_value="layer", metavar="[NAME]",
        help=f"Compute activations again in the backward pass: {_AGAIN}. By itself: layer. Default: none, or the "
        "trainer's.",
        shell_complete=complete(lambda: CHOICES["checkpointing"]),
    )  # fmt: skip
    return on(off(function))


def _option(name: str) -> Callable[[Function], Function]:
    flag = f"--{name.replace('_', '-')}"
    if name in _COUNTS:
        default = _COUNTS[name]
        return click.option(
            flag, type=Count(), default=default, show_default=default is not None, help=f"{_HELP[name]}"
        )
    others = _others()
    if name == "checkpointing":
        return _checkpointing
    if name in others:
        words = (
            f"{flag}/--no-{flag[2:]}" if others[name].get("is_flag") else flag
        )  # off differs from not said
        return click.option(words, **others[name])
    if name in _EACH:
        what, each = _EACH[name]
        words = "; ".join(f"{word} ({how})" for word, how in each.items())
        usual = "Default: the trainer's; without one unknown."
    else:
        what, words = _WORDS[name], meant(name)
        usual = f"Default: {getattr(Setup, name) or 'that of --precision'}, or the trainer's."
    return click.option(
        flag, metavar="NAME", shell_complete=complete(lambda: CHOICES[name]), help=f"{what}: {words}. {usual}"
    )  # fmt: skip


def run_options(names: Sequence[str]) -> Callable[[Any], Any]:
    """Add these options."""

    def add(function: Any) -> Any:
        for name in reversed(names):
            function = function if name == "no_checkpointing" else _option(name)(function)
        return function

    return add
