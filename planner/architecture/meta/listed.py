"""The list that transformers makes of its models' files when it is imported, kept on disk.

It opens 1,700 source files for it, which takes a twenty-fifth of a simulation's processor time, and longer where the
system has them not in memory. A kept list holds for one installation by a package manager: its path, the manager's
record of its files, and the folder of models as it was last changed. Neglected: a source file that somebody edits in
place, whose list of names or needs then counts as before.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from .. import cache

FORMAT = 1
Listing = Callable[[Any], Any]


def kept(listing: Listing, models: str, version: str) -> Listing:
    """`listing` of a path, which keeps every list, and that of the folder of all models on disk."""
    listing = functools.cache(listing)
    name = _name(models, version)
    if name is None:
        return listing

    @functools.cache
    def all_models() -> Any:
        found = _decoded(cache.read(name))
        if found is None:
            found = listing(models)
            cache.write(name, {"list": encoded(found)})
        return found

    def listed(path: Any) -> Any:
        text = os.fspath(path)
        folder = os.path.dirname(text) if os.path.isfile(text) else text
        return all_models() if folder == models else listing(text)

    return listed


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
