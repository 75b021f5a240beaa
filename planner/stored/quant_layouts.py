"""How quantised formats store a linear layer, and which modules a config's lists of names mean."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from ..architecture.fields import Fields
from ..dataclass import dataclass
from ..schema import Matrix

MOST_PATTERNS = 20_000
MOST_TEXT = 1000  # characters of a name
_SPECIAL = re.compile(r"[*+{}?\[\]()|^$\\]")
MOST_SECONDS = 0.5  # for matching names: a hostile pattern ends it
FP4_GROUP = 32


class UnknownQuantizationError(Exception):
    """The format's layout is not known here; the message says what."""


@dataclass(frozen=True)
class Scheme:
    """How a format stores a linear layer: `linear(d_in, d_out)` bytes, biases left out, for the matrices that
    `covers(matrix, path)`. `dtype` is the format's own for the rest, where a config names none. `experts` is another
    layout for experts; `choose(matrix, path)` gives a matrix's own where a model has several."""

    method: str
    label: str
    bits: int
    group_size: int | None
    linear: Callable[[int, int], int]
    covers: Callable[[Matrix, str], bool]
    dtype: str | None = None
    experts: Callable[[int, int], int] | None = None
    choose: Callable[[Matrix, str], Callable[[int, int], int]] | None = None


# Layouts


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def groups_of(d_in: int, size: int | None) -> int:
    """Groups of inputs; -1 stands for one of all."""
    return ceil_div(d_in, size) if size and size > 0 else 1


def bnb4(d_in: int, d_out: int, double: bool) -> int:
    """bitsandbytes 4 bits: two weights a byte, an fp32 absmax for each block of 64, and 16 fp32 code values.
    Doubly quantised, the absmax take a byte each, with an fp32 one for each 256 of them and 256 fp32 code values
    (`bitsandbytes.functional.quantize_4bit` and `QuantState.as_dict`, equal to what version 0.50 makes). The small
    JSON tensor that each layer has beside them (block size, shape, dtype: 80 to 170 bytes) is left out."""
    weights = d_in * d_out
    blocks = ceil_div(weights, 64)
    scales = blocks + 4 * ceil_div(blocks, 256) + 4 * 256 if double else 4 * blocks
    return ceil_div(weights, 2) + scales + 4 * 16


def bnb8(d_in: int, d_out: int) -> int:
    """bitsandbytes LLM.int8: a byte a weight, an fp32 absmax for each row (`SCB`) and a byte for the format."""
    return d_in * d_out + 4 * d_out + 1


def gptq(d_in: int, d_out: int, bits: int, group: int) -> int:
    """AutoGPTQ's QuantLinear: qweight int32 (d_in bits / 32, d_out), scales fp16 and qzeros int32 for each group of
    inputs, g_idx int32 for each input."""
    groups = groups_of(d_in, group)
    return (
        4 * ceil_div(d_in * bits, 32) * d_out
        + groups * (2 * d_out + 4 * ceil_div(d_out * bits, 32))
        + 4 * d_in
    )


def awq(d_in: int, d_out: int, bits: int, group: int) -> int:
    """AutoAWQ's GEMM: qweight int32 (d_in, d_out bits / 32); scales fp16 and qzeros int32 for each group."""
    packed = ceil_div(d_out * bits, 32)
    return 4 * d_in * packed + groups_of(d_in, group) * (2 * d_out + 4 * packed)


def fp8_blocks(d_in: int, d_out: int, block: tuple[int, int], scale: int) -> int:
    """Fine-grained FP8 (DeepSeek-V3): a byte a weight and a scale of `scale` bytes for each block."""
    return d_in * d_out + scale * ceil_div(d_out, block[0]) * ceil_div(d_in, block[1])


def mxfp4(d_in: int, d_out: int) -> int:
    """OCP microscaling FP4: blocks of 32 weights along the inputs, 16 bytes and a scale of a byte each."""
    return d_out * ceil_div(d_in, FP4_GROUP) * (FP4_GROUP // 2 + 1)


# Which matrices


@lru_cache(maxsize=1024)
def _compiled(pattern: str, whole: bool) -> re.Pattern[str]:
    """A pattern of a config. Those whose matching may take exponential or high polynomial time are refused."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > 500 or repeats > 4 or re.search(r"\)[*+{?]|\\\d|\(\?[^:]", pattern):
        raise UnknownQuantizationError(f"the pattern {pattern!r:.60} is too elaborate to be matched here")
    try:
        boundary = r"(?:(?<=\.)|(?=\.|$))"
        return re.compile(pattern if whole else rf"(?:{pattern}){boundary}")
    except (re.error, OverflowError, RecursionError):
        raise UnknownQuantizationError(f"{pattern!r:.60} is no regular expression") from None


@lru_cache(maxsize=4096)
def _spellings(path: str) -> tuple[str, ...]:
    """A module path as files made by other versions may spell it."""
    rest = re.sub(r"^(?:(?:model|language_model)\.)+", "", path)
    before = ("", "model.", "language_model.", "language_model.model.", "model.language_model.")
    return tuple(dict.fromkeys((path, *(prefix + rest for prefix in before))))


def modules(matrix: Matrix, path: str) -> Iterator[str]:
    """The Linear modules that a matrix is in a file: the first expert's stand for all."""
    if matrix.kind == "experts":
        parent = path.rpartition(".")[0]
        for part in matrix.logical:
            yield f"{parent}.0.{part.name}"
    yield path


class Names:
    """A config's names and patterns against module paths, within a bounded time. `compressed` reads them as
    compressed-tensors does: whole names, "Linear" for all, or `re:` and an expression. Else as transformers does:
    beginnings up to a dot, ends, or expressions of a beginning."""

    def __init__(self, patterns: Sequence[str], compressed: bool) -> None:
        self.ends: dict[int, set[str]] = {}  # by length, so that long lists cost little
        for text in () if compressed else patterns:
            self.ends.setdefault(len(text), set()).add(text)
        special = (lambda text: text.startswith("re:")) if compressed else _SPECIAL.search
        self.plain = frozenset(text.rstrip(".") for text in patterns if not special(text))
        self.expressions = tuple(text.removeprefix("re:") for text in patterns if special(text))
        self.compressed = compressed
        self.until = time.monotonic() + MOST_SECONDS

    def match(self, matrix: Matrix, path: str) -> bool:
        """Whether one of them means the matrix."""
        self._hurry()
        if not (self.plain or self.ends or self.expressions):
            return False
        names = [name for module in modules(matrix, path) for name in _spellings(module)]
        if self.compressed and ("Linear" in self.plain or not self.plain.isdisjoint(names)):
            return True
        if not self.compressed:
            if any(name[-length:] in ends for name in names for length, ends in self.ends.items()):
                return True
            if self.plain and not all(self.plain.isdisjoint(_beginnings(name)) for name in names):
                return True
        return any(self._expression(text, names) for text in self.expressions)

    def _hurry(self) -> None:
        if time.monotonic() > self.until:
            raise UnknownQuantizationError("its patterns take too long to match")

    def _expression(self, text: str, names: Sequence[str]) -> bool:
        self._hurry()
        pattern = _compiled(text, self.compressed)
        return any(pattern.match(name) for name in names)


@lru_cache(maxsize=16384)
def _beginnings(name: str) -> tuple[str, ...]:
    """A path and the paths above it."""
    parts = name.split(".")
    return tuple(start for end in range(len(parts), 0, -1) if (start := ".".join(parts[:end])))


def is_linear(matrix: Matrix) -> bool:
    """Whether files hold the matrix as Linear modules: experts one by one."""
    return matrix.kind in ("linear", "conv1d", "experts")


def texts(cfg: Fields, key: str) -> list[str] | None:
    """A list of names, or None where the config has none."""
    found = cfg.list(key, None)
    if found is None:
        return None
    if len(found) > MOST_PATTERNS or not all(
        isinstance(name, str) and len(name) <= MOST_TEXT for name in found
    ):
        raise cfg.fail(key, "a list of names")
    return [str(name) for name in found if name]


def skipping(skip: list[str] | None, defaults: bool) -> Callable[[Matrix, str], bool]:
    """Linear modules but those that a skip list names; without one (or with `defaults`) the output embedding too."""
    names = Names(skip or (), compressed=False)

    def covers(matrix: Matrix, path: str) -> bool:
        if not is_linear(matrix) or ((skip is None or defaults) and matrix.role == "unembedding"):
            return False
        return not names.match(matrix, path)

    return covers
