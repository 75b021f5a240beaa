"""What options are called elsewhere: PEFT's, trainers' and other calculators' names, for who types them here."""

from __future__ import annotations

import click

# Our option, with the value that says the same where it needs one: names of PEFT's LoraConfig, transformers'
# TrainingArguments and loading options, TRL, Axolotl, LLaMA-Factory, torchtune, Megatron, vLLM and accelerate.
_WORDS: dict[str, str] = {
    "--model": "model-name-or-path model-name model-id model-path base-model pretrained-model-name-or-path",
    "--rank": "r lora-r lora-rank lora-dim",
    "--alpha": "lora-alpha",
    "--targets": "target-modules lora-target lora-target-modules lora-modules",
    "--dora": "use-dora",
    "--use-rslora": "rslora use-rs-lora",
    "--modules-to-save": "lora-modules-to-save additional-target",
    "--batch": "batch-size per-device-train-batch-size train-batch-size micro-batch-size micro-batch "
    "global-batch-size bs",
    "--accumulation": "gradient-accumulation-steps gradient-accumulation grad-accum grad-accumulation-steps",
    "--seq-len": "max-seq-length max-seq-len max-length seq-length sequence-len sequence-length cutoff-len "
    "context-length context-len model-max-length max-model-len",
    "--epochs": "num-train-epochs num-epochs n-epochs train-epochs",
    "--steps": "max-steps num-steps train-steps",
    "--lr": "learning-rate",
    "--checkpointing": "gradient-checkpointing activation-checkpointing grad-checkpointing recompute",
    "--quantize nf4": "load-in-4bit 4bit qlora use-qlora quantization-bit bnb-4bit quantization",
    "--quantize int8": "load-in-8bit 8bit",
    "--quantize nf4-double": "bnb-4bit-use-double-quant double-quant",
    "--precision bf16": "bf16 dtype dtypes torch-dtype compute-dtype mixed-precision",
    "--precision fp16": "fp16",
    "--tf32": "allow-tf32 float32-matmul-precision matmul-precision",
    "--optimizer": "optim",
    "--attention-kernel flash": "flash-attention flash-attn use-flash-attention attn-implementation",
    "--kernels liger": "use-liger-kernel use-liger liger",
    "--kernels unsloth": "unsloth use-unsloth",
    "--kernels pairs": "lora-mlp-kernel lora-qkv-kernel lora-o-kernel",
    "--packing packed": "pack packed sample-packing",
    "--packing padded": "no-packing no-pack unpacked padding no-sample-packing",
    "--gpus": "num-gpus n-gpus gpu-count devices num-processes nproc-per-node world-size",
    "--gpu": "gpu-type accelerator device hardware",
    "--sharding": "zero-stage deepspeed zero fsdp strategy sharding-strategy",
    "--tensor-parallel": "tp tp-size tensor-parallel-size tensor-model-parallel-size",
    "--pipeline-parallel": "pp pp-size pipeline-parallel-size pipeline-model-parallel-size",
    "--expert-parallel": "ep expert-parallel-size expert-model-parallel-size",
    "--sequence-parallel": "sp cp context-parallel context-parallel-size sequence-parallel-size",
    "--offload": "cpu-offload offload-optimizer",
    "--data": "train-file train-data data-path data-file",
    "--dataset": "dataset-name dataset-id",
    "--tokens": "num-tokens total-tokens n-tokens",
    "--price": "hourly-price cost-per-hour price-per-hour gpu-price",
    "--out": "output output-dir output-file output-path",
}
_METHOD = (
    "LoRA, QLoRA and full fine-tuning stand side by side in what it prints; --quantize nf4 asks what else "
    "is printed (time, cost) for QLoRA."
)


# What a command has no option for, and where it is found.
_ABSENT = {
    "lr": "`lora-plan lr` says which rate to take, and `lora-plan review` what it thinks of a config's.",
    "learning-rate": "`lora-plan lr` says which rate to take, and `lora-plan review` what it thinks of a config's.",
    **dict.fromkeys(
        ("steps", "max-steps", "num-steps", "train-steps"),
        "Steps follow from the data (--dataset, --data or --tokens), --epochs and --batch.",
    ),
}


def explained(error: click.NoSuchOption) -> click.UsageError:
    """The error with what the option is called here, where the command has it; else as it is."""
    ctx = error.ctx
    if ctx is None:
        return error
    known = {name for param in ctx.command.params for name in param.opts}
    word = error.option_name.lstrip("-").replace("_", "-").lower()
    if word in ("method", "full", "lora") and "--quantize" in known:
        return click.UsageError(f"{error.message} {_METHOD}", ctx)
    for ours, words in _WORDS.items():
        if word in words.split() and ours.split()[0] in known:
            return click.UsageError(f"{error.message} It is {ours} here.", ctx)
    if word in _ABSENT and "--tokens" in known:
        return click.UsageError(f"{error.message} {_ABSENT[word]}", ctx)
    return error
