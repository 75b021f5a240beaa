"""Bytes out of files: plain, gzip, zstd, xz or bzip2, told apart by content; UTF-16 becomes UTF-8.

Nothing here holds more than a block. What is cut off or corrupt ends the stream with DamagedError.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import InputError

BLOCK_BYTES = 1 << 20
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class DamagedError(ValueError):
    """The data end early or are corrupt; the message says which."""


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError("data", str(path), "a readable file", f"{error.strerror}.") from error


def compression(head: bytes) -> str | None:
    """The compression that a file's first bytes name."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def check_encoding(name: str) -> None:
    """Raise InputError where this is no encoding of text."""
    try:
        "a".encode(name)  # an empty text is not looked at
    except (LookupError, UnicodeError) as error:
        raise InputError("encoding", name, "an encoding that Python knows, as latin-1 or utf-16") from error


class _Zstd:
    """zstd frames one after the other. The library's own reader takes a file that is cut off for a whole one."""

    # Small, since a block of four bytes may stand for 128 KiB.
    INPUT_BYTES = 8192

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._new = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj
        self._frame: Any = None
        self._input = b""

    def read1(self, count: int) -> bytes:
        """Some bytes, b"" at the end. Raises EOFError where a frame does not end."""
        while True:
            data = self._input or self._raw.read(self.INPUT_BYTES)
            self._input = b""
            if not data:
                if self._frame is not None:
                    raise EOFError
                return b""
            frame = self._frame or self._new()
            out: bytes = frame.decompress(data)
            self._frame = None if frame.eof else frame
            if frame.eof:
                self._input = frame.unused_data
            if out:
                return out


def _decompressed(raw: IO[bytes], kind: str | None) -> Any:
    if kind == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    if kind == "zstd":
        return _Zstd(raw)
    if kind == "xz":
        import lzma

        return lzma.LZMAFile(raw)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2File(raw)
    return raw


class Stream:
    """A file's bytes, decompressed. `position` counts those read from disk, of `size_bytes`."""

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.path = path
        self._raw = _opened(path)
        self.size_bytes = path.stat().st_size
        head = self._raw.read(8)
        self._raw.seek(0)
        self.compression = compression(head)
        self._source = _decompressed(self._raw, self.compression)
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first = True
        if encoding is not None:
            check_encoding(encoding)
            self._decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """Bytes read from disk."""
        return self._raw.tell()

    def _read_once(self, count: int) -> bytes:
        try:
            if self.compression is None:
                return self._raw.read(count)
            return bytes(
                self._source.read1(count)
            )  # what there is: read() loses it where the file is cut off
        except EOFError:
            raise DamagedError(f"the {self.compression} data end early: the file is cut off") from None
        except (OSError, zlib.error, ValueError) as error:
            raise DamagedError(f"the data cannot be read: {error}") from error
        except Exception as error:  # lzma and zstandard have exceptions of their own
            reason = str(error) or type(error).__name__
            raise DamagedError(f"the {self.compression} data are corrupt: {reason}") from error

    def read(self, count: int = BLOCK_BYTES) -> bytes:
        """The next bytes as UTF-8, empty at the end. Raises DamagedError."""
        data = self._read_once(count)
        if self._first:
            self._first = False
            while len(data) < 3 and (more := self._read_once(count)):
                data += more
            if data.startswith(codecs.BOM_UTF8) and self._decoder is None:
                data = data[3:] or self._read_once(count)
            elif self._decoder is None and (found := UTF16.get(data[:2])) is not None:
                self._decoder = codecs.getincrementaldecoder(found)(errors="surrogateescape")
                data = data[2:]
        if self._decoder is None:
            return data
        while True:
            text = self._decoder.decode(data, final=not data)
            if text or not data:
                return text.encode("utf-8", "surrogatepass")
            data = self._read_once(count)


def blocks(stream: Stream) -> Iterator[bytes]:
    """The stream's blocks to its end."""
    while data := stream.read():
        yield data


def head(path: Path, encoding: str | None = None) -> bytes:
    """The first block of a file, decompressed; what can be read of it where the file is damaged."""
    with Stream(path, encoding) as stream:
        try:
            return stream.read(65536)
        except DamagedError:
            return b""


def lines(stream: Stream, limit: int) -> Iterator[tuple[int, bytes | None, str | None]]:
    """Lines by number, without their ends. A line over `limit` bytes is passed over in blocks: (number, None, why).
    Damage is reported in the line in which it stands, and is the end."""
    number, rest, size = 1, b"", 0  # size counts the bytes of a line that is passed over
    try:
        for block in blocks(stream):
            parts = block.split(b"\n")
            for i, part in enumerate(parts):
                last = i == len(parts) - 1
                if size:
                    size += len(part)
                    if not last:
                        yield number, None, f"a line of {size:,} bytes, at most {limit:,} are read"
                        number, size = number + 1, 0
                    continue
                whole = rest + part if rest else part
                rest = b""
                if len(whole) > limit:
                    if last:
                        size = len(whole)
                    else:
                        yield number, None, f"a line of {len(whole):,} bytes, at most {limit:,} are read"
                        number += 1
                elif last:
                    rest = whole
                else:
                    yield number, whole, None
                    number += 1
    except DamagedError as error:
        yield number, None, str(error)
        return
    if size:
        yield number, None, f"a line of {size:,} bytes, at most {limit:,} are read"
    elif rest:
        yield number, rest, None
