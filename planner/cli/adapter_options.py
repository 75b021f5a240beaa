"""The options that describe an adapter, shared by `estimate` and `export`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import click

from ..adapter import ALL_LINEAR, LAYER_SETS, PRESETS, Bias, ExpertConvention, Layout
from ..choices import DTYPE_BYTES
from .options import Count, Function, Number, complete, complete_last, with_options

ADAPTER = (
    "model", "rank", "alpha", "layers", "targets", "experts", "layout", "dora", "adapter_dtype",
)  # fmt: skip
MODEL_AND_ADAPTER = (*ADAPTER, "trust_remote_code")
PEFT = (
    "adapter", "target_regex", "target_parameters", "exclude_modules", "layers_to_transform", "rank_pattern",
    "alpha_pattern", "modules_to_save", "bias", "use_rslora",
)  # fmt: skip


def _models() -> Iterable[str]:
    from .. import facts

    return [*facts.model_ids(), *facts.model_aliases()]


_OPTIONS = (
    click.option(
        "-m",
        "--model",
        metavar="NAME|PATH",
        shell_complete=complete(_models),
        help="A model's name, a config.json, a folder with one, or a hub id.",
    ),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        help="Run the code that the model's repository carries, where nothing else knows its architecture.",
    ),
    click.option("-r", "--rank", type=Count(), default=32, show_default=True, help="LoRA rank."),
    click.option(
        "--alpha",
        type=Number(),
        default=32.0,
        show_default=True,
        help="LoRA alpha; the scale is alpha / rank.",
    ),
    click.option(
        "--layers",
        metavar="SETS",
        shell_complete=complete_last([*PRESETS, ALL_LINEAR, *LAYER_SETS]),
        help=f"Comma list of {', '.join(LAYER_SETS)}; or all (attention, mlp, unembedding; the default) or "
        "all-linear (what PEFT's all-linear adapts).",
    ),
    click.option(
        "--targets", metavar="NAMES", help="Comma list of module names instead, as PEFT's target_modules."
    ),
    click.option(
        "--experts",
        metavar="CONVENTION",
        default="scaled",
        show_default=True,
        shell_complete=complete(lambda: get_args(ExpertConvention)),
        help="How experts are adapted: scaled (each its own pair, rank / active experts), per-expert (each its own, "
        "full rank), shared-outer (Tinker: the hidden side shared), peft (what PEFT trains) or none.",
    ),
    click.option(
        "--layout",
        metavar="LAYOUT",
        shell_complete=complete(lambda: get_args(Layout)),
        help="Which matrices a set means: modules (as the library has them) or tinker (its choice and split of fused "
        "ones; the default with --experts shared-outer).",
    ),
    click.option("--dora", is_flag=True, help="DoRA: a trained magnitude for each output."),
    click.option(
        "--adapter-dtype",
        metavar="DTYPE",
        default="float32",
        show_default=True,
        shell_complete=complete(lambda: DTYPE_BYTES),
        help=f"How the adapter is stored: {', '.join(DTYPE_BYTES)}.",
    ),
    click.option(
        "--adapter",
        metavar="PATH",
        type=click.Path(),
        help="An existing adapter's folder or adapter_config.json instead of all these.",
    ),
    click.option(
        "--target-regex", metavar="REGEX", help="Modules whose whole path matches, instead of --targets."
    ),
    click.option(
        "--target-parameters", metavar="NAMES", help="Parameters to adapt, such as mlp.experts.down_proj."
    ),
    click.option(
        "--exclude-modules", metavar="NAMES|REGEX", help="Modules left out, by name or regular expression."
    ),
    click.option("--layers-to-transform", metavar="NUMBERS", help="Only these layers: 0,1,8-15."),
    click.option("--rank-pattern", metavar="NAME=R,..", help="Other ranks: q_proj=8,down_proj=64."),
    click.option("--alpha-pattern", metavar="NAME=A,..", help="Other alphas, likewise."),
    click.option(
        "--modules-to-save",
        metavar="NAMES",
        help="Modules trained in full beside the adapter, such as lm_head or the tower of images.",
    ),
    click.option(
        "--bias",
        metavar="WHICH",
        default="none",
        show_default=True,
        shell_complete=complete(lambda: get_args(Bias)),
        help="Biases trained: none, all, or lora_only (those of adapted modules).",
    ),
    click.option("--use-rslora", is_flag=True, help="Scale by alpha / sqrt(rank)."),
)


def adapter_options(function: Function) -> Function:
    """Add --model and every option that describes an adapter."""
    return with_options(_OPTIONS, function)


def library_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options by the names of the library. With --adapter, any other that was given is an error."""
    context = click.get_current_context()
    if options["model"] is None and options["adapter"] is None:
        raise click.UsageError(
            "Missing option '-m' / '--model' (or --adapter, whose config names one).", context
        )
    if options["adapter"] is not None:
        for name in (*ADAPTER[1:-1], *PEFT[1:]):
            source = context.get_parameter_source(name)
            if source is click.core.ParameterSource.COMMANDLINE:
                flag = name.replace("_", "-")
                raise click.UsageError(f"--{flag} cannot be given beside --adapter.", context)
    found = dict(options)
    found["variant"] = "dora" if found.pop("dora") else "lora"
    return found
