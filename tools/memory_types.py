"""Every model type at a size where a layer, not the logits, makes the peak, and the set-ups that each is tried in.

A type's config is what its class makes of nothing, else (where that is no model) the catalogue's first of the type;
cut to the fewest layers that show every kind of layer, four at least, and to a vocabulary of 1,000, with tables of
positions as long as the sequences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from planner.architecture.build import BUILDERS
from planner.architecture.images import known_types
from planner.errors import PlannerError
from planner.estimator import load

from .memory_grid import Point, default_config
from .memory_random import MODELS

LAYERS, VOCABULARY, BATCH, LENGTH = 4, 1000, 4, 1024
OFFSET = 2  # positions that tables of RoBERTa's kind leave out
COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers",
)  # fmt: skip
POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
TEXT = ("text_config", "language_config")
_BASE: dict[str, Any] = {
    "precision": "bf16", "micro_batch": BATCH, "seq_len": LENGTH, "attention_kernel": "sdpa", "packing": "full",
}  # fmt: skip
_LORA: dict[str, Any] = {
    **_BASE,
    "method": "lora",
    "rank": 16,
    "layers": "all-linear",
    "checkpointing": "layer",
}
SETUPS: dict[str, dict[str, Any]] = {
    "LoRA, all kept": {**_LORA, "checkpointing": "none"},
    "LoRA": _LORA,
    "full": {**_BASE, "method": "full", "checkpointing": "layer"},
    "LoRA, autocast": {**_LORA, "precision": "autocast"},
    "LoRA, flash": {**_LORA, "attention_kernel": "flash"},
    "LoRA, eager": {**_LORA, "attention_kernel": "eager"},
    "QLoRA": {**_LORA, "method": "qlora", "quantize": "nf4"},
}
# What a class leaves out, or fills in with what is no model, as rednote-hilab/dots.llm1.base, LiquidAI/LFM2-8B-A1B,
# CohereLabs/aya-vision-8b, tencent/Hunyuan-1.8B-Instruct, mistralai/Ministral-8B-Instruct-2410,
# nvidia/Minitron-4B-Base and openai/whisper-tiny have it; two hybrid layers for Zamba, which
# ties the second to the first.
GIVEN: dict[str, dict[str, Any]] = {
    "dots1": {
        "n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 1408,
        "first_k_dense_replace": 1, "num_hidden_layers": 62,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
    "whisper": {"architectures": ["WhisperForConditionalGeneration"]},
    "zamba": {
        "num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2, "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4},
    "aya_vision": {"vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152,
                                     "num_attention_heads": 16, "num_hidden_layers": 26, "intermediate_size": 4304,
                                     "image_size": 364, "patch_size": 14}},
}  # fmt: skip
# What PEFT adapts of types whose mixers' last product is taken in by a kernel: it refuses that product's name.
MIXERS = ("mamba", "mamba2", "falcon_mamba")
WITHOUT_OUT = ("falcon_h1", "nemotron_h")


@dataclass(frozen=True)
class Cut(Point):
    """A type in a set-up: `family` is the type, `model` the set-up's name, `changes` the whole config."""

    @property
    def source(self) -> Any:
        """The config."""
        return self.changes


def types() -> list[str]:
    """Every type that has a builder, or whose images have an account."""
    return sorted({*BUILDERS, *known_types()})


def points(kind: str, config: dict[str, Any]) -> list[Cut]:
    """A type in every set-up."""
    return [Cut(kind, name, options_of(kind, name), config) for name in SETUPS]


def options_of(kind: str, name: str) -> dict[str, Any]:
    """A set-up with what PEFT refuses of a type left out."""
    found = dict(SETUPS[name])
    if found["method"] != "full" and kind in MIXERS:
        found.update(layers=None, targets="in_proj,x_proj" if kind != "mamba2" else "in_proj")
    if found["method"] != "full" and kind in WITHOUT_OUT:
        found["exclude_modules"] = "out_proj"
    return found


def config_of(kind: str) -> dict[str, Any]:
    """A type's config, cut. Raises ValueError where nothing is known of it that could be built."""
    try:
        found = {**default_config(kind), **GIVEN.get(kind, {})}
        load(found)
    except (ValueError, PlannerError) as refused:
        known = next(_of_catalogue(kind), None)
        if known is None:
            raise ValueError(str(refused).splitlines()[0]) from refused
        found = known
    return cut(found)


def _of_catalogue(kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted(MODELS.glob("*.json")):
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = config.get("architectures") or [""]
        if config.get("model_type") == kind and not names[0].endswith(
            "Model"
        ):  # a bare one models no language
            yield config


def cut(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with few layers, a small vocabulary, and positions for every token."""
    found: dict[str, Any] = json.loads(json.dumps(config))
    for part in (found, *(found[name] for name in TEXT if isinstance(found.get(name), dict))):
        _cut(part)
    return found


def _cut(part: dict[str, Any]) -> None:
    layers, had = _layers(part), {part.get(name) for name in COUNTS}
    for name, value in part.items():
        if name in COUNTS and isinstance(value, int):
            part[name] = min(value, layers)
        elif name == "hybrid_layer_ids":  # Zamba 2's, for each of which every shared layer has small matrices
            part[name] = [layer for layer in value if layer < layers]
        elif name == "per_layer_config" and isinstance(value, dict):
            part[name] = {layer: own for layer, own in value.items() if int(layer) < layers}
        elif name == "attention_types":  # GPT-Neo's: kinds, and how often they follow one another
            part[name] = [[kinds, layers // len(kinds)] for kinds, _ in value]
        elif isinstance(value, list) and len(value) in had:  # an entry a layer
            part[name] = value[:layers]
        elif name == "vocab_size" and isinstance(value, int):
            part[name] = VOCABULARY
        elif name in POSITIONS and isinstance(value, int):
            part[name] = max(value, LENGTH + OFFSET)
        elif name in TOKENS and value is not None:
            part[name] = 1


def _layers(part: Mapping[str, Any]) -> int:
    """The fewest layers that show every kind, four at least."""
    most = LAYERS
    for name, value in part.items():
        if name.endswith(("layer_types", "_block_type")) and isinstance(value, list):
            most = max(most, *(value.index(each) + 1 for each in set(value)), LAYERS)
        elif name.endswith(("_layer_period", "_attention_interval")) and isinstance(value, int):
            most = max(most, value)
    return most
