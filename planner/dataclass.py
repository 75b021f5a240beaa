"""`dataclass`, as the standard library's, made several times as fast.

The standard library compiles six methods for each frozen class, which was a third of a cold start. Here a class
compiles `__init__` alone, when its first object is made; the other methods are functions over its fields that all
classes share. `fields`, `replace` and `is_dataclass` of the standard library work on these classes too; the `replace`
here is the quicker. Keyword-only and init-only fields are not supported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import replace as replace
else:

    def dataclass(
        cls: type | None = None, /, *, frozen: bool = False, eq: bool = True
    ) -> type | Callable[[type], type]:
        """Add what a dataclass has, by the rules of dataclasses.dataclass with these options."""
        return _made(cls, frozen, eq) if cls is not None else lambda each: _made(each, frozen, eq)

    def replace(this: object, /, **changes: Any) -> object:
        """As dataclasses.replace, of a class of this module: what is no field of it (cached) is left behind."""
        fields = type(this).__dataclass_fields__
        own = {name: value for name, value in vars(this).items() if name in fields}
        return type(this)(**{**own, **changes})


def _made(cls: type, frozen: bool, eq: bool) -> type:
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    methods: dict[str, Any] = {"__init__": _first_init(cls, frozen), "__repr__": _repr}
    if eq:
        values = _values(tuple(field.name for field in dataclasses.fields(cls) if field.compare))
        methods["__eq__"] = _eq(values)
        methods["__hash__"] = _hash(values) if frozen else None
    if frozen:
        methods |= {"__setattr__": _no_set, "__delattr__": _no_delete}
    for name, method in methods.items():
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(cls, name, method)
    return cls


def _values(names: tuple[str, ...]) -> Callable[[object], Any]:
    return attrgetter(*names) if names else type


def _first_init(cls: type, frozen: bool) -> Callable[..., None]:
    """An __init__ that compiles the class's own, puts it in its place and runs it."""

    def init(self: object, *args: Any, **kwargs: Any) -> None:
        own = _compiled(cls, frozen)
        cls.__init__ = own  # type: ignore[misc]
        own(self, *args, **kwargs)

    return init


def _compiled(cls: type, frozen: bool) -> Callable[..., None]:
    """The __init__ of a class: parameters in the order of its fields, defaults, __post_init__ at the end."""
    missing = dataclasses.MISSING
    scope: dict[str, Any] = {"_unset": missing}
    parameters, lines = ["self"], []
    for field in dataclasses.fields(cls):
        name, value = field.name, field.name
        if not field.init or field.kw_only:
            raise TypeError(
                f"{cls.__qualname__}.{name}: only fields that are given by position are supported"
            )
        if field.default is not missing:
            scope[f"_default_{name}"] = field.default
            parameters.append(f"{name}=_default_{name}")
        elif field.default_factory is not missing:
            scope[f"_make_{name}"] = field.default_factory
            parameters.append(f"{name}=_unset")
            value = f"_make_{name}() if {name} is _unset else {name}"
        else:
            parameters.append(name)
        lines.append(f"  _fields[{name!r}] = {value}" if frozen else f"  self.{name} = {value}")
    if frozen:  # __setattr__ refuses
        lines.insert(0, "  _fields = self.__dict__")
    if hasattr(cls, "__post_init__"):
        lines.append("  self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n" + "\n".join(lines or ["  pass"]), scope)
    made: Callable[..., None] = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _repr(self: Any) -> str:
    fields = (each.name for each in dataclasses.fields(self) if each.repr)
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in fields)
    return f"{type(self).__qualname__}({shown})"


def _eq(values: Callable[[object], Any]) -> Callable[[object, object], Any]:
    def equal(self: object, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hash(values: Callable[[object], Any]) -> Callable[[object], int]:
    return lambda self: hash(values(self))


def _no_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
