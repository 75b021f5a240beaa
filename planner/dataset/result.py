"""What is known of a data set once it is read: the counts, and the JSON of `lora-plan dataset --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..information import Information
from ..schema import Basis, Notice
from ..version import __version__
from .lengths import Histogram, Percentiles
from .shape import Shape

SCHEMA = 1


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be used, where it stands and why. `line` counts rows in Parquet and Arrow files."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class SourceFile:
    """A file that was read."""

    name: str
    kind: str
    split: str | None
    bytes: int


@dataclass(frozen=True)
class Tokens:
    """A number of tokens: counted, or from bytes with an interval."""

    value: int
    low: int
    high: int
    basis: Basis


@dataclass(frozen=True)
class Cut:
    """What a maximum length cuts off: sequences, tokens, and tokens that carry loss."""

    sequences: int
    tokens: int
    loss_tokens: int


@dataclass(frozen=True)
class DatasetReport:
    """A data set read to its end. Lengths, cuts and efficiencies are None without a tokenizer.

    `sequences` are two for each preference pair, else one an example. `distinct` holds the loss tokens of examples
    that repeat no earlier one; its ends leave near duplicates out or in. `shape` is what a trainer must be told of
    the rows, where they lie in files. `histogram` counts sequences by length, in bytes without a tokenizer.
    """

    data: str
    files: tuple[SourceFile, ...]
    formats: Mapping[str, int]
    kind: str
    tokenizer: str | None
    loss_on: str
    mask: str | None
    examples: int
    sequences: int
    text_bytes: int
    loss_bytes: int
    tokens: Tokens
    loss_tokens: Tokens
    distinct: Tokens
    broken: int
    broken_rows: tuple[BrokenRow, ...]
    blank_lines: int
    without_loss: int
    duplicates_exact: int
    duplicates_near: int | None
    lengths: Percentiles | None
    lengths_bytes: Percentiles | None
    seq_len: int | None
    cut: Cut | None
    batch: int
    padding_efficiency: float | None
    packing_efficiency: float | None
    packed_sequences: int | None
    information: Information
    ways: Mapping[str, Any]
    warnings: tuple[Notice, ...]
    shape: Shape | None = None
    histogram: Histogram | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract, schema 1."""
        cut = self.cut
        return {
            "schema": SCHEMA,
            "version": __version__,
            "data": self.data,
            "files": [dict(vars(file)) for file in self.files],
            "formats": dict(self.formats),
            "kind": self.kind,
            "tokenizer": self.tokenizer,
            "loss_on": self.loss_on,
            "mask": self.mask,
            "examples": self.examples,
            "sequences": self.sequences,
            "bytes": self.text_bytes,
            "loss_bytes": self.loss_bytes,
            **_interval("tokens", self.tokens),
            **_interval("loss_tokens", self.loss_tokens),
            **_interval("distinct_loss_tokens", self.distinct),
            "tokens_basis": self.tokens.basis,
            "broken": self.broken,
            "broken_rows": [dict(vars(row)) for row in self.broken_rows],
            "blank_lines": self.blank_lines,
            "without_loss": self.without_loss,
            "duplicates": self.duplicates_exact + (self.duplicates_near or 0),
            "duplicates_exact": self.duplicates_exact,
            "duplicates_near": self.duplicates_near,
            "lengths": dict(vars(self.lengths)) if self.lengths else None,
            "lengths_bytes": dict(vars(self.lengths_bytes)) if self.lengths_bytes else None,
            "seq_len": self.seq_len,
            "truncated": cut.sequences if cut else None,
            "truncated_tokens": cut.tokens if cut else None,
            "truncated_loss_tokens": cut.loss_tokens if cut else None,
            "batch": self.batch,
            "padding_efficiency": self.padding_efficiency,
            "packing_efficiency": self.packing_efficiency,
            "packed_sequences": self.packed_sequences,
            "information": {**self.information.to_dict(), **self.ways},
            "warnings": [dict(vars(notice)) for notice in self.warnings],
        }


def _interval(name: str, tokens: Tokens) -> dict[str, int]:
    return {name: tokens.value, f"{name}_low": tokens.low, f"{name}_high": tokens.high}
