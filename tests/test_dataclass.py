"""The package's dataclass against the standard library's, on the same class bodies."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import fact_types, facts, moments, schema, setup
from planner.adapter import pairs, spec
from planner.dataclass import dataclass, replace

Decorator = Callable[..., Any]


def bodies(make: Decorator) -> dict[str, type[Any]]:
    """The same classes made by a decorator; those of the two decorators have equal names."""

    @make(frozen=True)
    class Frozen:
        """Defaults, a factory and a derived value."""

        a: int
        b: str = "b"
        c: tuple[int, ...] = ()
        d: dict[str, int] = dataclasses.field(default_factory=dict)
        e: int = dataclasses.field(default=1, repr=False, compare=False)

        @cached_property
        def twice(self) -> int:
            return 2 * self.a

    @make(frozen=True, eq=False)
    class Same:
        """Equal where it is the same object."""

        a: int

    @make
    class Plain:
        """May be changed."""

        a: int
        b: list[int] = dataclasses.field(default_factory=list)

    @make(frozen=True)
    class Checked:
        """Refuses and derives after it is made."""

        a: int
        total: int = 0

        def __post_init__(self) -> None:
            if self.a < 0:
                raise ValueError("a")
            object.__setattr__(self, "total", self.a + 1)

    @make(frozen=True)
    class Own:
        """Keeps the methods that it has."""

        a: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

    Nothing = make(frozen=True)(type("Nothing", (), {"__doc__": "Has no fields."}))  # noqa: N806
    return {each.__name__: each for each in (Frozen, Same, Plain, Checked, Own, Nothing)}


OURS, THEIRS = bodies(dataclass), bodies(dataclasses.dataclass)


def outcome(call: Callable[..., Any], *args: Any) -> str:
    """What a call gives, or the name of what it raises."""
    try:
        return repr(call(*args))
    except Exception as error:
        return type(error).__name__


@given(st.integers(-2, 9), st.text(max_size=3), st.lists(st.integers(), max_size=3))
def test_frozen_objects_behave_as_the_standard_ones(a: int, b: str, c: list[int]) -> None:
    one, other = OURS["Frozen"](a, b, c=tuple(c)), THEIRS["Frozen"](a, b, c=tuple(c))
    assert repr(one) == repr(other)
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    assert vars(one) == vars(other)
    assert one.twice == 2 * a
    assert one == OURS["Frozen"](a, b, tuple(c), {})
    assert one != OURS["Frozen"](a + 1, b, tuple(c))
    assert one == OURS["Frozen"](a, b, tuple(c), {}, 2)  # e is not compared
    assert one != other  # another class, as there
    assert repr(dataclasses.replace(one, a=7)) == repr(dataclasses.replace(other, a=7))
    assert replace(one, a=7) == dataclasses.replace(one, a=7)
    assert replace(one, a=7).twice == 14  # what was cached is left behind
    with pytest.raises(TypeError):
        replace(one, z=1)
    assert outcome(hash, one) == outcome(hash, other) == "TypeError"  # it holds a dict
    assert copy.deepcopy(one) == one


@pytest.mark.parametrize("name", OURS)
def test_classes_agree_in_what_does_not_depend_on_values(name: str) -> None:
    ours, theirs = OURS[name], THEIRS[name]
    args = () if name == "Nothing" else (3,)
    one, other = ours(*args), theirs(*args)
    assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert ours.__match_args__ == theirs.__match_args__
    assert repr(one) == repr(other)
    assert (one == ours(*args)) == (other == theirs(*args))
    for call in (
        lambda each: each(*args, 1, 2, 3, 4, 5),
        lambda each: each(*args, wrong=1),
        lambda each: each(-1),
        lambda each: setattr(each(*args), "a", 5),
        lambda each: setattr(each(*args), "z", 5),
        lambda each: delattr(each(*args), "a"),
        lambda each: hash(each(*args)) == hash(each(*args)),
    ):
        assert outcome(call, ours) == outcome(call, theirs)


def test_each_object_has_its_own_value_of_a_factory() -> None:
    first, second = OURS["Plain"](1), OURS["Plain"](1)
    first.b.append(2)
    assert second.b == []


def test_objects_survive_pickling() -> None:
    source = schema.Source("t", "u", "l", "2025", "paper")
    assert pickle.loads(pickle.dumps(source)) == source
    assert hash(pickle.loads(pickle.dumps(source))) == hash(source)


def test_a_field_that_is_not_supported_is_refused() -> None:
    @dataclass
    class Derived:
        """Has a field that callers do not give."""

        a: int
        b: int = dataclasses.field(init=False, default=0)

    with pytest.raises(TypeError, match="Derived.b"):
        Derived(1)


CLASSES = [
    each
    for module in (facts, fact_types, moments, schema, setup, pairs, spec)
    for each in vars(module).values()
    if isinstance(each, type) and each.__module__ == module.__name__ and dataclasses.is_dataclass(each)
]


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__qualname__)
def test_the_package_uses_no_field_that_it_does_not_support(each: type[Any]) -> None:
    for field in dataclasses.fields(each):
        assert field.init and field.hash is None and not field.kw_only
