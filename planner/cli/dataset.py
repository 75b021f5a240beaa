"""`lora-plan dataset`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from ..dataset import dataset
from ..errors import InputError
from .options import Count, Number, SectionedCommand, complete, json_option, print_json
from .progress import Bar

EPILOG = """\b
Examples:
  lora-plan dataset train.jsonl
  lora-plan dataset train.jsonl --tokenizer ./my-model --seq-len 4096
  lora-plan dataset data/ --split train --tokenizer Qwen/Qwen3-8B --json
  lora-plan dataset prompts.parquet --group-size 16 --success-rate 0.3
  lora-plan dataset alpaca.csv --write train.jsonl
"""
SECTIONS = {
    "Tokens": ("tokenizer", "chat_template", "loss_on", "eos", "chat"),
    "Reading": ("format", "columns", "split", "config", "encoding"),
    "Batches": ("seq_len", "batch"),
    "Information": ("near_duplicates", "compress", "loss", "run", "group_size", "success_rate"),
}
FORMATS = ("auto", "messages", "sharegpt", "prompt-completion", "alpaca", "text", "preference", "kto", "rl")
LOSS_ON = ("auto", "assistant", "completion", "all")


@contextmanager
def _whole_file(path: str | None, option: str) -> Iterator[IO[str] | None]:
    """A text file that appears under its name only when it is complete."""
    if path is None:
        yield None
        return
    folder = os.path.dirname(os.path.abspath(path))
    try:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 -- closed below, and renamed
            "w", encoding="utf-8", dir=folder, prefix=".lora-plan-", delete=False
        )
    except OSError as error:
        raise InputError(option, path, "a file that can be written", f"{error.strerror}.") from error
    try:
        with file:
            yield file
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise


def _lines_into(file: IO[str] | None) -> Callable[[Any], None] | None:
    """Writes a row as a line of JSON: a mapping, or a broken row."""
    if file is None:
        return None
    return lambda row: print(
        json.dumps(row if isinstance(row, dict) else vars(row), ensure_ascii=False), file=file
    )


@click.command("dataset", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.argument("data", metavar="FILE|DIR|NAME")
@click.option(
    "-t", "--tokenizer", metavar="PATH|NAME",
    help="A folder with tokenizer.json (a model's), that file, or a hub id. Without: bytes, with an interval.",
)  # fmt: skip
@click.option("--chat-template", metavar="FILE", help="A Jinja template instead of the tokenizer's own.")
@click.option(
    "--loss-on", metavar="WHICH", default="auto", show_default=True, shell_complete=complete(lambda: LOSS_ON),
    help="Tokens that carry loss: assistant (what it says in every turn), completion (all behind the prompt), all; "
    "auto: the completion where the data mark it, else the assistant's.",
)  # fmt: skip
@click.option("--eos", is_flag=True, help="Count an eos_token behind plain texts, as TRL adds it.")
@click.option("--chat", is_flag=True, help="Put plain prompts and completions into the chat template.")
@click.option(
    "--format", metavar="NAME", default="auto", show_default=True, shell_complete=complete(lambda: FORMATS),
    help=f"One of {', '.join(FORMATS)}.",
)  # fmt: skip
@click.option(
    "--columns", metavar="NAME=COLUMN,...",
    help="Read these columns under a format's names, as prompt=Question or messages=body.messages.",
)  # fmt: skip
@click.option("--split", metavar="NAME", help="The split to read. Default: train, where there are several.")
@click.option("--config", metavar="NAME", help="The configuration of a data set on the hub.")
@click.option("--encoding", metavar="NAME", help="Of text files. Default: UTF-8, or UTF-16 with its mark.")
@click.option(
    "--seq-len", type=Count(), help="What is longer is cut off; also the length of packed sequences."
)
@click.option("--batch", type=Count(), default=8, show_default=True, help="Sequences padded together.")
@click.option(
    "--near-duplicates/--no-near-duplicates", default=True, show_default=True, help="Look for them."
)
@click.option("--compress/--no-compress", default=True, show_default=True, help="Compress the learned text.")
@click.option(
    "--loss", type=Number(), metavar="NATS", help="The model's log loss per token in the first epoch."
)
@click.option("--run", metavar="FILE", help="A run record to take that loss from.")
@click.option("--group-size", type=Count(), help="Episodes sampled from each prompt of an RL set.")
@click.option(
    "--success-rate", type=Number(), help="Share of them with reward 1. Default: the data's pass_rate."
)
@click.option(
    "--broken-out", metavar="FILE", help="Write every broken row's place and reason, as JSON lines."
)
@click.option(
    "--write", metavar="FILE",
    help="Write every row that counts as JSON lines in the columns that all trainers read: messages; prompt and "
    "completion; text; chosen and rejected.",
)  # fmt: skip
@click.option("--progress/--no-progress", default=True, help="A progress bar on standard error.")
@json_option
def command(
    data: str, as_json: bool, broken_out: str | None, write: str | None, progress: bool, **options: Any
) -> None:
    """What is in a data set: examples, tokens, loss tokens, lengths, duplicates, broken rows, information.

    Reads JSON lines, JSON, CSV, text, Parquet, Arrow and folders of them or saved by `datasets`, plain or compressed
    (gzip, zstd, xz, bzip2), and data sets of the hub; Parquet, Arrow and the hub need the extra lora-plan[data].
    """
    bar = Bar(progress)
    try:
        with _whole_file(broken_out, "broken-out") as broken, _whole_file(write, "write") as rows:
            report = dataset(
                data, on_progress=bar, on_broken=_lines_into(broken), on_row=_lines_into(rows), **options
            )
    except KeyboardInterrupt:
        bar.close()
        click.echo("Interrupted; nothing was written.", err=True)
        sys.exit(130)
    finally:
        bar.close()
    if as_json:
        print_json(report.to_dict())
        return
    from .dataset_page import show

    show(report)
