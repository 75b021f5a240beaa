"""Files that appear whole or not at all."""

from __future__ import annotations

import os


def put(place: str | os.PathLike[str], content: str | bytes) -> None:
    """Write beside the place and rename: a full disk or a kill leaves what was there before. Raises OSError."""
    import tempfile  # milliseconds of a start, and needed only here

    folder, name = os.path.split(os.fspath(place))
    handle, temporary = tempfile.mkstemp(dir=folder or ".", prefix=f".{name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's are the owner's alone
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise
