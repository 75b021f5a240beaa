"""A learning-rate fit's report: the law, what it costs on models it has not seen, and the sweeps behind it."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..learning_rate.fit import Estimate, FitResult
from ..version import __version__
from .document import Block, Bullets, Code, Document, Figure, Mono, Row, Section, Table, Text, para
from .files import check_options
from .numbers import Material
from .wording import clean, clean_data, name

MOST_ROWS = 120
FACTORS = ("base", "base_lora", "m_lora", "family")
WORDS = {
    "base": "rate of full fine-tuning at width 2000",
    "base_lora": "rate of LoRA at width 2000 and rank 32",
    "m_lora": "LoRA over full fine-tuning",
    "model_pow": "exponent of 2000 / width",
    "lora_pow": "further exponent of 2000 / width, LoRA alone",
    "rank_pow": "exponent of rank / 32",
    "rank_sat_pow": "exponent of (1 + 8/32) / (1 + 8/rank)",
    "batch_pow": "exponent of batch / 128",
    "steps_pow": "exponent of steps / 1000",
    "alpha_pow": "exponent of alpha / 32",
    "family": "factor of the family",
}
SPLITS = {
    "in_sample": "in sample",
    "leave_one_model_out": "models left out",
    "leave_one_family_out": "families left out",
}


def _terms(result: FitResult) -> list[dict[str, Any]]:
    """Every constant as a row: its name, of which family, value, interval, and whether the law uses it."""
    rows = []
    for term, found in result.terms.items():
        if found is None:
            continue
        each = {"": found} if isinstance(found, Estimate) else dict(found)
        if len(each) > 1 and len({one.value for one in each.values()}) == 1:
            each = {"": each["population"]}
        rows += [{"term": term, "of": of, **one.to_dict()} for of, one in each.items()]
    return rows


def gather(result: FitResult, sweep: str | os.PathLike[str], command: str) -> dict[str, Any]:
    """Everything that the report may show, as cleaned plain data."""
    table = result.to_frame()
    columns = (
        "model",
        "family",
        "method",
        "rank",
        "best_lr",
        "at_edge",
        "law_lr",
        "law_low",
        "law_high",
        "regret_out",
    )
    kept = [column for column in columns if column in table]
    found: dict[str, Any] = clean_data(
        {
            "fit": result.to_dict(),
            "terms": _terms(result),
            "cells": table[kept].astype(object).where(table[kept].notna(), None).to_dict("records"),
            "sweep": os.path.basename(os.fspath(sweep)),
            "spread": None if (s := result.spread["known_family"]) is None else math.exp(s),
            "version": __version__,
            "command": command,
        }
    )
    return found


def _value(root: Material, row: int, key: str = "value") -> Any:
    small = abs(root.get(f"terms/{row}/value") or 0) < 0.01
    style = "rate" if root.get(f"terms/{row}/term") in FACTORS and small else "significant"
    return root.number(f"terms/{row}/{key}", style)


def _interval(root: Material, row: int) -> Text:
    if root.get(f"terms/{row}/low") is None:
        return ("none: too few models",)
    return (_value(root, row, "low"), " to ", _value(root, row, "high"))


def _constants(root: Material, used: bool) -> Table | None:
    rows = []
    for number, term in enumerate(root.get("terms")):
        if bool(term["used"]) != used:
            continue
        what: Text = (Mono(term["term"]), f" {name(term['of'])}" if term["of"] else "")
        rows.append(
            Row(
                (
                    what,
                    (WORDS.get(term["term"], ""),),
                    (_value(root, number),),
                    _interval(root, number),
                )
            )
        )
    if not rows:
        return None
    level = f"{root.get('fit/level'):.0%} interval"
    own = "The formula’s constants" if root.get("fit/similar") else "The law’s constants"
    title = own if used else "Constants that the law does without, each from the law with it added"
    return Table(title, ("Constant", "What it is", "Value", level), tuple(rows), "llrr", basis="fitted")


def _regret(root: Material, where: str, title: str) -> Table:
    rows = []
    for kind in root.get(f"{where}/regret_by_interpolation"):
        for split, words in SPLITS.items():
            path = f"{where}/regret_by_interpolation/{kind}/{split}"
            if root.get(path) is None:
                continue
            cells = tuple(
                (root.number(f"{path}/{key}", "whole" if key == "outside" else "significant"),)
                for key in ("mean", "median", "p90", "max", "outside")
            )
            strong = kind == root.get("fit/interpolation") and split == "leave_one_model_out"
            rows.append(Row(((words,), (kind,), *cells), strong))
    header = ("Rates from", "Interpolation", "Mean", "Median", "90th", "Most", "Outside")
    return Table(title, header, tuple(rows), "llrrrrr", basis="fitted")


def _costs(root: Material) -> list[Block]:
    """The regret of the formula and, where the sweep allows it, of the table of rates."""
    whose = " by the formula" if root.get("fit/similar") else ""
    found: list[Block] = [_regret(root, "fit", f"Loss above each sweep’s best{whose}, in percent")]
    if root.get("fit/similar"):
        title = "Loss above each sweep’s best by the rates of similar sweeps, in percent"
        found.append(_regret(root, "fit/similar", title))
    return found


def _rates(root: Material) -> list[Block]:
    """The rates of similar sweeps, a row a rank and a column a family, and whether they are the law."""
    found = root.get("fit/similar/rates") if root.get("fit/similar") else None
    if found is None:
        return []
    rows = [
        Row(((rank,), *((root.number(f"fit/similar/rates/{family}/{rank}", "rate"),) for family in found)))
        for rank in next(iter(found.values()))
    ]
    header = ("Rank", *("unknown" if family == "population" else name(family) for family in found))
    title = "Rates that cost similar sweeps least, by rank and family"
    says = "cost less than the formula does on models left out: they are the law that `lora-plan fit --out` writes"
    if not root.get("fit/similar/better"):
        says = "cost no less than the formula does on models left out: the law that is written is the formula"
    return [
        para(f"The rates of similar sweeps {says.replace('`', '')}."),
        Table(title, header, tuple(rows), "r" * len(header), basis="fitted"),
    ]


def _forms(root: Material) -> Table | None:
    found = root.get("fit/forms")
    if len(found) < 2:
        return None
    rows = []
    for number, form in enumerate(found):
        keys = ("in_sample", "leave_one_model_out", "leave_one_family_out")
        cells = tuple((root.number(f"fit/forms/{number}/{key}", "significant"),) for key in keys)
        count = (root.number(f"fit/forms/{number}/coefficients"),)
        rows.append(Row(((Mono(form["form"]),), count, *cells), form["form"] == root.get("fit/form")))
    header = ("Form", "Constants", "In sample", "Models left out", "Families left out")
    return Table("Forms by their mean regret, in percent", header, tuple(rows), "lrrrr", basis="fitted")


def _verdicts(root: Material) -> Table | None:
    rows = []
    for number, verdict in enumerate(root.get("fit/verdicts")):
        path = f"fit/verdicts/{number}"
        gap: Text = (
            root.number(f"{path}/difference", "signed"), " (", root.number(f"{path}/low", "signed"), " to ",
            root.number(f"{path}/high", "signed"), ")",
        )  # fmt: skip
        rows.append(Row(((clean(verdict["question"]),), (clean(verdict["verdict"]),), gap)))
    if not rows:
        return None
    header = ("Question", "Answer", "Points of regret")
    return Table("What the sweep decides", header, tuple(rows), "llr", (5, 3, 3), basis="fitted")


def _cells(root: Material) -> Table:
    rows = []
    for number, cell in enumerate(root.get("cells")[:MOST_ROWS]):
        path = f"cells/{number}"
        edge = {"highest": " or more", "lowest": " or less"}.get(str(cell.get("at_edge")), "")
        known = number and root.get(f"cells/{number - 1}/model") == cell["model"]
        who = "" if known else name(str(cell["model"]))
        how: Text = ("full",) if cell["method"] == "full" else (root.number(f"{path}/rank"),)
        law: Text = (root.number(f"{path}/law_lr", "rate"),)
        if cell.get("law_low") is not None:
            law = (
                *law,
                " (",
                root.number(f"{path}/law_low", "rate"),
                " to ",
                root.number(f"{path}/law_high", "rate"),
                ")",
            )
        rows.append(Row(((who,), how, (root.number(f"{path}/best_lr", "rate"), edge), law)))
    header = ("Model", "Rank", "Best rate", "The law’s, with its interval")
    return Table("Every sweep", header, tuple(rows), "lrrr", basis="fitted")


def _lead(root: Material) -> list[Block]:
    tabled = bool(root.get("fit/similar") and root.get("fit/similar/better"))
    kind = root.get("fit/interpolation")
    scored = f"fit/similar/regret_by_interpolation/{kind}" if tabled else "fit/regret"
    out = root.get(f"{scored}/leave_one_model_out")
    where = "leave_one_model_out" if out else "in_sample"
    words = (
        "at rates from fits that left the model out" if out else "in sample: too few models to leave one out"
    )
    law: Text = (
        ("A table of rates by family and rank",) if tabled else ("The law ", Mono(root.get("fit/form")))
    )
    lead = para(
        *law, ", fitted to ", root.number("fit/n_runs"), " runs of ",
        root.number("fit/n_models"), " models, costs ", root.number(f"{scored}/{where}/mean", "significant"),
        f"% of loss on average above each sweep’s own best, {words}.", style="lead",
    )  # fmt: skip
    status = para(
        f"{clean(root.get('fit/status')).replace('_', ' ').capitalize()}: {clean(root.get('fit/message'))}"
    )
    return [lead, status]


def _warnings(root: Material) -> Section:
    items: list[Text] = [(clean(note["message"]),) for note in root.get("fit/warnings")]
    if root.get("spread") is not None:
        items.append(
            ("The best rate of a new model of a known family lies within a factor ",
             root.number("spread", "significant"), " of the law’s about two times in three.")
        )  # fmt: skip
    return Section(
        "What could go wrong", (Bullets(tuple(items)),) if items else (para("Nothing was noticed."),)
    )


METHOD = (
    "Every sweep’s loss is read between the rates that were run, in log rate, as regret relative to its own best, "
    "and the sum is minimised. Rates at which runs diverged are walls; a best rate at the end of a grid is a bound, "
    "not an optimum. Intervals come from fits without each model; the figures for models left out from fits to all "
    "others."
)


def document(root: Material, moment: datetime.datetime, figures: Sequence[Figure]) -> Document:
    """The document of one fit."""
    date = f"{moment.day} {moment:%B %Y}"
    first: list[Block] = [*_lead(root)]
    first += [*_rates(root), *(table for table in (_constants(root, True),) if table is not None)]
    compared: list[Block] = [
        table for table in (_forms(root), _verdicts(root), _constants(root, False)) if table
    ]
    sections = [
        Section("The law", tuple(first)),
        _warnings(root),
        Section("What it costs", (*_costs(root), *figures[:1])),
        *([Section("What was compared", tuple(compared))] if compared else []),
        Section("The sweeps", (*figures[1:], _cells(root)), new_page=True),
        Section("Method", (para(METHOD),)),
        Section("How to make it again", (Code(str(root.get("command")), "shell"),)),
    ]
    if len(root.get("cells")) > MOST_ROWS:
        note = para(f"The first {MOST_ROWS} of {len(root.get('cells'))} sweeps are shown.", style="note")
        sections[-3] = Section(sections[-3].title, (*sections[-3].blocks, note), new_page=True)
    title = f"A learning-rate law from {name(str(root.get('sweep')))}"
    return Document(
        kind="fit", title=title, subtitle=f"Fitted on {date}, lora-plan {root.get('version')}",
        description=f"{title}: constants, regret on models left out, forms compared.", date=date,
        version=str(root.get("version")), sections=tuple(sections), keywords=("LoRA", "learning rate"),
    )  # fmt: skip


def compose(
    sweep: str | os.PathLike[str], moment: datetime.datetime, *, figures: bool, command: str,
    options: Mapping[str, Any],
) -> Document:  # fmt: skip
    """Fit the sweep and compose its document."""
    from ..learning_rate.fit import fit
    from ..learning_rate.sweep import read_sweep

    given = dict(options)
    check_options(fit, given, "an option of `lora-plan fit`")
    read = read_sweep(sweep, non_finite=given.pop("non_finite", "error"))
    result = fit(read, **given)
    drawn: Sequence[Figure] = ()
    if figures:
        from .figures.fit import figures as draw

        drawn = draw(result, read)
    return document(Material(gather(result, sweep, command)), moment, drawn)
