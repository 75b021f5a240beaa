"""Hostile and broken configs of types that transformers has to build: an answer or one clear error, soon."""

from __future__ import annotations

import json
import resource
import time
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import PlannerError
from planner.architecture.build import BUILDERS, build
from planner.errors import ConfigError

from .test_fuzz import VALUES

pytest.importorskip("torch")

LABELS = ("id2label", "label2id")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "depth", "encoder_layers", "decoder_layers")
LISTS = ("layer_types", "mlp_layer_types", "layers_block_type")
# The types are tried in so many tests, each well below the limit of a test even where others use the machine.
SHARES = 4
# Of processor time: a refusal is at once; an answer for a deep model takes as long as walking its layers.
REFUSAL_S, ANSWER_S = 2, 6
MOST_MEMORY_BYTES = 2**30


@cache
def classes() -> dict[str, str]:
    """The types of the auto mappings that have no builder, with a class."""
    from transformers.models.auto import modeling_auto as auto

    found: dict[str, str] = {}
    for mapping in (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    ):  # fmt: skip
        for model_type, name in mapping.items():
            found.setdefault(model_type, name if isinstance(name, str) else name[0])
    return {model_type: name for model_type, name in found.items() if model_type not in BUILDERS}


def default(model_type: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        fields = AutoConfig.for_model(model_type).to_dict()
    except Exception:  # a class whose defaults it refuses itself
        fields = {}
    text = json.dumps(
        {**fields, "model_type": model_type, "architectures": [classes()[model_type]]}, default=str
    )
    config: dict[str, Any] = json.loads(text)
    return config


@cache
def shallow(model_type: str) -> str:
    """The default config as text, cut to two layers where transformers still builds it then: an answer for a deep
    model takes as long as walking its layers."""
    from planner.architecture.meta.model import build_model

    config, cut = default(model_type), default(model_type)
    for part in (cut, *(value for value in cut.values() if isinstance(value, dict))):
        part.update({key: 2 for key in LAYERS if isinstance(part.get(key), int) and part[key] > 2})
        part.update({key: part[key][:2] for key in LISTS if isinstance(part.get(key), list)})
    try:
        build_model(cut)
    except PlannerError:
        cut = config
    return json.dumps(cut)


@st.composite
def broken_config(draw: st.DrawFn, share: int, /) -> dict[str, Any]:
    """A default config with a few fields removed or replaced, at the top or in a nested config."""
    config: dict[str, Any] = json.loads(shallow(draw(st.sampled_from(sorted(classes())[share::SHARES]))))
    parts = [config, *(v for k, v in config.items() if isinstance(v, dict) and v and k not in LABELS)]
    part = draw(st.sampled_from(parts))
    for key in draw(st.lists(st.sampled_from(sorted(part)), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            part.pop(key)
        else:
            part[key] = draw(VALUES)
    return config


def survives(config: dict[str, Any]) -> str:
    """Either an answer or one of our errors, in one line, in bounded time and memory; returns the error."""
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    message = ""
    try:
        build(config)
    except PlannerError as error:
        message = str(error)
    assert "\n" not in message.strip() and len(message) < 2000
    assert time.process_time() - start < (REFUSAL_S if message else ANSWER_S)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MOST_MEMORY_BYTES
    return message


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """The first build imports torch and transformers, whose time is not the config's."""
    build({"model_type": "helium", "num_hidden_layers": 1})


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.timeout(900)
def test_changed_fields(share: int) -> None:
    @given(broken_config(share))
    @settings(max_examples=10)
    def check(config: dict[str, Any]) -> None:
        survives(config)

    check()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"text_config": value}
    return value


@pytest.mark.parametrize("fields", [
    {"num_hidden_layers": 10**6}, {"num_hidden_layers": 10**30}, {"hidden_size": 10**12}, {"vocab_size": 2**62},
    {"num_attention_heads": 10**9}, {"hidden_size": float("nan")}, {"rms_norm_eps": float("nan")},
    {"num_hidden_layers": "many"}, {"hidden_size": -64}, {"num_hidden_layers": [1]}, {"head_dim": {"a": 1}},
    {"rope_parameters": nested(5000)}, {"text_config": nested(30)}, {"model_type": "nothing-of-this-name"},
    {"model_type": {"a": 1}}, {"model_type": None},
], ids=lambda fields: next(iter(fields)))  # fmt: skip
def test_hostile_fields_are_refused(fields: dict[str, Any]) -> None:
    assert survives({**default("helium"), **fields})


@pytest.mark.parametrize("model_type", ["beam", "jetmoe", "dots3_note_text"])
def test_as_many_layers_and_experts_as_pass_the_checks(model_type: str) -> None:
    config = default(model_type)
    most = {"num_hidden_layers": 512, "num_layers": 512, "num_experts": 10**5, "num_local_experts": 10**5,
            "n_routed_experts": 10**5}  # fmt: skip
    config |= {key: value for key, value in most.items() if key in config}
    survives({key: None if key.endswith("layer_types") else value for key, value in config.items()})


def test_a_list_of_layers_longer_than_any_model() -> None:
    with pytest.raises(ConfigError, match="more than"):
        build({**default("helium"), "layer_types": ["full_attention"] * 3_000_000})
