"""A validation's report: every claim with its verdict, why, and the figures behind them."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..validate.claims import Setting
from ..validate.kept import judge_all, load, setting_of
from ..validate.records import RunRecord
from ..validate.report import Report
from . import accuracy
from .document import Block, Bullets, Code, Document, Figure, Mono, Row, Section, Strong, Table, Text, para
from .numbers import Material
from .wording import clean, clean_data, name

VERDICTS = ("confirmed", "refuted", "undecided")


def _machines(records: Mapping[str, RunRecord]) -> list[str]:
    """Hardware and versions that runs came from, the most frequent first."""
    found = Counter(
        f"{r.hardware.get('processor') or r.hardware.get('device', 'unknown')}, "
        + ", ".join(
            f"{key} {r.versions[key]}" for key in ("torch", "transformers", "peft") if key in r.versions
        )
        for r in records.values()
    )
    return [f"{words}: {count} runs" for words, count in found.most_common()]


def gather(
    records: Mapping[str, RunRecord], setting: Setting, source: str | os.PathLike[str], command: str
) -> dict[str, Any]:
    """Everything that the report may show, as cleaned plain data."""
    counts = Counter(str(record.status) for record in records.values())
    out = os.path.basename(os.path.normpath(os.fspath(source)))
    found = Report(setting, "none", judge_all(records, setting), 0.0, out, True, dict(counts)).to_dict()
    data: dict[str, Any] = clean_data(
        {
            "validation": found,
            "verdicts": dict(Counter(one["verdict"] for one in found["claims"])),
            "run_counts": {one["id"]: len(one["runs"]) for one in found["claims"]},
            "n_runs": len(records),
            "machines": _machines(records),
            "accuracy": accuracy.summary(accuracy.pairs()),
            "command": command,
        }
    )
    return data


def _measured(root: Material, number: int) -> Text:
    path = f"validation/claims/{number}/measured"
    if root.get(f"{path}/value") is None:
        return ("",)
    value: Text = (root.number(f"{path}/value", "figure"),)
    if root.get(f"{path}/low") is None or root.get(f"{path}/low") == root.get(f"{path}/high"):
        return value
    return (
        *value,
        " (",
        root.number(f"{path}/low", "figure"),
        " to ",
        root.number(f"{path}/high", "figure"),
        ")",
    )


def _table(root: Material) -> Table:
    rows = []
    for number, claim in enumerate(root.get("validation/claims")):
        path = f"validation/claims/{number}"
        verdict: Text = (
            (Strong(claim["verdict"]),) if claim["verdict"] != "undecided" else (claim["verdict"],)
        )
        rows.append(
            Row(
                (
                    (Mono(claim["id"]),), (clean(claim["statement"]),), (root.number(f"{path}/predicted", "figure"),),
                    _measured(root, number), verdict, (root.number(f"run_counts/{claim['id']}"),),
                )
            )
        )  # fmt: skip
    header = ("", "Claim", "Predicted", "Measured (95%)", "Verdict", "Runs")
    return Table("Claims and verdicts", header, tuple(rows), "llrrlr", (0, 6, 0, 2.6, 0, 0), basis="measured")


def _why(root: Material) -> tuple[Bullets, ...]:
    items: list[Text] = []
    for claim in root.get("validation/claims"):
        missing = claim["reason"].startswith("the budget ended")
        reason = "runs are missing" if missing else clean(claim["reason"])
        rule, source = clean(claim["rule"]), clean(claim["source"])
        items.append((Mono(claim["id"]), f" {reason}. Rule: {rule}. Source: {source}."))
    return (Bullets(tuple(items)),)


def _lead(root: Material) -> list[Block]:
    runs: list[Any] = [root.number("n_runs"), " runs judge the article’s claims: "]
    for verdict in VERDICTS:
        if root.get(f"verdicts/{verdict}") is not None:
            runs += [root.number(f"verdicts/{verdict}"), f" {verdict}, "]
    runs[-1] = runs[-1].removesuffix(", ") + "."
    models = ", ".join(name(str(model)) for model in root.get("validation/models"))
    scope = para(
        f"Models: {models}. Seeds: ", root.number("validation/seeds"), ". Steps of a standard run: ",
        root.number("validation/steps"), ". A verdict is about this set-up; each rule was fixed before the runs.",
    )  # fmt: skip
    return [para(*runs, style="lead"), scope]


def _first(drawn: Iterable[Figure | None]) -> Figure | None:
    """The first that could be drawn."""
    return next((figure for figure in drawn if figure is not None), None)


def _figures(records: Mapping[str, RunRecord], setting: Setting, material: Mapping[str, Any]) -> list[Figure]:
    from .figures import runs, verdicts

    every = list(records.values())
    plain = runs.plain_runs(every, setting.model, setting.steps)
    found = {one["id"]: one for one in material["validation"]["claims"]}
    by_batch = _first(runs.by_batch(every, model) for model in setting.models)
    drawn = (
        runs.curves(plain, setting.steps), runs.loss_by_rate(plain), runs.early(plain), verdicts.ratios(found),
        by_batch, verdicts.layers(found), runs.rewards(every), verdicts.capacity(found),
    )  # fmt: skip
    return [figure for figure in drawn if figure is not None]


def document(
    root: Material, moment: datetime.datetime, figures: Sequence[Figure], compared: Figure | None = None
) -> Document:
    """The document of one validation. `compared` shows predicted against measured."""
    date, version = f"{moment.day} {moment:%B %Y}", str(root.get("validation/version"))
    machines: list[Text] = [(words,) for words in root.get("machines")]
    sections = [
        Section("Verdicts", (*_lead(root), _table(root))),
        *([Section("Figures", tuple(figures), new_page=True)] if figures else []),
        Section("Why", _why(root), new_page=True),
        accuracy.section(root, compared),
        Section("Where it ran", (Bullets(tuple(machines)),)),
        Section("How to make it again", (Code(str(root.get("command")), "shell"),)),
    ]
    title = "The article’s claims, tried"
    return Document(
        kind="validation", title=title, subtitle=f"Verdicts from run records, {date}, lora-plan {version}",
        description="Claims of LoRA Without Regret with verdicts from training runs.", date=date, version=version,
        sections=tuple(sections), keywords=("LoRA", "validation"),
    )  # fmt: skip


def compose(
    source: str | os.PathLike[str], moment: datetime.datetime, *, figures: bool, command: str
) -> Document:
    """Judge the records and compose their document."""
    records = load(source)
    setting = setting_of(records)
    material = gather(records, setting, source, command)
    drawn = _figures(records, setting, material) if figures else []
    compared = None
    if figures:
        from .figures.accuracy import predicted_against_measured

        compared = predicted_against_measured(accuracy.pairs())
    return document(Material(material), moment, drawn, compared)
