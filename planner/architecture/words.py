"""Words in a config that no class of its type knows: activations, ways to scale rotary embeddings, kinds of layers.

An inventory may not depend on them, so that a builder reads past a word that transformers refuses. The table
(data/compiled/words.json) is made by tools/write_words.py, by trying each field of each type that has a builder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from .. import facts
from ..errors import ConfigError, hint


@cache
def _table() -> Mapping[str, Any]:
    """The rules: some 20 kB."""
    found: Mapping[str, Any] = json.loads(facts.read_data("compiled", "words.json"))
    return found


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a word that transformers refuses in a config of this type."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        return
    for path, word, (what, allowed) in _found(config, model_type, "", _table()):
        if isinstance(word, int):
            raise ConfigError(f"config field {path}: found a list of {word} items, expected {what}.")
        if word not in allowed:
            raise ConfigError(
                f"config field {path}: found {word[:60]!r}, expected {what}.{hint(word, allowed)}"
            )


def _found(
    config: Mapping[str, Any], model_type: str, before: str, table: Mapping[str, Any]
) -> Iterator[tuple[str, str | int, Any]]:
    """Every word that a rule speaks about, with its path and what is expected. A nested config of a type of its own
    has that type's rules."""
    usual = table["parts"].get(model_type, {})
    others = {}
    for name, default in usual.items():
        part = config.get(name)
        own = part.get("model_type") if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and isinstance(own, str) and own != default:
            others[name] = part
            yield from _found(part, own, f"{before}{name}.", table)
    for path, kind in table["types"].get(model_type, {}).items():
        if path.split(".")[0] not in others:
            name, _, counted = kind.partition(" ")
            for word in _words(config, path):
                yield f"{before}{path}", word, table["kinds"][name]
            if counted:
                yield from ((f"{before}{path}", *wrong) for wrong in _miscounted(config, path))


def _miscounted(config: Mapping[str, Any], path: str) -> Iterator[tuple[int, tuple[str, None]]]:
    """The length of a list that has not one item a layer."""
    part = config
    for step in path.split(".")[:-1]:
        part = part.get(step) or {}
        if not isinstance(part, Mapping):
            return
    found, layers = part.get(path.split(".")[-1]), part.get("num_hidden_layers")
    if isinstance(found, list) and type(layers) is int and len(found) != layers:
        yield len(found), (f"{layers}, one a layer, as num_hidden_layers says", None)


def _words(config: Mapping[str, Any], path: str) -> Iterator[str]:
    """The text of a field, or each in a list of them."""
    *outer, key = path.split(".")
    part: Any = config
    for step in outer:
        part = part.get(step)
        if not isinstance(part, Mapping):
            return
    value = part.get(key)
    yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))
