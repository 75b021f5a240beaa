"""Learning-rate sweeps: their CSV schema, reading and checking. Every error names the line and the column.

One row is one run. Required columns: model, family, hidden_size, method (lora or full), rank (empty or 0 under full),
lr, loss; optional: seed, steps, batch, alpha, dataset, status. A run without a finite loss must say why in `status`:
`diverged` bounds the good rates from above, `missing` says nothing. tinker-cookbook's result tables are read as they
are (`DIALECTS`). Needs pandas; a million rows take seconds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import category

import numpy as np
import pandas as pd

from ..errors import InputError, hint
from ..schema import Notice
from .families import family_of_name
from .sweep_file import DIALECTS, check_header, read_csv

REQUIRED = ("model", "family", "hidden_size", "method", "rank", "lr", "loss")
OPTIONAL = ("seed", "steps", "batch", "alpha", "dataset", "status")
TEXT = ("model", "family", "method", "seed", "dataset", "status")
WHOLE = ("hidden_size", "rank", "steps", "batch")
METHODS = ("lora", "full")
STATUSES = ("ok", "diverged", "missing", "diverged_or_missing")
NON_FINITE = ("error", "diverged", "missing")
CELL = ("model", "family", "hidden_size", "method", "rank", "steps", "batch", "alpha", "dataset")

# Words of others for our columns, named where ours is missing.
OTHER_WORDS = {
    "lr": ("learning_rate", "learning-rate", "lrate", "rate"), "rank": ("r", "lora_r", "lora_rank"),
    "loss": ("eval_loss", "test_loss", "val_loss", "valid_loss", "nll", "test_nll"),
    "hidden_size": ("width", "d_model", "hidden", "hidden_dim"), "model": ("model_name", "model_id", "base_model"),
}  # fmt: skip
UNFINISHED = ("diverged", "missing")  # a status that may stand in place of the loss
MOST_CHARACTERS = 1000  # of a name
UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters and line breaks
MARK = "\ufeff"  # a byte-order mark within a file: two files were joined
THOUSANDS = re.compile(r"[1-9]\d{0,2}([ ,.'\u2019\u00a0\u202f]\d{3})+")


def _unseen(name: str) -> bool:
    """Whether a name holds what cannot be seen and parts two names that look alike."""
    return MARK in name or any(category(sign) in UNSEEN for sign in name)


def _spelling(column: str, text: str) -> str:
    """How a number would have to be written that is not read as one."""
    if text.lower() == column:
        return "The header stands here again."
    if column in WHOLE and THOUSANDS.fullmatch(text):
        return f"Thousands are not separated: write {re.sub(r'[^0-9]', '', text)}."
    return "A decimal comma is read where semicolons separate the columns." if "," in text else ""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The checked runs of a sweep, one a row, with the columns REQUIRED and OPTIONAL and `line`.

    `status` is one of STATUSES; `loss` is NaN where a run did not finish; `rank` is 0 under full fine-tuning;
    optional numbers that are not given are NaN, optional texts "". `unit` is what `line` counts (line, or row of a
    frame).
    """

    name: str
    runs: pd.DataFrame
    unit: str
    warnings: tuple[Notice, ...] = ()

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that have a loss."""
        return self.runs[self.runs["status"] == "ok"]


def read_sweep(source: str | os.PathLike[str] | pd.DataFrame, *, non_finite: str = "error") -> Sweep:
    """A sweep from a CSV file or a DataFrame. `non_finite` says what a run without a finite loss and without a status
    is: an error, diverged, or missing. Raises InputError."""
    if non_finite not in NON_FINITE:
        raise InputError("non-finite", non_finite, f"one of {', '.join(NON_FINITE)}")
    if isinstance(source, pd.DataFrame):
        frame, name, unit = source.copy(), "sweep", "row"
        frame.columns = pd.Index([str(column).strip() for column in frame.columns])
        check_header(list(frame.columns), name)
        frame["line"] = np.arange(1, len(frame) + 1)
    else:
        path = Path(source)
        frame, name, unit = read_csv(path), path.name, "line"
    return _Checker(frame, name, unit, non_finite).sweep()


class _Checker:
    """Checks a raw frame column by column and says where the first fault is."""

    def __init__(self, frame: pd.DataFrame, name: str, unit: str, non_finite: str) -> None:
        self.frame, self.name, self.unit, self.non_finite = frame, name, unit, non_finite
        self.warnings: list[Notice] = []

    def fail(
        self, column: str, position: int, expected: str, remedy: str = "", found: object = None
    ) -> NoReturn:
        """Raise for one cell."""
        if found is None:
            found = self.frame[column].iloc[position]
            found = "" if pd.isna(found) and not isinstance(found, float) else found
        found = found.item() if isinstance(found, np.generic) else found
        found = int(found) if column in WHOLE and isinstance(found, float) and found.is_integer() else found
        line = int(self.frame["line"].iloc[position])
        raise InputError(f"{self.name} {self.unit} {line}, column {column}", found, expected, remedy)

    def first(self, bad: Any) -> int | None:
        """The position of the first True, or None."""
        array = np.asarray(bad, dtype=bool)
        return int(array.argmax()) if array.any() else None

    def sweep(self) -> Sweep:
        """Everything checked."""
        self.columns()
        if not len(self.frame):
            raise InputError("sweep", self.name, "at least one run", "It has a header and no runs.")
        out = pd.DataFrame({"line": self.frame["line"].to_numpy()})
        for column in (*REQUIRED, *OPTIONAL):
            out[column] = self.text(column) if column in TEXT else self.numbers(column)
        self.methods_and_ranks(out)
        self.losses(out)
        self.consistent(out, "hidden_size")
        self.consistent(out, "family")
        return Sweep(self.name, out, self.unit, tuple(self.warnings))

    def columns(self) -> None:
        """Our names for the columns; missing ones are refused, unknown ones named."""
        frame = self.frame
        for mark, (new, understood) in DIALECTS.items():
            if mark in frame.columns and "loss" not in frame.columns:
                frame = frame.rename(columns=dict(new))
                for column, value in understood.items():
                    if column not in frame.columns:
                        frame[column] = value
                if "family" not in frame.columns and "model" in frame.columns:
                    names = frame["model"].astype(str)
                    frame["family"] = names.map({name: family_of_name(name) for name in names.unique()})
        lower = {c: c.lower() for c in frame.columns if c.lower() in (*REQUIRED, *OPTIONAL)}
        self.frame = frame = frame.rename(
            columns={c: new for c, new in lower.items() if new not in frame.columns}
        )
        present = [column for column in frame.columns if column != "line"]
        for column in REQUIRED:
            if column not in present:
                others = [name for name in present if name not in REQUIRED]
                words = [name for name in others if name.lower() in OTHER_WORDS.get(column, ())]
                near = f" Rename {words[0]} to {column}." if words else hint(column, others)
                if len(present) == 1 and column in present[0].lower():
                    near = " Columns are separated by commas, semicolons or tabs."
                shown = ", ".join(name if len(name) < 100 else f"{name[:90]} ..." for name in present[:40])
                remedy = f"The header has {shown}.{near}"
                raise InputError(f"{self.name} line 1", f"no column {column}", ",".join(REQUIRED), remedy)
        extra = [column for column in present if column not in (*REQUIRED, *OPTIONAL)]
        if extra:
            self.warnings.append(Notice("columns-ignored", f"Columns not used: {', '.join(extra)}."))

    def text(self, column: str) -> pd.Series | str:
        """A text column, stripped; families, methods and statuses in lower case. Empty names are refused."""
        if column not in self.frame.columns:
            return ""
        values = self.frame[column].astype("category")
        clean = {old: str(old).strip() for old in values.cat.categories}
        if column in ("family", "method", "status"):
            clean = {old: new.lower() for old, new in clean.items()}
        out = pd.Series(values.map(clean).astype(object).fillna("").to_numpy(), dtype="category")
        if column in ("model", "family") and (at := self.first(out == "")) is not None:
            self.fail(column, at, "a name", found="")
        for name in out.cat.categories:
            if len(str(name)) > MOST_CHARACTERS or _unseen(str(name)):
                expected = f"at most {MOST_CHARACTERS:,} visible characters on one line"
                self.fail(column, int((out == name).to_numpy().argmax()), expected)
        return out

    def numbers(self, column: str) -> np.ndarray | float:
        """A numeric column; what is no number, not positive, or not whole where it must be, is refused."""
        if column not in self.frame.columns:
            return np.nan
        raw = self.frame[column]
        if isinstance(raw.dtype, pd.CategoricalDtype) or raw.dtype == object or raw.dtype == bool:
            values, empty = self.parsed(column, raw)
        else:
            values = pd.to_numeric(raw, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            empty = np.isnan(values)
        if column == "loss":
            return values
        word = "a whole number of at least 1" if column in WHOLE else "a positive number"
        if column == "rank":
            empty = empty | (values == 0)  # under full fine-tuning; methods_and_ranks looks at the others
        bad = ~empty & ~((values > 0) & np.isfinite(values))
        if column in WHOLE:
            bad |= ~empty & (values != np.floor(values))
        if column in ("hidden_size", "lr") and (at := self.first(empty)) is not None:
            self.fail(column, at, word, "The field is empty, or not a number.", found="")
        if (at := self.first(bad)) is not None:
            none = column == "lr" and not values[at] > 0
            remedy = "A rate that is 0 or negative trains nothing." if none else ""
            self.fail(column, at, word, remedy)
        return values

    def parsed(self, column: str, raw: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of a column of texts, and where it is empty. A text that is no number is refused."""
        codes = raw.astype("category")
        table: list[float] = []
        for old in codes.cat.categories:
            text = str(old).strip()
            try:
                unfinished = column == "loss" and text.lower() in UNFINISHED
                table.append(
                    np.nan if text == "" or unfinished else float(text if "_" not in text else "text")
                )
            except ValueError:
                at = int((codes == old).to_numpy().argmax())
                remedy = _spelling(column, text)
                if column == "loss" and not remedy:
                    remedy = "A run without a loss says diverged or missing, here or as its status."
                self.fail(column, at, "a number", remedy, found=old)
        values = np.append(np.asarray(table, dtype=float), np.nan)[codes.cat.codes.to_numpy()]
        return values, np.isnan(values)

    def methods_and_ranks(self, out: pd.DataFrame) -> None:
        """Methods are known; a LoRA run has a rank, a full one none."""
        if (at := self.first(~out["method"].isin(METHODS))) is not None:
            self.fail("method", at, "lora or full", hint(str(out["method"].iloc[at]), METHODS).strip())
        lora = (out["method"] == "lora").to_numpy()
        rank = out["rank"].to_numpy()
        if (at := self.first(lora & ~(rank >= 1))) is not None:
            self.fail("rank", at, "a rank of at least 1 for a LoRA run")
        out["rank"] = np.where(lora, np.nan_to_num(rank), 0).astype(int)
        out["hidden_size"] = out["hidden_size"].astype(int)

    def losses(self, out: pd.DataFrame) -> None:
        """A run has a finite positive loss, or a status that says why not."""
        status = out["status"].astype(object)
        known = status.isin(("", *STATUSES))
        if (at := self.first(~known)) is not None:
            self.fail(
                "status", at, f"one of {', '.join(STATUSES)}", hint(str(status.iloc[at]), STATUSES).strip()
            )
        loss = out["loss"].to_numpy(dtype=float)
        finite = np.isfinite(loss)
        status = self.words_for_loss(status)
        given = (status == "ok").to_numpy()
        silent = (status == "").to_numpy()
        bare = ~finite & (given | silent)
        if self.non_finite == "error" and (at := self.first(bare)) is not None:
            found = "" if np.isnan(loss[at]) and not self._says_nan(at) else loss[at]
            self.fail(
                "loss", at, "a finite loss",
                "A run that did not finish has status diverged or missing; --non-finite diverged (or missing) reads "
                "every such run so.", found=found,
            )  # fmt: skip
        done = finite & (given | silent)
        if (at := self.first(done & ~(loss > 0))) is not None:
            self.fail("loss", at, "a positive loss", "Regret is relative to each cell's best.")
        status = status.where(~(done | bare), "ok").where(~bare, self.non_finite)
        out["status"] = pd.Categorical(status, categories=STATUSES)
        out["loss"] = np.where(done, loss, np.nan)

    def words_for_loss(self, status: pd.Series) -> pd.Series:
        """The status with that of runs whose loss is the word diverged or missing; another status beside it is
        refused."""
        raw = self.frame["loss"]
        if not (isinstance(raw.dtype, pd.CategoricalDtype) or raw.dtype == object):
            return status
        said = raw.astype(str).str.strip().str.lower().to_numpy()
        word = np.isin(said, UNFINISHED)
        if (at := self.first(word & ~status.isin(["", *UNFINISHED]).to_numpy())) is not None:
            self.fail("status", at, f"{said[at]}, as its loss says", found=str(status.iloc[at]))
        return status.mask(word & (status == "").to_numpy(), pd.Series(said, index=status.index))

    def _says_nan(self, position: int) -> bool:
        value = self.frame["loss"].iloc[position]
        return isinstance(value, str) and value.strip() != ""

    def consistent(self, out: pd.DataFrame, column: str) -> None:
        """A model has one width and one family."""
        model = out["model"].cat.codes.to_numpy()
        values = out[column].cat.codes.to_numpy() if column == "family" else out[column].to_numpy()
        _, first = np.unique(model, return_index=True)
        reference = values[first][model]
        if (at := self.first(values != reference)) is not None:
            before = out[column].iloc[first[model[at]]]
            self.fail(column, at, f"{before}, as in the model's other runs")


def write_sweep(sweep: Sweep, path: str | os.PathLike[str]) -> None:
    """The sweep as CSV in our schema; reading it again gives the same runs."""
    frame = sweep.runs.drop(columns="line").copy()
    kept = [
        c for c in (*REQUIRED, *OPTIONAL) if c in REQUIRED or not (frame[c].isna() | (frame[c] == "")).all()
    ]
    frame[kept].to_csv(path, index=False)
