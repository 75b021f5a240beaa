"""The model that is to be trained, on the meta device: weights in their types, adapter, what is trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch

from ..adapter import Adapted, AdapterSpec, adapt
from ..adapter.whole import trained_whole
from ..architecture.build import build
from ..architecture.meta.model import build_model, load_classes, no_init, quietly
from ..exports.peft import lora_config
from ..memory.traits import LLAMA, TRAITS
from ..schema import Architecture, Images
from ..setup import Setup
from .experts import ExpertPairs, attach, check_pairs
from .images import tell_layers_apart
from .kernels import flash_attention
from .losses import by_chances, check_by_chances, choose_loss, without_dropout


def dtype_of(name: str) -> Any:
    """torch's type of this name."""
    return getattr(torch, name)


FLASH = "lora_plan_flash"
# Model types that transformers has under another name.
AS_TYPE = {"kimi_k2": "deepseek_v3"}

OWN_LINEAR = (
    "this model's own class of Linear is held quantised; transformers 5 leaves such modules in 16 bits, "
    "earlier versions quantised them"
)


@dataclass(frozen=True)
class Made:
    """A model ready to be trained: `pairs` are adapters on tensors of experts by the storage of the tensor, `images`
    those of every sequence."""

    model: Any
    pairs: Mapping[int, ExpertPairs]
    notes: tuple[str, ...]
    images: Images | None = None


def make(
    config: Mapping[str, Any], spec: AdapterSpec | None, setup: Setup, arch: Architecture | None = None
) -> Made:
    """The model with its adapter, in training mode; frozen where it is frozen.

    Raises ConfigError where transformers or PEFT cannot build it, InputError for a choice that PEFT cannot train.
    """
    named = as_transformers_names(config)
    with _buffers_in(dtype_of(setup.weight_dtype)):
        model = build_model(named)
    pairs: dict[int, ExpertPairs] = {}
    with quietly():
        model.requires_grad_(setup.method == "full")
        hold(model, dtype_of(setup.weight_dtype))
        if setup.method == "full" and setup.frozen_towers:
            _freeze_towers(model, setup)
        model.config.get_text_config().use_cache = False
        if hasattr(model.config, "text_config"):  # Idefics 3's code asks the outer one, as trainers set it
            model.config.use_cache = False
        notes = choose_attention(model, setup)
        if setup.quantize != "none" and _has_own_linear(model):
            notes = (*notes, OWN_LINEAR)
        base = model
        if setup.method != "full":
            model, pairs = _frozen(model, config, arch or build(config), spec or AdapterSpec(), setup)
        if by_chances(setup):
            check_by_chances(base, setup)
        if not setup.drops:
            without_dropout(model)
        _every_layer(base)
        choose_loss(base, setup, narrow_before=TRAITS.get(str(named["model_type"]), LLAMA).narrow_before)
        if setup.needs_input_grads:
            model.enable_input_require_grads()
    images = arch.images if arch else None
    if images:
        tell_layers_apart(model)
    return Made(model.train(), pairs, notes, images)


def _freeze_towers(model: Any, setup: Setup) -> None:
    """Nothing but the text model and the unembedding is trained, or made float32 where only what is trained is."""
    trained = {id(p) for p in model.get_decoder().parameters()}
    trained |= {id(p) for p in model.get_output_embeddings().parameters()}
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype_of(setup.compute_dtype))


def _every_layer(model: Any) -> None:
    """No layer is left out by LayerDrop, which draws them anew in each step."""
    for module in model.modules():
        if getattr(module, "layerdrop", 0):
            module.layerdrop = 0.0


def as_transformers_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config under the model type that transformers has it by."""
    return {**config, "model_type": AS_TYPE.get(str(config.get("model_type")), config.get("model_type"))}


def load_libraries(config: Mapping[str, Any]) -> None:
    """Import the model's code and PEFT, which any method needs. Raises what `make` does of such a config."""
    load_classes(as_transformers_names(config))
    import_module("peft")


@contextmanager
def _buffers_in(dtype: Any) -> Iterator[None]:
    """Tensors that a model makes without naming a type are in the weights' type, as where a library loads it."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _has_own_linear(model: Any) -> bool:
    """Whether a model's code has a class of its own in Linear's place."""
    return any(isinstance(m, torch.nn.Linear) and type(m) is not torch.nn.Linear for m in model.modules())


def hold(model: Any, dtype: Any) -> None:
    """Parameters in their type, but for those that the library keeps in float32; buffers stay as they are."""
    strict = tuple(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    half = tuple(getattr(model, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else ()
    for name, parameter in model.named_parameters():
        kept = any(word in name for word in (*strict, *half))
        parameter.data = parameter.data.to(torch.float32 if kept else dtype)


def choose_attention(model: Any, setup: Setup) -> tuple[str, ...]:
    """Take the attention implementation asked for, or the eager one where the model has no other; what to note."""
    kernel = setup.attention_kernel
    if kernel == "eager":
        return ()
    if kernel == "flash" and getattr(model, "_supports_flash_attn", False) and not _by_class(model):
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(FLASH, flash_attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(FLASH, flash_attention_mask)
        model.config._attn_implementation = FLASH
        return ()
    try:
        _take_sdpa(model)
    except (ValueError, ImportError):
        model.set_attn_implementation("eager")
        return (
            f"{kernel} attention of this model is not in transformers or not simulated: it ran eager attention",
        )
    if _by_class(model):  # whose classes ask the config when they run
        if not model._supports_sdpa:
            return (f"{kernel} attention of this model is not simulated: it ran eager attention",)
        model.config._attn_implementation = "sdpa"
    return () if kernel == "sdpa" else ("flash attention of this model is not simulated: it ran SDPA",)


def _take_sdpa(model: Any) -> None:
    """SDPA for the whole model; where a tower beside the text has none, for the text alone, which is what runs."""
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        if model.config.get_text_config() is model.config:
            raise
        model.set_attn_implementation({"text_config": "sdpa"})


def _by_class(model: Any) -> bool:
    """Whether a model chooses among attention classes of its own when it is built, instead of among functions."""
    return any(name.endswith("ATTENTION_CLASSES") for name in vars(sys.modules[type(model).__module__]))


def _frozen(
    model: Any, config: Mapping[str, Any], arch: Architecture, spec: AdapterSpec, setup: Setup
) -> tuple[Any, dict[int, ExpertPairs]]:
    """The model with an adapter on frozen weights, quantised where they are."""
    if setup.quantize != "none":
        from .quantised import quantise

        quantise(model, setup)
    if setup.upcast_small:
        for parameter in model.parameters():
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.to(torch.float32)
    if setup.upcast_norms:
        _widen_norms(model)
    found, pairs = _adapted(model, config, arch, spec, setup)
    if setup.quantize != "none":
        from .quantised import adapt_quantised

        adapt_quantised(found, setup)
    return found, pairs


def _widen_norms(model: Any) -> None:
    """Norms in float32, as TRL's QLoRA left them before 1.0."""
    for module in model.modules():
        if "norm" in type(module).__name__.lower():
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.float32)


def _adapted(
    model: Any, config: Mapping[str, Any], arch: Architecture, spec: AdapterSpec, setup: Setup
) -> tuple[Any, dict[int, ExpertPairs]]:
    """PEFT's model of a spec, and where PEFT has no place for pairs on experts, these beside it."""
    from peft import LoraConfig, get_peft_model

    dtype = dtype_of(setup.trained_dtype)
    adapted: Sequence[Adapted] = adapt(arch, spec)
    own = [item for item in adapted if item.matrix.kind == "experts" and not item.pairs[0].materialised]
    if own and not any(item.as_peft and item.matrix.experts == 1 for item in own):
        check_pairs(own)
        spec = replace(spec, experts="none")
        adapted = [item for item in adapted if item not in own]
    else:
        own = []
    fields = lora_config(arch, spec, adapted, trained_whole(arch, spec, adapted), config, None)
    fields.update(lora_dropout=setup.lora_dropout, init_lora_weights=False, task_type=None)
    with torch.device("meta"), no_init():
        found = get_peft_model(model, LoraConfig(**fields))
    pairs = attach(found, own, dtype, "base_model.model.")
    for name, parameter in found.named_parameters():  # modules trained in full keep the base's type
        if parameter.requires_grad and parameter.dtype != dtype and "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    return found, pairs
