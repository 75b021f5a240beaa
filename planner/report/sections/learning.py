"""Sections on learning: information against capacity, and the learning rate."""

from __future__ import annotations

from ..document import Mono, Paragraph, Row, Section, Table, Text, para
from ..numbers import Material
from ..wording import clean, name
from . import choice


def _facts(m: Material) -> Table:
    unit = choice.unit(m)
    rows = [
        Row((("The adapter holds",), (m.number("capacity/bits", "bits"),))),
        Row((("Bits a parameter",), (m.number("capacity/bits_per_param", "plain"),))),
    ]
    if m.get("information") is not None:
        rows += [
            Row(((f"{unit.capitalize()}s",), (m.number("information/units"),))),
            Row(((f"Bits of each {unit}",), (m.number("information/bits_per_unit"),))),
            Row((("The data hold",), (m.number("information/bits", "bits"),))),
            Row(
                (("Used",), (m.number("capacity/utilisation", "percent"), f", {m.get('capacity/verdict')}")),
                True,
            ),
            Row((("Smallest rank that holds the data",), (m.number("capacity/required_rank"),))),
            Row(((f"Adapter parameters for each {unit}",), (m.number("capacity/params_per_unit"),))),
        ]
    return Table(
        "Information and capacity", ("", "Number"), tuple(rows), "lr", basis=choice.basis(m, "capacity")
    )


def _by_rank(root: Material) -> Table:
    own = str(root.get("plan/adapter/rank"))
    known = root.get("plan/information") is not None
    rows = []
    for rank in root.get("ranks"):
        m = root.within(f"ranks/{rank}")
        cells: list[Text] = [
            (m.number("adapter/rank"),), (m.number("adapter/params", "count"),), (m.number("capacity/bits", "bits"),),
        ]  # fmt: skip
        if known:
            cells += [
                (m.number("capacity/utilisation", "percent"),),
                (str(m.get("capacity/verdict")),),
                (m.number("capacity/params_per_unit"),),
            ]
        rows.append(Row(tuple(cells), rank == own))
    header: tuple[str, ...] = ("Rank", "Parameters", "Holds")
    if known:
        header = (*header, "Used", "Verdict", f"Parameters for each {choice.unit(root.within('plan'))}")
    align = "rrrrlr" if known else "rrr"
    return Table("What each rank holds", header, tuple(rows), align, basis="assumed")


def capacity(root: Material) -> Section:
    """Information in the data against what the adapter holds, by rank."""
    m = root.within("plan")
    if m.get("information") is None:
        words = para(
            "The plan names no data, so the amount to learn is not known. The table says what each rank can hold; "
            "give --tokens, --episodes or --dataset to compare."
        )
    else:
        words = para(
            "The data’s information is counted by rule: ", m.number("information/bits_per_unit"),
            f" bit for each {choice.unit(m)}. An adapter is taken to hold ",
            m.number("capacity/bits_per_param", "plain"),
            " bits a parameter, reached after many exposures; both are assumptions, and one pass stores less.",
        )  # fmt: skip
    regret = _regret(root)
    end: list[Table | Paragraph] = [para(_NO_REGRET, style="note")]
    if regret:
        end = [regret, para(_REGRET, style="note"), _departure(m)]
    return Section("Information and capacity", (words, _facts(m), _by_rank(root), *end))


_REGRET = (
    "Expected loss above that of an ample rank at each one’s best learning rate, by a law fitted on a published "
    "sweep; the interval holds 80% of models left out of the fit."
)
_NO_REGRET = (
    "The price of a rank that is too small, as a loss above an ample rank’s, is not known to this plan: it needs the "
    "loss tokens of supervised data."
)


def _departure(m: Material) -> Paragraph:
    """Where this rank is expected to leave the curve that all ranks share."""
    if not m.get("regret/departure/within_data"):
        return para("This rank is not expected to leave the curve that all ranks share before the data end.")
    step: Text = ()
    if m.get("regret/departure/step") is not None:
        step = (", about step ", m.number("regret/departure/step"))
    return para(
        "This rank is expected to leave the curve that all ranks share after ",
        m.number("regret/departure/loss_tokens"), " loss tokens", *step, ".",
    )  # fmt: skip


def _regret(root: Material) -> Table | None:
    """The price of each rank, where the law gives one."""
    own = str(root.get("plan/adapter/rank"))
    rows = tuple(
        Row(
            (
                (root.number(f"ranks/{rank}/adapter/rank"),),
                ("within noise",)
                if root.get(f"regret/{rank}/within_noise")
                else ("+", root.number(f"regret/{rank}/value", "percent")),
                (
                    root.number(f"regret/{rank}/low", "percent"),
                    " to ",
                    root.number(f"regret/{rank}/high", "percent"),
                ),
            ),
            rank == own,
        )
        for rank in root.get("regret") or {}
    )
    if not rows:
        return None
    return Table("The price of a rank", ("Rank", "Loss", "Interval"), rows, "rrr", basis="fitted")


def _interval_words(m: Material) -> Text:
    if m.get("learning_rate/low") is None:
        return ("No interval is known for this family.",)
    known = (
        ""
        if m.get("learning_rate/family_known") is not False
        else (
            " No model of this family was among those that the law was fitted on: the interval is between families."
        )
    )
    if m.get("learning_rate/level") is None:
        return (f"The interval is the law’s own.{known}",)
    level = m.number("learning_rate/level", "percent")
    return ("The interval holds the best rate with a probability of ", level, f".{known}")


def learning_rate(root: Material) -> Section:
    """The rate, its law and its interval."""
    m = root.within("plan")
    law, family = m.get("learning_rate/law"), m.get("learning_rate/family")
    if m.get("learning_rate/value") is None:
        reason = clean(m.get("learning_rate/reason") or "no law was fitted on this family")
        return Section("Learning rate", (para(f"No learning rate: {reason}."),))
    rows = [Row((("LoRA",), (m.number("learning_rate/value", "rate"),)), True)]
    if m.get("learning_rate/low") is not None:
        interval = (m.number("learning_rate/low", "rate"), " to ", m.number("learning_rate/high", "rate"))
        rows.append(Row((("Interval",), interval)))
    rows.append(Row((("Full fine-tuning",), (m.number("learning_rate/full_finetune", "rate"),))))
    rows += [
        Row(
            (
                (f"In it, for {clean(factor['name'])}",),
                ("× ", m.number(f"learning_rate/factors/{number}/value")),
            )
        )
        for number, factor in enumerate(m.get("learning_rate/factors") or ())
    ]
    if m.get("learning_rate/batch") is not None:
        rows.append(Row((("For a batch of",), (m.number("learning_rate/batch"),))))
    rows.append(Row((("Law",), (name(str(law)),))))
    if family:
        rows.append(Row((("Family",), (name(str(family)).capitalize(),))))
    table = Table("Learning rate", ("", "Rate"), tuple(rows), "lr", basis=choice.basis(m, "learning_rate"))
    if root.get("law/form") is None:
        return Section("Learning rate", (para(clean(str(root.get("law/title")))), table))
    what = para(
        "A constant rate with Adam. The law: ", Mono(str(root.get("law/form"))),
        ". Fitted on ", str(root.get("law/fitted_on")), ". ", str(root.get("law/regret")),
    )  # fmt: skip
    return Section("Learning rate", (what, table, Paragraph(_interval_words(m), "note")))
