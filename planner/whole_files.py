"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat


def put(place: str | os.PathLike[str], content: str | bytes) -> None:
    """Write beside the file and rename: a full disk or a kill leaves what was there before. A link stays one, and the
    file that it leads to is written; a file keeps its permissions; what is no file (a pipe, a terminal) is written
    to as it is. Raises OSError."""
    written = content.encode("utf-8") if isinstance(content, str) else content
    found = _stat(place)
    if found is not None and not stat.S_ISREG(found.st_mode):
        with open(place, "wb") as file:
            file.write(written)
        return
    target = os.path.realpath(place)
    if os.path.islink(target):  # a link that leads to itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(place))
    _replace(target, written, None if found is None else stat.S_IMODE(found.st_mode))


def _stat(place: str | os.PathLike[str]) -> os.stat_result | None:
    """Of what a place leads to; None where there is nothing yet."""
    try:
        return os.stat(place)
    except FileNotFoundError:
        return None


def _replace(target: str, content: bytes, mode: int | None) -> None:
    """Write beside `target` and rename, with the permissions `mode`, of a new file what the user's mask leaves."""
    import tempfile  # milliseconds of a start, and needed only here

    folder, name = os.path.split(target)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is None:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask
        os.chmod(temporary, mode)  # mkstemp's are the owner's alone
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
