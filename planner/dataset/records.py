"""Rows out of text files: JSON lines, JSON documents, CSV and plain text, each with the line where it stands.

A row is (line, value, None), what cannot be read (line, None, why), an empty line (line, None, "").
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from typing import Any

import orjson

from .streams import BLOCK_BYTES, DamagedError, Stream, lines

Row = tuple[int, Any, str | None]
MAX_LINE_BYTES = 8 << 20
MAX_DOCUMENT_BYTES = 64 << 20


def _utf8_reason(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})"


def parse_json(data: bytes) -> tuple[Any, str | None]:
    """The value of one line, or why there is none. What only Python writes (NaN, half surrogates) is read too."""
    try:
        return orjson.loads(data), None
    except ValueError as error:
        reason = str(error).replace(": line 1 column", " at column")
    try:
        return json.loads(data.decode("utf-8")), None
    except UnicodeDecodeError as error:
        return None, _utf8_reason(error)
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError:
        return None, f"is no JSON: {reason}"


def json_lines(stream: Stream, limit: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """One JSON value a line."""
    for number, data, error in lines(stream, limit):
        if data is None:
            yield number, None, error
        elif not data or data.isspace():
            yield number, None, ""
        else:
            value, reason = parse_json(data)
            yield number, value, reason


def text_lines(stream: Stream, limit: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """Each line that is not empty as a row with `text`."""
    for number, data, error in lines(stream, limit):
        if data is None:
            yield number, None, error
            continue
        try:
            text = data.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as reason:
            yield number, None, _utf8_reason(reason)
            continue
        yield (number, {"text": text}, None) if text.strip() else (number, None, "")


class _Fed:
    """Lines for the csv module, decoded; what could not be read waits in `lost`."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self.source = lines(stream, limit)
        self.lost: list[Row] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, data, error in self.source:
            self.number = number
            if data is None:
                self.lost.append((number, None, error))
                continue
            yield data.decode("utf-8", "surrogateescape") + "\n"


def _delimiter(header: str, suffix: str) -> str:
    if suffix == ".tsv":
        return "\t"
    return max(",\t;|", key=header.count) if header else ","


def _csv_row(header: list[str], cells: list[str]) -> tuple[Any, str | None]:
    if len(cells) != len(header):
        return None, f"has {len(cells)} fields, the header {len(header)}"
    for cell in cells:
        if not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell):
            return None, "is not UTF-8"
    return dict(zip(header, cells, strict=True)), None


def csv_rows(stream: Stream, suffix: str, limit: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """The rows of a CSV file below its header; the line is where a row begins."""
    csv.field_size_limit(limit)
    fed = _Fed(stream, limit)
    source = iter(fed)
    first = next(source, "")
    yield from fed.lost
    fed.lost.clear()
    reader = csv.reader(_chain(first, source), delimiter=_delimiter(first, suffix))
    header = [name.strip() for name in next(reader, [])]
    if not header:
        return
    while True:
        start = fed.number + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield start, None, f"is no CSV: {error}"
            continue
        lost, fed.lost = fed.lost, []
        yield from lost
        if cells is None:
            return
        if not cells:
            yield start, None, ""
        else:
            row, reason = _csv_row(header, cells)
            yield start + len(lost), row, reason


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


class _Text:
    """A JSON document as text in a window that moves on: what is behind the cursor is dropped, its lines counted."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self.stream, self.limit = stream, limit
        self.text, self.at, self.ended = "", 0, False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
        self._line, self._counted = 1, 0

    def more(self) -> bool:
        """Read as much again as waits, at least a block; false at the end. Raises DamagedError.

        A value is tried anew behind each reading, so that readings of one size would take time by its square."""
        if self.ended:
            return False
        self.drop("")
        wanted, parts = max(BLOCK_BYTES, len(self.text)), []
        while wanted > 0 and not self.ended:
            data = self.stream.read()
            self.ended = not data
            wanted -= len(data)
            parts.append(self._decoder.decode(data, final=not data))
        self.text += "".join(parts)
        return True

    def drop(self, keep: str) -> None:
        """Forget what is behind the cursor, and put `keep` before the rest."""
        self.here()
        self.text, self.at, self._counted = keep + self.text[self.at :], 0, 0

    def here(self) -> int:
        """The line of the cursor."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def peek(self) -> str:
        """The next letter that is no space, "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """The JSON value at the cursor. Raises ValueError, DamagedError."""
        self.peek()
        decoder = json.JSONDecoder()
        while True:
            try:
                found, end = decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number may go on in the next block
                    self.at = end
                    return found
                self.more()
            except RecursionError:
                raise ValueError("is nested too deeply") from None
            except ValueError:
                if len(self.text) - self.at > self.limit:
                    raise ValueError(f"holds a value over {self.limit:,} bytes, or is no JSON") from None
                if not self.more():
                    raise


def json_document(stream: Stream, limit: int = MAX_LINE_BYTES) -> Iterator[Row]:
    """The rows of one JSON document: an array of objects, an object of such arrays, or an object of columns.

    An array is read element by element; columns have to be held as a whole (up to 64 MiB). What cannot be read ends
    the document: behind a broken value nothing tells where the next one begins.
    """
    text = _Text(stream, limit)
    try:
        opening = text.peek()
        if opening == "[":
            yield from _array(text)
        elif opening == "{":
            yield from _object(text)
        elif opening:
            yield text.here(), None, "is neither a JSON array nor an object"
            return
        if text.peek():
            yield text.here(), None, "has something behind the end of the JSON document"
    except DamagedError as error:
        yield text.here(), None, str(error)
    except ValueError as error:
        reason = getattr(error, "msg", str(error))
        yield text.here(), None, f"is no JSON ({reason}); the rest of the file is not read"


def _array(text: _Text) -> Iterator[Row]:
    text.at += 1
    if text.peek() == "]":
        text.at += 1
        return
    while True:
        text.peek()
        line = text.here()
        yield line, text.value(), None
        mark = text.peek()
        text.at += 1
        if mark == "]":
            return
        if mark != ",":
            text.at -= 1
            raise ValueError(
                f"found {mark!r} where a comma or the end of the array should be" if mark else "cut off"
            )


def _object(text: _Text) -> Iterator[Row]:
    """An object whose first array of objects is streamed; anything else is held as a whole."""
    text.at += 1
    held: dict[str, Any] = {}
    streamed = False
    line = text.here()
    while text.peek() != "}":
        name = text.value()
        if text.peek() != ":":
            raise ValueError("a name without a colon")
        text.at += 1
        if text.peek() == "[" and _objects_follow(text):
            streamed = True
            yield from _array(text)
        else:
            text.limit = MAX_DOCUMENT_BYTES
            held[name] = text.value()
        if text.peek() == ",":
            text.at += 1
        elif text.peek() != "}":
            raise ValueError("found no comma between two names")
    text.at += 1
    if not streamed:  # beside an array of rows the rest describes them
        yield from _columns(held, line)


def _objects_follow(text: _Text) -> bool:
    """Whether the array at the cursor holds objects that are no messages of one conversation."""
    text.at += 1
    mark = text.peek()
    while len(text.text) - text.at < 200 and text.more():
        pass
    inside = text.text[text.at : text.at + 200]
    text.drop("[")
    return mark == "{" and not ('"role"' in inside or '"from"' in inside)


def _columns(held: dict[str, Any], line: int) -> Iterator[Row]:
    """An object of columns as rows; an object that is itself a row as that."""
    lists = {key: value for key, value in held.items() if isinstance(value, list)}
    by_number = {
        key: list(value.values())
        for key, value in held.items()
        if isinstance(value, dict) and all(str(name).isdigit() for name in value)
    }
    columns = lists or by_number
    if not held:
        return
    lengths = {len(column) for column in columns.values()}
    chat = any(
        value and isinstance(value[0], dict) and ({"role", "from"} & value[0].keys())
        for value in lists.values()
    )
    if not columns or chat or len(columns) < len(held):
        yield line, held, None
        return
    if len(lengths) != 1:
        yield line, None, f"has columns of different lengths: {', '.join(map(str, sorted(lengths)))}"
        return
    for i in range(lengths.pop()):
        yield line, {key: column[i] for key, column in columns.items()}, None
