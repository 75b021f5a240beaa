"""Write data/compiled/words.json: fields whose words transformers knows, for the types that have a builder.

    nice python -m tools.write_words [TYPE ...]     (a minute or two; with types, prints their rules only)

A field is noted where transformers builds the type's default (or small) configs, of every class that it has in the
auto mappings, and refuses all of them with a word there that nobody uses, and none of them with the words listed.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planner.architecture.build import BUILDERS
from planner.architecture.meta import known, transformers_version
from planner.architecture.meta.model import quietly

from .config_probes import SKIPPED, bases, builds, holders
from .write_coverage import MAPPINGS, types_of

TABLE = Path(__file__).resolve().parent.parent / "data" / "compiled" / "words.json"
NOBODYS = "no-such-name"
Config = dict[str, Any]


def kinds() -> dict[str, tuple[str, list[str]]]:
    """What is expected, and the words, by kind."""
    table = known.table()
    return {
        "activations": ("the name of an activation function", table["activations"]),
        "rope": ("a way of scaling rotary embeddings", table["rope"]),
        "layer_types": ("kinds of layers", table["layer_types"]),
        "mlp_layer_types": ("dense or sparse", table["mlp_layer_types"]),
        "hashed": ("hash_moe or moe", ["hash_moe", "moe"]),
        "gpt_neo": ("global or local", ["global", "local"]),
        "mpt": (
            "multihead_attention or multiquery_attention",
            ["multihead_attention", "multiquery_attention"],
        ),
        "features": ("default or full", ["default", "full"]),
        "norms": ("layer_norm or rms_norm", ["layer_norm", "rms_norm"]),
        "pooling": ("average, max or conv", ["average", "max", "conv"]),
        "classifier": ("cls or mean", ["cls", "mean"]),
    }


ONES = {
    "attention_layers": "gpt_neo", "attn_type": "mpt", "vision_feature_select_strategy": "features",
    "norm_type": "norms", "spatial_pool_mode": "pooling", "classifier_pooling": "classifier",
    "layer_types": "layer_types", "mlp_layer_types": "mlp_layer_types", "rope_type": "rope",
    "scoring_func": "activations", "afn": "activations",
}  # fmt: skip


def types() -> dict[str, list[str]]:
    """The types with a builder that transformers knows, with their classes."""
    found: dict[str, list[str]] = {}
    for mapping in MAPPINGS.values():
        for model_type, name in types_of(mapping):
            if model_type in BUILDERS and name not in found.setdefault(model_type, []):
                found[model_type].append(name)
    return found


def candidates(config: Config) -> Iterator[tuple[str, str, Any]]:
    """Fields that may hold a word: path, kind, and the value with nobody's word in it."""
    for path, part in holders(config):
        for key, value in part.items():
            kind = ONES.get(key) or ("activations" if "act" in key else None)
            if kind is None or key in SKIPPED:
                continue
            if isinstance(value, str):
                yield path + key, kind, NOBODYS
            elif isinstance(value, list) and value and isinstance(value[0], str):
                yield path + key, kind, [NOBODYS] * len(value)
            elif value is None and key.endswith("layer_types"):
                layers = part.get("num_hidden_layers")
                yield path + key, kind, [NOBODYS] * (layers if isinstance(layers, int) else 2)


def with_value(config: Config, path: str, value: Any) -> Config:
    """The config with another value at a path."""
    made = copy.deepcopy(config)
    *outer, key = path.split(".")
    part = made
    for step in outer:
        part = part[step]
    part[key] = value
    return made


def rules_of(model_type: str, names: list[str]) -> dict[str, str]:
    """The fields of a type whose words transformers knows, with the kind; with "counted" after it where the list must
    be as long as there are layers."""
    _, found = bases(model_type, names)
    rules = {}
    for path, kind, wrong in candidates(found[0]) if found else ():
        around = [config for config in found if _has(config, path)]
        own = [_at(config, path) for config in around]
        known_words = {
            word for value in own for word in (value if isinstance(value, list) else [value]) if word
        }
        if kind == "mlp_layer_types" and known_words & set(kinds()["hashed"][1]):
            kind = "hashed"
        refused = not any(builds(with_value(config, path, wrong)) for config in around)
        if refused and known_words <= set(kinds()[kind][1]):
            rules[path] = kind + (" counted" if _counted(around, path, kind) else "")
    return rules


def _counted(around: list[Config], path: str, kind: str) -> bool:
    if path.split(".")[-1] not in known.LISTS_OF_LAYERS:
        return False
    for config in around:
        layers = _at(config, f"{path.rpartition('.')[0]}.num_hidden_layers".lstrip("."))
        value = _at(config, path) or [kinds()[kind][1][0]] * (layers if isinstance(layers, int) else 2)
        if (
            type(layers) is not int
            or len(value) != layers
            or builds(with_value(config, path, value + value[:1]))
        ):
            return False
    return True


def _at(config: Config, path: str) -> Any:
    part: Any = config
    for step in path.split("."):
        part = part.get(step) if isinstance(part, dict) else None
    return part


def parts_of(model_type: str, names: list[str]) -> dict[str, str]:
    """The types of a type's nested configs where nothing says them."""
    _, found = bases(model_type, names)
    inner = found[0].items() if found else ()
    return {
        name: part["model_type"] for name, part in inner if isinstance(part, dict) and part.get("model_type")
    }


def _has(config: Config, path: str) -> bool:
    part: Any = config
    for step in path.split("."):
        if not isinstance(part, dict) or step not in part:
            return False
        part = part[step]
    return True


def main() -> int:
    """Write the table, or print the rules of the types given."""
    warnings.filterwarnings("ignore")
    chosen = sys.argv[1:]
    with quietly():
        rules = {t: rules_of(t, names) for t, names in sorted(types().items()) if not chosen or t in chosen}
    if chosen:
        print(json.dumps(rules, indent=1))
        return 0
    parts = {t: parts_of(t, names) for t, names in sorted(types().items())}
    library = f"transformers {transformers_version()}"
    made = {
        "library": library, "kinds": {name: list(kind) for name, kind in kinds().items()},
        "types": {model_type: found for model_type, found in rules.items() if found},
        "parts": {model_type: found for model_type, found in parts.items() if found},
    }  # fmt: skip
    TABLE.write_text(json.dumps(made, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(rules)} types, {sum(map(len, rules.values()))} fields, {TABLE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
