"""The check of configs that needs no transformers: quick, complete in what it names, and never wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import PlannerError, facts
from planner.architecture.meta import known, transformers_version
from planner.architecture.meta.checks import check, cleaned
from planner.architecture.meta.kinds import fits, words
from planner.errors import ConfigError, UnsupportedArchitectureError

LIBRARY = known.table()["library"]
HELIUM: dict[str, Any] = {
    "model_type": "helium", "architectures": ["HeliumForCausalLM"], "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 100,
}  # fmt: skip
AYA: dict[str, Any] = {
    "model_type": "aya_vision", "architectures": ["AyaVisionForConditionalGeneration"],
    "vision_config": {"model_type": "siglip_vision_model", "num_attention_heads": 16}, "text_config": {},
}  # fmt: skip
BAD: list[tuple[dict[str, Any], str, Any]] = [
    (HELIUM, "hidden_act", "silux"),
    (HELIUM, "hidden_act", 3),
    (HELIUM, "rms_norm_eps", 1),
    (HELIUM, "vocab_size", "many"),
    (HELIUM, "num_attention_heads", 0),
    (HELIUM, "pad_token_id", 100),
    (HELIUM, "mlp_bias", "yes"),
    (HELIUM, "rope_parameters", {"rope_type": "yarnx", "rope_theta": 1e4}),
    (HELIUM, "rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}),
    (HELIUM, "rope_scaling", {"type": "linear"}),
    (HELIUM, "id2label", 3),
    (HELIUM, "model_type", "helum"),
    (AYA, "text_config", {"hidden_size": "wide"}),
    (AYA, "text_config", {"layer_types": ["full_attention"], "num_hidden_layers": 2}),
    (AYA, "text_config", {"layer_types": ["full_atention"], "num_hidden_layers": 1}),
    (
        AYA,
        "vision_config",
        {"model_type": "siglip_vision_model", "num_attention_heads": 7, "hidden_size": 48},
    ),
]


def said(config: Mapping[str, Any]) -> str:
    """How the table refuses a config, or nothing."""
    try:
        check(config)
        known.check(cleaned(config), LIBRARY)
    except PlannerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("config", "field", "value"), BAD, ids=lambda value: str(value)[:30])
def test_a_refusal_names_the_field_and_what_was_found(
    config: dict[str, Any], field: str, value: object
) -> None:
    assert said(config) == ""
    message = said({**config, field: value})
    assert field in message and "\n" not in message
    assert "expected" in message or "needs it" in message or "does not know it" in message


def test_the_nearest_is_offered() -> None:
    assert "Did you mean silu" in said({**HELIUM, "hidden_act": "siluu"})
    assert "Did you mean helium" in said({**HELIUM, "model_type": "helum"})
    assert "full_attention" in said({**AYA, "text_config": BAD[-2][2]})


def test_another_version_of_transformers_is_not_judged() -> None:
    known.check({**HELIUM, "hidden_act": "nothing"}, "transformers 4.0.0")
    with pytest.raises(UnsupportedArchitectureError):
        known.check({"model_type": "nothing"}, LIBRARY)


@pytest.mark.parametrize("changed", [
    {"num_hidden_layers": 0, "hidden_act": "nothing"},
    {"per_layer_config": {"0": {"head_dim": 8}}, "hidden_act": "x"},
    {"architectures": ["SomethingElse"], "hidden_act": "nothing"}, {"new_field": [1]}, {"hidden_act": "relu"},
])  # fmt: skip
def test_what_only_transformers_can_tell_is_left_to_it(changed: dict[str, Any]) -> None:
    assert said({**HELIUM, **changed}) == ""


def test_shipped_configs_without_a_builder_pass() -> None:
    from planner.architecture.build import BUILDERS, text_alone

    for name in facts.model_ids():
        config = text_alone(json.loads(facts.model_config_path(name).read_text(encoding="utf-8")))
        if config["model_type"] not in BUILDERS and config["model_type"] in known.table()["types"]:
            assert said(config) == "", name


def test_nothing_heavy_is_imported_for_a_refusal_and_the_table_only_where_it_is_needed() -> None:
    pytest.importorskip("torch")
    if f"transformers {transformers_version()}" != LIBRARY:
        pytest.skip("the table is of another version")
    bad = json.dumps([{**config, field: value} for config, field, value in BAD])
    script = f"""if True:
        import json, sys
        from planner import estimate
        from planner.errors import PlannerError
        estimate("meta-llama/Llama-3.1-8B")
        assert "planner.architecture.meta.known" not in sys.modules
        from planner.architecture.meta import architecture  # whether or not a type has a builder by now
        for config in json.loads({bad!r}):
            try:
                architecture(config)
            except PlannerError as error:
                assert "transformers cannot build" not in str(error), error
            else:
                raise AssertionError(config)
        heavy = {{"torch", "transformers", "huggingface_hub", "numpy"}} & set(sys.modules)
        assert not heavy, heavy
        """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_is_small_and_says_where_it_is_from() -> None:
    text = facts.read_data("compiled", "configs.json")
    assert len(text) < 700_000
    assert facts.source_from(json.loads(text)["source"], "configs").url.startswith("https://")


# ---------------------------------------------------------------------- against transformers and its validator


@pytest.mark.parametrize(("declared", "kind"), [
    (int, "int"), (float, "float"), (bool, "bool"), (int | None, ["or", "int", "none"]),
    (float | int, ["or", "float", "int"]),
    (list[int], ["list", "int"]), (dict[str, int], ["dict", "str", "int"]),
    (list[str] | None, ["or", ["list", "str"], "none"]),
])  # fmt: skip
@given(value=st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=4,
))  # fmt: skip
def test_kinds_mean_what_the_library_makes_of_them(declared: Any, kind: Any, value: Any) -> None:
    validator = pytest.importorskip("huggingface_hub.dataclasses").type_validator
    try:
        validator("field", value, declared)
        accepted = True
    except TypeError:
        accepted = False
    assert fits(value, kind) is accepted
    assert words(kind)


def passes_bounds(config: Mapping[str, Any]) -> bool:
    """Whether our own limits on sizes let the config through: they are not transformers'."""
    try:
        check(config)
    except ConfigError:
        return False
    return True


TYPES = (
    "helium",
    "aya_vision",
    "doge",
    "albert",
    "emu3",
    "modernbert-decoder",
    "afmoe",
    "blip",
    "granitemoeshared",
)


@given(st.sampled_from(TYPES), st.integers(0, 10**9))
@settings(max_examples=60)
def test_no_config_is_refused_that_transformers_builds(model_type: str, seed: int) -> None:
    pytest.importorskip("transformers")
    if f"transformers {transformers_version()}" != LIBRARY:
        pytest.skip("the table is of another version")
    import random

    from planner.architecture.meta.model import build_model, quietly
    from tools.compare_config_check import mutated
    from tools.config_probes import bases

    names = known.table()["rules"][model_type]["classes"]
    with quietly():
        config = mutated(bases(model_type, names)[1][0], random.Random(seed))
        if passes_bounds(config) and said(config):
            with pytest.raises((ConfigError, UnsupportedArchitectureError)):
                build_model(config)
