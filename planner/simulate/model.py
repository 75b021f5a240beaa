"""The model that is to be trained, on the meta device: weights in their types, adapter, what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..adapter import AdapterSpec, adapt
from ..adapter.whole import trained_whole
from ..architecture.build import build
from ..architecture.meta.model import build_model, quietly
from ..exports.peft import lora_config
from ..setup import Setup


def dtype_of(name: str) -> Any:
    """torch's type of this name."""
    return getattr(torch, name)


# Model types that transformers has under another name.
AS_TYPE = {"kimi_k2": "deepseek_v3"}


def make(config: Mapping[str, Any], spec: AdapterSpec | None, setup: Setup) -> Any:
    """The model with its adapter, in training mode; frozen where it is frozen."""
    named = {**config, "model_type": AS_TYPE.get(str(config.get("model_type")), config.get("model_type"))}
    model = build_model(named)
    with quietly():
        model.requires_grad_(True)
        hold(model, dtype_of(setup.weight_dtype))
        model.config.get_text_config().use_cache = False
        choose_attention(model, setup)
        if setup.method != "full":
            model = _frozen(model, config, spec or AdapterSpec(), setup)
        if setup.needs_input_grads:
            model.enable_input_require_grads()
    return model.train()


def hold(model: Any, dtype: Any) -> None:
    """Parameters in their type, but for those that the library keeps in float32; buffers stay as they are."""
    strict = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    half = tuple(getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    for name, parameter in model.named_parameters():
        kept = any(word in name for word in (*strict, *half))
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)


def choose_attention(model: Any, setup: Setup) -> None:
    """The attention implementation asked for, or the eager one where the model has no other."""
    if setup.attention_kernel == "eager":
        return
    try:
        model.set_attn_implementation("sdpa")
    except (ValueError, ImportError):
        model.set_attn_implementation("eager")


def _frozen(model: Any, config: Mapping[str, Any], spec: AdapterSpec, setup: Setup) -> Any:
    """The model with an adapter on frozen weights, quantised where they are."""
    from peft import LoraConfig, get_peft_model

    model.requires_grad_(False)
    if setup.quantize != "none":
        from .quantised import quantise

        quantise(model, setup)
    if setup.upcast_small:
        for parameter in model.parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.to(torch.float32)
    arch = build(config)
    adapted = adapt(arch, spec)
    fields = lora_config(arch, spec, adapted, trained_whole(arch, spec, adapted), config, None)
    fields.update(lora_dropout=setup.lora_dropout, init_lora_weights=False, task_type=None)
    with torch.device("meta"):
        found = get_peft_model(model, LoraConfig(**fields))
    if setup.quantize != "none":
        from .quantised import adapt_quantised

        adapt_quantised(found, setup)
    wanted = dtype_of(setup.trained_dtype)
    for parameter in found.parameters():
        if parameter.requires_grad and parameter.dtype != wanted:
            parameter.data = parameter.data.to(wanted)
    return found
