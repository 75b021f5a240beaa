"""Architectures kept on disk: JSON files named by a hash of what they were made from.

Safe with parallel processes (a file appears whole or not at all); a file that cannot be read is as good as
none, and so is a folder that cannot be written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

from .. import schema
from ..errors import ConfigError
from ..version import __version__

FORMAT = 1
VARIABLE = "LORA_PLAN_CACHE"
_CLASSES = {
    kind.__name__: kind
    for kind in (
        schema.Matrix, schema.Part, schema.Vector, schema.Block, schema.Apply, schema.Attend, schema.Product,
        schema.Scan, schema.Join, schema.Keep, schema.Recall, schema.Architecture,
    )
}  # fmt: skip


def folder() -> str:
    """Where the files lie: LORA_PLAN_CACHE, or the platform's place for caches."""
    if chosen := os.environ.get(VARIABLE):
        return chosen
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return os.path.join(base, "lora-plan")


def key(config: Mapping[str, Any], reader: str) -> str:
    """The name under which a config's architecture is kept: a hash of its content and of who read it."""
    try:
        text = json.dumps(config, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("the config is not JSON: its keys must be text and its values plain.") from error
    made_by = f"{FORMAT} {__version__} {reader}\n"
    return _sha256((made_by + text).encode("utf-8", "surrogatepass"))


def _sha256(data: bytes) -> str:
    """By Python's own module where there is one: hashlib loads a library of ciphers first, a thirtieth of a start."""
    for name in ("_sha2", "_sha256", "hashlib"):
        with suppress(ImportError, AttributeError):
            return str(import_module(name).sha256(data).hexdigest())
    raise ImportError("this Python has no SHA-256")


def load(name: str) -> schema.Architecture | None:
    """What is kept under this name, or None where nothing is or it cannot be read."""
    try:
        found = _decode((read(name) or {})["architecture"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, schema.Architecture) else None


def read(name: str) -> dict[str, Any] | None:
    """What `write` put under this name, or None where nothing is or it cannot be read."""
    try:
        with open(_path(name), encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and data.get("key") == name else None


def store(name: str, architecture: schema.Architecture) -> None:
    """Keep it, as `write` does."""
    write(name, {"architecture": encoded(architecture)})


def write(name: str, content: Mapping[str, Any]) -> None:
    """Keep it; where that fails (a full disk, a folder of someone else's) nothing happens."""
    import tempfile

    text = json.dumps({"key": name, **content}, separators=(",", ":"))
    temporary = None
    try:
        os.makedirs(folder(), exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=folder(), prefix=".new-", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        os.replace(temporary, _path(name))
    except OSError:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _path(name: str) -> str:
    return os.path.join(folder(), f"{name}.json")


def encoded(value: Any) -> Any:
    """A value of the schema as JSON can write it."""
    if is_dataclass(value) and not isinstance(value, type):
        return {type(value).__name__: [encoded(getattr(value, f.name)) for f in fields(value)]}
    if isinstance(value, tuple):
        if (
            len(value) > 2
            and type(value[0]) is int
            and value == tuple(range(value[0], value[0] + len(value)))
        ):
            return {"range": [value[0], len(value)]}
        return [encoded(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if isinstance(value, dict):
        [(name, content)] = value.items()
        if name == "range":
            start, length = content
            return tuple(range(start, start + min(length, 10**6)))
        kind = _CLASSES[name]
        if len(content) != len(fields(kind)):
            raise ValueError(name)
        return kind(*(_decode(item) for item in content))
    return value
