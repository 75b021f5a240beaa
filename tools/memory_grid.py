"""The grid over which the analytic peak of memory is compared with the simulated one: models and set-ups.

Every model meets so many set-ups; each choice (method, precision, optimizer ...) goes through its values in a
shuffled order of its own, the same at every call, so that all values are met about equally often and in many
combinations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from planner.adapter import AdapterSpec
from planner.adapter.options import spec_of
from planner.estimator import load
from planner.pictured import pictured
from planner.running import SPEC_DEFAULTS
from planner.schema import Architecture
from planner.setup import Setup

from .pictured_models import PICTURED

SEED = 20261128
TWO_STACKS = "encoder and decoder"
DRAWN = 4  # set-ups drawn for a model
EACH = 3  # of which so many are run

_BART = {
    "model_type": "bart", "architectures": ["BartForConditionalGeneration"], "vocab_size": 50265, "d_model": 1024,
    "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "max_position_embeddings": 1024, "dropout": 0.1,
    "attention_dropout": 0.1, "activation_dropout": 0.1, "activation_function": "gelu", "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
# Models that the catalogue lacks, by the fields of their published configs that matter here.
CONFIGS: dict[str, dict[str, Any]] = {
    "facebook/bart-large": _BART,
    "facebook/mbart-large-50": {
        **_BART, "model_type": "mbart", "architectures": ["MBartForConditionalGeneration"], "vocab_size": 250054,
        "attention_dropout": 0.0, "activation_dropout": 0.0, "activation_function": "relu", "scale_embedding": True,
    },
    "google/pegasus-xsum": {
        **_BART, "model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"], "vocab_size": 96103,
        "encoder_layers": 16, "decoder_layers": 16, "max_position_embeddings": 512, "activation_function": "relu",
        "scale_embedding": True, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    },
    "Helsinki-NLP/opus-mt-en-de": {
        **_BART, "model_type": "marian", "architectures": ["MarianMTModel"], "vocab_size": 58101, "d_model": 512,
        "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "max_position_embeddings": 512, "attention_dropout": 0.0,
        "activation_dropout": 0.0, "activation_function": "swish", "scale_embedding": True, "pad_token_id": 58100,
        "eos_token_id": 0, "decoder_start_token_id": 58100,
    },
}  # fmt: skip

# By structure; names are the catalogue's, and those above.
MODELS: dict[str, tuple[str, ...]] = {
    "dense": (
        "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-8B", "Qwen/Qwen2.5-0.5B",
        "mistralai/Mistral-7B-v0.1", "HuggingFaceTB/SmolLM2-135M", "ibm-granite/granite-3.3-2b-instruct",
        "allenai/OLMo-2-1124-7B", "zai-org/GLM-4-9B-0414", "swiss-ai/Apertus-8B-2509", "microsoft/phi-4",
        "meta-llama/Llama-3.1-70B", "openbmb/MiniCPM5-1B", "HuggingFaceTB/SmolLM3-3B", "LGAI-EXAONE/EXAONE-4.0-1.2B",
        "mistralai/Mistral-Small-24B-Base-2501", "ByteDance-Seed/Seed-OSS-36B-Base", "tencent/Hunyuan-1.8B-Instruct",
        "microsoft/Phi-4-mini-instruct", "zai-org/glm-4-9b-hf", "baidu/ERNIE-4.5-0.3B-PT",
    ),
    "older": (
        "openai-community/gpt2-medium", "EleutherAI/pythia-1.4b", "EleutherAI/gpt-j-6b", "facebook/opt-1.3b",
        "bigscience/bloom-560m", "tiiuae/falcon-7b", "microsoft/phi-2", "bigcode/starcoder2-3b",
        "CohereLabs/aya-23-8B", "stabilityai/stablelm-2-1_6b",
    ),
    "sliding window": (
        "google/gemma-2-2b", "google/gemma-3-1b-pt", "allenai/Olmo-3-1025-7B", "CohereLabs/c4ai-command-r7b-12-2024",
        "google/gemma-3-270m", "google/gemma-4-31B-it",
    ),
    "experts": (
        "Qwen/Qwen3-30B-A3B", "mistralai/Mixtral-8x7B-v0.1", "allenai/OLMoE-1B-7B-0924", "openai/gpt-oss-20b",
        "deepseek-ai/DeepSeek-V2-Lite", "moonshotai/Kimi-K2-Instruct", "zai-org/GLM-4.5-Air",
        "ibm-granite/granite-3.1-1b-a400m-instruct", "Qwen/Qwen1.5-MoE-A2.7B", "baidu/ERNIE-4.5-21B-A3B-PT",
        "deepseek-ai/DeepSeek-V3", "meta-llama/Llama-4-Scout-17B-16E-Instruct", "MiniMaxAI/MiniMax-M2",
        "microsoft/Phi-3.5-MoE-instruct", "google/gemma-4-26B-A4B", "zai-org/GLM-4.7-Flash",
    ),
    "state space and linear attention": (
        "state-spaces/mamba-130m-hf", "ai21labs/Jamba-v0.1", "Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen/Qwen3.5-2B",
        "tiiuae/Falcon-H1-0.5B-Base", "ibm-granite/granite-4.0-h-1b", "nvidia/Nemotron-H-4B-Base-8K",
        "LiquidAI/LFM2-350M", "ibm-granite/granite-4.0-h-tiny", "Qwen/Qwen3.5-35B-A3B", "tiiuae/falcon-mamba-7b",
    ),
    TWO_STACKS: (
        "google-t5/t5-base", "google/flan-t5-large", "google/flan-t5-xl", "openai/whisper-small",
        "openai/whisper-large-v3-turbo", *CONFIGS,
    ),
    "text of vision and language": (
        "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct", "google/gemma-3-4b-it",
        "llava-hf/llava-1.5-7b-hf", "mistralai/Ministral-3-8B-Base-2512",
    ),
}  # fmt: skip

# Each choice with its values; one that is met more often stands there more often.
CHOICES: dict[str, tuple[Any, ...]] = {
    "method": ("lora", "lora", "qlora", "full", "dora"),
    "quantised_dora": (False, False, True),
    "precision": ("bf16", "bf16", "bf16", "bf16-master", "fp16", "fp32", "autocast"),
    "autocast": (False, False, True),
    "optimizer": (
        "adamw", "adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "sgd", "sgd-momentum", "adafactor", "lion",
        "lion-8bit", "muon",
    ),
    "optimizer_kernel": ("fused", "fused", "foreach"),
    "checkpointing": ("none", "layer", "none", "layer", "layer-offload"),
    "attention_kernel": ("sdpa", "flash", "sdpa", "eager"),
    "shape": ((1, 512), (2, 1024), (4, 512), (1, 4096), (8, 256), (2, 2048), (3, 700), (1, 8192)),
    "packing": ("full", "full", "padded", "packed"),
    "loss": ("full", "full", "fused", "chunked", "shifted", "shifted-fused"),
    "accumulation": (1, 1, 4),
    "quantize": ("nf4-double", "nf4", "int8", "fp8"),
    "upcast_small": (False, True),
    "lora_dropout": (0.0, 0.0, 0.1),
    "adapter_dtype": (None, None, "float32", "bfloat16"),
    "rank": (8, 16, 64),
    "layers": ("all-linear", "all", "attention"),
    "experts": ("none", "per-expert", "scaled", "peft"),
}  # fmt: skip
NO_FLASH = ("EleutherAI/gpt-j-6b", "tiiuae/falcon-7b")  # classes of their own, which are not simulated
# What PEFT has no place for, or the model's code no way with, is drawn otherwise.
MAMBA = "state-spaces/mamba-130m-hf"
# What PEFT does not adapt of these: the last product of Mamba's mixers, which kernels take in.
WITHOUT = {"tiiuae/Falcon-H1-0.5B-Base": "out_proj", "nvidia/Nemotron-H-4B-Base-8K": "out_proj"}
UNQUANTISED = ("ai21labs/Jamba-v0.1", MAMBA, "tiiuae/falcon-mamba-7b")
SETUP_FIELDS = frozenset(each.name for each in fields(Setup))


DEFAULTS = " by default"  # behind a model type: the config that its class makes of nothing


def default_config(kind: str) -> dict[str, Any]:
    """The config of a model type as transformers' class fills it in, with the class that models language.

    Raises ValueError where transformers has none."""
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    tables = (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )
    name = next((table[kind] for table in tables if kind in table), None)
    if name is None:
        raise ValueError(f"no class of {kind} models language")
    found = json.loads(json.dumps(AutoConfig.for_model(kind).to_dict()))
    return {**found, "model_type": kind, "architectures": [name]}


@dataclass(frozen=True)
class Point:
    """A model and what is done with it: options by the names of `Setup` and of the adapter. `changes` are fields of
    its config that have other values."""

    family: str
    model: str
    options: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Any:
        """What the model is loaded from: its name, or its config."""
        known: Any = CONFIGS.get(self.model) or PICTURED.get(self.model) or self.model
        if isinstance(known, str) and known.endswith(DEFAULTS):
            known = default_config(known.removesuffix(DEFAULTS))
        if not self.changes:
            return known
        config = json.loads(json.dumps(load(known)[0].config))
        inner = config.get("text_config")
        (inner if isinstance(inner, dict) else config).update(self.changes)
        return config

    @property
    def loaded(self) -> tuple[Mapping[str, Any], Architecture]:
        """The config and the architecture, with the images of every sequence where there are some."""
        found, arch = load(self.source)
        return found.config, pictured(arch, found.config, self.options)

    @property
    def setup(self) -> Setup:
        """The set-up."""
        return Setup(**{name: value for name, value in self.options.items() if name in SETUP_FIELDS})

    @property
    def spec(self) -> AdapterSpec | None:
        """The adapter; None where every weight is trained."""
        if self.options["method"] == "full":
            return None
        given = {name: value for name, value in self.options.items() if name in SPEC_DEFAULTS and value}
        return spec_of({**SPEC_DEFAULTS, **given})

    @property
    def method(self) -> str:
        """lora, qlora, full, dora or qdora."""
        return str(self.options["method"]).replace("lora", "dora" if "variant" in self.options else "lora")


def grid(each: int = EACH) -> list[Point]:
    """All points, the same at every call."""
    models = [(family, model) for family, names in MODELS.items() for model in names]
    number = len(models) * DRAWN
    drawn = {name: _spread(name, values, number) for name, values in CHOICES.items()}
    return [
        Point(
            family,
            model,
            _settled(family, model, {name: values[i * DRAWN + j] for name, values in drawn.items()}),
        )
        for i, (family, model) in enumerate(models)
        for j in range(each)
    ]


def _spread(name: str, values: tuple[Any, ...], number: int) -> list[Any]:
    """So many values, each about equally often, in blocks that are shuffled one by one."""
    source = random.Random(f"{SEED} {name}")

    def blocks() -> Iterator[Any]:
        while True:
            yield from source.sample(values, len(values))

    found = blocks()
    return [next(found) for _ in range(number)]


def _settled(family: str, model: str, drawn: dict[str, Any]) -> dict[str, Any]:
    """A draw without what its other choices exclude."""
    found = {**drawn, "micro_batch": drawn["shape"][0], "seq_len": drawn["shape"][1]}
    del found["shape"]
    method, decomposed = found["method"], found.pop("quantised_dora")
    if found["precision"] in ("fp32", "autocast") or method == "full":
        found["autocast"] = False
    if found["attention_kernel"] == "flash" and (found["precision"] == "fp32" or model in NO_FLASH):
        found["attention_kernel"] = "sdpa"
    if method == "qlora" and model in UNQUANTISED:
        found["method"] = method = "lora"
    if family == TWO_STACKS:  # whose code computes its own loss, over positions that a table may bound
        longest = 448 if "whisper" in model else CONFIGS.get(model, {}).get("max_position_embeddings", 4096)
        found.update(loss="full", seq_len=min(found["seq_len"], longest))
        if "whisper" in model:
            found["packing"] = "full"
    if model in WITHOUT and method != "full":
        found["exclude_modules"] = WITHOUT[model]
    if model in (MAMBA, "tiiuae/falcon-mamba-7b") and method != "full":
        found.update(layers=None, targets="in_proj,x_proj")
    if model in (MAMBA, "tiiuae/falcon-mamba-7b") and found["loss"] == "chunked":
        found["loss"] = "full"  # its code makes logits float32 behind the unembedding
    if method == "qlora":
        found["precision"] = "fp16" if found["precision"] == "fp16" else "bf16"
    else:
        found.update(quantize="none", upcast_small=False)
    if method == "full":
        found.update(adapter_dtype=None, lora_dropout=0.0, experts="none")
        found["optimizer_in_backward"] = found["accumulation"] == 1 and found["optimizer_kernel"] == "foreach"
    elif found["precision"] == "fp16" and found["adapter_dtype"] == "bfloat16":
        found["adapter_dtype"] = "float16"
    if method == "dora" or (method == "qlora" and decomposed):
        found.update(method=method.replace("dora", "lora"), variant="dora", experts="none")
    if found["layers"] == "all" and found["loss"] == "chunked" and method != "full":
        found["layers"] = "all-linear"
    if family != "experts":
        found["experts"] = "none" if found["experts"] == "none" else "scaled"
    if "gemma-2" in model and found["loss"].startswith("shifted"):
        found["loss"] = "full"  # capped logits are not simulated as older versions had them
    if found["experts"] == "peft":
        found["lora_dropout"] = 0.0  # PEFT has none for bare parameters
    if found["optimizer"] not in ("adamw", "paged-adamw"):
        found["optimizer_kernel"] = "fused"
    return found
