"""How much is in a data set: examples, tokens, loss tokens, lengths, duplicates, broken rows, and bits.

Light to import: what reads, renders and encodes is loaded when a data set is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import BrokenRow, DatasetReport

__all__ = ["dataset"]


def dataset(
    data: str | os.PathLike[str], *, tokenizer: str | os.PathLike[str] | None = None, format: str = "auto",
    loss_on: str = "auto", seq_len: int | None = None, batch: int = 8, split: str | None = None,
    config: str | None = None, encoding: str | None = None, chat_template: str | os.PathLike[str] | None = None,
    eos: bool = False, chat: bool = False, near_duplicates: bool = True, compress: bool = True,
    loss: float | None = None, run: str | os.PathLike[str] | None = None, group_size: int | None = None,
    success_rate: float | None = None, columns: str | Mapping[str, str] | None = None,
    on_broken: Callable[[BrokenRow], None] | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> DatasetReport:  # fmt: skip
    """What is in a file, a folder or a hub data set, read from end to end in bounded memory.

    The options are those of `lora-plan dataset`, by the same names. `on_broken` is told every row that cannot be
    used, `on_progress` bytes read, bytes in all and rows, `on_row` every row that counts, in the columns that all
    trainers read (messages; prompt and completion; text; chosen and rejected). Raises a PlannerError whose message
    says what to do.
    """
    from .summary import summarise

    return summarise(
        os.fspath(data), tokenizer=tokenizer, format=format, loss_on=loss_on, seq_len=seq_len, batch=batch,
        split=split, config=config, encoding=encoding, chat_template=chat_template, eos=eos, chat=chat,
        near_duplicates=near_duplicates, compress=compress, loss=loss, run=run, group_size=group_size,
        success_rate=success_rate, columns=columns, on_broken=on_broken, on_progress=on_progress,
        row=on_row,
    )  # fmt: skip
