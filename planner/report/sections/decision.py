"""The page that decides: what to train, how, what it takes, and what could go wrong."""

from __future__ import annotations

from collections.abc import Sequence

from ...moments import FIT_WORDS
from ..document import Block, Bullets, Paragraph, Row, Run, Section, Strong, Table, Text
from ..numbers import Material
from ..wording import clean, name
from . import choice

NOTES_SHOWN = 5
LONGEST_NOTE = 180


def _capacity_words(m: Material) -> Text:
    verdict = m.get("capacity/verdict")
    if verdict is None:
        words = "How much there is to learn is not known, so neither is whether it fits: this adapter holds "
        return (words, m.number("capacity/bits", "bits"), ".")
    data, holds = m.number("information/bits", "bits"), m.number("capacity/bits", "bits")
    if verdict == "ample":
        return ("The data hold ", data, " and the adapter ", holds, ": ample.")
    if verdict == "tight":
        return ("The data hold ", data, " and the adapter ", holds, ": it fits, tightly.")
    end: Text = (
        ("; rank ", m.number("capacity/required_rank"), " would hold it.")
        if m.get("capacity/required_rank") is not None
        else ("; no rank would hold it.",)
    )
    return (
        "The data hold ",
        data,
        " and the adapter only ",
        holds,
        ": expect a worse loss than full fine-tuning",
        *end,
    )


def lead(m: Material) -> Paragraph:
    """The report in three sentences."""
    runs: list[Run] = [
        "Train ", m.number("adapter/params", "count"), " parameters (",
        m.quotient("adapter/params", "model/params"), " of the model) with ", choice.kind(m), " of rank ",
        m.number("adapter/rank"), " on ", choice.layers(m),
    ]  # fmt: skip
    if m.get("learning_rate/value") is not None:
        runs += [", at a learning rate of ", m.number("learning_rate/value", "rate")]
    runs.append(". ")
    if m.get("flops/ratio") is not None:
        runs += ["A step costs ", m.number("flops/ratio", "percent"), " of full fine-tuning’s FLOPs. "]
    runs += _capacity_words(m)
    return Paragraph(tuple(runs), "lead")


def _rate(m: Material) -> Row:
    if m.get("learning_rate/value") is None:
        reason = m.get("learning_rate/reason") or "no law was fitted on this family"
        return Row((("Learning rate",), (Strong("not known"),), (clean(reason),), ("not known",)))
    why: Text = ("Adam, constant; ", "full fine-tuning ", m.number("learning_rate/full_finetune", "rate"))
    if m.get("learning_rate/low") is not None:
        why = (
            *why, "; likely from ", m.number("learning_rate/low", "rate"), " to ",
            m.number("learning_rate/high", "rate"),
        )  # fmt: skip
    chosen = (m.number("learning_rate/value", "rate"),)
    return Row((("Learning rate",), chosen, why, (choice.basis(m, "learning_rate"),)))


def _batch(m: Material) -> Row:
    batch = m.get("workload/batch")
    chosen: Text = (
        m.number("workload/batch"), " sequence of " if batch == 1 else " sequences of ",
        m.number("workload/seq_len"), " tokens",
    )  # fmt: skip
    given = m.get("workload/seq_len_given")
    why: list[Run] = ["as asked for" if given else "length assumed; give yours with --seq-len"]
    if m.get("time/seq_len") is not None:
        why += ["; padded, ", m.number("time/seq_len"), " tokens on average"]
    if m.get("workload/checkpointing"):
        why.append("; with gradient checkpointing")
    return Row((("Batch",), chosen, tuple(why), ("given" if given else "assumed",)))


def _held(m: Material, section: str) -> Sequence[Run]:
    """How often intervals like that of a section held sources that they had not met."""
    within = f"{section}/interval"
    if m.get(f"{within}/held") is None:
        return ()
    return (" (such intervals hold ", *choice.judged(m, within), ")")


def _memory(m: Material) -> Row:
    own = choice.memory(m)
    if m.get(f"{own}/per_gpu_bytes") is None:
        return Row(
            (
                ("Memory",),
                (Strong("not known"),),
                ("this plan carries no estimate of memory",),
                ("not known",),
            )
        )
    fit = m.get(f"{own}/fit")
    why: list[Run] = [f"{FIT_WORDS[fit]} the card" if fit else "no card was named"]
    if m.get(f"{own}/low") is not None:
        why += [
            "; from ",
            m.number(f"{own}/low", "bytes"),
            " to ",
            m.number(f"{own}/high", "bytes"),
            *_held(m, own),
        ]
    if m.get("memory/full/per_gpu_bytes") is not None:
        why += ["; full fine-tuning ", m.number("memory/full/per_gpu_bytes", "bytes")]
    chosen = (m.number(f"{own}/per_gpu_bytes", "bytes"), " a GPU")
    return Row((("Memory",), chosen, tuple(why), (choice.basis(m, own),)))


def _amount(m: Material, label: str, section: str, key: str, style: str, needs: str) -> Row:
    if m.get(f"{section}/{key}") is None:
        return Row(((label,), (Strong("not known"),), (needs,), ("not known",)))
    why: Text = ("one run over the data",)
    if m.get(f"{section}/low") is not None:
        steps = (m.number("time/steps"), " step; " if m.get("time/steps") == 1 else " steps; ")
        why = (
            *(steps if section == "time" else ()), "from ", m.number(f"{section}/low", style), " to ",
            m.number(f"{section}/high", style), *_held(m, section),
        )  # fmt: skip
    return Row(((label,), (m.number(f"{section}/{key}", style),), why, (choice.basis(m, section),)))


def _holds(m: Material) -> Row:
    chosen: Text = (m.number("adapter/rank"), ", alpha ", m.number("adapter/alpha", "plain"))
    if m.get("capacity/utilisation") is None:
        why: Text = ("holds ", m.number("capacity/bits", "bits"), "; the data’s size was not given")
    else:
        why = (
            "holds ", m.number("capacity/bits", "bits"), "; the data use ",
            m.number("capacity/utilisation", "percent"), f": {m.get('capacity/verdict')}",
        )  # fmt: skip
    return Row((("Rank",), chosen, why, (choice.basis(m, "capacity"),)))


def table(m: Material) -> Table:
    """Each choice, the reason for it and the evidence behind it."""
    what = choice.layers(m)
    extra = choice.more(m)
    share: Text = (
        m.number("adapter/params"), " parameters, ", m.quotient("adapter/params", "model/params"), " of the model",
        *((f"; {extra}",) if extra else ()),
    )  # fmt: skip
    rows = (
        Row((("Train",), (what,), share, (choice.basis(m, "adapter"),))),
        _holds(m),
        _rate(m),
        _batch(m),
        _memory(m),
        _amount(m, "Time", "time", "seconds", "duration", "needs a GPU (--gpu) and an amount of data"),
        _amount(m, "Cost", "cost", "usd", "usd", "needs a GPU (--gpu) and an amount of data"),
    )
    return Table("The plan", ("", "Choice", "Why", "Evidence"), rows, "llll", (0, 1.15, 1.7, 0), large=True)


def _short(message: str) -> str:
    message = clean(message)
    if len(message) <= LONGEST_NOTE:
        return message
    return f"{message[:LONGEST_NOTE].rsplit(' ', 1)[0]} …"


def risks(m: Material) -> list[Block]:
    """The plan's warnings, and what it does not know."""
    notes = m.get("warnings") or []
    items: list[Text] = [(_short(note["message"]),) for note in notes[:NOTES_SHOWN]]
    if len(notes) > NOTES_SHOWN:
        items.append(("Further notes stand at the end of this report.",))
    if m.root.get("peft/reason"):
        items.append(
            ("PEFT cannot train this adapter as it is counted: the nearest stands under Configuration.",)
        )
    unknown = [
        word for word in ("information", "memory", "time", "cost") if m.get(word) is None
    ]  # fmt: skip
    if unknown:
        items.append((f"Not part of this plan, so not known: {', '.join(unknown)}.",))
    if not items:
        return [Paragraph(("The plan carries no warning.",))]
    return [Bullets(tuple(items))]


def sections(m: Material) -> list[Section]:
    """The first page: a headline, the plan, and what could go wrong."""
    size: list[Run] = [
        "The model has ",
        m.number("model/params", "count"),
        " parameters",
    ]
    if m.get("model/params_active") != m.get("model/params"):
        size += [", of which a token meets ", m.number("model/params_active", "count")]
    size += [" (", name(str(m.get("model/model_type"))), ")."]
    return [
        Section("Decision", (lead(m), table(m), Paragraph(tuple(size), "note"))),
        Section("What could go wrong", tuple(risks(m))),
    ]
