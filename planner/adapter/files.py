"""An existing PEFT adapter as the spec: its adapter_config.json, and the header of its weights against the count."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError
from ..schema import Architecture, Notice
from ..stored.tensor_files import BrokenFileError, Tensor, read_header
from .pairs import Adapted
from .peft_names import module as module_of
from .spec import ALL_LINEAR, AdapterSpec, check_spec
from .whole import Whole

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 4_000_000
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Fields of LoraConfig that change what is trained and that no count here knows.
_UNCOUNTED = (
    "lora_bias", "layer_replication", "trainable_token_indices", "ensure_weight_tying", "use_bdlora", "use_qalora",
    "kasa_config", "monteclora_config", "velora_config", "megatron_config", "alora_invocation_tokens",
)  # fmt: skip


def config_file(place: str) -> str:
    """The adapter_config.json that a path names: the file, or the folder that holds it."""
    found = os.path.join(place, CONFIG) if os.path.isdir(place) else place
    try:
        status = os.stat(found)
    except (OSError, ValueError):
        raise InputError("adapter", place, f"a folder with {CONFIG}, or that file") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_CONFIG_BYTES:
        raise InputError("adapter", found, f"a regular file of at most {MAX_CONFIG_BYTES:,} bytes")
    return found


def read_config(place: str) -> dict[str, Any]:
    """The adapter's config. Raises InputError where it is no LoRA config of PEFT."""
    file = config_file(place)
    try:
        with open(file, encoding="utf-8") as stream:
            data = json.load(stream)
    except (OSError, ValueError, RecursionError):
        raise InputError("adapter", file, "readable JSON") from None
    if not isinstance(data, dict) or str(data.get("peft_type", "")).upper() != "LORA":
        kind = data.get("peft_type") if isinstance(data, dict) else None
        raise InputError("adapter", file, f"a config of peft_type LORA, not {kind!r:.40}")
    for name in _UNCOUNTED:
        if data.get(name):
            raise InputError("adapter", f"{name}: {data[name]!r:.40}", f"no {name}: it is not counted")
    return data


def base_model(place: str) -> str | None:
    """The model that the adapter's config names."""
    name = read_config(place).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def _strings(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key)
    items = [value] if isinstance(value, str) else value or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InputError("adapter", f"{key}: {value!r:.60}", f"{key} as a list of names")
    return tuple(sorted(items))


def _pattern(data: Mapping[str, Any], key: str) -> tuple[tuple[str, Any], ...]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise InputError("adapter", f"{key}: {value!r:.60}", f"{key} as an object")
    return tuple(value.items())


def _layers(data: Mapping[str, Any]) -> tuple[int, ...] | None:
    value = data.get("layers_to_transform")
    items = [value] if isinstance(value, int) else value
    if items is None or items == []:
        return None
    if not isinstance(items, list) or not all(type(item) is int for item in items):
        raise InputError("adapter", f"layers_to_transform: {value!r:.60}", "whole numbers")
    return tuple(sorted(set(items)))


def spec_from(data: Mapping[str, Any], dtype: str = "float32") -> AdapterSpec:
    """The spec that a LoraConfig describes. Names that match nothing are passed over, as PEFT does."""
    modules = data.get("target_modules")
    parameters = _strings(data, "target_parameters")
    if not modules and not parameters:
        raise InputError("adapter", f"target_modules: {modules!r}", "target_modules or target_parameters")
    regex = modules if isinstance(modules, str) and modules.lower() != ALL_LINEAR else None
    linear = isinstance(modules, str) and regex is None
    excluded = data.get("exclude_modules")
    alpha = data.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise InputError("adapter", f"lora_alpha: {alpha!r:.40}", "lora_alpha as a number above 0")
    spec = AdapterSpec(
        rank=data.get("r", 8), alpha=alpha, layers=(ALL_LINEAR,) if linear else None,
        targets=None if linear or regex is not None else _strings(data, "target_modules") or None,
        experts="peft", variant="dora" if data.get("use_dora") else "lora", dtype=dtype, target_regex=regex,
        target_parameters=parameters, layers_to_transform=_layers(data),
        layers_pattern=_strings(data, "layers_pattern"),
        exclude_modules=() if isinstance(excluded, str) else _strings(data, "exclude_modules"),
        exclude_regex=excluded if isinstance(excluded, str) else None,
        rank_pattern=_pattern(data, "rank_pattern"), alpha_pattern=_pattern(data, "alpha_pattern"),
        modules_to_save=_strings(data, "modules_to_save"), bias=data.get("bias", "none"),
        use_rslora=bool(data.get("use_rslora")), strict=False,
    )  # fmt: skip
    check_spec(spec)
    return spec


def _weights(place: str) -> str | None:
    folder = place if os.path.isdir(place) else os.path.dirname(place)
    found = os.path.join(folder, WEIGHTS)
    return found if os.path.isfile(found) else None


def read_spec(place: str) -> AdapterSpec:
    """The spec of an adapter's folder or config file; its dtype is that of the weights beside it."""
    data, file, dtype = read_config(place), _weights(place), "float32"
    if file is not None:
        try:
            kinds = Counter(tensor.dtype for tensor in read_header(file))
            dtype = next((_DTYPES[kind] for kind, _ in kinds.most_common() if kind in _DTYPES), dtype)
        except BrokenFileError:
            pass  # the notice about the weights says so
    return spec_from(data, dtype)


def _module(name: str) -> str:
    """The module that a stored tensor belongs to, as the inventory spells it."""
    plain = name.removeprefix("base_model.model.").partition(".lora_")[0]
    return plain.replace(".base_layer", "").replace(".original_module", "")


def _expected(adapted: Sequence[Adapted]) -> Iterator[tuple[str, str, int]]:
    """Every tensor that the count stands for: its module, its name there, its size."""
    for item in adapted:
        for layer in item.layers:
            module = module_of(item.matrix, layer)
            for pair in item.pairs:
                yield module, "lora_A", pair.rank * pair.n_in * pair.d_in
                yield module, "lora_B", pair.rank * pair.n_out * pair.d_out
                if pair.magnitudes:
                    yield module, "lora_magnitude_vector", pair.magnitudes


def _stored_whole(tensors: Sequence[Tensor], whole: Whole) -> list[Tensor]:
    """Stored tensors that belong to no pair but are trained: copied modules and biases. PEFT also writes frozen
    embeddings beside adapters on them."""
    names = whole.modules
    return [
        tensor
        for tensor in tensors
        if ".lora_" not in tensor.name
        and (
            tensor.name.endswith(".bias") or any(f".{name}." in f".{_module(tensor.name)}." for name in names)
        )
    ]


def _difference(pairs: Sequence[Tensor], adapted: Sequence[Adapted]) -> str:
    wanted = Counter((module, size) for module, _, size in _expected(adapted))
    for tensor in sorted(pairs, key=lambda each: each.name):
        key = _module(tensor.name), tensor.size
        if not wanted[key]:
            return f"{tensor.name} of {tensor.size:,} is the first that the count does not have"
        wanted[key] -= 1
    for module, name, size in _expected(adapted):
        if wanted[(module, size)]:
            return f"{module}.{name} of {size:,} is the first that the file does not have"
    return "the weights trained in full differ"


def check_weights(
    place: str, arch: Architecture, adapted: Sequence[Adapted], whole: Whole
) -> tuple[Notice, ...]:
    """A notice where the adapter's own file holds another number of parameters than was counted."""
    file = _weights(place)
    if file is None:
        return ()
    try:
        tensors = read_header(file)
    except BrokenFileError as error:
        return (Notice("adapter-file-unreadable", f"{WEIGHTS} {error}."),)
    pairs = [tensor for tensor in tensors if ".lora_" in tensor.name]
    found = sum(t.size for t in pairs) + sum(t.size for t in _stored_whole(tensors, whole))
    counted = sum(item.params for item in adapted) + whole.params
    if found == counted:
        return ()
    first = _difference(pairs, adapted)
    return (
        Notice(
            "adapter-file-differs",
            f"{WEIGHTS} holds {found:,} parameters, the count for {arch.model_type} is {counted:,}: {first}.",
        ),
    )
