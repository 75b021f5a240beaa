"""The independent path: transformers' own classes on the meta device, and torch's FLOP counter."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

warnings.filterwarnings("ignore")

# Model types whose checkpoints load under another class of transformers.
AS_TYPE = {"kimi_k2": "deepseek_v3"}
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# Jamba's kinds of layers come round after eight, the longest round of the catalogue's; all layers of every model are
# in the totals that tests/test_catalogue.py compares.
ENOUGH_LAYERS = 9


def shorter(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of fewer layers, its lists of one entry for each layer cut."""
    layers = next((config[name] for name in LAYERS if name in config), 0)
    made: dict[str, Any] = {}
    for name, value in config.items():
        if name in LAYERS:
            made[name] = min(value, ENOUGH_LAYERS)
        elif isinstance(value, Mapping):
            made[name] = shorter(value)
        elif isinstance(value, list) and len(value) == layers:
            made[name] = value[:ENOUGH_LAYERS]
        else:
            made[name] = value
    return made


def transformers_config(config: Mapping[str, Any]) -> Any:
    """The config as transformers reads it."""
    from transformers import AutoConfig

    data = {k: v for k, v in config.items() if k not in ("quantization_config", "auto_map")}
    model_type = data.pop("model_type")
    return AutoConfig.for_model(AS_TYPE.get(model_type, model_type), **data)


def model_class(config: Mapping[str, Any]) -> Any:
    """The class that `architectures` names."""
    import transformers

    return getattr(transformers, config["architectures"][0])


def meta_model(config: Mapping[str, Any], **options: Any) -> Any:
    """The model without storage, whose weights are given no first values, as they have no place for them."""
    import torch
    from transformers.initialization import no_init_weights

    cfg = transformers_config(config)
    with torch.device("meta"), no_init_weights():
        model = model_class(config)._from_config(cfg, **options)
        model.tie_weights()
    return model


def generic(name: str) -> str:
    """A parameter's name with every layer number as {}."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "{}", name)


def inventory(model: Any) -> Counter[tuple[str, tuple[int, ...]]]:
    """Parameter name (layer numbers as {}) and shape, counted; tied parameters once, as the token table where
    that is one of them (XLM-RoBERTa's class names its head first)."""
    table = input_table(model)
    return Counter(
        (generic(table[1] if table and p is table[0] else name), tuple(p.shape))
        for name, p in model.named_parameters()
    )


def input_table(model: Any) -> tuple[Any, str] | None:
    """The weight of the token table and its name."""
    try:
        wanted = model.get_input_embeddings()
    except NotImplementedError:
        return None
    for name, module in model.named_modules():
        if module is wanted and hasattr(module, "weight"):
            return module.weight, f"{name}.weight"
    return None


def params(model: Any) -> int:
    """Unique parameters."""
    return sum(p.numel() for p in model.parameters())


def our_inventory(arch: Any) -> Counter[tuple[str, int]]:
    """Our inventory as (parameter name, size of one copy), tied matrices left out."""
    found: Counter[tuple[str, int]] = Counter()
    for m in arch.matrices:
        bare = m.kind == "experts" or m.name.endswith(("_weight", "_hc.fn", ".hc_fn"))
        name = m.name if bare else f"{m.name}.weight"
        if not m.tied:
            found[(generic(name), m.d_in * m.d_out * m.experts)] += m.copies
        if m.bias:
            bias = m.name + ("_bias" if m.kind == "experts" else ".bias")
            found[(generic(bias), m.d_out * m.experts)] += m.copies
    for v in arch.vectors:
        found[(generic(v.name), v.size)] += len(v.layers)
    return found


def their_inventory(model: Any) -> Counter[tuple[str, int]]:
    """The model's inventory in the same form."""
    found: Counter[tuple[str, int]] = Counter()
    for (name, shape), count in inventory(model).items():
        size = 1
        for n in shape:
            size *= n
        found[(name, size)] += count
    return found


def cpu_model(config: Mapping[str, Any]) -> Any:
    """A real (small) model with eager attention, whose every product the counter sees."""
    import torch

    cfg = transformers_config(config)
    torch.manual_seed(0)
    return (
        model_class(config)
        ._from_config(cfg, attn_implementation="eager", experts_implementation="eager")
        .train()
    )


def count_flops(model: Any, inputs: Mapping[str, Any]) -> int:
    """FLOPs of a forward and backward, as torch's counter counts them."""
    return flops_of(lambda: model(**inputs).loss.backward())


def flops_of(step: Callable[[], object]) -> int:
    """FLOPs of a step by the formulas of torch's counter, operator by operator.

    `FlopCounterMode` adds them up by module and tries to decompose every operator, which takes three times as long
    and changes no sum where gradients are wanted: tests/families/test_counting.py compares the two. Formulas are
    asked without torch's wrapper, which looks for tensors in nested arguments, where matrix products have none.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    counted = 0

    def shape(value: Any) -> Any:
        return value.shape if isinstance(value, torch.Tensor) else value

    class Counter(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return (
                False  # nothing is compiled here, and to keep the compiler out takes as long as an operation
            )

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal counted
            out = func(*args, **(kwargs or {}))
            formula = flop_registry.get(func._overloadpacket)
            if formula is not None:
                bare = getattr(formula, "__wrapped__", None)
                if bare and not kwargs and isinstance(out, torch.Tensor):
                    counted += int(bare(*map(shape, args), out_shape=out.shape))
                else:
                    counted += int(formula(*args, **(kwargs or {}), out_val=out))
            return out

    with Counter():
        step()
    return counted


def token_inputs(config: Mapping[str, Any], batch: int, seq_len: int) -> dict[str, Any]:
    """Random tokens with labels; for a model of sound, random features and the labels of its decoder; for a
    classifier of sequences, a class of two each."""
    import torch

    vocab = config.get("vocab_size") or config["text_config"]["vocab_size"]
    ids = torch.randint(3, vocab - 1, (batch, seq_len))
    if "num_mel_bins" in config:
        shape = (batch, config["num_mel_bins"], 2 * config["max_source_positions"])
        return {"input_features": torch.randn(shape), "labels": ids}
    if str(config.get("architectures", [""])[0]).endswith("ForSequenceClassification"):
        return {"input_ids": ids, "labels": torch.randint(0, 2, (batch,))}
    return {"input_ids": ids, "labels": ids.clone()}


def with_lora(model: Any, rank: int, targets: Any = "all-linear", **options: Any) -> Any:
    """The model with PEFT's LoRA on it."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, **options))
