"""--config: a trainer's own config as the options that are not given on the command line."""

from __future__ import annotations

from typing import Any

import click

from ..adapter.options import DEFAULTS as ADAPTER
from .adapter_options import library_options
from .options import Function

# Options of which one takes the place of the others.
APART = (
    ("layers", "targets", "target_regex", "target_parameters"),
    ("dataset", "data", "tokens", "episodes"),
)


def config_option(function: Function) -> Function:
    """Add --config."""
    return click.option(
        "--config", metavar="FILE", type=click.Path(),
        help="A trainer's config (PEFT, TRL, Axolotl, LLaMA-Factory, torchtune) for all that is not given here.",
    )(function)  # fmt: skip


def given(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line, by the names of the library."""
    found = {}
    for name, value in options.items():
        typed = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if not typed and (name, value) != ("checkpointing", "none"):  # what --no-checkpointing makes it
            continue
        if name == "dora":
            found["variant"] = "dora" if value else "lora"
        else:
            found[name] = value
    return found


def only_given(context: click.Context, options: dict[str, Any], *, run: bool) -> dict[str, Any]:
    """The options of a call that were given, over those of --config where there is one; `run` keeps what only an
    export reads (lr, seed ...)."""
    config = options.pop("config")
    if config is None:
        library_options(options)  # refuses what cannot stand together
        return given(context, options)
    from ..exports.imported import import_config

    asked = given(context, options)
    found = import_config(config, gpus=asked.get("gpus"))
    for item in found.unread:
        click.echo(f"Not in the plan: {item.name} {item.value} ({item.reason})", err=True)
    for notice in found.notices:
        if (run and notice.code == "full-config") or (notice.code == "length-assumed" and "seq_len" in asked):
            continue
        if notice.code == "trainer-of-config" and (run or "trainer" in asked):
            continue
        click.echo(f"Note: {notice.message}", err=True)
    base = found.options() if run else dict(found.request)
    if any(name in asked for name in (*ADAPTER, "quantize", "adapter")):
        base.pop("full", None)  # an adapter in place of the config's full fine-tuning
    for group in APART:
        if any(name in asked for name in group):
            base = {name: value for name, value in base.items() if name not in group}
    if "gpus" not in asked and "batch" in asked:
        base.pop("accumulation", None)
    return {**base, **asked}
