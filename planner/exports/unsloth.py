"""Unsloth: a Python script with its own loader and TRL's trainer."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from . import data, hf
from .limits import ONE_GPU_WORK, choose, lora_fields, no_dropout, no_head, refuse
from .lines import Code, Line, comment, python_call, python_value
from .trainers import trainer
from .training import Training

NAME = "Unsloth"
FILE = "unsloth_train.py"
HAS = ("rank_pattern", "alpha_pattern", "target_parameters", "modules_to_save", "use_rslora", "use_dora")
PRECISION = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
CHECKPOINTING: dict[str, Any] = {"none": False, "layer": True, "layer-offload": "unsloth"}


def _load(t: Training) -> list[Line]:
    bits = choose(t, "quantize", {"none": "16bit", "nf4-double": "4bit", "int8": "8bit"}, NAME)
    dtype = choose(t, "precision", PRECISION, NAME)
    return [
        Line("model_name", t.model_or_blank),
        Line("max_seq_length", t.setup.seq_len, "The plan's length."),
        Line("dtype", Code(dtype)),
        *(Line(f"load_in_{name}", name == bits, "How the frozen weights are held." if name == bits else "")
          for name in ("4bit", "8bit", "16bit")),
        Line("full_finetuning", False),
        Line("use_gradient_checkpointing", CHECKPOINTING[t.setup.checkpointing]),
        Line("random_state", t.own["seed"]),
        Line("trust_remote_code", bool(t.said.get("trust_remote_code"))),
    ]  # fmt: skip


def _adapter(t: Training) -> list[Line]:
    config = t.peft(HAS)
    lora_fields(config, NAME, HAS)
    no_head(
        t, f"{NAME}'s fused loss reads the weight past an adapter, so it trains these in full or not at all"
    )
    no_dropout(t, config)
    scale = "alpha / sqrt(rank)" if t.spec.use_rslora else "alpha / rank"
    lines = [
        Line("r", t.spec.rank, f"{t.plan.adapter.params:,} parameters. {t.room_text()}".strip()),
        Line("lora_alpha", t.alpha, f"The scale is {scale}; the learning rate below is for it."),
        Line("lora_dropout", float(t.setup.lora_dropout)),
        Line(
            "target_modules", config["target_modules"], "These names match the plan's matrices and no other."
        ),
        Line("bias", "none"),
        Line("use_gradient_checkpointing", CHECKPOINTING[t.setup.checkpointing]),
        Line("random_state", t.own["seed"]),
        Line("use_rslora", bool(config["use_rslora"])),
    ]
    further = ("target_parameters", "modules_to_save", "rank_pattern", "alpha_pattern")
    lines += [Line(name, config[name]) for name in further if config[name]]
    return lines + ([Line("use_dora", True)] if config["use_dora"] else [])


def _data(t: Training) -> list[str]:
    if t.shape is not None:
        return ["", *comment(data.text_of(t.shape)), *data.python_lines(t.shape, NAME)]
    why = "TRL reads a column messages, prompt and completion, or text: rename yours where they differ."
    return [*comment(why), f"data = load_dataset({python_value(t.data_or_blank)}, split='train')"]


def _loss(t: Training) -> list[Line]:
    """What carries loss, as the plan counts."""
    if t.shape is None or t.said.get("loss_on") == "all":
        return []
    if t.shape.format in ("messages", "sharegpt", "alpaca"):
        why = "The chat template must mark the assistant's words, as TRL's own for common families do."
        return [Line("assistant_only_loss", True, why)]
    return [Line("completion_only_loss", True)] if t.shape.format == "prompt-completion" else []


def _trainer(t: Training) -> list[Line]:
    packing = choose(
        t, "packing", {"full": (True, "wrapped"), "packed": (True, "bfd"), "padded": (False, "")}, NAME
    )
    lines = [*hf.batch_lines(t), *hf.rate_lines(t), *hf.length_lines(t)]
    lines.append(Line("max_length", t.setup.seq_len))
    lines.append(Line("packing", packing[0]))
    if packing[0]:
        lines.append(Line("packing_strategy", packing[1]))
    lines += _loss(t)
    half = t.setup.precision
    lines += [Line("bf16", half == "bf16"), Line("fp16", half == "fp16"), *hf.tf32_lines(t)]
    why = "The trainer's own word stands before get_peft_model's, until July 2026 and where it is True."
    lines.append(Line("gradient_checkpointing", t.setup.checkpointing != "none", why))
    return [*lines, Line("seed", t.own["seed"]), Line("output_dir", t.own["out"])]


def export(t: Training) -> dict[str, str]:
    """unsloth_train.py."""
    if t.task == "rl":
        raise InputError("target", "unsloth", "a plan of supervised training", "The nearest is trl-grpo.")
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), NAME)
    choose(t, "precision", PRECISION, NAME)
    refuse(t, {"offload": "none", "autocast": True}, NAME)
    choose(t, "sharding", {"none": 0, "ddp": 1}, NAME)
    choose(t, "kernels", {"unsloth": 0}, NAME)
    workers = "" if t.setup.gpus == 1 else f"torchrun --nproc_per_node {t.setup.gpus} "
    head = t.header(NAME, trainer("unsloth").label, f"{workers or 'python '}{FILE}")
    out = [line for text in head for line in comment(text)]
    out += [
        "", "import unsloth  # noqa: F401  (patches the libraries below: it comes first)", "import torch",
        "from datasets import load_dataset", "from trl import SFTConfig, SFTTrainer",
        "from unsloth import FastLanguageModel", "",
    ]  # fmt: skip
    out += python_call("model, tokenizer = FastLanguageModel.from_pretrained", _load(t))
    out += [
        "",
        *python_call("model = FastLanguageModel.get_peft_model", [Line("", Code("model")), *_adapter(t)]),
    ]
    out += ["", *_data(t), ""]
    out += python_call("args = SFTConfig", _trainer(t))
    out += [
        "SFTTrainer(model=model, processing_class=tokenizer, train_dataset=data, args=args).train()",
        f"model.save_pretrained({python_value(t.own['out'])})",
    ]
    return {FILE: "\n".join(out) + "\n"}
