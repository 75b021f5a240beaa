"""Which tensors the safetensors files of a folder hold, by their headers alone.

A safetensors file begins with 8 bytes, the length of a JSON header, and the header: for each tensor its dtype, shape
and place in the file (github.com/huggingface/safetensors, README, "Format"). No weight is read, so a folder of many
gigabytes costs a few milliseconds.
"""

from __future__ import annotations

import json
import math
import os
import stat
from typing import Any

from ..dataclass import dataclass

MAX_HEADER_BYTES = 100_000_000
MAX_INDEX_BYTES = 100_000_000
MAX_FILES = 10_000
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return (self.size * DTYPE_BITS[self.dtype] + 7) // 8


class BrokenFileError(Exception):
    """A file that cannot be used: the message says why and follows the file's name."""


def _regular(path: str) -> int:
    """The size of a regular file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise BrokenFileError(
            "is missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise BrokenFileError("is not a regular file")
    return status.st_size


def _object(data: bytes, what: str, unique: bool = False) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if unique and len(found) < len(pairs):
            raise BrokenFileError(f"{what} names something twice")
        return found

    try:
        found = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise BrokenFileError(f"{what} is not valid JSON") from None
    if not isinstance(found, dict):
        raise BrokenFileError(f"{what} is not a JSON object")
    return found


def _whole(values: object, length: int | None = None) -> bool:
    return (
        isinstance(values, list)
        and (length is None or len(values) == length)
        and all(type(n) is int and 0 <= n < 2**63 for n in values)
    )


def _tensor(name: str, entry: object, room: int) -> Tensor:
    """One entry of a header, checked against itself and the bytes that the file has for tensors."""
    if not isinstance(entry, dict):
        raise BrokenFileError(f"describes {name!r:.100} by no object")
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise BrokenFileError(f"gives {name!r:.100} the dtype {dtype!r:.40}")
    if not isinstance(shape, list) or not _whole(shape) or len(shape) > 32:
        raise BrokenFileError(f"gives {name!r:.100} the shape {shape!r:.60}")
    if not isinstance(place, list) or not _whole(place, 2):
        raise BrokenFileError(f"gives {name!r:.100} the place {place!r:.60}")
    tensor = Tensor(name, dtype, tuple(shape))
    if tensor.size * DTYPE_BITS[dtype] % 8:
        raise BrokenFileError(
            f"gives {name!r:.100} {tensor.size:,} numbers of {dtype}, which end inside a byte"
        )
    if place[1] - place[0] != tensor.bytes:
        raise BrokenFileError(
            f"gives {name!r:.100} {place[1] - place[0]:,} bytes, its shape needs {tensor.bytes:,}"
        )
    if place[1] > room:
        raise BrokenFileError(f"ends before {name!r:.100} does: it is cut short")
    return tensor


def read_header(path: str) -> list[Tensor]:
    """The tensors of a safetensors file, from its header alone."""
    size = _regular(path)
    try:
        with open(path, "rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8:
                raise BrokenFileError("has no header")
            if length > MAX_HEADER_BYTES or length > size - 8:
                raise BrokenFileError(f"claims a header of {length:,} bytes in a file of {size:,}")
            data = file.read(length)
    except OSError as error:
        raise BrokenFileError(f"cannot be read: {error.strerror}") from None
    entries = _object(data, "its header", unique=True)
    _check_metadata(entries.pop("__metadata__", None))
    found = [_tensor(name, entry, size - 8 - length) for name, entry in entries.items()]
    _check_places(entries, size - 8 - length)
    return found


def _check_metadata(found: object) -> None:
    """Metadata are texts by name, or nothing."""
    if found is not None and not (
        isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    ):
        raise BrokenFileError("has metadata that are not texts by name")


def _check_places(entries: dict[str, Any], room: int) -> None:
    """Tensors lie one behind the other and fill the file, as the format asks: an overlap would hold fewer weights
    than the shapes say."""
    end, before = 0, ""
    for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
        start = entries[name]["data_offsets"][0]
        if start != end:
            what = "overlaps" if start < end else "leaves a gap behind"
            raise BrokenFileError(f"places {name!r:.100} where it {what} {before or 'its header'!r:.100}")
        end, before = entries[name]["data_offsets"][1], name
    if end != room:
        raise BrokenFileError(f"has {room - end:,} bytes that belong to no tensor")


def files(folder: str) -> tuple[str, ...]:
    """The safetensors files of a model in a folder, by name; those that its index names where it has one."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".safetensors"))
    names = [name for name in names if not name.startswith(("adapter_model", "consolidated"))]
    if os.path.lexists(os.path.join(folder, INDEX)):
        return _indexed(os.path.join(folder, INDEX))
    if SINGLE in names:
        return (SINGLE,)
    if len(names) > MAX_FILES:
        raise BrokenFileError(f"stands among {len(names):,} files, at most {MAX_FILES:,}")
    return tuple(names)


def _indexed(path: str) -> tuple[str, ...]:
    if _regular(path) > MAX_INDEX_BYTES:
        raise BrokenFileError("is too large for an index")
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise BrokenFileError(f"cannot be read: {error.strerror}") from None
    places = _object(data, "it").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise BrokenFileError("has no weight_map from names to files")
    names = sorted(set(places.values()))
    if any(os.path.basename(name) != name or name in ("", ".", "..") for name in names):
        raise BrokenFileError("names files outside its folder")
    if len(names) > MAX_FILES:
        raise BrokenFileError(f"names {len(names):,} files, at most {MAX_FILES:,}")
    return tuple(names)
