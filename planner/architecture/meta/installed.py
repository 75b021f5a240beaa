"""Which version of a package is installed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib import util


def installed(package: str) -> str:
    """The installed version, read without importing the package or the library of package metadata (as slow as a
    third of a cold start); "none" where there is none."""
    spec = util.find_spec(package)
    if spec is None or spec.origin is None:
        return "none"
    for path in (os.path.join(os.path.dirname(spec.origin), "version.py"), spec.origin):
        with suppress(OSError), open(path, encoding="utf-8") as file:
            _, _, said = file.read().partition("\n__version__ = ")
            if found := re.match(r"""["']([^"'\n]+)["']""", said):
                return found[1]
    from importlib import metadata

    return metadata.version(package)
