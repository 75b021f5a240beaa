"""Rules that the classes of models hold to, found by trying: what no config of a model type may break.

For each candidate (an unknown activation, a width of zero, heads that do not divide the width ...) a small model's
config is broken in one place. The rule stays only if transformers refuses the broken config whatever else is
changed at the same time, in SURROUNDINGS random ways that build without the break.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Iterator
from typing import Any

from planner.architecture.build import BUILDERS
from planner.architecture.meta.known import inside, usual
from planner.architecture.meta.model import build_model, quietly
from planner.errors import PlannerError

from .write_coverage import MAPPINGS, default_config, types_of

Config = dict[str, Any]
SURROUNDINGS = 5
LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "depth",
    "encoder_layers",
    "decoder_layers",
    "num_layer",
)
LISTS = ("layer_types", "mlp_layer_types", "layers_block_type")
SKIPPED = ("id2label", "label2id", "architectures", "model_type", "transformers_version", "_name_or_path")
WIDTHS = (
    "hidden_size",
    "d_model",
    "n_embd",
    "dim",
    "embed_dim",
    "emb_dim",
    "embedding_size",
    "num_attention_heads",
)

BREAKS: dict[str, list[Any]] = {
    "activations": ["no-such-name"], "rope": ["no-such-name", 7, [1], True],
    "number": ["wrong", [1], {"a": 1}], "object": ["wrong", 7, [1], True], "set": [None],
    "least 1": [0], "least 0": [-1, -64], "share": [1.5, -0.25], "even": [65, 7],
}  # fmt: skip


def targets() -> list[tuple[str, list[str]]]:
    """Model types of the auto mappings that transformers has to build, language models first, with their classes."""
    found: dict[str, list[str]] = {}
    for mapping in MAPPINGS.values():
        for model_type, name in types_of(mapping):
            if model_type not in BUILDERS and name not in found.setdefault(model_type, []):
                found[model_type].append(name)
    return list(found.items())


def builds(config: Config) -> bool:
    """Whether transformers builds it."""
    try:
        build_model(config)
    except PlannerError:
        return False
    return True


def holders(config: Config, path: str = "") -> Iterator[tuple[str, Config]]:
    """The config and every nested one, with the beginning of their fields' paths."""
    yield path, config
    for key, value in config.items():
        if isinstance(value, dict) and value and key not in (*SKIPPED, "per_layer_config"):
            yield from holders(value, f"{path}{key}.")


def shrunk(config: Config) -> Config:
    """Two layers, where that still builds."""
    small = copy.deepcopy(config)
    for _, part in holders(small):
        for key in LAYERS:
            if type(part.get(key)) is int and part[key] > 2:
                part[key] = 2
        for key in LISTS:
            if isinstance(part.get(key), list):
                part[key] = part[key][:2]
    return small if builds(small) else config


def bases(model_type: str, names: list[str]) -> tuple[list[str], list[Config]]:
    """The classes whose default (or small) config is of this type and builds, with those configs."""
    classes, found = [], []
    for name in names:
        try:
            config = default_config(model_type, name)
        except Exception:  # a class whose defaults it refuses itself
            continue
        if config["model_type"] == model_type and builds(config):
            classes.append(name)
            found.append(shrunk(config))
    return classes, found


def altered(config: Config, rng: random.Random) -> Config:
    """The config with a few switches and sizes changed."""
    made = copy.deepcopy(config)
    for _ in range(rng.choice((1, 2, 4, 8))):
        _, part = rng.choice(list(holders(made)))
        key = rng.choice(sorted(part))
        value = part[key]
        if key in SKIPPED or isinstance(value, dict):
            continue
        if isinstance(value, bool):
            part[key] = not value
        elif isinstance(value, int):
            part[key] = rng.choice((value * 2, value + 1, max(value // 2, 1), 1, None))
        elif value is None:
            part[key] = rng.choice((True, 8, ["full_attention"] * 2, "full_attention", 0.5))
        elif isinstance(value, list):
            part[key] = rng.choice((value[::-1], None, value * 2))
        elif isinstance(value, str):
            part[key] = rng.choice((None, value, "relu", "linear"))
        else:
            part[key] = rng.choice((None, value / 2, 0.0))
    return made


def surroundings(found: list[Config], rng: random.Random) -> list[Config]:
    """The bases, and random configs around them that build."""
    around = list(found)
    for _ in range(SURROUNDINGS * 6):
        if len(around) >= SURROUNDINGS + len(found):
            break
        made = altered(rng.choice(found), rng)
        if usual(made) and builds(made):
            around.append(made)
    return around


def candidates(config: Config) -> Iterator[list[Any]]:
    """Rules that might hold: [what, path, other path]."""
    for path, part in holders(config):
        for key, value in part.items():
            name = path + key
            if key in SKIPPED:
                continue
            if key == "rope_theta":
                yield ["number", name]
            if path.endswith("rope_parameters.") and isinstance(value, dict):
                yield ["object", name]
            if isinstance(value, str) and any(word in key for word in ("act", "non_linearity")):
                yield ["activations", name]
            elif key in ("rope_type", "type") and isinstance(value, str):
                yield ["rope", name]
            elif type(value) is int:
                yield from ([what, name] for what in ("least 1", "least 0"))
                yield from _pairs(part, path, key, value)
            elif isinstance(value, float) and "drop" in key:
                yield ["share", name]
            if value is not None and not isinstance(value, dict):
                yield ["set", name]


def _pairs(part: Config, path: str, key: str, value: int) -> Iterator[list[Any]]:
    if key == "head_dim" and value % 2 == 0 and value > 4:
        yield ["even", path + key]
    if ("head" in key or "group" in key) and "dim" not in key:
        for other in WIDTHS:
            whole = part.get(other)
            if type(whole) is int and other != key and value > 1 and whole % value == 0:
                yield ["divides", path + key, path + other]
    if key == "pad_token_id" and type(part.get("vocab_size")) is int:
        yield ["below", path + key, path + "vocab_size"]


def breaks(rule: list[Any], config: Config) -> Iterator[Config] | None:
    """Configs that break a rule in several ways; None where the rule does not speak about this config."""
    what, path = rule[:2]
    part, key = inside(config, path)
    if part is None or key not in part:
        return None
    values = BREAKS.get(what)
    if values is not None:
        return (_with(config, path, value) for value in values)
    beside, other = inside(config, rule[2])
    whole = beside.get(other) if beside is not None else None
    if type(whole) is not int or whole < 1:
        return None
    if what == "below":
        return (_with(config, path, value) for value in (whole, whole + 7))
    wrong = [n for n in (3, 5, 7, 11, 24, whole - 1, whole * 2) if n > 0 and whole % n]
    heads = [_with(config, path, value) for value in wrong]
    value = part[key]
    widths = (
        [_with(config, rule[2], value * n + 1) for n in (1, 5, 12)]
        if type(value) is int and value > 1
        else []
    )
    return iter([*heads, *widths])


def _with(config: Config, path: str, value: Any) -> Config:
    made = copy.deepcopy(config)
    part, key = inside(made, path)
    assert part is not None
    part[key] = value  # type: ignore[index]
    return made


def holds(rule: list[Any], around: list[Config]) -> bool:
    """Whether every break of the rule is refused in every surrounding."""
    tried = 0
    for config in around:
        for broken in breaks(rule, config) or ():
            tried += 1
            if builds(broken):
                return False
    return tried >= 3 or (tried > 0 and len(around) < 3)


def rules_of(target: tuple[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """The rules of one model type, with the classes that they were found on."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    warnings.filterwarnings("ignore")
    model_type, names = target
    kept: list[list[Any]] = []
    with quietly():
        classes, found = bases(model_type, names)
        if found:
            rng = random.Random(model_type)
            around = surroundings(found, rng)
            strict = set()
            for rule in candidates(found[0]):
                if rule[0] == "least 0" and rule[1] in strict:
                    continue
                if rule[0] == "set" and _told_by_its_class(CONFIG_MAPPING[model_type], rule[1]):
                    continue
                if holds(rule, around):
                    strict.add(rule[1])
                    what, path, *other = rule
                    kept.append([what, path, _aliases(CONFIG_MAPPING[model_type], path), *other])
    print(f"{model_type}: {len(kept)} rules in {len(classes)} classes", flush=True)
    return model_type, {"classes": classes, "rules": kept}


def _told_by_its_class(cls: Any, path: str) -> bool:
    """Whether the config class itself refuses null here, as the table of declared types says already."""
    fields: Any = None
    for step in reversed(path.split(".")):
        fields = {step: fields}
    try:
        cls(**fields)
    except Exception as error:
        return "expected" in str(error)
    return False


def _aliases(cls: Any, path: str) -> list[str]:
    """Other names of a field of the outer config, which would replace it."""
    return [alias for alias, field in cls.attribute_map.items() if field == path]
