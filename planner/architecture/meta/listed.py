"""The list that transformers makes of its models' files when it is imported, kept on disk.

It opens 1,700 source files for it, which takes a twenty-fifth of a simulation's processor time, and longer where the
system has them not in memory. A kept list holds for one installation by a package manager: its path, the manager's
record of its files, and the folder of models as it was last changed. Neglected: a source file that somebody edits in
place, whose list of names or needs then counts as before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

from .. import cache

FORMAT = 2
Listing = Callable[..., Any]


def kept(listing: Listing, models: str, version: str) -> Listing:
    """transformers' `define_import_structure`, which keeps on disk what it gives of the folder of all models."""
    name = _name(models, version)
    if name is None:
        return listing

    @functools.cache
    def all_models() -> Any:
        data = cache.read(name)
        if _decoded(data) is None:
            data = {"list": encoded(listing(models))}
            cache.write(name, data)
        return data

    def listed(path: Any, prefix: str | None = None) -> Any:
        text = os.fspath(path)
        if (os.path.dirname(text) if os.path.isfile(text) else text) != models:
            return listing(path, prefix)
        found = _decoded(all_models())
        return found if prefix is None else _below(prefix, found)

    return listed


def _below(prefix: str, found: Mapping[Any, Mapping[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The same list with the modules' names inside a package, as transformers makes it."""
    return {
        needs: {f"{prefix}.{name}": names for name, names in modules.items()}
        for needs, modules in found.items()
    }


def _name(models: str, version: str) -> str | None:
    """Under which a list is kept; None for files that no package manager put there."""
    record = os.path.join(
        os.path.dirname(os.path.dirname(models)), f"transformers-{version}.dist-info", "RECORD"
    )
    try:
        files, folder = os.stat(record), os.stat(models)
    except OSError:
        return None
    made_of = f"{version} {models} {files.st_mtime_ns} {files.st_size} {folder.st_mtime_ns}"
    return cache.key({}, f"list of files {FORMAT} {made_of}")


def encoded(value: Any) -> Any:
    """Dicts in dicts, their keys names or frozen sets of names, with sets of names at the ends, as JSON has them."""
    if isinstance(value, dict):
        return [[key if isinstance(key, str) else sorted(key), encoded(item)] for key, item in value.items()]
    return {"": sorted(value)}


def _decoded(data: Any) -> Any:
    """What `encoded` was given, or None where it is no such thing."""
    try:
        return _decode(data["list"])
    except (TypeError, KeyError, ValueError, RecursionError):
        return None


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return set(value[""])
    return {key if isinstance(key, str) else frozenset(key): _decode(item) for key, item in value}
