"""Models with random weights on a GPU, as transformers, PEFT and bitsandbytes make them, for `tools/gpu_steps.py`."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.utils.checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.initialization import no_init_weights

from .gpu_cases import Case

MODELS = Path(__file__).resolve().parent.parent / "data" / "models"
DTYPES = {"fp32": torch.float32, "autocast": torch.float32, "fp16": torch.float16}


def config_of(case: Case) -> Any:
    """The published config, with the case's changes."""
    text = (MODELS / f"{case.model.replace('/', '__')}.json").read_text(encoding="utf-8")
    said = json.loads(text)
    said.pop("quantization_config", None)
    config = AutoConfig.for_model(said.pop("model_type"), **said)
    for name, value in case.changes.items():
        setattr(config.get_text_config(), name, value)
    if getattr(config, "layer_types", None) and "num_hidden_layers" in case.changes:
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    config.use_cache = config.get_text_config().use_cache = False
    return config


def model_of(case: Case, config: Any, device: str) -> Any:
    """The model on the device, ready for a bare loop."""
    options = case.options
    base = base_of(case, config, device)
    base.train()
    if options["method"] == "qlora":
        from peft import prepare_model_for_kbit_training

        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    model = base if options["method"] == "full" else _adapted(case, base)
    if options.get("checkpointing", "none") == "layer":
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif options.get("checkpointing") == "layer-offload":
        base._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=_offloaded)
    if options.get("checkpointing", "none") != "none" and options["method"] != "full":
        base.enable_input_require_grads()
    if options.get("loss") == "chunked":
        _liger_loss(base)
    return model.train()


def base_of(case: Case, config: Any, device: str) -> Any:
    """The base alone."""
    options = case.options
    dtype = DTYPES.get(options.get("precision", "bf16"), torch.bfloat16)
    attention = options.get("attention_kernel", "sdpa")
    if options["method"] == "qlora":
        return _quantised(options["quantize"], config, dtype, attention, device)
    with torch.device(device), _quietly():
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=_kind(config, attention)
        )


def _kind(config: Any, attention: str) -> str:
    """Attention's implementation: eager where the model has no SDPA."""
    with torch.device("meta"), no_init_weights(), _quietly():
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return attention if model._supports_sdpa else "eager"


def bits_of(quantize: str) -> BitsAndBytesConfig:
    """bitsandbytes' settings."""
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=quantize == "nf4-double",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip


def _quantised(quantize: str, config: Any, dtype: Any, attention: str, device: str) -> Any:
    """A model that bitsandbytes holds, put there by transformers' own loader from weights in memory."""
    with torch.device(device), _quietly():
        source = AutoModelForCausalLM.from_config(config, dtype=dtype)
    weights = source.state_dict()
    if config.get_text_config().tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    kind = type(source)
    del source
    with _quietly():
        return kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, attn_implementation=_kind(config, attention),
            quantization_config=bits_of(quantize), device_map={"": device},
        )  # fmt: skip


def trained(model: Any) -> list[Any]:
    """The parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def lora_of(case: Case) -> Any:
    """PEFT's settings of a case."""
    from peft import LoraConfig

    options = case.options
    targets: Any = "all-linear"
    if options.get("layers") == "attention":
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return LoraConfig(
        r=options["rank"], lora_alpha=32, target_modules=targets, lora_dropout=options.get("lora_dropout", 0.0),
        use_dora=options.get("variant") == "dora", task_type="CAUSAL_LM",
    )  # fmt: skip


def _adapted(case: Case, base: Any) -> Any:
    from peft import get_peft_model

    base.requires_grad_(False)
    return get_peft_model(base, lora_of(case))


def _offloaded(function: Any, *args: Any, **kwargs: Any) -> Any:
    """A layer run again on the way back, whose inputs wait in the host's memory."""
    with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, **kwargs)


def _liger_loss(base: Any) -> None:
    """Liger's fused loss alone, its other kernels left out."""
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(
        model=base,
        rope=False,
        rms_norm=False,
        swiglu=False,
        cross_entropy=False,
        fused_linear_cross_entropy=True,
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what transformers says of random weights."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
