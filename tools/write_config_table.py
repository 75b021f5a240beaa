"""Write data/compiled/configs.json: what the config classes of the installed transformers accept, and model rules.

    nice python -m tools.write_config_table [--jobs 2]     (minutes: every rule is tried on built models)

Declared types are read off the classes, each kind compared with huggingface_hub's own validator on sample values.
Which class reads a nested config, and what classes check on themselves, is found by trying. The rules of models come
from tools/config_probes.py. `python -m tools.compare_config_check` then compares the verdicts on mutated configs.
"""

from __future__ import annotations

import argparse
import ast
import collections.abc
import inspect
import json
import os
import re
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from planner.architecture.meta import transformers_version
from planner.architecture.meta.kinds import fits
from planner.architecture.meta.known import complaints
from planner.architecture.meta.model import quietly

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "data" / "compiled" / "configs.json"
SAMPLES: tuple[Any, ...] = (
    None, True, False, 0, 1, -3, 2**60, 0.5, 1.0, float("nan"), "", "x", "gelu", [], {}, [1], [1.5], ["a"], [None],
    ["a", 2], {"a": 1}, {"a": "b"}, [[1, 2]], [[]], [{}], [True], {"full_attention": {}}, [1, 2, 3, 4], "train",
    "default", "all",
)  # fmt: skip
# Fields of the base class, whose types are not checked, with what is refused all the same.
TRIED: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "id2label": (["or", "dict", "none"], (3, 0, "x", "", [], [1], 0.5, True))
}
ROPE_NEEDS = {
    "linear": ["factor"], "dynamic": ["factor"], "yarn": ["factor"],
    "longrope": ["short_factor", "long_factor"],
    "llama3": ["factor", "low_freq_factor", "high_freq_factor"],
}  # fmt: skip


def kind_of(declared: Any) -> Any:
    """A declared type as the table writes it."""
    origin, args = typing.get_origin(declared), typing.get_args(declared)
    if declared is Any or isinstance(declared, str | typing.ForwardRef):
        return "any"
    if origin in (typing.Union, types.UnionType):
        inner = [kind for kind in map(kind_of, args) if kind != "never"]
        return (
            "any" if "any" in inner else ["or", *inner] if len(inner) > 1 else inner[0] if inner else "never"
        )
    if origin is typing.Literal:
        return ["one", *args]
    if origin is list:
        return ["list", kind_of(args[0])]
    if origin is dict:
        return ["dict", kind_of(args[0]), kind_of(args[1])]
    if origin is collections.abc.Sequence:
        return ["seq", kind_of(args[0])]
    simple = {
        int: "int",
        float: "float",
        bool: "bool",
        str: "str",
        dict: "dict",
        list: "list",
        type(None): "none",
    }
    return simple.get(declared, "never")  # tuples and config objects are not in JSON


def checked_kind(declared: Any) -> Any:
    """`kind_of`, after comparing it with the validator that transformers' classes use."""
    from huggingface_hub.dataclasses import type_validator

    kind = kind_of(declared)
    for value in SAMPLES:
        try:
            type_validator("field", value, declared)
            accepted = True
        except TypeError:
            accepted = False
        if accepted != fits(value, kind):
            raise AssertionError(f"{declared}: {value!r} is {accepted} for transformers, not by {kind}")
    return kind


def config_classes() -> dict[str, Any]:
    """Every config class that a model type or a nested config leads to, by name."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found: dict[str, Any] = {}
    waiting = [CONFIG_MAPPING[model_type] for model_type in CONFIG_MAPPING]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ in found:
            continue
        found[cls.__name__] = cls
        inner = [spec.config_class for spec in cls.sub_configs_defaults.values()]
        waiting += [part for part in inner if issubclass(part, PreTrainedConfig)]
    return dict(sorted(found.items()))


def refusal(cls: Any, **given: Any) -> str:
    """How the class refuses these fields, or nothing where it takes them."""
    try:
        cls(**given)
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return ""


def nested_parts(cls: Any) -> Iterator[tuple[str, list[str]]]:
    """Nested configs that a known class reads whatever else there is: key, [class or "", default model type]."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for key, spec in cls.sub_configs_defaults.items():
        own = issubclass(spec.config_class, PreTrainedConfig)
        known = spec.model_type in CONFIG_MAPPING
        inner = spec.config_class if own else CONFIG_MAPPING[spec.model_type] if known else None
        if key == "backbone_config" or inner is None:
            continue
        wrong = [f.name for f in fields(inner) if f.type is int][:2]
        tries: list[dict[str, Any]] = [{name: "wrong"} for name in wrong]
        if not own:
            tries += [{"model_type": "llama", "hidden_size": "wrong"}, {"model_type": "no-such-type"}]
        if wrong and all(
            "wrong" in (said := refusal(cls, **{key: each})) or "no-such-type" in said for each in tries
        ):
            yield key, [inner.__name__ if own else "", spec.model_type]


def constants(cls: Any) -> set[str]:
    """Every text that stands in the module of a class: words for layers that it may translate."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls)))  # type: ignore[arg-type]
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def layer_rules(cls: Any, allowed: Mapping[str, list[str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Which of its lists of layers a class checks: their words, and their number."""
    names = {f.name for f in fields(cls)}
    if not {"num_hidden_layers", "layer_types"} <= names:
        return
    short = {word for word in constants(cls) if re.fullmatch(r"[a-z0-9_]{3,30}", word)}
    for key, good in (("layer_types", "full_attention"), ("mlp_layer_types", "dense")):
        if key not in names:
            return
        beside = {} if key == "layer_types" else {"layer_types": ["full_attention"] * 4}
        tries = {
            "words": [{"num_hidden_layers": 4, key: ["no-such-layer", good, good, good], **beside},
                      {"num_hidden_layers": 4, key: [good, good, good, 7], **beside}],
            "count": [{"num_hidden_layers": 4, key: [good] * count, **beside}
                      for count in (1, 3, 5, 9)],
        }  # fmt: skip
        rule: dict[str, Any] = {
            name: all(refusal(cls, **each) for each in every) for name, every in tries.items()
        }
        if rule["words"] or rule["count"]:
            yield key, {**rule, "also": sorted(short - set(allowed[key])) if rule["words"] else []}


def has_rope(cls: Any) -> bool:
    """Whether the class checks what a way of scaling rotary embeddings needs."""
    if "rope_parameters" not in {f.name for f in fields(cls)}:
        return False
    return all(
        "Missing required keys" in refusal(cls, **{key: {"rope_type": way, "rope_theta": 1e4}})
        for way in ROPE_NEEDS
        for key in ("rope_parameters", "rope_scaling")
    )


def entries(classes: Mapping[str, Any], allowed: Mapping[str, list[str]]) -> dict[str, Any]:
    """The part of the table about config classes."""
    kinds: dict[str, int] = {}
    pairs: dict[tuple[str, int], int] = {}
    declared: dict[str, Any] = {}
    made: dict[str, dict[str, Any]] = {}
    for name, cls in classes.items():
        listed = []
        for each in fields(cls):
            text = repr(each.type)  # an annotation left as text is another than the type of the same words
            if text not in declared:
                declared[text] = checked_kind(each.type)
            found = declared[text]
            if found == "any" and each.name in TRIED:
                tried = TRIED[each.name]
                found = tried[0] if all(refusal(cls, **{each.name: value}) for value in tried[1]) else "any"
            if found != "any":
                kind = kinds.setdefault(json.dumps(found), len(kinds))
                listed.append(pairs.setdefault((each.name, kind), len(pairs)))
        aliases: dict[str, list[str]] = {}
        for alias, field in cls.attribute_map.items():
            aliases.setdefault(field, []).append(alias)
        parts, layers = dict(nested_parts(cls)), dict(layer_rules(cls, allowed))
        extra = {"aliases": aliases, "parts": parts, "rope": has_rope(cls), **layers}
        made[name] = {"fields": listed, **{key: value for key, value in extra.items() if value}}
    count = Counter(index for entry in made.values() for index in entry["fields"])
    common = [index for index, number in count.items() if number == len(made)]
    for entry in made.values():
        entry["fields"] = [index for index in entry["fields"] if index not in common]
    return {
        "kinds": [json.loads(kind) for kind in kinds],
        "fields": list(pairs),
        "common": common,
        "classes": made,
    }


def kept_rules(keep: Path, library: str) -> dict[str, Any]:
    """Rules that an earlier run, which may have been broken off, found for this version."""
    lines = keep.read_text(encoding="utf-8").splitlines() if keep.exists() else []
    return {model_type: rule for kept, model_type, rule in map(json.loads, lines) if kept == library}


def find_rules(rules: dict[str, Any], waiting: list[tuple[str, list[str]]], jobs: int, keep: Path) -> None:
    """Try the rules of these types, and note them in `keep` one by one."""
    from .config_probes import rules_of

    library = f"transformers {transformers_version()}"
    with get_context("spawn").Pool(jobs) as pool, keep.open("a", encoding="utf-8") as file:
        for model_type, rule in pool.imap_unordered(rules_of, waiting):
            rules[model_type] = rule
            file.write(json.dumps([library, model_type, rule]) + "\n")
            file.flush()


def build_table(jobs: int, keep: Path) -> dict[str, Any]:
    """The whole table."""
    from transformers.activations import ACT2CLS
    from transformers.configuration_utils import (
        _LEGACY_LAYER_TYPE_REMAP,
        ALLOWED_ATTN_LAYER_TYPES,
        ALLOWED_MLP_LAYER_TYPES,
    )
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from .config_probes import targets

    version = transformers_version()
    allowed = {
        "layer_types": [*ALLOWED_ATTN_LAYER_TYPES, *_LEGACY_LAYER_TYPE_REMAP],
        "mlp_layer_types": list(ALLOWED_MLP_LAYER_TYPES),
    }
    made = entries(config_classes(), allowed)
    rules = kept_rules(keep, f"transformers {version}")
    if jobs:
        find_rules(rules, [target for target in targets() if target[0] not in rules], jobs, keep)
    source = {
        "title": f"config classes and models of transformers {version}",
        "url": f"https://github.com/huggingface/transformers/tree/v{version}/src/transformers/models",
        "locator": "read and tried by tools/write_config_table.py", "date": "2026-11-28", "kind": "derived",
    }  # fmt: skip
    return {
        "library": f"transformers {version}", "source": source, **allowed, "activations": sorted(ACT2CLS),
        "rope": sorted({*ROPE_INIT_FUNCTIONS, "default", "axial"}), "rope_needs": ROPE_NEEDS,
        "types": {model_type: CONFIG_MAPPING[model_type].__name__ for model_type in CONFIG_MAPPING},
        "rules": {name: rule for name, rule in sorted(rules.items()) if rule["rules"]}, **made,
    }  # fmt: skip


def without_declared(found: dict[str, Any]) -> None:
    """Take out the rules against null that the declared types already tell."""
    for model_type, entry in found["rules"].items():
        kept = []
        for rule in entry["rules"]:
            fields: Any = None
            for step in reversed(rule[1].split(".")):
                fields = {step: fields}
            if rule[0] != "set" or not list(complaints(found["types"][model_type], fields, "", found)):
                kept.append(rule)
        entry["rules"] = kept


def main() -> None:
    """Write the table and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--jobs", type=int, default=2, help="processes that try rules (default 2), 0 for none"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("config-rules.jsonl"), help="rules found so far, to go on from"
    )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options = parser.parse_args()
    with quietly():
        found = build_table(options.jobs, options.keep)
    without_declared(found)
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in found.items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    rules = sum(len(rule["rules"]) for rule in found["rules"].values())
    print(f"{TABLE.stat().st_size:,} bytes, {len(found['classes'])} classes")
    print(f"{rules} rules of {len(found['rules'])} types")


if __name__ == "__main__":
    main()
