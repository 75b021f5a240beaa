"""The text of docs/evidence.md: verdicts by claim and model, and tables of what was measured here."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.validate.api import judge
from planner.validate.claims import IDS, Setting, claim
from planner.validate.kept import Kept
from planner.validate.models import shape
from planner.validate.records import RunRecord
from planner.validate.report import Found
from planner.validate.zoo import WIDTHS

# Most seeds first; the usual number is three.
SEEDS, USUAL_SEEDS = (16, 12, 8, 4, 3, 2), 3
WIDTH_CLAIMS = ("C3", "C18")
# The model whose verdict stands first where several have their runs.
ORDER = ("tiny", *(name for name in WIDTHS if name != "tiny"))

HEAD = """# Evidence of our own

Written by `python tools/write_evidence.py` from the records in `data/runs/records.jsonl`. Rules were fixed before the
runs ([how](methods.md)). Everything ran on a CPU, on models of our own:
{models}.
A verdict here is about that set-up, not about models of billions. The standard run has 120 steps of 16
sequences of 64 characters; claims about memory, batches, lengths and rewards have their own. A claim is judged
on every model whose runs are all there.
"""


@dataclass(frozen=True)
class Row:
    """A claim's verdict on some models with some seeds."""

    setting: Setting
    found: Found

    @property
    def models(self) -> str:
        """What it was tried on."""
        if not self.found.runs:
            return ""
        return str(self.found.judgement.details.get("model", ", ".join(self.setting.models)))

    @property
    def complete(self) -> bool:
        """Whether nothing was missing."""
        return not math.isnan(self.found.judgement.measured.value)


def _try(name: str, models: tuple[str, ...], lookup: Kept) -> Row:
    """The verdict with as many seeds as there are runs for."""
    there = 1 + max((r.config.seed for r in lookup.records.values() if r.config.model in models), default=0)
    rows = {}
    for seeds in (n for n in SEEDS if n <= max(there, USUAL_SEEDS)):
        setting = Setting(models, seeds)
        rows[seeds] = Row(setting, judge(claim(name), setting, lookup.record))
        if rows[seeds].complete:
            return rows[seeds]
    return rows[USUAL_SEEDS]


def rows_of(name: str, lookup: Kept) -> list[Row]:
    """The verdicts of a claim: on all widths together where it is about widths, on each model otherwise."""
    rows = [_try(name, (model,), lookup) for model in ORDER]
    there = [row for row in rows if row.complete]
    if name in WIDTH_CLAIMS:
        widths = tuple(row.setting.model for row in there)
        return [_try(name, tuple(m for m in WIDTHS if m in widths), lookup)] if len(widths) > 1 else there[:1]
    unique = {(row.models, row.found.runs): row for row in there}
    return list(unique.values()) or [next((row for row in rows if row.found.runs), rows[0])]


def figure(value: float | None) -> str:
    """Three digits, nothing for nothing."""
    return "" if value is None or value != value else f"{value:.3g}"


def span(value: float | None, low: float | None, high: float | None) -> str:
    """A value with its interval."""
    return figure(value) + (f" ({figure(low)} to {figure(high)})" if low is not None and low != high else "")


def _row(row: Row) -> str:
    measured = row.found.judgement.measured
    cells = (
        row.found.claim.id, row.found.claim.statement, row.models, figure(row.found.predicted),
        span(measured.value, measured.low, measured.high), row.found.judgement.verdict, str(len(row.found.runs)),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _machine(records: Mapping[str, RunRecord]) -> str:
    hardware = Counter(
        f"{r.hardware.get('processor', 'unknown')}, {r.hardware.get('threads')} thread"
        for r in records.values()
    )
    versions = Counter(f"torch {r.versions['torch']}, peft {r.versions['peft']}" for r in records.values())
    status = ", ".join(f"{n} {name}" for name, n in Counter(r.status for r in records.values()).most_common())
    hours = sum(r.wall_s or 0.0 for r in records.values()) / 3600
    return (
        f"{len(records)} runs ({status}) in {hours:.1f} hours of a shared core; {'; '.join(hardware)}; "
        f"{'; '.join(versions)}."
    )


def _models(records: Mapping[str, RunRecord]) -> str:
    used = {record.config.model for record in records.values()}
    named = [
        f"`{name}` of width {shape(name)['hidden_size']}" for name in (*WIDTHS, "mixture") if name in used
    ]
    return ", ".join(named)


def page(lookup: Kept) -> str:
    """docs/evidence.md."""
    rows = [row for name in IDS for row in rows_of(name, lookup)]
    judged = [row for row in rows if row.complete]
    missing = [row for row in rows if not row.complete]
    lines = [
        *HEAD.format(models=_models(lookup.records)).splitlines(), "", _machine(lookup.records), "",
        "| claim | statement | model | predicted | measured (95%) | verdict | runs |",
        "|---|---|---|---|---|---|---|",
        *map(_row, judged), "", *_measured(judged), "## Why", "",
    ]  # fmt: skip
    for row in judged:
        where = f" on {row.models}" if row.models else ""
        seeds = f" ({row.setting.seeds} seeds)" if row.found.runs and row.setting.seeds != USUAL_SEEDS else ""
        reason, rule = row.found.judgement.reason, row.found.claim.rule
        lines.append(
            f"- **{row.found.claim.id}**{where}{seeds}, {row.found.claim.unit}: {reason}. Rule: {rule}."
        )
        if details := row.found.to_dict()["details"]:
            lines.append(f"  Details: `{json.dumps(_short(details))}`")
    if missing:
        lines += ["", "## Not run, or not enough", ""]
        lines += [f"- **{r.found.claim.id}** {r.found.claim.statement} {_reason(r.found)}" for r in missing]
    return "\n".join(lines).rstrip() + "\n"


def _reason(found: Found) -> str:
    reason = found.judgement.reason
    return "Runs are missing." if reason.startswith("the budget") else f"{reason[0].upper()}{reason[1:]}."


def _short(value: Any) -> Any:
    """Figures to four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> list[str]:
    body = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return ["## " + title, "", *([note, ""] if note else []), *body, ""]


def _details(rows: Sequence[Row], name: str) -> Iterator[tuple[Row, dict[str, Any]]]:
    for row in rows:
        if row.found.claim.id == name:
            yield row, row.found.to_dict()["details"]


def _measured(rows: Sequence[Row]) -> list[str]:
    return [*_bits(rows), *_ratios(rows), *_variants(rows), *_layouts(rows)]


def _bits(rows: Sequence[Row]) -> list[str]:
    """C11 as a table."""
    lines: list[str] = []
    for row, details in _details(rows, "C11"):
        steps = list(next(iter(details["by_exposures"].values())))
        body = [
            [name, *(figure(value) for value in by.values())] for name, by in details["by_exposures"].items()
        ]
        note = (
            f"Random strings of 16 letters, about {details['offered']:g} bits a parameter offered to each adapter, "
            f"on `{row.models}`, the rate swept for each; bits stored over the adapter's parameters after so many "
            "exposures of each string, mean of seeds."
        )
        lines += _table(
            "Bits a parameter that an adapter stores",
            ["adapter", *(f"{s} exposures" for s in steps)],
            body,
            note,
        )
    return lines


def _ratios(rows: Sequence[Row]) -> list[str]:
    """C3 as a table."""
    lines: list[str] = []
    for row, details in _details(rows, "C3"):
        by = details["by_model"]
        body = [
            [str(shape(name)["hidden_size"]), span(one["value"], one["low"], one["high"])]
            for name, one in by.items()
        ]
        note = f"Rank {details['rank']}, alpha 32, 120 steps, constant rate; {row.setting.seeds} seeds."
        if one := details["width_exponent"]:
            shown = span(one["value"], one["low"], one["high"])
            note += f" The ratio goes as width to the power {shown}; the law says 0, H/(2 alpha) says 1."
        lines += _table(
            "LoRA's best learning rate over full fine-tuning's, by width",
            ["width", "ratio (95%)"],
            body,
            note,
        )
    return lines


def _compared(title: str, first: str, name: str, rows: Sequence[Row], extra: str, note: str) -> list[str]:
    lines: list[str] = []
    for row, details in _details(rows, name):
        others = details.get(extra, {})
        body = [
            [key, span(one["value"], one["low"], one["high"]), figure(details["best_rate"].get(key)),
             f"{others[key]:,}" if key in others else ""]
            for key, one in details["excess_percent"].items()
        ]  # fmt: skip
        header = [first, "excess loss in percent (95%)", "best rate", extra]
        if not others:
            header, body = header[:-1], [cells[:-1] for cells in body]
        lines += _table(title, header, body, note.format(model=row.models, rank=details["rank"]))
    return lines


def _variants(rows: Sequence[Row]) -> list[str]:
    note = "Against plain LoRA, each at its own best rate; `{model}`, rank {rank}. "
    note += "LoRA+'s rate is A's, B's is 16 times it."
    return _compared("Variants of LoRA", "variant", "V1", rows, "params", note)


def _layouts(rows: Sequence[Row]) -> list[str]:
    note = (
        "Against full fine-tuning, each at its own best rate; `{model}` (8 experts, 2 active), rank {rank}."
    )
    return _compared("Layouts on a mixture of experts", "layout", "C8", rows, "params", note)
