"""What a config may ask for before anything is built from it: transformers itself trusts every number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import ConfigError
from .kinds import shown

MOST = 2**31
MOST_LAYERS = 512
MOST_THINGS = 100_000
MOST_DEPTH = 24
MOST_VALUES = 100_000
# Numbers of modules, or of entries in a list that transformers makes, by what their fields' names contain.
WIDTHS = ("token", "seed", "size", "dim", "vocab", "channel")
LAYERS = ("layer", "depth", "num_block", "n_block", "num_hidden_group")
THINGS = ("expert", "group", "head", "codebook", "quantizer", "stage", "branch", "scale", "num_")
# Sides of matrices and numbers of layers: whole numbers (or lists of them), told without asking transformers,
# whose import takes longer than a refusal may.
COUNTS = frozenset(
    "hidden_size intermediate_size vocab_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "d_model n_embd n_layer n_head".split()
)
# Fields that choose kernels, quantisation or code, or that make transformers fetch other weights: none changes
# the inventory, and some would run or download something.
DROPPED = frozenset(
    "auto_map quantization_config compression_config _attn_implementation attn_implementation "
    "_attn_implementation_internal _experts_implementation _experts_implementation_internal "
    "experts_implementation custom_pipelines _commit_hash _name_or_path transformers_version use_kernels "
    "kernel_config device device_map dtype torch_dtype".split()
)
SWITCHED_OFF = frozenset(("use_pretrained_backbone", "trust_remote_code"))
# A width beyond this has a square that no tensor holds.
MOST_WIDTH = 2**28


def check(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a number is out of any model's reach, or the nesting is too deep."""
    for path, key, value in _values(config):
        if key in COUNTS:
            _check_count(path, value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        most = _most(key.lower())
        if isinstance(value, int) and abs(value) > most:
            raise ConfigError(f"config field {path}: found {shown(value)}, expected at most {most}.")
        if value != value:
            raise ConfigError(f"config field {path}: found nan, expected a number.")


def cleaned(value: Any) -> Any:
    """The config without the fields that no inventory depends on."""
    if isinstance(value, Mapping):
        return {
            key: False if key in SWITCHED_OFF and inner else cleaned(inner)
            for key, inner in value.items()
            if key not in DROPPED
        }
    if isinstance(value, (list, tuple)):
        return [cleaned(item) for item in value]
    return value


def _check_count(path: str, value: object) -> None:
    if value is None or (type(value) is int and 0 <= value <= MOST_WIDTH):
        return
    if isinstance(value, float) and value.is_integer() and 0 <= value <= MOST_WIDTH:
        return  # transformers decides
    raise ConfigError(
        f"config field {path}: found {shown(value)}, expected a whole number of at most {MOST_WIDTH}."
    )


def _most(key: str) -> int:
    if key.endswith("_id") or any(word in key for word in WIDTHS):
        return MOST
    if any(word in key for word in LAYERS):
        return MOST_LAYERS
    return MOST_THINGS if any(word in key for word in THINGS) else MOST


def _values(value: Any) -> Iterator[tuple[str, str, Any]]:
    """Every plain value inside, with its path and the name of the field that holds it."""
    if not isinstance(value, NESTS):
        yield "", "", value
        return
    count, open_ones = 0, [_inside(value, "", "")]
    while open_ones:
        for path, key, inner in open_ones[-1]:
            count += 1
            if count + (len(inner) if isinstance(inner, NESTS) else 0) > MOST_VALUES:
                raise ConfigError(f"the config has more than {MOST_VALUES} values, up to {path[:60]}.")
            if not isinstance(inner, NESTS):
                yield path, key, inner
                continue
            if inner and len(open_ones) >= MOST_DEPTH:
                raise ConfigError(f"config field {path[:60]}: nested more than {MOST_DEPTH} deep.")
            open_ones.append(_inside(inner, path, key))
            break
        else:
            open_ones.pop()


NESTS = (Mapping, list, tuple)


def _inside(value: Any, path: str, key: str) -> Iterator[tuple[str, str, Any]]:
    """What stands directly inside an object or a list, without what nothing is built from."""
    if not isinstance(value, Mapping):
        for inner in value:
            yield path, key, inner
        return
    for name, inner in value.items():
        if not isinstance(name, str):
            raise ConfigError(f"config field {path or 'config'}: found the key {shown(name)}, expected text.")
        if name not in DROPPED:
            yield f"{path}.{name}" if path else name, name, inner
