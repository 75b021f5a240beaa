"""The model that is to be trained, on the meta device: weights in their types, adapter, what is trained."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from ..adapter import AdapterSpec, adapt
from ..adapter.whole import trained_whole
from ..architecture.build import build
from ..architecture.meta.model import build_model
from ..exports.peft import lora_config
from ..setup import Setup


def dtype_of(name: str) -> Any:
    """torch's type of this name."""
    return getattr(torch, name)


def make(config: Mapping[str, Any], spec: AdapterSpec | None, setup: Setup) -> Any:
    """The model with its adapter, in training mode; frozen where it is frozen."""
    model = build_model(config)
    model.requires_grad_(True)
    _hold(model, dtype_of(setup.weight_dtype))
    model.config.use_cache = False
    if setup.method == "full":
        return model.train()
    return _with_adapter(model, config, spec or AdapterSpec(), setup).train()


def _hold(model: Any, dtype: Any) -> None:
    """Parameters in their type, but for those that the library keeps in float32; buffers stay as they are."""
    strict = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    half = tuple(getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    for name, parameter in model.named_parameters():
        kept = any(word in name for word in (*strict, *half))
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)


def _with_adapter(model: Any, config: Mapping[str, Any], spec: AdapterSpec, setup: Setup) -> Any:
    from peft import LoraConfig, get_peft_model

    arch = build(config)
    adapted = adapt(arch, spec)
    fields = lora_config(arch, spec, adapted, trained_whole(arch, spec, adapted), config, None)
    fields.update(lora_dropout=setup.lora_dropout, init_lora_weights=False, task_type=None)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        found = get_peft_model(
            model, LoraConfig(**fields), autocast_adapter_dtype=setup.trained_dtype == "float32"
        )
    wanted = dtype_of(setup.trained_dtype)
    for parameter in found.parameters():
        if parameter.requires_grad and parameter.dtype != wanted:
            parameter.data = parameter.data.to(wanted)
    return found
