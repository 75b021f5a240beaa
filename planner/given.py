"""The data of a plan, from any of the ways to give them: a known data set, a file, tokens or episodes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import facts, information
from .dataclass import dataclass
from .errors import HubError, InputError
from .information import Information
from .schema import Notice
from .units import parse_count

if TYPE_CHECKING:  # reading data brings numpy and the tokenizers library
    from .dataset.result import DatasetReport
    from .fact_types import DatasetFact

WAYS = ("dataset", "data", "tokens", "episodes")
OF_RL = ("success_rate", "group_size")
OF_DATA = ("tokenizer", "loss_on", "format", "split", "columns")


def whole_number(field: str, value: object) -> int:
    """A whole number of at least 1. Raises InputError."""
    number = parse_count(field, value)
    if number < 1:
        raise InputError(field, value, "a whole number of at least 1")
    return number


def said_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a caller of `estimate` gave, by name: values that are not the usual ones, and every further option."""
    named = {"rank": 32, "alpha": 32, "experts": "scaled", "checkpointing": None}
    own = {name: value for name, value in values.items() if name != "options" and value != named.get(name)}
    more = {name: value for name, value in values["options"].items() if name != "on_progress"}
    return {**own, **more}


@dataclass(frozen=True)
class Given:
    """What there is to learn. `total_tokens` are those that a pass processes, `loss_tokens` those of them that carry
    loss, repeated ones too."""

    info: Information | None = None
    total_tokens: int | None = None
    loss_tokens: int | None = None
    fact: DatasetFact | None = None
    report: DatasetReport | None = None
    notices: tuple[Notice, ...] = ()

    @property
    def name(self) -> str | None:
        """The data set's name, or the file's."""
        if self.report is not None:
            return self.report.data
        return self.fact.name if self.fact else None


def _check_rates(options: Mapping[str, Any], given: list[str]) -> tuple[float | None, int | None]:
    """The success rate and the size of a group, which describe an RL run."""
    p, size = options["success_rate"], options["group_size"]
    if p is not None and (isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1):
        raise InputError("success-rate", p, "a number from 0 to 1")
    for name in OF_RL:
        if options[name] is not None and given not in (["episodes"], ["dataset"], ["data"]):
            field = name.replace("_", "-")
            raise InputError(
                field, options[name], "episodes beside it", "It describes an RL run: give --episodes."
            )
    return p, None if size is None else whole_number("group-size", size)


def read(options: Mapping[str, Any], model_id: str, local: bool) -> Given:
    """What is given. Raises InputError where more than one way is, or an option that goes with another."""
    given = [name for name in WAYS if options[name] is not None]
    if len(given) > 1:
        raise InputError(given[1], options[given[1]], f"nothing beside {given[0]}", "Give one of them.")
    p, size = _check_rates(options, given)
    if given != ["data"]:
        check_unread(options)
    nats = options["nats"]
    if nats is not None and given not in (["data"], ["tokens"], ["dataset"]):
        raise InputError("nats", nats, "supervised data beside it", "Give --tokens, --dataset or --data.")
    if options["data"] is not None:
        return _from_file(options, model_id, local)
    if options["tokens"] is not None:
        tokens = whole_number("tokens", options["tokens"])
        return Given(_supervised(tokens, nats), tokens, tokens)
    if options["episodes"] is not None:
        return Given(information.policy_gradient(whole_number("episodes", options["episodes"]), p, size))
    if options["dataset"] is None:
        return Given()
    return _known(facts.dataset(options["dataset"]), p, size, nats)


def check_unread(options: Mapping[str, Any]) -> None:
    """Raise InputError where an option says how a file is read, and none is."""
    for name in OF_DATA:
        if options[name] is not None:
            field = name.replace("_", "-")
            raise InputError(field, options[name], "--data beside it", "It says how a file is read.")


def _supervised(loss_tokens: int, nats: float | None) -> Information:
    """By the rule, or by a measured loss."""
    return information.supervised(loss_tokens) if nats is None else information.measured(loss_tokens, nats)


def _known(fact: DatasetFact, p: float | None, size: int | None, nats: float | None) -> Given:
    if fact.kind == "rl":
        if nats is not None:
            raise InputError("nats", nats, "a supervised dataset", f"{fact.name} is an RL run.")
        episodes = fact.episodes or (fact.examples or 0) * (size or 1)  # each prompt once, or a group of it
        return Given(information.policy_gradient(episodes, p, size), fact=fact)
    for name, value in (("success-rate", p), ("group-size", size)):
        if value is not None:
            raise InputError(name, value, "an RL dataset", f"{fact.name} is for supervised training.")
    counted = fact.loss_tokens if fact.loss_tokens is not None else fact.total_tokens
    return Given(_supervised(counted or 0, nats), fact.total_tokens, counted, fact)


def _from_file(options: Mapping[str, Any], model_id: str, local: bool) -> Given:
    """A file, folder or hub data set, read now; or what `planner.dataset` has read of one."""
    notices: list[Notice] = []
    report: DatasetReport = options["data"]
    if isinstance(report, (str, os.PathLike)):
        report, notices = _read(options, model_id, local)
    info = report.information
    if not report.examples:
        why = " ".join(each.message for each in report.warnings if each.code == "unknown-format")
        raise InputError(
            "data", report.data, "rows that can be used",
            f"None of its {report.broken:,} rows can: `lora-plan dataset` lists them. {why}".strip(),
        )  # fmt: skip
    if report.broken:
        rows = f"{report.broken:,} of {report.broken + report.examples:,} rows"
        notices.append(
            Notice("broken-rows", f"{rows} cannot be used: `lora-plan dataset {report.data}` lists them.")
        )
    cut = report.cut
    total, loss = report.tokens.value, report.loss_tokens.value
    if cut is not None:  # what a length cuts off is neither processed nor learned
        total, loss = total - cut.tokens, loss - cut.loss_tokens
        if cut.tokens:
            lost = (
                f"{cut.sequences:,} of {report.sequences:,} sequences, {cut.loss_tokens:,} tokens with loss"
            )
            notices.append(Notice("data-truncated", f"--seq-len cuts off the end of {lost}."))
    if info.kind == "rl":
        return Given(info, report=report, notices=(*report.warnings, *notices))
    return Given(info, total, loss, None, report, (*report.warnings, *notices))


def _read(options: Mapping[str, Any], model_id: str, local: bool) -> tuple[DatasetReport, list[Notice]]:
    from .dataset import dataset

    more = {name: options[name] for name in ("format", "loss_on", "columns") if options[name] is not None}
    tokenizer, notices = _tokenizer(options["tokenizer"], model_id, local)
    report = dataset(
        options["data"], tokenizer=tokenizer, split=options["split"], seq_len=options["seq_len"],
        batch=options["batch"], loss=options["nats"], success_rate=options["success_rate"],
        group_size=options["group_size"], on_progress=options.get("on_progress"), **more,
    )  # fmt: skip
    return report, notices


def _tokenizer(
    asked: str | os.PathLike[str] | None, model_id: str, local: bool
) -> tuple[str | None, list[Notice]]:
    """The tokenizer asked for, or the model's own where it can be had."""
    if asked is not None:
        return os.fspath(asked), []
    if local:
        folder = model_id if os.path.isdir(model_id) else os.path.dirname(model_id)
        if os.path.isfile(os.path.join(folder, "tokenizer.json")):
            return folder, []
        return None, []
    from .dataset.hub import tokenizer_folder

    try:
        return os.fspath(tokenizer_folder(model_id)), []
    except HubError as error:
        return None, [Notice("no-tokenizer", f"Not counted with the model's own tokenizer: {error}")]
