"""`lora-plan simulate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..choices import CHOICES
from .adapter_options import MODEL_AND_ADAPTER, PEFT, adapter_options, library_options
from .estimate import READ, read_options
from .options import Count, Function, SectionedCommand, complete, json_option, print_json
from .run_options import BESIDE, IMAGES, run_options

EPILOG = """\b
Examples:
  lora-plan simulate --model meta-llama/Llama-3.1-8B
  lora-plan simulate -m Qwen/Qwen3-8B --rank 64 --batch 4 --seq-len 4096 --checkpointing
  lora-plan simulate -m Qwen/Qwen3-8B --trainer llama-factory --methods lora --batch 2 --eval-batch 8
  lora-plan simulate -m Qwen/Qwen3-8B --gpu rtx-4090 --checkpointing
  lora-plan simulate -m Qwen/Qwen3-8B --data train.jsonl --tokenizer ./my-model --batch 4 --checkpointing
  lora-plan simulate -m ./my-model --methods lora --precision autocast --optimizer adamw-8bit --json
"""
STEP = (
    "methods",
    "seq_len",
    "batch",
    "accumulation",
    "checkpointing",
    "no_checkpointing",
    "attention_kernel",
    "packing",
    "loss",
    "objective",
    "reference",
    "prompt_tokens",
    *BESIDE,
    *IMAGES,
)
HELD = (
    "precision", "autocast", "base_dtype", "quantize", "upcast_small", "optimizer", "lora_dropout", "outputs_held",
    "expandable_segments", "trainer",
)  # fmt: skip
MACHINE = ("gpu",)
SECTIONS = {
    "Model and adapter": MODEL_AND_ADAPTER,
    "More of PEFT's LoraConfig": PEFT,
    "Step": STEP,
    "What is held and how": HELD,
    "Machine": MACHINE,
    "Data, padded, whose lengths tell what is reserved": READ,
}


def _choice(name: str, usual: str, text: str) -> Callable[[Function], Function]:
    """An option whose values are those of a set-up's field; `usual` is what it is where nobody says."""
    return click.option(
        f"--{name.replace('_', '-')}",
        metavar="NAME",
        shell_complete=complete(lambda: CHOICES[name]),
        help=f"{text.format(', '.join(CHOICES[name]))} Default: {usual}, or the trainer's.",
    )


@click.command("simulate", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@adapter_options
@click.option(
    "--methods",
    metavar="NAMES",
    help="Comma list of the methods to run. Default: lora,full,qlora, as far as they can be.",
)
@click.option(
    "--seq-len",
    type=Count(),
    help="Tokens a sequence. Default: 2048, or the model's context if shorter; with --data its longest sample.",
)
@click.option("--batch", type=Count(), default=1, show_default=True, help="Sequences in a micro-step.")
@click.option(
    "--accumulation", type=Count(), default=1, show_default=True, help="Micro-steps in an optimizer step."
)
@run_options(
    (
        "checkpointing",
        *BESIDE,
        *IMAGES,
        "lora_dropout",
        "trainer",
        "base_dtype",
        "outputs_held",
        "expandable_segments",
        *MACHINE,
    )
)
@_choice("attention_kernel", "sdpa", "How attention runs: {}.")
@_choice(
    "packing",
    "full",
    "Sequences as long as the batch, or shorter ones padded or packed: {}; of pairs padded.",
)
@_choice("loss", "full", "How the loss is computed: {}; of preferences tiled.")
@_choice("objective", "sft", "What is learnt: {}. A batch of dpo or orpo is pairs.")
@_choice("reference", "base", "What dpo and kto compare with: {}; grpo's runs before the step.")
@click.option("--prompt-tokens", type=Count(), help="grpo: tokens that are prompt. Default: 0.")
@_choice("precision", "bf16", "How weights are held and computed with: {}.")
@click.option(
    "--autocast/--no-autocast",
    default=None,
    help="Autocast on 16-bit weights, as HF's Trainer runs them. Default: QLoRA in nf4 or int8, or the trainer's.",
)
@_choice("quantize", "nf4", "How QLoRA holds the base weights: {}.")
@click.option(
    "--upcast-small/--no-upcast-small",
    default=None,
    help="QLoRA: what is not quantised in float32, as PEFT prepares it. Default: with nf4 or int8, or the trainer's.",
)
@_choice("optimizer", "adamw", "The optimizer: {}.")
@read_options
@click.option("--whole", is_flag=True, help="Run every layer, not a few that stand for all.")
@json_option
def command(as_json: bool, **options: Any) -> None:
    """Run the training step without weights.

    The model's own code, PEFT's adapter and torch's backward pass run on tensors without values, so that a model of
    any size is done in seconds on a laptop: LoRA, full fine-tuning and QLoRA side by side, the peak of their memory
    by part, when it is reached, and FLOPs: those of fused attention with the scores that its backward pass makes
    again, which estimate leaves out. Needs torch: pip install "lora-plan[validate]".
    """
    given = library_options(options)
    from ..architecture.meta import ahead

    ahead.begin()
    from ..simulate import simulate
    from .simulate_page import show, watched

    with watched() as progress:
        found = simulate(**given, progress=progress)
    if as_json:
        print_json(found.to_dict())
        return
    show(found)
