"""What the modules of a forward pass need to know: sizes of a micro-step, widths of dtypes, and choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..setup import AttentionKernel, Kernels, Setup
from .tape import Size, Tape, Value, cast

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
FLOAT32 = 4


@dataclass
class Pass:
    """One run over a tape.

    `sequences`, `length` and `rank` are numbers, or symbols for polynomials; `tokens` is their product on this GPU
    and `pairs` those of positions with positions. Widths are bytes a value: `compute` of what matrix
    products make, `stream` of the embedding's result, `base` of frozen weights, `trained` of trained ones. `full`:
    every weight is trained. `reach` is the length that windows are compared with.
    """

    tape: Tape
    sequences: Size
    length: Size
    tokens: Size
    pairs: Size
    compute: int
    stream: int
    base: int
    trained: int
    full: bool
    autocast: bool
    kernel: AttentionKernel
    kernels: Kernels
    dropout: bool
    masked: bool
    quantised: bool
    reach: int
    grad: bool = True
    rank: Any = None

    def cast_in(self, value: Value) -> Value:
        """A value as autocast hands it to a matrix product."""
        return cast(value, self.compute) if self.autocast else value


def sizes(setup: Setup) -> tuple[int, int, int, int]:
    """Sequences, length, tokens and pairs of positions that one GPU holds: b, s, b s / n and b s^2 / n with n GPUs
    sharing each sequence."""
    b, s, n = setup.micro_batch, setup.seq_len, setup.sequence_parallel
    return b, s // n, b * s // n, b * s * s // n


def _masked(setup: Setup) -> bool:
    """Whether attention gets a mask as a tensor: with padding, and with packed documents unless the flash kernel takes
    their lengths."""
    return setup.packing == "padded" or (setup.packing == "packed" and setup.attention_kernel != "flash")


def make_pass(setup: Setup, *, merges: bool = False, accumulates: bool = False) -> Pass:
    """A pass with the sizes and choices of a setup, on a new tape."""
    b, s, tokens, pairs = sizes(setup)
    return Pass(
        tape=Tape(merges=merges, accumulates=accumulates), sequences=b, length=s, tokens=tokens, pairs=pairs,
        compute=WIDTHS[setup.compute_dtype], stream=FLOAT32 if setup.upcast_small else WIDTHS[setup.weight_dtype],
        base=WIDTHS[setup.weight_dtype], trained=WIDTHS[setup.trained_dtype],
        full=setup.method == "full", autocast=setup.under_autocast, kernel=setup.attention_kernel,
        kernels=setup.kernels, dropout=setup.lora_dropout > 0, masked=_masked(setup),
        quantised=setup.quantize != "none", reach=setup.seq_len,
    )  # fmt: skip
