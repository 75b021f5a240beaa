"""Words that transformers refuses are refused by the builders too, and nothing that it builds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from planner import facts
from planner.architecture import words
from planner.architecture.build import BUILDERS, build
from planner.errors import ConfigError

Config = dict[str, Any]
TABLE: Config = json.loads(facts.read_data("compiled", "words.json"))
TEXT: Config = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 1, "vocab_size": 32}  # fmt: skip
TOWER: Config = {"model_type": "siglip_vision_model", "hidden_size": 8, "num_attention_heads": 2,
                 "intermediate_size": 8, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4}  # fmt: skip
AYA: Config = {
    "model_type": "aya_vision",
    "text_config": {"model_type": "cohere2", **TEXT},
    "vision_config": TOWER,
}
LLAVA: Config = {
    "model_type": "llava",
    "text_config": {"model_type": "gemma", **TEXT},
    "vision_config": TOWER,
}


@pytest.mark.parametrize(("config", "field", "near"), [
    ({"model_type": "qwen3", **TEXT, "hidden_act": "sliu"}, "hidden_act", "silu"),
    ({"model_type": "qwen3", **TEXT, "layer_types": ["full_attention", "sliding"]}, "layer_types", ""),
    ({"model_type": "qwen3", **TEXT, "layer_types": ["full_attention"] * 3}, "layer_types", "2, one a layer"),
    ({"model_type": "llama", **TEXT, "rope_parameters": {"rope_type": "yarm"}}, "rope_parameters.rope_type", "yarn"),
    ({**AYA, "text_config": {**AYA["text_config"], "layer_types": ["full", "full"]}}, "text_config.layer_types", ""),
    ({**AYA, "vision_config": {**TOWER, "hidden_act": "glue"}}, "vision_config.hidden_act", "gelu"),
    ({**AYA, "vision_feature_select_strategy": "ful"}, "vision_feature_select_strategy", "full"),
    ({**LLAVA, "text_config": {**LLAVA["text_config"], "hidden_act": "x"}}, "text_config.hidden_act", ""),
])  # fmt: skip
def test_an_unknown_word_names_its_field(config: Config, field: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"config field {field}.*{near}"):
        build(config)


def test_what_no_class_reads_is_not_looked_at() -> None:
    words.check({**LLAVA, "text_config": {**LLAVA["text_config"], "layer_types": ["full"]}})
    words.check({"model_type": "llama", **TEXT, "layer_types": ["any", "word"]})
    words.check({"model_type": "qwen3", **TEXT, "hidden_act": None})


def test_the_table_speaks_of_builders_and_its_own_kinds() -> None:
    assert set(TABLE["types"]) <= set(BUILDERS) and len(TABLE["types"]) > 160
    rules = [kind for found in TABLE["types"].values() for kind in found.values()]
    assert {kind.partition(" ")[0] for kind in rules} == set(TABLE["kinds"])


def broken(model_type: str) -> Iterator[tuple[Config, str]]:
    """Small configs of a type with an unknown word in each of the fields at the top."""
    for path, kind in TABLE["types"][model_type].items():
        if "." not in path:
            word: Any = "no-such-name"
            yield (
                {"model_type": model_type, path: [word] * 2 if "layer" in kind or "neo" in kind else word},
                path,
            )


def test_every_rule_refuses_and_the_catalogue_holds_to_all() -> None:
    for model_type in TABLE["types"]:
        for config, path in broken(model_type):
            with pytest.raises(ConfigError, match=f"config field {path}"):
                words.check(config)
    for model in facts.model_ids():
        words.check(json.loads(facts.model_config_path(model).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "model_type", ["qwen3", "gemma2", "cohere2_moe", "mellum", "modernbert", "deepseek_v3"]
)
def test_transformers_refuses_the_same(model_type: str) -> None:
    pytest.importorskip("torch")
    from planner.architecture.meta.model import build_model

    for config, _ in broken(model_type):
        layers = {"num_hidden_layers": 2} if "layer_types" in config or "mlp_layer_types" in config else {}
        with pytest.raises(ConfigError):
            build_model(config | layers)
