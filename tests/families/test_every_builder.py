"""Every builder has a test over random configs: found by running those tests with their checks replaced by a list of
the types that they are given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from planner.architecture.build import BUILDERS, build

MODULES = [path.stem for path in Path(__file__).parent.glob("test_*.py") if path.stem != Path(__file__).stem]
# transformers has no class of these, so that their tests compare them with a type that it has.
BY_ANOTHER = "test_remote"
settings.register_profile(
    "once", max_examples=1, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def test_every_builder_has_a_test_over_random_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings.get_current_profile_name()
    settings.load_profile("once")
    try:
        found = {model_type for name in MODULES for model_type in random_types(name, monkeypatch)}
    finally:
        settings.load_profile(before)
    assert sorted(set(BUILDERS) - found) == []


def random_types(name: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The model types that the random tests of a module compare with another count."""
    module = import_module(f"{__package__}.{name}")
    found: set[str] = set()

    def note(config: Any, *_: object, **__: object) -> None:
        found.add(config["model_type"])

    def noting(config: Any) -> Any:
        note(config)
        return build(config)

    replaced: dict[str, Any] = {"check_inventory": note, "check_flops": lambda *_, **__: None}
    if name == BY_ANOTHER:
        replaced["build"] = noting
    for attribute, value in replaced.items():
        monkeypatch.setattr(module, attribute, value, raising=False)
    for test in random_tests(
        module, ("build(", "check_inventory(") if name == BY_ANOTHER else ("check_inventory(",)
    ):
        for values in cases(test):
            test(**values)
    return found


def random_tests(module: Any, checks: tuple[str, ...]) -> Iterator[Any]:
    """The tests of a module over random configs that call one of these."""
    for name, test in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(test):
            source = inspect.getsource(test)
            if any(check in source for check in checks) and ("given(" in source or "Random(" in source):
                yield test


def cases(test: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a test with parameters."""
    columns = []
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            names, rows = mark.args[0], mark.args[1]
            names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
            columns.append([dict(zip(names, row if len(names) > 1 else (row,), strict=True)) for row in rows])
    for chosen in product(*columns):
        yield {key: value for part in chosen for key, value in part.items()}
