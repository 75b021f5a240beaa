"""What TRL's and LLaMA-Factory's YAML say, as options of an estimate and of an export."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from . import hf, llamafactory
from .full import of_full
from .reading import Fields
from .stages import LLAMAFACTORY, objective
from .trainers import trainer

OPTIM = {
    **{theirs: ours for ours, theirs in hf.OPTIM.items() if ours != "sgd-momentum"},
    "adamw_torch": "adamw", "adamw_hf": "adamw", "adamw_apex_fused": "adamw", "adamw_bnb_8bit": "adamw-8bit",
    "adamw_torch_8bit": "adamw-8bit", "paged_adamw": "paged-adamw", "lion": "lion", "muon": "muon",
}  # fmt: skip
ATTENTION = {
    **{theirs: ours for ours, theirs in hf.ATTENTION.items()},
    "flash_attention_3": "flash", "flash_attention": "flash",
    "kernels-community/flash-attn2": "flash", "kernels-community/flash-attn3": "flash",
    "kernels-community/vllm-flash-attn3": "flash", "xformers": "sdpa",
}  # fmt: skip
ZERO = {1: "zero1", 2: "zero2", 3: "zero3"}


def steps(f: Fields, gpus: int, usual_batch: int) -> dict[str, Any]:
    """Batch and accumulation, of all GPUs."""
    micro = f.whole("per_device_train_batch_size", usual_batch)
    accumulation = f.whole("gradient_accumulation_steps", 1)
    return {"batch": micro * accumulation * gpus, "accumulation": accumulation, "gpus": gpus}


def sharding(f: Fields, gpus: int, read: Any = None) -> dict[str, Any]:
    """How states are spread: a DeepSpeed file or mapping, FSDP, or DDP on several GPUs."""
    deep, fsdp = f.any("deepspeed"), f.any("fsdp")
    config = f.mapping("fsdp_config") if not isinstance(f.any("fsdp_config"), str) else {}
    if deep:
        found = read(deep) if isinstance(deep, str) and read is not None else deep
        zero = found.get("zero_optimization", {}) if isinstance(found, dict) else {}
        stage = zero.get("stage")
        if stage is None and isinstance(deep, str):
            stage = next((n for n in (3, 2, 1, 0) if f"{n}" in str(deep).rsplit("/", 1)[-1]), None)
        if stage == 0:
            return {"sharding": "ddp", "offload": "none"} if gpus > 1 else {}
        if stage not in ZERO:
            raise InputError("deepspeed", str(deep)[:80], "a config of ZeRO stage 0, 1, 2 or 3")
        states, params = ("offload_optimizer" in zero), ("offload_param" in zero)
        offload = {(0, 0): "none", (1, 0): "optimizer", (0, 1): "parameters", (1, 1): "all"}[states, params]
        return {"sharding": ZERO[stage], "offload": offload}
    if fsdp or config.get("fsdp_version") or config.get("reshard_after_forward") is not None:
        offloads = config.get("cpu_offload") or config.get("offload_params") or "offload" in str(fsdp)
        return {"sharding": "fsdp", "offload": "all" if offloads else "none"}
    return {"sharding": "ddp", "offload": "none"} if gpus > 1 else {}


def fsdp_checkpoints(f: Fields) -> bool:
    """Whether FSDP computes activations again."""
    config = f.any("fsdp_config")
    return isinstance(config, dict) and bool(config.get("activation_checkpointing"))


def rate(
    f: Fields, usual_lr: float, usual_schedule: str = "linear", usual_epochs: float = 3.0
) -> dict[str, Any]:
    """What says how the rate moves, and how long."""
    optimizer = f.word_or("optim", OPTIM, "adamw_torch_fused", "adamw")
    arguments = f.any("optim_args")
    if optimizer == "sgd" and "momentum" in str(arguments):
        optimizer = "sgd-momentum"
    epochs = f.number("num_train_epochs", usual_epochs)
    if epochs <= 0:
        raise InputError("num_train_epochs", epochs, "a number above 0")
    return {
        "lr": f.number("learning_rate", usual_lr),
        "schedule": f.text("lr_scheduler_type", usual_schedule),
        "warmup": f.number("warmup_steps", 0) or f.number("warmup_ratio", 0),
        "max_steps": f.whole("max_steps", None, -1),
        "weight_decay": f.number("weight_decay", 0.0),
        "optimizer": optimizer,
        "epochs": max(1, round(epochs)),
        "epochs_given": epochs,
    }


def targets(found: list[str] | None, model_type: str | None) -> dict[str, Any]:
    """Modules as PEFT reads them: a list, all-linear, a regular expression, or its own choice for the model."""
    if found is None:
        known: dict[str, list[str]] = trainer("peft").extra["default_targets"]
        if model_type not in known:
            raise InputError(
                "targets", None, f"names of modules: PEFT has no choice of its own for {model_type}"
            )
        return {"targets": known[str(model_type)]}
    if len(found) == 1 and found[0].lower() == "all-linear":
        return {"layers": "all-linear"}
    if len(found) == 1 and any(c in found[0] for c in "*+?^$()[]|\\"):
        return {"target_regex": found[0]}
    return {"targets": found}


def _precision(dtype: str, bf16: bool, fp16: bool) -> dict[str, Any]:
    for (precision, autocast), said in hf.PRECISION.items():
        if said == (dtype, bf16, fp16) and not (precision == "autocast" and autocast):
            return {"precision": precision, "autocast": autocast}
    raise InputError("dtype", f"{dtype}, bf16 {bf16}, fp16 {fp16}", "a precision that the plan has")


def _checkpointing(f: Fields) -> str:
    """TRL checkpoints unless told otherwise; the newer name decides where both stand."""
    on = f.flag("activation_checkpointing", f.flag("gradient_checkpointing", True)) or fsdp_checkpoints(f)
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        f.any(name)
    if not on:
        return "none"
    return "layer-offload" if f.flag("activation_offloading") else "layer"


def _quantize(f: Fields) -> str:
    if f.flag("load_in_8bit"):
        return "int8"
    f.text("bnb_4bit_quant_storage")
    nested, kind = f.flag("use_bnb_nested_quant"), f.text("bnb_4bit_quant_type", "nf4")
    if not f.flag("load_in_4bit"):
        return "none"
    if kind != "nf4":
        raise InputError("bnb_4bit_quant_type", kind, "nf4; the plan has no other of 4 bits")
    return "nf4-double" if nested else "nf4"


def _lengths(f: Fields) -> dict[str, Any]:
    """Tokens of a completion; of the prompt too where vLLM's own length leaves room for one."""
    completion, whole = f.whole("max_completion_length", 512), f.whole("vllm_max_model_length")
    if whole is None or whole <= completion:
        return {"seq_len": completion}
    return {"seq_len": whole, "prompt_tokens": whole - completion}


def _engine(f: Fields) -> dict[str, Any]:
    """Who makes GRPO's completions; the share that vLLM takes is TRL's own where it is not said."""
    if not f.flag("use_vllm"):
        return {"generation": "transformers"}
    if f.text("vllm_mode", "colocate") == "server":
        return {"generation": "server"}
    share = f.number("vllm_gpu_memory_utilization", 0.3)
    together = f.whole("vllm_tensor_parallel_size", 1)
    return {
        "generation": "colocate", "vllm_memory": share, "vllm_sleep": f.flag("vllm_enable_sleep_mode"),
        "vllm_tensor_parallel": together,
    }  # fmt: skip


def from_trl(f: Fields, gpus: int, model_type: Any, read: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """TRL's script. Defaults are those of its dataclasses."""
    grpo = bool({"reward_funcs", "num_generations", "max_completion_length"} & set(f.data))
    adapter = f.flag("use_peft")
    model = f.text("model_name_or_path")
    dtype = f.text("dtype", f.text("torch_dtype", "float32"))
    fp16 = f.flag("fp16")
    bf16 = f.flag("bf16", not fp16)
    said = rate(f, 1e-6 if grpo else 2e-5)
    packing = f.flag("packing")
    strategy = f.text("packing_strategy", "bfd")
    kernels = (
        "liger" if f.flag("use_liger_kernel") else "compiled" if f.flag("torch_compile") else "transformers"
    )
    request: dict[str, Any] = {
        "model": model, "rank": f.whole("lora_r", 16), "alpha": f.number("lora_alpha", 32), "experts": "peft",
        **(targets(f.names("lora_target_modules"), model_type(model)) if adapter else {}),
        "target_parameters": f.names("lora_target_parameters"), "modules_to_save": f.names("lora_modules_to_save"),
        "use_rslora": f.flag("use_rslora"), "variant": "dora" if f.flag("use_dora") else "lora",
        "lora_dropout": f.number("lora_dropout", 0.05), **steps(f, gpus, 8),
        "epochs": said["epochs"], "optimizer": said["optimizer"],
        "packing": "padded" if not packing else "full" if strategy == "wrapped" else "packed",
        **_precision(dtype if dtype != "auto" else "bfloat16", bf16, fp16), "tf32": f.flag("tf32"),
        "checkpointing": _checkpointing(f), "quantize": _quantize(f), "kernels": kernels,
        "attention_kernel": f.word_or("attn_implementation", ATTENTION, "sdpa", "sdpa"), **sharding(f, gpus, read),
        "trust_remote_code": f.flag("trust_remote_code"),
    }  # fmt: skip
    f.text("lora_task_type")
    own = {**_own(said, f, 42), "train_data": f.text("dataset_name") or _mixture(f), "full": not adapter}
    if grpo:
        own["group"] = f.whole("num_generations", 8)
        for name in ("temperature", "reward_funcs"):
            f.any(name)
        request.update(
            **_lengths(f), packing="padded", objective="grpo", group=own["group"],
            reference="base" if f.number("beta", 0.0) else "none",
            **_engine(f),
        )  # fmt: skip
    else:
        request["seq_len"] = f.whole("max_length", 1024)
    return request if adapter else of_full(request), own


def _mixture(f: Fields) -> str | None:
    """The file, or the hub id, of a mixture of one."""
    found = f.any("datasets")
    for name in ("assistant_only_loss", "completion_only_loss", "dataset_text_field"):
        f.any(name)  # what follows from the data's format, and what of it carries loss
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        return None
    place = found[0].get("data_files") or found[0].get("path")
    return place if isinstance(place, str) else None


def _own(said: dict[str, Any], f: Fields, seed: int) -> dict[str, Any]:
    keys = ("lr", "schedule", "warmup", "max_steps", "weight_decay", "epochs_given")
    return {
        **{key: said[key] for key in keys}, "seed": f.whole("seed", seed, 0), "out": f.text("output_dir"),
    }  # fmt: skip


def _llamafactory_bits(f: Fields) -> str:
    bits = f.whole("quantization_bit")
    f.text("quantization_method")
    kind, double = f.text("quantization_type", "nf4"), f.flag("double_quantization", True)
    if bits not in (None, 4, 8) or (bits == 4 and kind != "nf4"):
        raise InputError("quantization_bit", f"{bits} ({kind})", "4 (nf4) or 8; the plan has no other")
    return {None: "none", 4: "nf4-double" if double else "nf4", 8: "int8"}[bits]


def from_llamafactory(
    f: Fields, gpus: int, model_type: Any, read: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """LLaMA-Factory. Defaults are those of its dataclasses."""
    del model_type
    kind, stage = f.text("finetuning_type", "lora"), f.text("stage", "sft")
    if kind not in ("lora", "full"):
        raise InputError("finetuning_type", kind, "lora or full; the plan has no other")
    f.any("do_train")
    rank = f.whole("lora_rank", 8)
    names = [name.strip() for name in str(f.text("lora_target", "all")).split(",") if name.strip()]
    pure, bf16, fp16 = f.flag("pure_bf16"), f.flag("bf16"), f.flag("fp16")
    said = rate(f, 5e-5)
    neat, packing = f.flag("neat_packing"), f.flag("packing", stage == "pt")
    saved = f.text("additional_target")
    precision = (
        ("bf16", False) if pure else ("bf16", True) if bf16 else ("fp16", True) if fp16 else ("fp32", False)
    )
    off = f.flag("disable_gradient_checkpointing")
    kernels = {"use_unsloth": "unsloth", "enable_liger_kernel": "liger", "torch_compile": "compiled"}
    theirs = {value: key for key, value in llamafactory.ATTENTION.items()}
    f.any("use_reentrant_gc")
    request: dict[str, Any] = {
        "model": f.text("model_name_or_path"), "rank": rank, "alpha": f.number("lora_alpha", 2 * rank),
        "experts": "peft", **({"layers": "all-linear"} if names == ["all"] else {"targets": names}),
        "modules_to_save": saved.split(",") if saved else None, "use_rslora": f.flag("use_rslora"),
        "variant": "dora" if f.flag("use_dora") else "lora", "lora_dropout": f.number("lora_dropout", 0.0),
        **steps(f, gpus, 8), "epochs": said["epochs"], "optimizer": said["optimizer"],
        "packing": "packed" if neat else "full" if packing else "padded", "precision": precision[0],
        "tf32": f.flag("tf32"), "autocast": precision[1],
        "checkpointing": "none" if off and not fsdp_checkpoints(f) else "layer",
        "quantize": _llamafactory_bits(f),
        "kernels": next((ours for name, ours in kernels.items() if f.flag(name)), "transformers"),
        "attention_kernel": f.word_or("flash_attn", {**theirs, "auto": "sdpa", "fa3": "flash"}, "auto", "sdpa"),
        "seq_len": f.whole("cutoff_len", 2048), **sharding(f, gpus, read),
        "trust_remote_code": f.flag("trust_remote_code"),
    }  # fmt: skip
    for name in ("template", "overwrite_cache", "report_to", "train_on_prompt", "pref_beta", "pref_ftx"):
        f.any(name)
    asked = f.text("pref_loss", "sigmoid") if stage == "dpo" else None
    found = LLAMAFACTORY.get((stage, asked))
    request.update(objective(f, stage if asked in (None, "sigmoid") else asked, found, {"loss": "full"}))
    own = {**_own(said, f, 42), "train_data": _described(f, read), "stage": stage, "full": kind == "full"}
    if kind == "lora":
        return request, own
    upcast = "autocast" if bf16 and not pure and request.get("sharding", "")[:4] != "zero" else precision[0]
    return of_full({**request, "precision": upcast}), own


def _described(f: Fields, read: Any) -> str | None:
    """The data set's name, or the file that dataset_info.json says it is, where that lies beside the config."""
    name: str | None = f.text("dataset")
    folder = f.any("dataset_dir")
    if folder != ".":
        return name
    entry = (read(llamafactory.INFO) or {}).get(name)
    place = entry.get("file_name") or entry.get("hf_hub_url") if isinstance(entry, dict) else None
    return place if isinstance(place, str) else name
