"""The bytes of a user's text file as text: UTF-8, or UTF-16 and UTF-32 where a byte-order mark says so.

Nothing is guessed: a file in another encoding is refused with the place of its first foreign byte.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

# The marks of UTF-32 begin with those of UTF-16 and come first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
EXPECTED = "text in UTF-8 (or UTF-16 with a byte-order mark)"
KINDS = (
    (b"PK\x03\x04", "It is a zip archive, as an .xlsx workbook is: export the sheet as CSV."),
    (b"\x1f\x8b", "It is gzip-compressed: unpack it first."),
    (b"PAR1", "It is a Parquet file: pass the frame from Python, or write it as CSV."),
)  # fmt: skip


@dataclass
class BadBytesError(ValueError):
    """Bytes that are no text: what was found, the text before them, and what to do."""

    found: str
    before: str
    remedy: str

    @property
    def line(self) -> int:
        """The line that they stand in, from 1; a line ends at \\n, \\r\\n or \\r."""
        return len((self.before + ".").splitlines()) if self.before else 1

    @property
    def in_line(self) -> str:
        """What stands before them in their line."""
        return (self.before + ".").splitlines()[-1][:-1]


def decode(data: bytes) -> tuple[str, str]:
    """The text and the name of its encoding. Raises BadBytesError."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    kind = next((text for mark, text in KINDS if data.startswith(mark)), "")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="ignore")
        raise BadBytesError(*_foreign(data, error, encoding, before, kind)) from error
    if (at := text.find("\0")) >= 0:
        remedy = kind or "Remove it; a file that a crash cut short may end in such bytes."
        if not kind and text[:64].count("\0") > 16:
            remedy = "It looks like UTF-16 or UTF-32 without a byte-order mark: save it as UTF-8."
        raise BadBytesError("a NUL byte", text[:at], remedy)
    return text, encoding


def _foreign(
    data: bytes, error: UnicodeDecodeError, encoding: str, before: str, kind: str
) -> tuple[str, str, str]:
    """What is said of bytes that the encoding does not have."""
    if encoding.startswith(("utf-16", "utf-32")):
        return f"bytes that are no {encoding.upper()}", before, "The file may be cut short: save it as UTF-8."
    byte = data[error.start]
    letter = bytes([byte]).decode("cp1252", errors="ignore")
    remedy = f"In Latin-1 or Windows-1252 it is {letter}: save the file as UTF-8." if letter.isalpha() else ""
    return f"the byte 0x{byte:02x}", before, kind or remedy or "Save the file as UTF-8."
