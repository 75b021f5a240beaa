"""Config -> Architecture: finds the builder of a model type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from ..errors import ConfigError, UnsupportedArchitectureError
from ..schema import Architecture
from . import words
from .fields import Fields

# Module of families/ that builds each model type. Names, so that a run imports one module and not all.
BUILDERS: dict[str, str] = {
    **dict.fromkeys(
        "llama mistral ministral ministral3 qwen2 qwen3 gemma gemma2 gemma3_text phi3 granite olmo olmo2 olmo3 "
        "smollm3 seed_oss exaone4 hunyuan_v1_dense glm glm4 ernie4_5 arcee apertus starcoder2 cohere cohere2 "
        "stablelm cwm jais2 hyperclovax iquestcoder nanochat nemotron bitnet vaultgemma "
        "granite_swa doge cohere_compass_text emu3_text_model eurobert".split(),
        "dense",
    ),
    **dict.fromkeys(
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe gemma3 mistral3 llava glm4v glm46v glm4v_moe "
        "llava_next "
        "llava_next_video llava_onevision vipllava paligemma internvl idefics3 smolvlm aya_vision "
        "cohere2_vision".split(),
        "multimodal",
    ),
    **dict.fromkeys("gemma4 gemma4_text".split(), "gemma4"),
    **dict.fromkeys("mllama mllama_text_model".split(), "mllama"),
    **dict.fromkeys("llama4 llama4_text".split(), "llama4"),
    **dict.fromkeys(
        "gpt2 gptj gpt_neox opt bloom falcon mpt gpt_bigcode phi gpt-sw3 persimmon gpt_neo codegen gpt_neox_japanese "
        "xglm biogpt ctrl openai-gpt".split(),
        "legacy",
    ),
    **dict.fromkeys(
        "mixtral qwen2_moe qwen3_moe olmoe phimoe dbrx gpt_oss granitemoe glm4_moe minimax_m2 ernie4_5_moe "
        "hunyuan_v1_moe solar_open mimo_v2_flash flex_olmo dots1 exaone_moe "
        "mellum hy_v3 laguna afmoe cohere2_moe aria_text".split(),
        "moe",
    ),
    **dict.fromkeys(
        "deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2 kimi_k25 glm4_moe_lite glm_moe_dsa youtu "
        "minicpm3 mistral4 axk1".split(),
        "mla",
    ),
    "deepseek_v4": "deepseek_v4",
    **dict.fromkeys("t5 mt5 umt5 whisper clip".split(), "encoders"),
    **dict.fromkeys(
        "bert roberta xlm-roberta camembert data2vec-text ernie layoutlm roberta-prelayernorm xlm-roberta-xl "
        "megatron-bert bert-generation roc_bert electra rembert mpnet distilbert roformer".split(),
        "bert",
    ),
    **dict.fromkeys(
        "bart mvp plbart mbart marian pegasus blenderbot blenderbot-small m2m_100 bigbird_pegasus trocr".split(),
        "bart",
    ),
    **dict.fromkeys("modernbert modernbert-decoder".split(), "modernbert"),
    "kimi_linear": "kimi_linear",
    "nomic_bert": "nomic_bert",
    "albert": "albert",
    "fuyu": "fuyu",
    **dict.fromkeys("chatglm internlm internlm2 internlm3 minicpm mimo nemotron-nas".split(), "remote"),
    **dict.fromkeys(
        "qwen3_next qwen3_5_text qwen3_5_moe_text olmo_hybrid minimax".split(), "linear_attention"
    ),
    **dict.fromkeys(
        "mamba mamba2 falcon_mamba bamba jamba zamba zamba2 nemotron_h granitemoehybrid "
        "granitemoeshared granitemoe_swa falcon_h1 lfm2 lfm2_moe".split(),
        "state_space",
    ),
}

# Types whose class ending in ForCausalLM is the text model alone, of a type of its own.
TEXT_CLASSES = frozenset("gemma3 gemma4 llama4 qwen3_5 qwen3_5_moe".split())


def build(config: Mapping[str, Any]) -> Architecture:
    """The inventory of a config: by the builder of its model type, else by building the model with transformers.

    Raises ConfigError for bad fields, UnsupportedArchitectureError for a type that neither knows,
    MissingDependencyError for one that needs torch where it is not installed.
    """
    config = text_alone(config)
    model_type = Fields(config).str("model_type")
    if model_type not in BUILDERS:
        return _by_transformers(config)
    try:
        return build_natively(config)
    except UnsupportedArchitectureError as refused:
        # The builder knows the type but not this class or variant of it; its words say which, so they stand.
        try:
            return _by_transformers(config)
        except UnsupportedArchitectureError:
            raise refused from None


def text_alone(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text part of a config that has more in it, where `architectures` names the text class of such a type."""
    names, text, model_type = config.get("architectures"), config.get("text_config"), config.get("model_type")
    if not isinstance(model_type, str) or model_type not in TEXT_CLASSES or not isinstance(text, Mapping):
        return config
    if not isinstance(names, (list, tuple)) or not names or not str(names[0]).endswith("ForCausalLM"):
        return config
    return {"model_type": f"{model_type}_text", **text, "architectures": list(names)}


def build_by_its_code(place: str, config: Mapping[str, Any]) -> Architecture:
    """The inventory of a model by the code that its repository carries, which is run: only for users who say so.
    Where a builder of ours knows the type, or the config names no code, that of `build`."""
    if has_builder(Fields(config).str("model_type")) or not carries_code(config):
        return build(config)
    from .meta import remote

    return remote.architecture(place, config)


def carries_code(config: Mapping[str, Any]) -> bool:
    """Whether the config names code of its repository."""
    return isinstance(config.get("auto_map"), Mapping)


def build_natively(config: Mapping[str, Any]) -> Architecture:
    """The inventory of a config whose model type has a builder, by that builder alone."""
    fields = Fields(config)
    model_type = fields.str("model_type")
    words.check(config)
    try:
        built: Architecture = import_module(f".families.{BUILDERS[model_type]}", __package__).build(fields)
    except RecursionError as error:
        raise ConfigError(f"config of model_type {model_type!r} is nested too deeply") from error
    return replace(
        built, activation=_activation(config) or built.activation, dropouts=_dropouts(config),
        class_name=_class_name(config), uncapped=_uncapped(config),
        use_cache=config.get("use_cache") is not False,
    )  # fmt: skip


def _class_name(config: Mapping[str, Any]) -> str | None:
    """The name of the model's class, where the config gives one."""
    names = config.get("architectures")
    return names[0] if isinstance(names, (list, tuple)) and names and isinstance(names[0], str) else None


def _uncapped(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of softcapping that are null; the text part's where a config has one."""
    text = config.get("text_config")
    merged = {**config, **(text if isinstance(text, Mapping) else {})}
    return tuple(str(name) for name, value in merged.items() if "softcapping" in str(name) and value is None)


def _activation(config: Mapping[str, Any]) -> str | None:
    """The name of the activation function, of the text part where a config has one."""
    text = config.get("text_config")
    for part in (text if isinstance(text, Mapping) else {}, config):
        for key in ("hidden_activation", "hidden_act", "activation_function", "mlp_hidden_act"):
            if isinstance(part.get(key), str):
                return str(part[key])
    return None


def _dropouts(config: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The rates of dropout, by the config's names; the text part's where a config has one."""
    text = config.get("text_config")
    merged = {**config, **(text if isinstance(text, Mapping) else {})}
    return tuple(
        (name, float(value))
        for name, value in merged.items()
        if isinstance(name, str) and "drop" in name and type(value) in (int, float)
    )


def _by_transformers(config: Mapping[str, Any]) -> Architecture:
    from .meta import architecture

    return architecture(config)


def has_builder(model_type: str) -> bool:
    """Whether `build` knows the type."""
    return model_type in BUILDERS
