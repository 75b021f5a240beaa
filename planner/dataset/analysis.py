"""A data set read from end to end: rows to examples, examples to text, text to tokens, and the sums.

Rows are read and rendered here while other threads encode, on all cores, what was rendered before. Nothing is held
but a few batches and the sums.
"""

from __future__ import annotations

import gc
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..schema import Notice
from . import formats, records, sources
from .columns import columns_of, renamed
from .compressing import Compressor
from .counting import Count, Counter
from .duplicates import LIKE, Register, text_hash
from .formats import Example, RowError, UnknownFormatError
from .plain import plain_row
from .rendering import Rendered, Renderer
from .result import BrokenRow
from .streams import DamagedError, Stream
from .tokenizer import TextTokenizer

# Of a batch: the library needs some 500 bytes a token, and large batches keep all cores busy. Its bytes follow from
# the tokens a byte that were seen so far.
BATCH_TOKENS = 1 << 17
BATCH_BYTES = 1 << 18
MOST_BYTES = 1 << 19
BATCH_ROWS = 1024
IN_FLIGHT = 8  # batches of text, and counts; what the library makes of a text lives in a worker alone
COLLECT_EVERY = 100_000  # containers, of which a row leaves some ten
BROKEN_SHOWN = 100
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)

Progress = Callable[[int, int, int], None]
Broken = Callable[[BrokenRow], None]


@dataclass(frozen=True)
class Settings:
    """How a data set is read. `broken` is told every row that could not be used, `row` every other one, `progress`
    bytes read, bytes in all and rows, now and then."""

    format: str = "auto"
    loss_on: str = "auto"
    split: str | None = None
    config: str | None = None
    encoding: str | None = None
    columns: str | Mapping[str, str] | None = None
    seq_len: int | None = None
    eos: bool = False
    chat: bool = False
    near: float | None = LIKE
    compression: int | None = 6
    broken: Broken | None = None
    row: Callable[[dict[str, Any]], None] | None = None
    progress: Progress | None = None


@dataclass
class Sums:
    """What has been read so far."""

    examples: int = 0
    sequences: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    text_bytes: int = 0
    loss_bytes: int = 0
    broken: int = 0
    unknown: int = 0
    blank_lines: int = 0
    without_loss: int = 0
    cut_sequences: int = 0
    cut_tokens: int = 0
    cut_loss_tokens: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    pass_rates: dict[float, int] = field(default_factory=dict)
    broken_rows: list[BrokenRow] = field(default_factory=list)


class _Entry(NamedTuple):
    """A row that was rendered, and where it stands."""

    file: str
    line: int
    example: Example
    sequences: tuple[Rendered, ...]
    text: bytes
    content: bytes
    learned: bytes


class Reader:
    """Reads a data set once. A context, as it keeps duplicates in a file."""

    def __init__(self, data: str, settings: Settings, tokenizer: TextTokenizer | None) -> None:
        formats.check_format(settings.format)
        self.columns = columns_of(settings.columns)
        self._theirs = {name.partition(".")[0] for name in self.columns.values()} | {*self.columns.values()}
        self.data, self.settings, self.tokenizer = data, settings, tokenizer
        self.sums = Sums()
        self.notices: list[Notice] = []
        self.renderer = _renderer(settings, tokenizer)
        self.register = Register(like=settings.near)
        self.compressor = Compressor(settings.compression) if settings.compression is not None else None
        self.files, self._hub = self._found(data)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.register.__exit__()

    def _found(self, data: str) -> tuple[list[sources.DataFile], str | None]:
        path = Path(data).expanduser()
        if path.exists() or not HUB_NAME.fullmatch(data) or sources.suffix_of(path) in sources.SUFFIXES:
            found, notices = sources.find(path, self.settings.split, self.settings.encoding)
            self.notices += notices
            return found, None
        return [], data

    # Rows

    def _rows(self) -> Iterator[tuple[str, records.Row]]:
        """Every row with the name of its file; progress is told on the way."""
        total = sum(file.size_bytes for file in self.files)
        before = 0
        for file in self.files:
            with ExitStack() as stack:
                stream = None
                if file.kind not in ("parquet", "arrow", "saved"):
                    stream = stack.enter_context(Stream(file.path, self.settings.encoding))
                try:
                    for number, row in enumerate(sources.rows(file, stream, self._theirs)):
                        yield file.label, row
                        if number % 250 == 249:
                            self._tell(before + (stream.position if stream else 0), total)
                except DamagedError as error:
                    yield file.label, (0, None, str(error))
            before += file.size_bytes
            self._tell(before, total)
        if self._hub is not None:
            from . import hub
            from .tables import plain

            rows = hub.rows(self._hub, self.settings.split, self.settings.config, self.notices)
            for number, value in enumerate(rows, 1):
                yield self._hub, (number, plain(value), None)
                if number % 1000 == 0:
                    self._tell(0, 0)

    def _tell(self, done: int, total: int) -> None:
        if self.settings.progress is not None:
            self.settings.progress(done, total, self.sums.examples + self.sums.broken)

    def _break(self, file: str, line: int, reason: str) -> None:
        row = BrokenRow(file, line, reason)
        self.sums.broken += 1
        if len(self.sums.broken_rows) < BROKEN_SHOWN:
            self.sums.broken_rows.append(row)
        if self.settings.broken is not None:
            self.settings.broken(row)

    def _entries(self) -> Iterator[_Entry]:
        """Rows that could be rendered; the others are counted as broken."""
        for file, (line, value, error) in self._rows():
            if error is not None:
                if error:
                    self._break(file, line, error)
                else:
                    self.sums.blank_lines += 1
                continue
            try:
                yield self._entry(file, line, value)
            except RowError as reason:
                self.sums.unknown += isinstance(reason, UnknownFormatError)
                self._break(file, line, str(reason))
            except UnicodeEncodeError:
                self._break(file, line, "is not UTF-8, or holds half of a surrogate pair")

    def _entry(self, file: str, line: int, value: Any) -> _Entry:
        example = formats.read_row(renamed(value, self.columns), self.settings.format)
        sequences = tuple(self.renderer.sequences(example))
        text = "\0".join(sequence.text for sequence in sequences).encode()
        content = "\0".join(sequence.content for sequence in sequences).encode()
        learned = "\n".join(sequence.loss_text for sequence in sequences if sequence.loss_text).encode()
        return _Entry(file, line, example, sequences, text, content, learned)

    # Batches

    def _batches(self) -> Iterator[list[_Entry]]:
        batch: list[_Entry] = []
        size, limit = 0, BATCH_BYTES
        for entry in self._entries():
            batch.append(entry)
            size += len(entry.text)
            if size >= limit or len(batch) >= BATCH_ROWS:
                yield batch
                batch, size = [], 0
                if self.sums.tokens:
                    limit = min(MOST_BYTES, BATCH_TOKENS * self.sums.text_bytes // self.sums.tokens)
        if batch:
            yield batch

    def read(self) -> Sums:
        """Read everything. Raises InputError where there is nothing to read."""
        with _rare_collections():
            if self.tokenizer is None:
                for batch in self._batches():
                    self._take(batch, None)
            else:
                self._read_encoded(self.tokenizer)
        if not self.sums.examples and not self.sums.broken:
            names = ", ".join(file.label for file in self.files[:3]) or str(self._hub)
            raise InputError("data", names, "at least one row", "There is nothing in it.")
        return self.sums

    def _read_encoded(self, tokenizer: TextTokenizer) -> None:
        free = deque(Counter(tokenizer, self.settings.seq_len) for _ in range(2))

        def encode(batch: list[_Entry]) -> list[Count | RowError]:
            counter = free.popleft()
            try:
                return counter.counts([sequence for entry in batch for sequence in entry.sequences])
            finally:
                free.append(counter)

        waiting: deque[tuple[list[_Entry], Future[list[Count | RowError]]]] = deque()
        pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
        try:
            for batch in self._batches():
                waiting.append((batch, pool.submit(encode, batch)))
                if len(waiting) >= IN_FLIGHT:
                    self._finish(*waiting.popleft())
            while waiting:
                self._finish(*waiting.popleft())
        finally:  # an interruption waits for no batch that has not begun
            pool.shutdown(wait=True, cancel_futures=True)

    def _finish(self, batch: list[_Entry], future: Future[list[Count | RowError]]) -> None:
        self._take(batch, future.result())

    def _take(self, batch: list[_Entry], counts: list[Count | RowError] | None) -> None:
        """Add a batch to the sums."""
        kept, losses, at = [], [], 0
        for entry in batch:
            own = None
            if counts is not None:
                own = counts[at : at + len(entry.sequences)]
                at += len(entry.sequences)
            error = next((count for count in own or () if isinstance(count, RowError)), None)
            if error is not None:
                self._break(entry.file, entry.line, str(error))
                continue
            kept.append(entry)
            if self.settings.row is not None:
                self.settings.row(plain_row(entry.example))
            losses.append(self._count(entry, [count for count in own or () if isinstance(count, Count)]))
        self.register.add(
            [text_hash(entry.text) for entry in kept], losses, [entry.content for entry in kept]
        )
        if self.compressor is not None:
            self.compressor.feed(b"".join([entry.learned + b"\n" for entry in kept]))

    def _count(self, entry: _Entry, counts: list[Count]) -> int:
        """Add a row; returns its loss tokens within the maximum length, or loss bytes where there are no tokens."""
        sums, example = self.sums, entry.example
        sums.examples += 1
        sums.sequences += len(entry.sequences)
        sums.text_bytes += len(entry.text)
        sums.loss_bytes += len(entry.learned)
        sums.formats[example.format] = sums.formats.get(example.format, 0) + 1
        sums.kinds[example.kind] = sums.kinds.get(example.kind, 0) + 1
        if example.pass_rate is not None:
            rate = round(float(example.pass_rate), 6)
            sums.pass_rates[rate] = sums.pass_rates.get(rate, 0) + 1
        if not counts:
            sums.lengths[len(entry.text)] = sums.lengths.get(len(entry.text), 0) + 1
            sums.without_loss += example.trained and not entry.learned
            return len(entry.learned)
        limit = self.settings.seq_len
        loss = within = 0
        for count in counts:
            sums.tokens += count.tokens
            loss += count.loss_tokens
            within += count.loss_within
            sums.lengths[count.tokens] = sums.lengths.get(count.tokens, 0) + 1
            if limit is not None and count.tokens > limit:
                sums.cut_sequences += 1
                sums.cut_tokens += count.tokens - limit
                sums.cut_loss_tokens += count.loss_tokens - count.loss_within
        sums.loss_tokens += loss
        sums.without_loss += example.trained and not within
        return within


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Rows are many small containers without cycles: looking for cycles among them takes a tenth of the time."""
    before = gc.get_threshold()
    if before[0]:  # 0: never, as somebody wishes
        gc.set_threshold(max(before[0], COLLECT_EVERY), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _renderer(settings: Settings, tokenizer: TextTokenizer | None) -> Renderer:
    if tokenizer is None:
        return Renderer(None, None, settings.loss_on)
    eos = tokenizer.special_tokens.get("eos_token") if settings.eos else None
    if settings.eos and eos is None:
        raise InputError("eos", tokenizer.name, "a tokenizer that names an eos_token")
    return Renderer(
        tokenizer.template(), tokenizer.template(tools=True), settings.loss_on, eos, settings.chat
    )
