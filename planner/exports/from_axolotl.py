"""What Axolotl's YAML says, as options of an estimate and of an export."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .from_hf import ATTENTION, OPTIM, fsdp_checkpoints, sharding, targets
from .full import of_full
from .reading import Fields
from .stages import AXOLOTL, objective

# Switches that attn_implementation replaced.
OLD_ATTENTION = {"flash_attention": "flash", "sdp_attention": "sdpa", "xformers_attention": "sdpa",
                 "eager_attention": "eager"}  # fmt: skip


def _attention(f: Fields) -> str:
    old = [ours for name, ours in OLD_ATTENTION.items() if f.flag(name)]
    found: str = f.word_or("attn_implementation", ATTENTION, "sdpa", "sdpa")
    return found if f.data.get("attn_implementation") else (old or ["sdpa"])[0]


def _precision(f: Fields) -> tuple[str, bool]:
    """Precision and autocast, as Axolotl settles them on a GPU that has bfloat16."""
    said = {name: f.any(name) for name in ("bf16", "bfloat16", "fp16", "float16", "float32", "tf32")}
    on = {name for name, value in said.items() if value in (True, "auto", "full", "true")}
    if said["bf16"] == "full":
        return "bf16", False
    automatic = "bf16" not in f.data or said["bf16"] == "auto"
    if "fp16" in on and (automatic or "bf16" not in on):
        return "fp16", True
    if automatic or on & {"bf16", "bfloat16"}:
        return "bf16", True
    return ("fp16", False) if "float16" in on else ("fp32", False)


def _targets(f: Fields) -> dict[str, Any]:
    names, linear = f.names("lora_target_modules"), f.flag("lora_target_linear")
    if linear and names and "target_regex" in targets(names, None):
        raise InputError("lora_target_linear", True, "no expression beside it: the plan has one of the two")
    if linear:
        return {"layers": "all-linear", **({"targets": names} if names else {})}
    if names is None and f.data.get("lora_target_parameters") is None:
        raise InputError("lora_target_modules", None, "names of modules, or lora_target_linear: true")
    return targets(names, None) if names else {}


def _quantize(f: Fields) -> str:
    four, eight = f.flag("load_in_4bit"), f.flag("load_in_8bit")
    double = f.mapping("bnb_config_kwargs").get("bnb_4bit_use_double_quant", True)
    if eight:
        return "int8"
    return ("nf4-double" if double else "nf4") if four else "none"


def _checkpointing(f: Fields) -> str:
    value, offload = f.any("gradient_checkpointing", False), f.any("activation_offloading", False)
    f.any("gradient_checkpointing_kwargs")
    if not (value or fsdp_checkpoints(f)):
        return "none"
    return "layer-offload" if offload or str(value).startswith("offload") else "layer"


def _kernels(f: Fields) -> str | None:
    """Whose code runs; None where Axolotl decides (check_auto_enable_lora_kernels)."""
    liger = [name for name in f.data if name.startswith("liger_")]
    for name in liger:
        f.any(name)
    plugins = f.names("plugins") or []
    if any("liger" in name.lower() for name in plugins) and liger:
        return "liger"
    if f.flag("torch_compile"):
        return "compiled"
    asked = [f.any(name) for name in ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")]
    asked = [value for value in asked if value is not None]
    return ("pairs" if any(asked) else "transformers") if asked else None


def _data(f: Fields) -> str | None:
    found = f.any("datasets")
    if isinstance(found, list) and found and isinstance(found[0], dict):
        files = found[0].get("data_files")
        place = files if isinstance(files, str) else found[0].get("path")
        return str(place) if place else None
    return None


def from_axolotl(f: Fields, gpus: int, model_type: Any, read: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Axolotl. Defaults are those of its schema."""
    del model_type
    kind = f.text("adapter")
    if kind not in (None, "", "lora", "qlora"):
        raise InputError("adapter", kind, "lora, qlora, or nothing for full fine-tuning")
    if not kind and f.data.get("unfrozen_parameters"):
        raise InputError(
            "unfrozen_parameters", f.data["unfrozen_parameters"], "nothing: the plan trains all or an adapter"
        )
    micro, accumulation = f.whole("micro_batch_size", 1), f.whole("gradient_accumulation_steps", 1)
    precision = _precision(f)
    packing = f.flag("sample_packing")
    epochs = f.number("num_epochs", 1.0)
    optimizer = f.word_or("optimizer", {**OPTIM, "muon": "muon"}, "adamw_torch_fused", "adamw")
    if optimizer == "sgd" and "momentum" in str(f.any("optim_args")):
        optimizer = "sgd-momentum"
    layers = f.any("peft_layers_to_transform")
    request: dict[str, Any] = {
        "model": f.text("base_model"), "rank": f.whole("lora_r", 8), "alpha": f.number("lora_alpha", 8),
        "experts": "peft", **(_targets(f) if kind else {}), "target_parameters": f.names("lora_target_parameters"),
        "modules_to_save": f.names("lora_modules_to_save"), "rank_pattern": f.mapping("lora_rank_pattern") or None,
        "alpha_pattern": f.mapping("lora_alpha_pattern") or None, "layers_to_transform": layers,
        "use_rslora": f.flag("peft_use_rslora"), "variant": "dora" if f.flag("peft_use_dora") else "lora",
        "lora_dropout": f.number("lora_dropout", 0.0), "batch": micro * accumulation * gpus,
        "accumulation": accumulation, "gpus": gpus, "epochs": max(1, round(epochs)), "optimizer": optimizer,
        "packing": "packed" if packing else "padded", "precision": precision[0], "autocast": precision[1],
        "tf32": f.any("tf32") in (True, "auto", "true"),
        "checkpointing": _checkpointing(f), "quantize": _quantize(f), "kernels": _kernels(f),
        "attention_kernel": _attention(f), "seq_len": f.whole("sequence_len", 512), **sharding(f, gpus, read),
        "trust_remote_code": f.flag("trust_remote_code"),
    }  # fmt: skip
    for name in (
        "fsdp_version",
        "pad_to_sequence_len",
        "eval_sample_packing",
        "val_set_size",
        "excess_length_strategy",
    ):
        f.any(name)
    stage = f.text("rl") or ("reward" if f.flag("reward_model") else "sft")
    request.update(objective(f, stage, AXOLOTL.get(stage), {}))
    return request if kind else of_full(request), {
        "stage": stage, "full": not kind,
        "lr": f.number("learning_rate"), "schedule": f.text("lr_scheduler", "cosine"),
        "warmup": f.number("warmup_steps", 0) or f.number("warmup_ratio", 0),
        "max_steps": f.whole("max_steps", None, -1),
        "weight_decay": f.number("weight_decay", 0.0), "epochs_given": epochs, "seed": f.whole("seed", 42, 0),
        "out": f.text("output_dir"), "train_data": _data(f),
    }  # fmt: skip
