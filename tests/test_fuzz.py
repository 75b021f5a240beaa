"""Hostile and broken configs: a clear error or an answer, never a traceback, always at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from planner import PlannerError, estimate, estimator, facts
from planner.errors import UnsupportedArchitectureError
from planner.schema import Architecture

SAMPLES = sorted({facts.model(name).model_type: name for name in facts.model_ids()}.values())
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 300), st.sampled_from([0, -1, 10**6, 10**9, 2**60, 10**30]),
    st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=8), st.just([]), st.just({}),
    st.lists(st.one_of(st.integers(-2, 9), st.text(max_size=5), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip

WRONG: tuple[Any, ...] = ("text", -1, 0, 1.5, True, [], {}, 10**6, 2**60)


@pytest.fixture(autouse=True, scope="module")
def _builders_alone() -> Iterator[None]:
    """Leave out the way through transformers, whose import alone takes seconds."""

    def refuse(config: Mapping[str, Any]) -> Architecture:
        raise UnsupportedArchitectureError("no builder")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planner.architecture.build._by_transformers", refuse)
        yield


def config_of(model: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(facts.model_config_path(model).read_text(encoding="utf-8"))
    return config


FIELDS = attrgetter(*Architecture.__dataclass_fields__)


def inventory_of(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Everything of a config that an estimate goes by: its name, its inventory, its weights as they are stored."""
    base = estimator._base(config)
    return base.found.model_id, FIELDS(base.arch), base.kept


def survives(config: Any, known: list[tuple[Any, ...]] | None = None) -> None:
    """Either an answer or one of our errors, in one line, within two seconds. What comes to the same as one of the
    `known` models is read and built, and not estimated again; what does not is one of them from then on."""
    start = time.process_time()  # of this process: other work on the machine counts nothing
    message = ""
    try:
        found = None if known is None else inventory_of(config)
        if known is None or found not in known:
            if known is not None and found is not None:
                known.append(found)
            estimate(config, rank=1).to_dict()
    except PlannerError as error:
        message = str(error)
    assert "\n" not in message.strip() and len(message) < 2000
    assert time.process_time() - start < 2


@st.composite
def broken_config(draw: st.DrawFn, /) -> dict[str, Any]:
    """A config of the catalogue with a few fields removed or replaced, at the top or in a nested config."""
    config = config_of(draw(st.sampled_from(SAMPLES)))
    parts = [config, *(value for value in config.values() if isinstance(value, dict) and value)]
    part = draw(st.sampled_from(parts))
    for key in draw(st.lists(st.sampled_from(sorted(part)), min_size=1, max_size=3, unique=True)):
        if draw(st.booleans()):
            part.pop(key)
        else:
            part[key] = draw(VALUES)
    return config


@given(broken_config())
@settings(max_examples=400)
def test_changed_fields(config: dict[str, Any]) -> None:
    survives(config)


@pytest.mark.parametrize("model", SAMPLES)
def test_every_field_missing_and_every_field_wrong(model: str) -> None:
    whole = config_of(model)
    known: list[tuple[Any, ...]] = []
    survives(whole, known)
    for key in whole:
        survives({k: v for k, v in whole.items() if k != key}, known)
        for value in WRONG:
            survives({**whole, key: value}, known)


@pytest.mark.parametrize(
    "model", [m for m in SAMPLES if any(isinstance(v, dict) for v in config_of(m).values())]
)
def test_nested_fields_missing_and_wrong(model: str) -> None:
    whole = config_of(model)
    known: list[tuple[Any, ...]] = []
    survives(whole, known)
    for part in [key for key, value in whole.items() if isinstance(value, dict)]:
        for key in whole[part]:
            survives({**whole, part: {k: v for k, v in whole[part].items() if k != key}}, known)
            for value in WRONG:
                survives({**whole, part: {**whole[part], key: value}}, known)


@given(VALUES)
@example({"model_type": "llama"})
@example({"model_type": ["llama"]})
@example({"model_type": "llama", "auto_map": {"AutoConfig": "evil.Config"}})
def test_anything_as_a_config(value: Any) -> None:
    survives(value if isinstance(value, dict) else {"model_type": value})


def test_code_in_auto_map_is_never_run() -> None:
    config = {
        **config_of("meta-llama/Llama-3.1-8B"),
        "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"},
    }
    assert estimate(config).adapter.params == estimate("meta-llama/Llama-3.1-8B").adapter.params
