"""`lora-plan compare`."""

from __future__ import annotations

from typing import Any

import click

from .adapter_options import ADAPTER, PEFT, adapter_options
from .config_option import config_option, only_given
from .estimate import DATA, DATA_FILE, data_file_options, data_options
from .options import SectionedCommand, json_option, print_json
from .progress import reading
from .run_options import BEFORE, BESIDE, HELD, HOST, IMAGES, MACHINE, SPREAD, STEP, UNITS, run_options

EPILOG = """\b
Examples:
  lora-plan compare -m meta-llama/Llama-3.1-8B --gpu h100 --tokens 50M --batch 8 --checkpointing layer
  lora-plan compare -m Qwen/Qwen3-8B --ranks 8,64 --methods lora,qlora --gpu rtx4090
  lora-plan compare --config axolotl.yml --gpu a100-80gb
  lora-plan compare -m Qwen/Qwen3-4B,Qwen/Qwen3-8B --methods lora --gpu l40s --json
"""
SECTIONS = {
    "What is compared": ("model", "config", "ranks", "methods"),
    "Adapter": tuple(name for name in ADAPTER if name not in ("model", "rank")),
    "More of PEFT's LoraConfig": PEFT,
    "Data": (*DATA, *DATA_FILE),
    "Machines": (*MACHINE, *HOST),
    "Step": (*STEP, *BESIDE, *BEFORE, *IMAGES),
    "What is held and how": (*HELD, *SPREAD, *UNITS),
}


@click.command("compare", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@adapter_options
@click.option("--ranks", metavar="RANKS", help="Comma list of ranks. Default: that of --rank.")
@click.option(
    "--methods", metavar="NAMES", default="lora,qlora,full", show_default=True, help="lora, qlora, full."
)
@config_option
@data_options
@data_file_options
@run_options((*MACHINE, *HOST))
@run_options((*STEP, *BESIDE, *BEFORE, *IMAGES, *HELD, *SPREAD, *UNITS))
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """LoRA, QLoRA and full fine-tuning side by side.

    One column for each model (a comma list), method and rank: what is trained, memory of a GPU by part, the fewest
    GPUs on which it fits, and with --gpu and data the time and the cost.
    """
    from ..comparing import compare
    from ..given import whole_number

    ranks, methods = options.pop("ranks"), options.pop("methods")
    if options["config"] is None:
        if options["model"] is None:
            raise click.UsageError("Missing option '-m' / '--model'.", context)
        del options["config"]
        asked = {**options, "variant": "dora" if options.pop("dora") else "lora"}
        asked.pop("dora", None)
    else:
        asked = only_given(context, options, run=False)
    model, rank = asked.pop("model"), asked.pop("rank", 32)
    wanted = whole_number("rank", rank) if ranks is None else ranks
    with reading(asked) as given:
        found = compare(model, ranks=wanted, methods=methods, **given)
    if as_json:
        print_json(found.to_dict())
        return
    from .compare_page import show

    show(found)
