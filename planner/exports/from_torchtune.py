"""What torchtune's YAML says, as options of an estimate and of an export."""

from __future__ import annotations

import os
from typing import Any

from .. import facts
from ..errors import InputError
from ..schema import Notice
from . import torchtune
from .full import of_full
from .reading import Fields
from .stages import objective
from .trainers import trainer

ATTENTION = {theirs: ours for ours, theirs in torchtune.ATTENTION.items()}
MLP = ("gate_proj", "up_proj", "down_proj")
OPTIM = {
    "AdamW": "adamw", "Adam": "adamw", "AdamW8bit": "adamw-8bit", "PagedAdamW": "paged-adamw",
    "PagedAdamW8bit": "paged-adamw-8bit", "SGD": "sgd", "Adafactor": "adafactor", "Lion": "lion",
}  # fmt: skip
LENGTH = 2048


def _component(section: Fields) -> str:
    """The last part of a component's name: llama3_1.lora_llama3_1_8b is lora_llama3_1_8b."""
    return str(section.text("_component_", "")).rsplit(".", 1)[-1]


def _by_folder(folder: Any) -> str | None:
    """The model that a folder of weights is named after."""
    name = torchtune.plain(os.path.basename(str(folder or "").rstrip("/")))
    found = [each for each in facts.model_ids() if torchtune.plain(each.rsplit("/", 1)[-1]) == name]
    return found[0] if name and len(found) == 1 else None


def model_of(builder: str, folder: Any) -> str:
    """The model of a config, by its folder of weights, or by its builder. Raises InputError."""
    named = _by_folder(folder)
    if named is not None:
        return named
    base = builder.removeprefix("q").removeprefix("lora_") if "lora_" in builder else builder
    for entry in trainer("torchtune").extra["models"].values():
        if entry["builder"].rsplit(".", 1)[-1].removeprefix("lora_") == base:
            return str(entry["hub"])
    raise InputError(
        "model", builder, "a builder of torchtune's own recipes, or a checkpoint_dir named after the model"
    )


def _targets(model: Fields) -> list[str]:
    attention = model.names("lora_attn_modules") or []
    unknown = next((name for name in attention if name not in ATTENTION), None)
    if unknown is not None:
        raise InputError("lora_attn_modules", unknown, f"names among {', '.join(ATTENTION)}")
    found = [ATTENTION[name] for name in attention]
    found += MLP if model.flag("apply_lora_to_mlp") else ()
    found += ["lm_head"] if model.flag("apply_lora_to_output") else []
    if not found:
        raise InputError("lora_attn_modules", None, "modules that the adapter is on")
    return found


def _adapter(model: Fields, builder: str) -> dict[str, Any]:
    """The adapter, with torchtune's own values where the file has none."""
    return {
        "rank": model.whole("lora_rank", 8), "alpha": model.number("lora_alpha", 16), "targets": _targets(model),
        "variant": "dora" if model.flag("use_dora") else "lora", "lora_dropout": model.number("lora_dropout", 0.0),
        "quantize": "nf4-double" if builder.startswith("qlora_") or model.flag("quantize_base") else "none",
        "experts": "peft",
    }  # fmt: skip


def _optimizer(f: Fields) -> tuple[str, Fields]:
    section = Fields(f.mapping("optimizer"))
    name = _component(section)
    found = OPTIM.get(name)
    if found is None:
        text = f"optimizer: the plan has no {name[:60] or 'unnamed one'}; memory and time are those of adamw."
        f.notices.append(Notice("not-planned", text))
    momentum = found == "sgd" and bool(section.number("momentum", 0.0))
    return ("sgd-momentum" if momentum else found or "adamw"), section


def _stage(f: Fields) -> str:
    """What is learnt, by the loss."""
    loss = str(f.mapping("loss").get("_component_", ""))
    name = loss.rsplit(".", 1)[-1]
    if "rlhf" not in loss:
        return "distillation" if f.any("kd_loss") or f.any("teacher_model") else "sft"
    return {"DPOLoss": "dpo", "PPOLoss": "ppo"}.get(name, name)


def _precision(f: Fields) -> str:
    return str(f.word("dtype", {"bf16": "bf16", "fp32": "fp32", "fp16": "fp16"}, "bf16"))


def _step(f: Fields, gpus: int) -> dict[str, Any]:
    micro, accumulation = f.whole("batch_size", 1), f.whole("gradient_accumulation_steps", 1)
    offload = "all" if f.flag("fsdp_cpu_offload") else "none"
    parallel = f.whole("tensor_parallel_dim", 1)
    if gpus == 1 and parallel > 1:
        f.notices.append(
            Notice("gpus-assumed", f"{parallel} GPUs share every matrix: no more are taken; give --gpus.")
        )
        gpus = parallel
    checkpoints = f.flag("enable_activation_checkpointing")
    away = f.flag("enable_activation_offloading")
    return {
        "batch": micro * accumulation * max(1, gpus // parallel), "accumulation": accumulation, "gpus": gpus,
        "precision": _precision(f), "autocast": False, "attention_kernel": "sdpa",
        "checkpointing": ("layer-offload" if away else "layer") if checkpoints else "none",
        "kernels": "compiled" if f.any("compile") not in (None, False) else "transformers",
        **({"tensor_parallel": parallel} if parallel > 1 else {}),
        **({"sharding": "fsdp", "offload": offload} if gpus > 1 else {}),
    }  # fmt: skip


def _length(f: Fields) -> int:
    found: int | None = Fields(f.mapping("tokenizer")).whole("max_seq_len")
    if found is None:
        text = f"No max_seq_len: samples are as long as they are, and {LENGTH:,} tokens are taken; give --seq-len."
        f.notices.append(Notice("length-assumed", text))
    return found or LENGTH


def from_torchtune(f: Fields, gpus: int, model_type: Any, read: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """torchtune. Defaults are those of its recipes and builders."""
    del model_type, read
    model, checkpointer = Fields(f.mapping("model")), Fields(f.mapping("checkpointer"))
    builder = _component(model)
    if "optimizer" not in f.data:
        raise InputError(
            "optimizer", None, "a recipe that trains: this one evaluates, generates or quantises"
        )
    full = "lora_" not in builder
    optimizer, section = _optimizer(f)
    dataset = f.any("dataset")
    first = Fields(dataset[0] if isinstance(dataset, list) and dataset else dataset or {})
    stage = _stage(f)
    epochs = f.number("epochs", 1)
    request: dict[str, Any] = {
        "model": model_of(builder, checkpointer.any("checkpoint_dir")), **({} if full else _adapter(model, builder)),
        **_step(f, gpus), "optimizer": optimizer, "epochs": max(1, round(epochs)), "seq_len": _length(f),
        "packing": "packed" if first.flag("packed") else "padded",
    }  # fmt: skip
    in_backward = f.flag("optimizer_in_bwd")
    if full:
        request["optimizer_in_backward"] = in_backward
    request.update(objective(f, stage, None, {}))
    for name in (
        "device",
        "resume_from_checkpoint",
        "log_peak_memory_stats",
        "shuffle",
        "metric_logger",
        "profiler",
    ):
        f.any(name)
    schedule = str(f.mapping("lr_scheduler").get("_component_", ""))
    return of_full(request) if full else request, {
        "stage": stage, "full": full, "lr": section.number("lr"), "weight_decay": section.number("weight_decay", 0.0),
        "schedule": "cosine" if "cosine" in schedule else "constant", "epochs_given": epochs,
        "warmup": f.mapping("lr_scheduler").get("num_warmup_steps"), "seed": f.whole("seed", None, 0),
        "train_data": first.text("source"),
    }  # fmt: skip
