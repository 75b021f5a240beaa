"""Options that every trainer on Hugging Face's Trainer shares, by the Trainer's names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import InputError
from .limits import ONE_GPU_WORK, check_precision, choose, refuse
from .lines import Line
from .training import Training

NAME = "Hugging Face's Trainer"
OPTIM = {
    "adamw": "adamw_torch_fused", "adamw-8bit": "adamw_8bit", "paged-adamw": "paged_adamw_32bit",
    "paged-adamw-8bit": "paged_adamw_8bit", "sgd": "sgd", "sgd-momentum": "sgd", "adafactor": "adafactor",
    "lion": "lion_32bit", "lion-8bit": "lion_8bit",
}  # fmt: skip
# (dtype of the weights, bf16, fp16) of a precision and whether autocast runs.
PRECISION = {
    ("bf16", True): ("bfloat16", True, False),
    ("bf16", False): ("bfloat16", False, False),
    ("autocast", False): ("float32", True, False),
    ("autocast", True): ("float32", True, False),
    ("fp32", False): ("float32", False, False),
    ("fp16", True): ("float16", False, True),
    ("fp16", False): ("float16", False, False),
}
ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
# What a user of this Trainer gets where nothing else was said.
USUAL: dict[str, Any] = {"autocast": True}


def precision(t: Training, trainer: str = NAME) -> tuple[str, bool, bool]:
    """(dtype, bf16, fp16). Raises InputError where the Trainer has no such precision."""
    if t.full:
        check_precision(t, ("autocast", "bf16", "fp32"), trainer)
        if t.setup.precision == "bf16-master":
            return "bfloat16", True, False
    key = (t.setup.precision, t.setup.autocast)
    if key not in PRECISION:
        raise InputError(
            "precision", t.setup.precision, f"bf16, autocast, fp16 or fp32, which {trainer} can run",
            "The nearest is bf16 with autocast, under which PEFT holds the adapter in float32.",
        )  # fmt: skip
    return PRECISION[key]


def batch_lines(t: Training) -> list[Line]:
    """Micro-batch, accumulation, and how long to train."""
    s = t.setup
    why = (
        f"{s.micro_batch} x {s.accumulation} x {s.data_parallel} GPU{'s' if s.data_parallel > 1 else ''} = "
        f"{t.batch} sequences a step."
    )
    if not t.full:
        why += " LoRA loses more than full fine-tuning at large batches (LoRA Without Regret)."
    return [
        Line("per_device_train_batch_size", s.micro_batch, why),
        Line("gradient_accumulation_steps", s.accumulation),
    ]


def length_lines(t: Training) -> list[Line]:
    """Epochs, or steps for episodes."""
    epochs = t.plan.workload.epochs
    if t.task == "rl" and t.steps is not None:
        return [
            Line("max_steps", t.steps, f"{t.steps:,} steps of {t.batch} episodes hold the plan's episodes.")
        ]
    about = f"About {t.steps:,} step{'s' * (t.steps > 1)} by the plan's tokens." if t.steps else ""
    return [Line("num_train_epochs", epochs, about)]


def decay_line(t: Training) -> Line:
    """Weight decay."""
    why = "" if t.own["weight_decay"] else "None, as in the runs behind the law."
    return Line("weight_decay", float(t.own["weight_decay"]), why)


def by_ratio(line: Line) -> Line:
    """A warm-up below 1 as a share of the steps, for trainers that have an option of its own for it."""
    return replace(line, name="warmup_ratio") if 0 < line.value < 1 else line


def rate_lines(t: Training) -> list[Line]:
    """The rate, its schedule, the optimizer."""
    s = t.setup
    lines = [
        Line("learning_rate", t.rate.value, t.rate.why),
        Line("lr_scheduler_type", t.own["schedule"], t.schedule_text()),
        Line("warmup_steps", t.own["warmup"]),
        Line("optim", choose(t, "optimizer", OPTIM, NAME)),
        decay_line(t),
    ]
    if s.optimizer == "sgd-momentum":
        lines.insert(4, Line("optim_args", "momentum=0.9"))
    return lines


def tf32_lines(t: Training) -> list[Line]:
    """TF32, which PyTorch leaves off unless told."""
    return [Line("tf32", True, "Products in float32 run as TF32.")] if t.setup.tf32 else []


def run_lines(t: Training, dtype: str = "dtype") -> list[Line]:
    """Precision, seed, where the result goes."""
    _, bf16, fp16 = precision(t)
    return [
        Line("bf16", bf16, "Autocast to bfloat16." if bf16 else ""),
        Line("fp16", fp16),
        *tf32_lines(t),
        Line("seed", t.own["seed"]),
        Line("output_dir", t.own["out"]),
    ]


def kernel_lines(t: Training, trainer: str) -> list[Line]:
    """Liger's kernels and compiling, where the plan has them."""
    found = choose(t, "kernels", {"transformers": (), "liger": ("use_liger_kernel",),
                                  "compiled": ("torch_compile",)}, trainer)  # fmt: skip
    return [Line(name, True) for name in found]


def checkpointing_lines(t: Training) -> list[Line]:
    """Activation checkpointing; FSDP does it by itself."""
    sharded = t.setup.sharding.startswith("fsdp")
    on = t.setup.checkpointing != "none" and not sharded
    why = "FSDP checkpoints by itself, below." if sharded and t.setup.checkpointing != "none" else ""
    lines = [
        Line("activation_checkpointing", on, why or "Computes activations again, for memory." if on else why)
    ]
    if on:
        lines.append(Line("activation_checkpointing_kwargs", {"use_reentrant": t.setup.sharding == "zero3"}))
    return lines


def sharding_lines(t: Training, trainer: str, deepspeed_file: str) -> list[Line]:
    """How states are spread: nothing for DDP, FSDP's own options, or a DeepSpeed file."""
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), trainer)
    kind = choose(t, "sharding", {"none": "", "ddp": "", "zero1": "ds", "zero2": "ds", "zero3": "ds",
                                  "fsdp": "fsdp"}, trainer)  # fmt: skip
    if kind == "ds":
        return [Line("deepspeed", deepspeed_file, f"{t.setup.sharding} over {t.setup.shards} GPUs.")]
    if kind == "fsdp":
        choose(t, "offload", {"none": False, "all": True}, f"{trainer} under FSDP")
        config: dict[str, Any] = {
            "version": 2, "reshard_after_forward": True, "cpu_offload": t.setup.offload == "all",
            "activation_checkpointing": t.setup.checkpointing != "none", "cpu_ram_efficient_loading": True,
            "state_dict_type": "FULL_STATE_DICT",
        }  # fmt: skip
        return [Line("fsdp", True, f"Sharded over {t.setup.shards} GPUs."), Line("fsdp_config", config)]
    refuse(t, {"offload": "none"}, f"{trainer} without FSDP or DeepSpeed")
    return []


def bits_lines(t: Training, trainer: str) -> list[Line]:
    """How a frozen base is held, by the names of TRL's and others' options."""
    kind = choose(t, "quantize", {"none": "", "nf4": "4", "nf4-double": "4", "int8": "8"}, trainer)
    gathered = t.setup.sharding in ("fsdp", "zero3")
    if kind == "4":
        lines = [
            Line("load_in_4bit", True),
            Line("bnb_4bit_quant_type", "nf4"),
            Line("use_bnb_nested_quant", t.setup.quantize == "nf4-double"),
        ]
        why = "Stored as the other weights are, so that they can be sharded together."
        return [*lines, Line("bnb_4bit_quant_storage", precision(t)[0], why)] if gathered else lines
    if kind == "8" and gathered:
        raise InputError(
            "quantize",
            "int8",
            f"nf4 under {t.setup.sharding}: bitsandbytes' 8 bits cannot be sharded",
            "The nearest is nf4.",
        )
    return [Line("load_in_8bit", True)] if kind == "8" else []
