"""`lora-plan plan`."""

from __future__ import annotations

from typing import Any

import click

from .adapter_options import _models
from .estimate import DATA_FILE, _datasets, data_file_options
from .options import Count, Number, SectionedCommand, complete, json_option, print_json
from .progress import reading
from .run_options import HOST, gpu_names, meant, run_options

EPILOG = """\b
Examples:
  lora-plan plan -m meta-llama/Llama-3.1-8B --tokens 50M --budget 20 --deadline 6h
  lora-plan plan -m Qwen/Qwen3-32B --dataset tulu-3-sft-mixture --gpu h100 --gpus 1,2,4,8
  lora-plan plan -m meta-llama/Llama-3.1-70B --tokens 20M --gpu a100,h100 --prefer cost --max-regret 0.01
  lora-plan plan -m Qwen/Qwen3-8B --tokens 5M --gpu rtx4090 --gpus 1 --price 0.35 --json
  lora-plan plan -m meta-llama/Llama-3.3-70B-Instruct --tokens 50M --gpu h100 --gpus 8,16 --seq-len 65536
  lora-plan plan -m Qwen/Qwen3-32B --tokens 20M --gpu h100 --gpus 8 --tensor-parallel 1,2,4 --pipeline-parallel 1,2
  lora-plan plan -m meta-llama/Llama-3.2-1B --data train.jsonl --epochs 3 --gpu l4
  lora-plan plan -m Qwen/Qwen3-4B --objective grpo --episodes 20k --prompt-tokens 200 --mean-completion 300 --gpu h100
"""
FIXED = (
    "autocast", "tf32", "upcast_small", "quantize_experts", "optimizer", "attention_kernel", "kernels",
    "loss", "packing", "lora_dropout", "lengths_vary", "expandable_segments", "eval_batch", "gradients_late",
    "outputs_held",
)  # fmt: skip
LEARNT = (
    "objective", "reference", "prompt_tokens", "mean_completion", "vllm_memory", "vllm_sleep", "states_asleep",
    "vllm_tensor_parallel",
)  # fmt: skip
SPREAD = (
    "sharding", "shard_size", "tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel",
    "offload",
)  # fmt: skip
SECTIONS = {
    "What is trained": (
        "model", "dataset", "tokens", "episodes", "success_rate", "epochs", *DATA_FILE, "seq_len",
    ),
    "Limits": ("budget", "deadline", "max_regret", "prefer", "fit"),
    "Machines": ("gpu", "gpus", "gpus_per_node", *HOST, "price", "calibration"),
    "What the search tries": (
        "ranks", "layers", "quantize", "checkpointing", "micro_batch", "batch", *SPREAD, "precision", "generation",
        "vllm_gpus",
    ),
    "What is learnt": (*LEARNT, "group"),
    "Held fixed": ("alpha", "experts", "adapter_dtype", *FIXED, "trainer"),
}  # fmt: skip


def _gpus() -> list[str]:
    return ["any", *gpu_names()]


@click.command("plan", cls=SectionedCommand, sections=SECTIONS, epilog=EPILOG)
@click.option(
    "-m", "--model", metavar="NAME|PATH", required=True, shell_complete=complete(_models),
    help="A model's name, a config.json, a folder with one, or a hub id.",
)  # fmt: skip
@click.option(
    "--dataset", metavar="NAME", shell_complete=complete(_datasets), help="A dataset of known size."
)
@click.option("--tokens", type=Count(), help="Tokens that carry loss, for example 300M.")
@click.option("--episodes", type=Count(), help="Episodes of a reinforcement-learning run, a sequence each.")
@click.option("--success-rate", type=Number(), help="Share of episodes with reward 1.")
@click.option("--epochs", type=Count(), default=1, show_default=True, help="Passes over the data.")
@data_file_options
@click.option("--seq-len", type=Count(), help="Tokens a sequence. Default: 2048, or the context if shorter.")
@click.option("--budget", type=Number(), metavar="USD", help="Dollars that the run may cost.")
@click.option("--deadline", metavar="TIME", help="Time that the run may take: 45m, 12h, 2d.")
@click.option(
    "--max-regret",
    type=Number(),
    metavar="SHARE",
    help="Excess loss allowed: 0.01 is 1%. Of tokens that carry loss alone.",
)
@click.option(
    "--prefer", default="quality", show_default=True, metavar="WHAT",
    help="quality (least expected regret, where 0.1% of the loss counts as equal, then cost, then time), cost "
    "or time.",
)  # fmt: skip
@click.option(
    "--fit", default="expected", show_default=True, metavar="WHAT",
    help="What has to fit on a GPU: the peak that is expected, or (sure) the upper end of its interval.",
)  # fmt: skip
@click.option(
    "--gpu", default="any", show_default=True, metavar="NAMES", shell_complete=complete(_gpus),
    help="Comma list of accelerators, or any whose price is known.",
)  # fmt: skip
@click.option("--gpus", default="1,2,4,8", show_default=True, metavar="COUNTS", help="Numbers of GPUs.")
@click.option("--gpus-per-node", type=Count(), default=8, show_default=True, help="GPUs in a machine.")
@run_options(HOST)
@click.option("--price", type=Number(), metavar="USD", help="Your price of a GPU and hour, for every GPU.")
@click.option("--calibration", type=click.Path(), metavar="FILE", help="A file from `lora-plan calibrate`.")
@click.option(
    "--ranks", default="1,2,4,8,16,24,32,48,64,96,128,192,256,384,512", show_default=True, metavar="RANKS",
    help="Ranks of the adapter.",
)  # fmt: skip
@click.option(
    "--layers",
    default="mlp,all",
    show_default=True,
    metavar="SETS",
    help="Which matrices get an adapter: sets as in estimate.",
)
@click.option(
    "--quantize",
    default="none,nf4,nf4-double",
    show_default=True,
    metavar="FORMS",
    help=f"How the frozen base is held: {meant('quantize')}.",
)
@click.option(
    "--checkpointing",
    default="none,layer",
    show_default=True,
    metavar="WAYS",
    help="Whether layers run again in the backward pass, which takes time and spares memory: none, layer, "
    "layer-offload.",
)
@click.option(
    "--micro-batch",
    default="1,2,4,8,16,32,64",
    show_default=True,
    metavar="SIZES",
    help="Sequences that a GPU takes at a time; the rest of a step follows in further micro-steps.",
)
@click.option(
    "--batch",
    default="32",
    show_default=True,
    metavar="SIZES",
    help="Sequences of an optimizer step, on all GPUs together.",
)
@click.option(
    "--sharding",
    default="ddp,fsdp",
    show_default=True,
    metavar="WAYS",
    help=f"How several GPUs share states: {meant('sharding')}.",
)
@click.option(
    "--shard-size", metavar="SIZES",
    help="GPUs that share one copy under fsdp-hybrid. Default: those of a machine.",
)  # fmt: skip
@click.option(
    "--tensor-parallel", default="1", show_default=True, metavar="COUNTS",
    help="GPUs that share every matrix, which Megatron and few others do with adapters.",
)  # fmt: skip
@click.option(
    "--pipeline-parallel", default="1", show_default=True, metavar="COUNTS",
    help="GPUs that share the layers, which Megatron and few others do with adapters.",
)  # fmt: skip
@click.option(
    "--expert-parallel", metavar="COUNTS",
    help="GPUs that share a mixture's experts. Default: 1, and where nothing fits as many as can.",
)  # fmt: skip
@click.option(
    "--sequence-parallel", metavar="COUNTS",
    help="GPUs that share every sequence. Default: 1, and where nothing fits as many as go with it.",
)  # fmt: skip
@click.option(
    "--offload", metavar="WAYS",
    help="What is kept in the host's memory: none, optimizer, parameters, all. Default: none; where nothing fits, "
    "whether all would do is said.",
)  # fmt: skip
@click.option(
    "--precision", metavar="NAMES",
    help=f"How weights are held and computed with: {meant('precision')}. Default: bf16 alone, or the trainer's.",
)  # fmt: skip
@click.option(
    "--generation", metavar="WAYS",
    help="grpo: who makes the completions. Default: transformers,colocate,server; shared is Unsloth's.",
)  # fmt: skip
@click.option(
    "--vllm-gpus",
    default="1",
    show_default=True,
    metavar="COUNTS",
    help="grpo: more GPUs, for a server's vLLM.",
)
@click.option("--group", type=Count(), help="grpo: completions of a prompt. Default: 8.")
@run_options(LEARNT)
@click.option("--alpha", type=Number(), default=32.0, show_default=True, help="LoRA alpha.")
@click.option("--experts", metavar="CONVENTION", default="scaled", show_default=True, help="As in estimate.")
@click.option(
    "--adapter-dtype", metavar="DTYPE", default="float32", show_default=True, help="As in estimate."
)
@run_options((*FIXED, "trainer"))
@json_option
def command(as_json: bool, **options: Any) -> None:
    """The best plan for a model, data, GPUs, a budget and a deadline.

    Weighs rank, layers, quantisation, micro-batch, accumulation, checkpointing, sharding, the kind and number of
    GPUs, and where several are named precision, what is offloaded, and how many GPUs share matrices, layers, experts
    and sequences (counts that do not go with the GPUs or the model are left out). Prints the best plan, the next
    best, what binds, why the plans beside it lose, and the frontier of time, cost and expected regret.
    """
    from ..search import plan

    with reading(options) as given:
        found = plan(**given)
    if as_json:
        print_json(found.to_dict())
        return
    from .plan_page import show

    show(found)
