"""Any architecture that transformers knows: built on torch's meta device, without weights, and read off.

The result is kept on disk by the config's content, so that a second call imports neither torch nor transformers.
Remote code is never run but by way of remote.py, where the user says so, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import util
from typing import Any

from ...errors import MissingDependencyError
from ...schema import Architecture
from .. import cache
from .checks import check, cleaned
from .installed import installed

# Raise with every change of what is read off a model: it tells old files of the cache from new ones.
READER = 5
NEEDED = ("torch", "transformers")


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The inventory of a config, by building its model with transformers.

    Raises ConfigError where transformers cannot build it, UnsupportedArchitectureError where it does not know the
    model type, MissingDependencyError without torch.
    """
    check(config)
    library = f"transformers {transformers_version()}"
    key = cache.key(config, f"{READER} {library}")
    found = cache.load(key)
    if found is None:
        require(config)
        from . import known

        known.check(cleaned(config), library)
        found = _build(config)
        cache.store(key, found)
    return found


def transformers_version() -> str:
    """The installed version of transformers, or "none"."""
    return installed("transformers")


def require(config: Mapping[str, Any]) -> None:
    """Raise MissingDependencyError where torch or transformers is not installed."""
    missing = [name for name in NEEDED if util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"model_type {config.get('model_type')!r} has no builder in this version, and building it with "
            f'transformers needs {" and ".join(missing)}: pip install "lora-plan[validate]".'
        )


def _build(config: Mapping[str, Any]) -> Architecture:
    from .lighter import lighter_import

    with nothing_collected(), lighter_import():
        from .many import read_any

        return read_any(config, f"transformers {transformers_version()}")


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Without Python's collector of cycles, which takes a fifth of importing torch and transformers, all of whose
    objects stay; and a model has a bounded number of modules and operations."""
    import gc

    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
