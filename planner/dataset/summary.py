"""From the sums of a data set to its report: intervals, information three ways, and what a reader should know."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import information
from ..errors import InputError, hint
from ..information import Information
from ..schema import Notice, Source
from ..units import parse_count
from . import lengths
from .analysis import Reader, Settings, Sums
from .duplicates import Duplicates
from .formats import NEEDS
from .rendering import LOSS_ON
from .result import BrokenRow, Cut, DatasetReport, SourceFile, Tokens
from .runs import first_epoch_loss
from .shape import Shape, shape_of_files
from .tokenizer import TextTokenizer, load

# Bytes a token where no tokenizer is at hand: English by most of 80 tokenizers, Chinese by an old one, and room for
# prose that a large vocabulary cuts well.
BYTES_PER_TOKEN = (3.8, 1.8, 4.5)
BYTES_SOURCE = Source(
    "Tokenizer Arena: compression rates of some 80 tokenizers on cc100",
    "https://huggingface.co/spaces/eson/tokenizer-arena",
    "README: English 3.4 to 4.0 bytes a token, simplified Chinese 1.8 (Llama) to 3.2 (Llama 3); 4.5 is a margin",
    "2024",
    "measured",
)


def from_bytes(count: int) -> Tokens:
    """Tokens of so many bytes: at 3.8 bytes a token, from 4.5 to 1.8."""
    usual, low, high = BYTES_PER_TOKEN
    return Tokens(round(count / usual), round(count / high), round(count / low), "assumed")


def _shape(reader: Reader) -> Shape | None:
    """What a trainer must be told of the rows; None for a data set of the hub, which is read once."""
    if not reader.files:
        return None
    try:
        return shape_of_files(
            reader.data,
            reader.files,
            reader.settings.format,
            reader.settings.encoding,
            reader.columns,
        )
    except InputError:  # every row is broken, which the report says
        return None


def summarise(
    data: str, *, tokenizer: str | os.PathLike[str] | None, loss_on: str, seq_len: int | None, batch: int,
    chat_template: str | os.PathLike[str] | None, near_duplicates: bool, compress: bool, loss: float | None,
    run: str | os.PathLike[str] | None, group_size: int | None, success_rate: float | None,
    on_broken: Callable[[BrokenRow], None] | None, on_progress: Callable[[int, int, int], None] | None, **more: Any,
) -> DatasetReport:  # fmt: skip
    """Read a data set and report. Raises a PlannerError before anything is read where an option cannot be."""
    if loss_on not in LOSS_ON:
        raise InputError("loss-on", loss_on, f"one of {', '.join(LOSS_ON)}", hint(loss_on, LOSS_ON).strip())
    batch, seq_len = _whole("batch", batch), None if seq_len is None else _whole("seq-len", seq_len)
    nats = _nats(loss, run)
    if success_rate is not None:
        information.policy_gradient(1, success_rate, group_size)
    text_tokenizer = _tokenizer(tokenizer, chat_template)
    settings = Settings(
        loss_on=loss_on, seq_len=seq_len, broken=on_broken, progress=on_progress,
        near=0.8 if near_duplicates else None, compression=6 if compress else None, **more,
    )  # fmt: skip
    with Reader(data, settings, text_tokenizer) as reader:
        sums = reader.read()
        duplicates = reader.register.duplicates()
        bits = reader.compressor.bits() if reader.compressor else None
        files = tuple(SourceFile(f.label, f.kind, f.split, f.size_bytes) for f in reader.files)
        notices = [*reader.notices, *_notices(sums, reader, text_tokenizer)]
        mask = _mask(reader)
        shape = _shape(reader)
    kind = _kind(sums)
    tokens, loss_tokens, distinct = _tokens(sums, duplicates, text_tokenizer is None)
    rl = _episodes(sums, duplicates, success_rate, group_size) if kind == "rl" else None
    found = rl or _learned(kind, distinct, nats)
    ways = _ways(distinct, nats, bits, reader, kind, sums, duplicates)
    counted = text_tokenizer is not None
    at = lengths.capped(sums.lengths, seq_len)
    limit = seq_len if counted else None
    return DatasetReport(
        data=data, files=files, formats=dict(sorted(sums.formats.items(), key=lambda item: -item[1])), kind=kind,
        tokenizer=text_tokenizer.name if text_tokenizer else None, loss_on=loss_on, mask=mask,
        examples=sums.examples, sequences=sums.sequences, text_bytes=sums.text_bytes, loss_bytes=sums.loss_bytes,
        tokens=tokens, loss_tokens=loss_tokens, distinct=distinct, broken=sums.broken,
        broken_rows=tuple(sums.broken_rows), blank_lines=sums.blank_lines, without_loss=sums.without_loss,
        duplicates_exact=duplicates.exact, duplicates_near=duplicates.near if near_duplicates else None,
        lengths=lengths.percentiles(sums.lengths) if counted else None,
        lengths_bytes=None if counted else lengths.percentiles(sums.lengths), seq_len=seq_len,
        cut=Cut(sums.cut_sequences, sums.cut_tokens, sums.cut_loss_tokens) if limit else None, batch=batch,
        padding_efficiency=lengths.padding_efficiency(at, batch) if counted else None,
        packing_efficiency=lengths.packing_efficiency(sums.lengths, limit) if limit else None,
        packed_sequences=lengths.packed_sequences(sums.lengths, limit) if limit else None,
        information=found, ways=ways, shape=shape, warnings=tuple(notices), histogram=dict(sums.lengths),
    )  # fmt: skip


def _learned(kind: str, distinct: Tokens, nats: float | None) -> Information:
    """What distinct loss tokens hold, by the rule or by a measured loss."""
    rule = Information(
        "preference" if kind == "preference" else "sft", distinct.value, 1.0, "assumed",
        units_low=distinct.low, units_high=distinct.high,
    )  # fmt: skip
    if nats is None:
        return rule
    return replace(rule, bits_per_unit=information.measured(1, nats).bits_per_unit, basis="measured")


def _whole(field: str, value: object) -> int:
    number = parse_count(field, value)
    if number < 1:
        raise InputError(field, value, "a whole number of at least 1")
    return number


def _nats(loss: float | None, run: str | os.PathLike[str] | None) -> float | None:
    if loss is not None and run is not None:
        raise InputError("run", os.fspath(run), "nothing beside --loss", "Give one of them.")
    if run is not None:
        return first_epoch_loss(run)
    if loss is not None:
        information.measured(1, loss)
    return loss


def _tokenizer(
    source: str | os.PathLike[str] | None, chat_template: str | os.PathLike[str] | None
) -> TextTokenizer | None:
    template = None
    if chat_template is not None:
        path = Path(chat_template).expanduser()
        try:
            template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("chat-template", str(path), "a readable Jinja file", f"{error}.") from error
    if source is None:
        if template is not None:
            raise InputError("chat-template", str(chat_template), "--tokenizer beside it")
        return None
    found = load(source, template)
    for tools in (False, True):
        if (own := found.template(tools)) is not None:
            own.check()
    return found


def _kind(sums: Sums) -> str:
    return next(iter(sums.kinds)) if len(sums.kinds) == 1 else "sft"


def _mask(reader: Reader) -> str | None:
    """How loss was found in conversations: by the template's own marks, by the beginnings of the text, or as plain
    text for want of a template."""
    used = reader.renderer.used
    if used.get("no-template"):
        return "no-template"
    return next((way for way in ("generation", "prefixes") if used.get(way)), None)


def _tokens(sums: Sums, duplicates: Duplicates, estimated: bool) -> tuple[Tokens, Tokens, Tokens]:
    """All tokens, those that carry loss, and those of them within the maximum length and not repeated."""
    exact, near = duplicates.exact_loss_tokens, duplicates.near_loss_tokens
    if estimated:
        tokens, loss = from_bytes(sums.text_bytes), from_bytes(sums.loss_bytes)
        once, most = from_bytes(sums.loss_bytes - exact - near), from_bytes(sums.loss_bytes - exact)
        return tokens, loss, Tokens(once.value, once.low, most.high, "assumed")
    total = sums.loss_tokens
    learned = total - sums.cut_loss_tokens - exact
    distinct = Tokens(learned - near, learned - near, learned, "measured")
    return (
        Tokens(sums.tokens, sums.tokens, sums.tokens, "measured"),
        Tokens(total, total, total, "measured"),
        distinct,
    )


def _episodes(
    sums: Sums, duplicates: Duplicates, success_rate: float | None, group_size: int | None
) -> Information:
    """One pass over the prompts, each sampled `group_size` times; the data's own success rates where they have
    them."""
    prompts = sums.examples - duplicates.exact
    episodes = prompts * (group_size or 1)
    if success_rate is None and sums.pass_rates and sum(sums.pass_rates.values()) == sums.examples:
        return information.by_success_rates(episodes, sums.pass_rates, group_size)
    return information.policy_gradient(episodes, success_rate, group_size)


def _ways(
    distinct: Tokens, nats: float | None, bits: int | None, reader: Reader, kind: str, sums: Sums,
    duplicates: Duplicates,
) -> dict[str, Any]:  # fmt: skip
    """Information three ways, side by side; null where a way does not apply."""
    compression = rule = measured = pairs = None
    if kind != "rl":
        rule = {"bits": distinct.value, "low": distinct.low, "high": distinct.high, "basis": "assumed"}
        if bits is not None and reader.compressor is not None and sums.loss_bytes:
            compression = {
                "bits": bits, "bits_per_byte": bits / sums.loss_bytes, "bound": "upper", "basis": "measured",
                "method": "zstd, level 6, window 64 MiB",
            }  # fmt: skip
    if kind != "rl" and nats is not None:
        per = information.measured(1, nats).bits_per_unit
        measured = {
            "bits": distinct.value * per, "low": distinct.low * per, "high": distinct.high * per,
            "nats_per_token": nats, "basis": "measured",
        }  # fmt: skip
    if kind == "preference":
        count = sums.examples - duplicates.exact
        pairs = {"count": count, "bits": count, "basis": "analytic"}
    return {"rule": rule, "compression": compression, "measured": measured, "pairs": pairs}


def _notices(sums: Sums, reader: Reader, tokenizer: TextTokenizer | None) -> list[Notice]:
    used, found = reader.renderer.used, []
    if tokenizer is None:
        found.append(
            Notice(
                "tokens-from-bytes",
                "No tokenizer: tokens are bytes / 3.8, from / 4.5 to / 1.8. --tokenizer counts them.",
            )
        )
    elif used.get("no-template"):
        found.append(
            Notice(
                "no-chat-template",
                f"{tokenizer.name} has no chat template: conversations are counted as their contents alone, without "
                "what a template adds. --chat-template gives one.",
            )
        )
    if sums.unknown:
        found.append(
            Notice(
                "unknown-format",
                f"Rows whose columns fit no format: {sums.unknown:,}. There are {NEEDS}. --format names one, "
                "--columns prompt=NAME,completion=NAME renames columns.",
            )
        )
    if len(sums.kinds) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in sums.kinds.items())
        found.append(Notice("mixed-kinds", f"The rows are of several kinds ({listed}), counted together."))
    if used.get("stand-in"):
        found.append(
            Notice(
                "turns-by-stand-in",
                f"In {used['stand-in']:,} turns the template writes earlier turns otherwise than the last (it drops "
                "their reasoning): what is left of them carries loss, found by what changes with their content.",
            )
        )
    if used.get("flattened"):
        found.append(
            Notice(
                "parts-flattened",
                f"{used['flattened']:,} conversations have contents in parts, which the template does not take: "
                "their texts are joined, pictures and sounds left out.",
            )
        )
    if sums.without_loss:
        found.append(Notice("no-loss", f"{sums.without_loss:,} examples have no token that carries loss."))
    return found
