"""What transformers' own classes accept in a config, told from a table without importing transformers.

The table (data/compiled/configs.json) is made by tools/write_config_table.py from one version of transformers, and is
asked only where that version is installed. It holds the declared type of every field of every config class, which
class reads a nested config, and rules that the classes of models hold to (known activations, heads that divide the
width, sizes of at least one). What it lets through may still be refused by transformers; what it refuses,
transformers refuses too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ... import facts
from ...errors import ConfigError, UnsupportedArchitectureError, hint
from .kinds import fits, shown, words

Table = Mapping[str, Any]
Config = Mapping[str, Any]
Rule = Sequence[Any]
LISTS_OF_LAYERS = ("layer_types", "mlp_layer_types")


@cache
def table() -> Table:
    """The table: some 300 kB, read only where transformers would have to be imported otherwise."""
    found: Table = json.loads(facts.read_data("compiled", "configs.json"))
    return found


def check(config: Config, library: str) -> None:
    """Raise ConfigError for what transformers of this version (`library`) refuses in a cleaned config.

    Nothing is checked where the table is of another version.
    """
    known = table()
    if known["library"] != library:
        return
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in known["types"]:
        raise UnsupportedArchitectureError(unknown(model_type, known["types"], library))
    fields = {key: value for key, value in config.items() if key != "model_type"}
    for message in complaints(known["types"][model_type], fields, "", known):
        raise ConfigError(message)
    rules = known["rules"].get(model_type)
    if rules is not None and _is_for(rules["classes"], config.get("architectures")) and usual(config):
        for rule in rules["rules"]:
            _hold(rule, config, known)


def unknown(model_type: object, types: Any, library: str) -> str:
    """The sentence for a model type that neither a builder nor transformers has."""
    near = hint(model_type, types, cutoff=0.85) if isinstance(model_type, str) else ""
    return f"model_type {shown(model_type)} has no builder in this version, and {library} does not know it.{near}"


# Declared types


def complaints(name: str, fields: Config, path: str, known: Table) -> Iterator[str]:
    """What the class refuses of these fields, in nested configs too."""
    entry = known["classes"].get(name)
    if entry is None:
        return
    kinds = dict(known["fields"][index] for index in (*known["common"], *entry["fields"]))
    for key, value in fields.items():
        kind = known["kinds"][kinds[key]] if key in kinds else "any"
        if not fits(value, kind):
            yield f"config field {path}{key}: found {shown(value)}, expected {words(kind)}."
    yield from _of_layers(entry, fields, path, known)
    yield from _of_rotation(entry, fields, path, known)
    for key, (inner, default_type) in entry.get("parts", {}).items():
        part = fields.get(key)
        if not isinstance(part, Mapping):
            continue
        if not inner:
            part_type = part.get("model_type", default_type)
            if not isinstance(part_type, str) or part_type not in known["types"]:
                continue  # a class may have a word of its own for one
            inner = known["types"][part_type]
            part = {name: value for name, value in part.items() if name != "model_type"}
        yield from complaints(inner, part, f"{path}{key}.", known)


def _of_layers(entry: Table, fields: Config, path: str, known: Table) -> Iterator[str]:
    """The kinds of layers: known words, one for each layer."""
    if fields.get("per_layer_config") is not None or not isinstance(fields.get("layer_types"), list):
        return
    for key in LISTS_OF_LAYERS:
        listed, rule = fields.get(key), entry.get(key)
        if not isinstance(listed, list) or rule is None:
            return
        allowed = (*known[key], *rule["also"])
        for value in listed:
            if rule["words"] and value not in allowed:
                near = hint(value, allowed) if isinstance(value, str) else ""
                yield f"config field {path}{key}: found {shown(value)}, expected kinds of layers.{near}"
        layers = fields.get("num_hidden_layers")
        overridden = any(alias in fields for alias in entry.get("aliases", {}).get("num_hidden_layers", ()))
        if rule["count"] and type(layers) is int and not overridden and layers != len(listed):
            yield (
                f"config field {path}{key}: found {len(listed)} kinds of layers, expected {layers}, as "
                "num_hidden_layers says."
            )


def _of_rotation(entry: Table, fields: Config, path: str, known: Table) -> Iterator[str]:
    """The numbers that a way of scaling rotary embeddings needs."""
    key = "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"
    found = fields.get(key)
    if not entry.get("rope") or not isinstance(found, Mapping) or not found:
        return
    if any(isinstance(value, Mapping) for value in found.values()):
        return  # one of them for each kind of layer
    way = found.get("rope_type", found.get("type", "default"))
    needed = known["rope_needs"].get(way, ()) if isinstance(way, str) else ()
    for name in needed:
        if name not in found:
            yield f"config field {path}{key}.{name} is missing; rope_type {way!r} needs it.{hint(name, found)}"


# Rules of the classes of models


def _is_for(classes: Sequence[str], named: object) -> bool:
    """Whether the rules were found on the class that this config asks for."""
    names = named if isinstance(named, list) else [named]
    return not names or names[0] is None or names[0] in classes


def usual(config: Config) -> bool:
    """Whether there are layers, all of one config: a model of none reads few of its fields."""
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        if part.get("per_layer_config") is not None or part.get("layer_types") == []:
            return False
        counts = (value for key, value in part.items() if "layer" in key or "depth" in key or "block" in key)
        if any(type(value) is int and value < 1 for value in counts):
            return False
    return True


def _hold(rule: Rule, config: Config, known: Table) -> None:
    """Raise ConfigError where a config does not hold to one rule: [what, path, aliases, other path]."""
    what, path, aliases, *other = rule
    part, key = inside(config, path)
    if part is None or key not in part or any(alias in part for alias in aliases):
        return
    value = part[key]
    expected, near = None, ""
    if what in NAMES:
        if not isinstance(value, str):
            expected = NAMES[what] if what == "rope" and value is not None else None
        elif value not in known[what]:
            expected, near = NAMES[what], hint(value, known[what])
    elif what in KINDS:
        expected = None if isinstance(value, KINDS[what][0]) else KINDS[what][1]
    elif what == "set":
        expected = "a value, not null" if value is None else None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    elif what in LIMITS:
        holds, expected = LIMITS[what]
        expected = None if holds(value) else expected
    else:
        second = inside(config, other[0])
        beside = second[0].get(second[1]) if second[0] is not None else None
        if type(beside) is int and beside > 0 and not PAIRS[what][0](value, beside):
            expected = PAIRS[what][1].format(name=other[0], value=beside)
    if expected is not None:
        raise ConfigError(f"config field {path}: found {shown(value)}, expected {expected}.{near}")


NAMES = {
    "activations": "the name of an activation function",
    "rope": "a way of scaling rotary embeddings",
}
KINDS: Mapping[str, tuple[Any, str]] = {
    "number": ((int, float, type(None)), "a number"),
    "object": ((dict, type(None)), "an object"),
}
LIMITS: Mapping[str, tuple[Any, str]] = {
    "least 0": (lambda value: value >= 0, "a whole number of at least 0"),
    "least 1": (lambda value: value != 0, "a whole number of at least 1"),
    "share": (lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "even": (lambda value: value % 2 == 0 or value <= 4, "an even number"),
}
PAIRS: Mapping[str, tuple[Any, str]] = {
    "divides": (
        lambda value, whole: value < 1 or whole % value == 0,
        "a number that divides {name}, {value}",
    ),
    "below": (lambda value, most: value < most, "a number below {name}, {value}"),
}


def inside(config: Config, path: str) -> tuple[Config | None, str]:
    """The nested config that holds the last field of a path, and that field's name."""
    *steps, key = path.split(".")
    part: Any = config
    for step in steps:
        part = part.get(step)
        if not isinstance(part, Mapping):
            return None, key
    return part, key
