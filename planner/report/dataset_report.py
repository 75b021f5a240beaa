"""A data set's report: what is in it, what is wrong with it, and how much there is to learn."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .document import Block, Bullets, Code, Document, Figure, Mono, Row, Section, Table, Text, para
from .files import check_options
from .numbers import UNKNOWN, Material
from .wording import clean, clean_data, name

MOST_BROKEN = 40
UNIT = {"sft": "loss token", "rl": "episode"}


def gather(found: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Everything that the report may show, as cleaned plain data: the JSON of `lora-plan dataset`."""
    material: dict[str, Any] = clean_data({"data": found, "command": command})
    return material


def _span(m: Material, key: str, style: str = "whole") -> Text:
    """A number, with its ends where it is not exact."""
    value: Text = (m.number(key, style),)
    if m.get(f"{key}_low") == m.get(f"{key}_high"):
        return value
    return (*value, " (", m.number(f"{key}_low", style), " to ", m.number(f"{key}_high", style), ")")


def _counts(m: Material) -> Table:
    rows = [
        Row((("Examples",), (m.number("examples"),))),
        Row((("Tokens",), _span(m, "tokens"))),
        Row((("Tokens that carry loss",), _span(m, "loss_tokens")), True),
        Row((("of these in examples that repeat no other",), _span(m, "distinct_loss_tokens"))),
        Row((("Bytes of text",), (m.number("bytes", "bytes"),))),
        Row((("Exact duplicates",), (m.number("duplicates_exact"),))),
        Row((("Near duplicates",), (m.number("duplicates_near"),))),
        Row((("Rows that could not be read",), (m.number("broken"),))),
        Row((("Rows without anything to learn",), (m.number("without_loss"),))),
    ]
    return Table(
        "What is in it", ("", "Number"), tuple(rows), "lr", basis=str(m.get("tokens_basis")), large=True
    )


def _lengths(m: Material) -> Section:
    which, unit = ("lengths", "tokens") if m.get("lengths") else ("lengths_bytes", "bytes")
    labels = (
        ("Half are at most", "p50"),
        ("Nine in ten", "p90"),
        ("99 in a hundred", "p99"),
        ("The longest", "max"),
    )
    rows = [Row(((words,), (m.number(f"{which}/{key}"),))) for words, key in labels]
    blocks: list[Block] = [
        Table(f"Length of an example, {unit}", ("", "Number"), tuple(rows), "lr", basis="measured")
    ]
    if m.get("truncated") is not None:
        blocks.append(
            para("At ", m.number("seq_len"), " tokens ", m.number("truncated"), " sequences are cut, with ",
                 m.number("truncated_loss_tokens"), " of the tokens that carry loss.")
        )  # fmt: skip
    if m.get("padding_efficiency") is not None:
        blocks.append(
            para("Batches of ", m.number("batch"), " padded to their longest are ",
                 m.number("padding_efficiency", "percent"), " full, packed sequences ",
                 m.number("packing_efficiency", "percent"), ".")
        )  # fmt: skip
    return Section("Lengths", tuple(blocks))


def _information(m: Material) -> Section:
    info = m.within("information")
    rows: list[Row] = []
    if info.get("rule") is not None:
        interval: Text = (info.number("rule/low", "bits"), " to ", info.number("rule/high", "bits"))
        rows.append(
            Row((("by the rule",), (info.number("rule/bits", "bits"),), interval, ("assumed",)), True)
        )
    if info.get("compression") is not None:
        what = f"by compression ({clean(str(info.get('compression/method')))})"
        rows.append(
            Row(((what,), ("at most ", info.number("compression/bits", "bits")), ("",), ("measured",)))
        )
    if info.get("measured") is not None:
        kind = str(info.get("measured/basis") or "measured")
        rows.append(
            Row((("by the model’s own loss",), (info.number("measured/bits", "bits"),), ("",), (kind,)))
        )
    unit = UNIT.get(str(info.get("kind")), "token")
    words = para(
        f"The rule counts one bit for each {unit}, duplicates once. "
        "Compression needs no model and bounds the information from above. A model’s loss over the first pass, "
        "where it is known, is what that model had yet to learn of the text.",
    )  # fmt: skip
    if not rows:
        rows.append(
            Row((("in all",), (info.number("bits", "bits"),), ("",), (str(info.get("basis")),)), True)
        )
    table = Table("How much there is to learn", ("Way", "Bits", "Interval", "Evidence"), tuple(rows), "lrrl")
    return Section("Information", (words, table))


def _broken(m: Material) -> Section | None:
    rows = m.get("broken_rows") or []
    if not rows:
        return None
    shown = tuple(
        Row(((Mono(clean(row["file"])),), (m.number(f"broken_rows/{number}/line"),), (clean(row["reason"]),)))
        for number, row in enumerate(rows[:MOST_BROKEN])
    )
    blocks: list[Block] = [
        Table("Rows that could not be read", ("File", "Line", "Why"), shown, "lrl", (2, 0, 5))
    ]
    if m.get("broken") > len(shown):
        more = "`lora-plan dataset --broken-out FILE` writes all of them."
        blocks.append(para(m.number("broken"), f" rows in all. {more}", style="note"))
    return Section("Broken rows", tuple(blocks))


def _lead(m: Material) -> list[Block]:
    kinds = ", ".join(f"{clean(str(kind))}" for kind in m.get("formats"))
    tokenizer = m.get("tokenizer")
    lead = para(
        m.number("examples"), " examples with ", m.number("loss_tokens", "count"), " tokens to learn from, ",
        m.number("information/bits", "bits"), f" in all ({clean(str(m.get('information/basis')))}).", style="lead",
    )  # fmt: skip
    how = (
        f"counted with the tokenizer {name(str(tokenizer))}"
        if tokenizer
        else "estimated from bytes: no tokenizer"
    )
    return [lead, para(f"Format: {kinds}. Tokens are {how}.")]


def document(root: Material, moment: datetime.datetime, figures: Sequence[Figure]) -> Document:
    """The document of one data set."""
    m = root.within("data")
    date, version = f"{moment.day} {moment:%B %Y}", str(m.get("version"))
    notes: list[Text] = [(clean(note["message"]),) for note in m.get("warnings") or ()]
    files: list[Text] = [
        (Mono(clean(file["name"])), f", {clean(file['kind'])}, ", m.number(f"files/{number}/bytes", "bytes"))
        for number, file in enumerate((m.get("files") or [])[:MOST_BROKEN])
    ]
    wrong = (Bullets(tuple(notes)),) if notes else (para("Nothing was noticed."),)
    broken = _broken(m)
    sections = [
        Section("The data", (*_lead(m), _counts(m))),
        Section("What could go wrong", wrong),
        _lengths(m),
        Section(_information(m).title, (*_information(m).blocks, *figures)),
        *([broken] if broken else []),
        Section("Files", (Bullets(tuple(files)),) if files else (para(UNKNOWN),)),
        Section("How to make it again", (Code(str(root.get("command")), "shell"),)),
    ]
    title = f"The data in {name(os.path.basename(os.path.normpath(str(m.get('data')))))}"
    return Document(
        kind="dataset", title=title, subtitle=f"Read on {date}, lora-plan {version}",
        description=f"{title}: examples, tokens, lengths, duplicates, information.", date=date, version=version,
        sections=tuple(sections), keywords=("LoRA", "data"),
    )  # fmt: skip


def compose(
    data: str | os.PathLike[str], moment: datetime.datetime, *, figures: bool, command: str,
    options: Mapping[str, Any],
) -> Document:  # fmt: skip
    """Read the data and compose their document. Raises InputError for an option that reading has not."""
    from ..dataset import dataset

    given = {("loss" if word == "nats" else word): value for word, value in options.items()}
    check_options(dataset, given, "an option of reading data, or a model beside --data")
    material = Material(gather(dataset(data, **given).to_dict(), command))
    drawn: list[Figure] = []
    if figures:
        from .figures.dataset import information

        drawn = [figure for figure in (information(material.within("data/information")),) if figure]
    return document(material, moment, drawn)
