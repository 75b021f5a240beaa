"""Writing what was exported: every file whole, or none of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import InputError


def write(files: Mapping[str, str], folder: str | os.PathLike[str]) -> list[str]:
    """Write files into a folder; their paths. Each is first written beside its place, then all are put there.

    Raises InputError where the folder cannot be written to; what was there then stays.
    """
    import tempfile  # milliseconds, and needed only here

    staged: list[tuple[str, str]] = []
    try:
        os.makedirs(folder, exist_ok=True)
        for name, text in files.items():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".tmp")
            staged.append((temporary, os.path.join(os.fspath(folder), name)))
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o755 if name.endswith(".sh") else 0o644)
        for temporary, place in staged:
            os.replace(temporary, place)
    except OSError as error:
        for temporary, _ in staged:
            if os.path.exists(temporary):
                os.unlink(temporary)
        raise InputError(
            "output", os.fspath(folder), f"a folder that can be written ({error.strerror})"
        ) from error
    return [place for _, place in staged]
