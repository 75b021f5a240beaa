"""The words of a set-up: what each choice may be. What a loss keeps is said where it is counted (memory/head.py and
memory/log_probs.py), what a trainer chooses in data/trainers.toml."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["lora", "qlora", "full"]
Precision = Literal["fp32", "bf16", "bf16-master", "fp16", "autocast"]
Optimizer = Literal[
    "adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "sgd", "sgd-momentum", "adafactor", "lion", "lion-8bit",
    "muon",
]  # fmt: skip
Checkpointing = Literal["none", "layer", "layer-offload", "selective"]
AttentionKernel = Literal["eager", "sdpa", "math", "flash"]
Packing = Literal["full", "padded", "packed"]
Loss = Literal[
    "full", "shifted", "shifted-late", "fused", "shifted-fused", "shifted-late-fused", "shifted-narrow",
    "scaled-fused", "scaled-in-place-fused", "sliced-fused", "widened-fused", "wide", "wide-in-place", "wide-fused",
    "chunked", "chunked-vocabulary", "split", "split-wide", "split-fused", "tiled", "recomputed", "recomputed-wide",
    "by-sequence", "by-sequence-copied", "by-sequence-in-place", "full-freed", "full-copied", "full-selected",
    "by-sequence-selected", "by-sequence-selected-others", "by-sequence-selected-copied",
    "by-sequence-selected-once", "by-sequence-selected-logged", "full-chosen", "by-sequence-chosen",
    "by-sequence-unlogged",
]  # fmt: skip
# Losses that read the unembedding's weight past its module, and so past pairs on it.
PAST_PAIRS = ("chunked", "chunked-vocabulary", "tiled", "recomputed", "recomputed-wide")
Objective = Literal["sft", "dpo", "orpo", "kto", "grpo"]
Reference = Literal["base", "precomputed", "none"]
Generation = Literal["transformers", "server", "colocate", "shared"]
Asleep = Literal["none", "optimizer", "all"]
Quantize = Literal["none", "nf4", "nf4-double", "int8", "fp8"]
Dtype = Literal["float32", "bfloat16", "float16"]
Kernels = Literal[
    "transformers", "litgpt", "fused", "liger", "unsloth", "pairs", "compiled", "transformer-engine",
]  # fmt: skip
Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-hybrid"]
FsdpUnits = Literal["pairs", "flat", "layers", "layers-ends", "modules", "whole"]
ReduceBuckets = Literal["fitted", "one", "two"]
Offload = Literal["none", "optimizer", "parameters", "all"]
Deferred = Literal["none", "compute", "float32"]
OptimizerKernel = Literal["fused", "foreach", "loop"]
EvalCache = Literal["none", "kept", "widened"]
Loading = Literal["unknown", "host", "in-turn", "in-turn-ahead", "together", "made-there", "made-there-whole"]
Placing = Literal["unknown", "whole", "broadcast", "broadcast-kept", "shards"]

PEAK_OF = ("allocated", "reserved", "device")  # what a measured peak may be of
METHODS: tuple[Method, ...] = get_args(Method)
CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "precision": get_args(Precision),
    "optimizer": get_args(Optimizer),
    "checkpointing": get_args(Checkpointing),
    "attention_kernel": get_args(AttentionKernel),
    "packing": get_args(Packing),
    "loss": get_args(Loss),
    "objective": get_args(Objective),
    "reference": get_args(Reference),
    "generation": get_args(Generation),
    "states_asleep": get_args(Asleep),
    "quantize": get_args(Quantize),
    "adapter_dtype": get_args(Dtype),
    "base_dtype": get_args(Dtype),
    "kernels": get_args(Kernels),
    "sharding": get_args(Sharding),
    "fsdp_units": get_args(FsdpUnits),
    "reduce_buckets": get_args(ReduceBuckets),
    "offload": get_args(Offload),
    "deferred_gradients": get_args(Deferred),
    "optimizer_kernel": get_args(OptimizerKernel),
    "eval_cache": get_args(EvalCache),
    "loading": get_args(Loading),
    "placing": get_args(Placing),
}
DTYPE_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}  # of a value
# Fields of a set-up that are counts.
COUNTS = (
    "micro_batch", "seq_len", "accumulation", "gpus", "tensor_parallel", "pipeline_parallel", "expert_parallel",
    "sequence_parallel", "vllm_gpus", "vllm_tensor_parallel", "workspace_bytes",
)  # fmt: skip
