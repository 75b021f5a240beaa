"""A trainer's config file as a mapping, read so that nothing in it can run, grow or hide.

YAML is loaded by PyYAML's safe loader, which makes plain values only; a file is at most a megabyte, anchors may not
grow it beyond 20,000 values, and a key that stands twice is an error (YAML would keep the last one in silence).
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from ..adapter.files import CONFIG
from ..errors import InputError
from ..schema import Notice
from .lines import flat

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
MAX_DEPTH = 60


def read_file(place: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, or in the adapter_config.json of a folder. Raises InputError."""
    path = os.fspath(place)
    if os.path.isdir(path):
        path = os.path.join(path, CONFIG)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise InputError("config", path, f"a regular file of at most {MAX_BYTES:,} bytes")
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = f"{error.strerror}." if isinstance(error, OSError) and error.strerror else ""
        raise InputError("config", path, "a readable config file of a trainer, in UTF-8", why) from None
    data = _json(path, text) if text.lstrip().startswith("{") else _yaml(path, text)
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        raise InputError("config", path, "a file of options and values")
    _measure(path, data)
    return data


def _twice(path: str, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError("config", path, f"{key!r:.60} once; it stands there twice")
        found[key] = value
    return found


def _json(path: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _twice(path, pairs))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("config", path, "readable JSON") from None


def _yaml(path: str, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """PyYAML's safe loader, which refuses a key that stands twice."""

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        return _twice(path, loader.construct_pairs(node, deep=True))

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = str(getattr(error, "problem", None) or "it is not YAML")[:80]
        raise InputError("config", f"{path}{where}", f"readable YAML ({problem})") from None
    except (RecursionError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("config", path, "readable YAML of options and values") from None


def _measure(path: str, data: Any) -> None:
    """Raise InputError where anchors make the data larger than anyone's config, or endless."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, (dict, list)):
            return 1
        if id(value) in sizes:
            return sizes[id(value)]
        if id(value) in open_ or depth > MAX_DEPTH:
            raise InputError(
                "config", path, f"values at most {MAX_DEPTH} deep that do not contain themselves"
            )
        open_.add(id(value))
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(size(item, depth + 1) for item in inner)
        open_.discard(id(value))
        return sizes[id(value)]

    if size(data, 0) > MAX_VALUES:
        raise InputError("config", path, f"at most {MAX_VALUES:,} values")


class Fields:
    """A config whose options are read by type; those that nobody asked for are left over. None is not given."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.asked: set[str] = set()
        self.notices: list[Notice] = []

    def any(self, name: str, usual: Any = None) -> Any:
        """The value as it stands."""
        self.asked.add(name)
        value = self.data.get(name)
        return usual if value is None else value

    def number(self, name: str, usual: Any = None) -> Any:
        """A number, also one that YAML 1.1 reads as a word (1e-4)."""
        value = self.any(name, usual)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise InputError(name, value, "a number") from None
        if value is None or (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        ):
            return value
        raise InputError(name, value, "a number")

    def whole(self, name: str, usual: Any = None, least: int = 1) -> Any:
        """A whole number."""
        value = self.number(name, usual)
        if value is None:
            return None
        if value != int(value) or value < least:
            raise InputError(name, value, f"a whole number of at least {least}")
        return int(value)

    def flag(self, name: str, usual: bool = False) -> bool:
        """True or false, also as a word."""
        value = self.any(name, usual)
        if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no"):
            return value.lower() in ("true", "yes")
        if not isinstance(value, bool):
            raise InputError(name, value, "true or false")
        return value

    def text(self, name: str, usual: Any = None) -> Any:
        """A word."""
        value = self.any(name, usual)
        if value is None or isinstance(value, str):
            return value
        raise InputError(name, value, "a word")

    def names(self, name: str) -> list[str] | None:
        """A list of words, or one of them."""
        value = self.any(name)
        if value is None:
            return None
        items = [value] if isinstance(value, str) else value
        if (
            not isinstance(items, list)
            or not items
            or not all(isinstance(item, str) and item for item in items)
        ):
            raise InputError(name, value, "a list of names")
        return items

    def mapping(self, name: str) -> dict[str, Any]:
        """A mapping; empty where there is none."""
        value = self.any(name, {})
        if not isinstance(value, dict):
            raise InputError(name, value, "options and values")
        return value

    def word_or(self, name: str, table: Mapping[Any, Any], usual: Any, instead: Any) -> Any:
        """What a table makes of a word; one that it does not have is said, and `instead` taken."""
        value = self.text(name, usual)
        if value in table:
            return table[value]
        text = f"{name}: the plan has no {flat(value)[:60]}; memory and time are those of {instead}."
        self.notices.append(Notice("not-planned", text))
        return instead

    def word(self, name: str, table: Mapping[Any, Any], usual: Any) -> Any:
        """What a table makes of a value. Raises InputError for one that it does not have."""
        value = self.any(name, usual)
        found = value if isinstance(value, (str, bool)) else str(value)
        if found not in table:
            known = ", ".join(str(key) for key in table)
            raise InputError(name, value, f"one of {known}; the plan has no other")
        return table[found]
