"""How a row of a source becomes a run: one reader for each trainer's table, from what the row states."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

GIB = 2**30
Row = dict[str, str]
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class NotCoveredError(Exception):
    """Why a row cannot be predicted."""


@dataclass(frozen=True)
class Read:
    """What a reader makes of a row."""

    options: dict[str, Any]
    metric: str
    assumed: str = ""
    detail: str = ""
    stated: bool = True
    scale: float = 1.0
    extra: tuple[tuple[str, float], ...] = field(default_factory=tuple)


def _note(raw: Row, pattern: str) -> str:
    found = re.search(pattern, raw["notes"])
    return found[1].strip() if found else ""


def _adapter(raw: Row, targets: str | None = None) -> dict[str, Any]:
    """The adapter of a row, its targets by their names in transformers."""
    if raw["method"].startswith(("full", "pretrain")):
        return {"method": "full"}
    names = raw["targets"].replace(";", ",") if targets is None else targets
    found: dict[str, Any] = {"rank": int(raw["rank"]), "experts": "peft"}
    return found | ({"layers": "all-linear"} if names == "all-linear" else {"targets": names})


def _run(raw: Row, micro: int | None = None) -> dict[str, Any]:
    """Batch, length, GPUs and accumulation."""
    gpus = int(raw["gpus"] or 1)
    steps = int(raw["grad_accum"] or 1)
    micro = int(raw["batch"]) if micro is None else micro
    return {
        "batch": micro * gpus * steps, "accumulation": steps, "gpus": gpus,
        "seq_len": int(raw["seq_len"].replace("_", "")),
    }  # fmt: skip


def fms(raw: Row) -> Read:
    """IBM's fms-acceleration: SFTTrainer on A100s, with and without fused kernels; packed to the length."""
    if not raw["seq_len"]:
        raise NotCoveredError("lengths vary and the longest is not stated")
    config = _note(raw, r"framework_config=([^;]*)")
    amp = re.search(r"(bf16|fp16)=(True|TRUE)", raw["notes"]) is not None
    liger = config.endswith("liger")
    foak = "foak" in config
    fused = foak and "santacoder" not in raw["model"]  # of whose model the kernels know the loss alone
    targets = raw["targets"].replace(";", ",")
    if "c_attn" in targets:  # one list for all models, of which each has its own
        targets = "c_attn" if "santacoder" in raw["model"] else targets.replace(",c_attn", "")
    options = {
        **_adapter(raw, targets), **_run(raw), "autocast": amp, "checkpointing": "layer", "attention_kernel": "flash",
        "trainer": "fms-acceleration" if fused else "hf-trainer-4.46",
        "precision": "bf16" if "bfloat16" in _note(raw, r"torch dtype ([^;]*)") else "fp16",
    }  # fmt: skip
    if raw["gpus"] != "1":
        options["sharding"] = "fsdp"
    if raw["method"] == "full" and amp and raw["gpus"] != "1":  # accelerate makes FSDP's parameters float32
        options |= {"precision": "autocast", "autocast": False}
    if raw["method"] != "full":
        options["lora_dropout"] = 0.1
    if "liger" in raw["source"] and fused:  # transformers 4.45
        options["loss"] = "shifted-fused"
    if liger:
        options["loss"] = "chunked"
    elif foak and not fused:
        options["loss"] = "shifted-late-fused"
    assumed = ""
    if raw["method"] == "qlora":
        options |= {"method": "qlora", "quantize": "nf4-double", "upcast_small": False}
        if raw["weights_dtype"] == "gptq":
            assumed = "GPTQ in groups of 128 taken as doubly quantised NF4"
        if config.startswith("baseline"):
            options |= {"trainer": "trl-0.13", "adapter_dtype": "float32"}
            if raw["gpus"] != "1":
                options["upcast_norms"] = False
    smi = _note(raw, r"nvidia-smi peak ([\d.]+)")
    extra = (("device", float(smi) * 2**20),) if smi else ()
    return Read(options, "allocated", assumed, config, extra=extra)


def litgpt(raw: Row) -> Read:
    """Lightning's litgpt. Tables of 2023 have the longest example of Alpaca as length, config_hub 512."""
    if raw["method"] not in ("lora", "qlora", "full"):
        raise NotCoveredError(f"{raw['method']} is not LoRA")
    if not raw["gpus"]:
        raise NotCoveredError("the number of GPUs is ambiguous in the source")
    kind = "gemma" if "gemma" in raw["model"] else "mistral" if "mistral" in raw["model"] else "neox"
    form = raw["weights_dtype"]
    options = {**_run(raw), "trainer": "litgpt-2024" if "config_hub" in raw["source"] else "lit-gpt-2023"}
    if "phi" in raw["model"]:
        targets = "q_proj,v_proj"
    elif "head" in raw["targets"]:
        targets = ",".join((*ALL_LINEAR, "lm_head"))
    else:
        targets = "query_key_value" if kind == "neox" else "q_proj,v_proj"
    options |= _adapter(raw, targets)
    if "mixed" in form:
        options |= {"precision": "autocast", "adapter_dtype": "float32"}
    if raw["method"] == "qlora":  # with bitsandbytes 0.41 and 0.42
        options |= {"quantize": "nf4-double" if "dq" in form else "nf4"}
    if raw["gpus"] != "1":
        steps = 64 // int(raw["batch"])  # a minibatch of 128 on two GPUs
        options |= {"sharding": "fsdp", "checkpointing": "layer", "accumulation": steps}
        options["batch"] = 128
    if "config_hub" in raw["source"]:
        options |= {"lora_dropout": 0.1 if "gemma" in raw["model"] else 0.05}
    else:
        options |= {"lora_dropout": 0.05}
    assumed = (
        "LoRA on the query and value rows of a fused matrix taken as on the whole" if kind == "neox" else ""
    )
    return Read(options, "allocated", assumed, form)


def torchtune(raw: Row) -> Read:
    """torchtune's README: compiled, packed to 2048; of 2024."""
    if not raw["batch"]:
        raise NotCoveredError("the model as loaded, before any step")
    options = {**_adapter(raw), **_run(raw), "trainer": "torchtune"}
    if raw["gpus"] != "1":
        raise NotCoveredError("sequences are not packed and their lengths not stated")
    card = "4090" in raw["gpu_type"]
    options |= {"kernels": "compiled", "loss": "split-fused", "packing": "packed"}
    options["checkpointing"] = "layer" if card else "none"
    if raw["method"] == "full":
        options["optimizer_in_backward"] = True
    elif raw["method"] == "qlora":
        options["method"] = "qlora"
    return Read(
        options, "reserved", "checkpointing on the RTX 4090 and none on the A6000; reserved", stated=False
    )


def fsdp_qlora(raw: Row) -> Read:
    """Answer.AI's fsdp_qlora: dummy data of exactly the length on two GPUs, with --reentrant_checkpointing, which
    its README asks for beside bitsandbytes (benchmarks_03_2024.md, the command that is its template)."""
    options = {**_adapter(raw), **_run(raw), "trainer": "fsdp-qlora", "reentrant": True}
    options["sharding"] = "ddp" if "NO_SHARD" in raw["sharding"] else "fsdp"
    if "offload" in raw["sharding"]:
        options["offload"] = "all"
    if raw["method"] == "qlora":  # with bitsandbytes 0.43.0
        options |= {"method": "qlora", "quantised_inputs_kept": True}
    return Read(options, "reserved", detail=raw["sharding"])


def qwen(raw: Row) -> Read:
    """QwenLM's table: batch 1, padded to the length, 8 micro-steps."""
    options = {**_adapter(raw, "all-linear"), **_run(raw), "trainer": "qwen-finetune"}
    if "modules_to_save" in raw["targets"]:
        options["modules_to_save"] = "embed_tokens,lm_head"
    if raw["gpus"] != "1":
        options["sharding"] = "zero3"
    gpus = int(raw["gpus"])
    return Read(
        options, "device", "as Llama of the same shapes; what was measured is not stated: nvidia-smi, in GiB"
        + (f", summed over {gpus} GPUs" if gpus > 1 else ""),
        scale=GIB / 1e9 / gpus,
    )  # fmt: skip


SWIFT = {"qwen": "c_attn", "chatglm": "query_key_value", "yi": "q_proj,k_proj,v_proj"}


def ms_swift(raw: Row) -> Read:
    """ms-swift's benchmark: one A100, batch 1, samples longer than the length left out."""
    if raw["sharding"].startswith("device_map"):
        raise NotCoveredError("layers spread over GPUs by device_map")
    if "int8" in raw["weights_dtype"]:
        raise NotCoveredError("8-bit GPTQ has no counterpart")
    family = next(name for name in SWIFT if raw["model"].startswith(name))
    targets = "q_proj,k_proj,v_proj" if family == "qwen" else SWIFT[family]
    options = {**_adapter(raw, targets), **_run(raw), "trainer": "ms-swift-2024"}
    if family == "qwen":  # the model's own code makes no float32 logits
        options["loss"] = "shifted-narrow"
    if raw["method"] == "qlora":
        kept = "bnb" in raw["weights_dtype"]
        options |= {"method": "qlora", "quantize": "nf4-double", "quantised_inputs_kept": kept}
    return Read(
        options, "reserved", "as Llama of the same shapes" if family == "qwen" else "", raw["weights_dtype"]
    )


def torchtitan(raw: Row) -> Read:
    """torchtitan's pretraining on H100s."""
    if raw["grad_checkpointing"].startswith("selective"):
        raise NotCoveredError("checkpointing by operation")
    if "float8" in raw["weights_dtype"]:
        raise NotCoveredError("float8 products")
    raise NotCoveredError("pretraining with techniques that a set-up cannot say")


def deepspeed(raw: Row) -> Read:
    """DeepSpeed's example of 16-bit master weights: a plain transformer with a GELU MLP of four widths."""
    masters = "fp32 master" in raw["weights_dtype"]
    options = {
        "method": "full", **_run(raw), "trainer": "deepspeed", "checkpointing": "layer", "attention_kernel": "eager",
        "precision": "bf16-master" if masters else "bf16",
    }  # fmt: skip
    return Read(
        options, "allocated", "as GPT-NeoX of the same shapes; printed in 2^30 bytes", scale=GIB / 1e9
    )


def llama_factory(raw: Row) -> Read:
    """LLaMA-Factory's wiki: QLoRA of Llama-2-7B at growing lengths, figures rounded to whole GB."""
    fused = "unsloth" in raw["attention_impl"]
    options = {
        **_adapter(raw, "all-linear"), **_run(raw), "trainer": "unsloth-2024" if fused else "llama-factory",
        "attention_kernel": "flash", "optimizer": "adamw", "method": "qlora", "quantize": "nf4",
    }  # fmt: skip
    if fused:
        # of April 2024: the loss reads the 16-bit logits as they are, and shifts the labels
        options |= {"loss": "fused", "checkpointing": "layer-offload", "outputs_widened": True}
    return Read(
        options, "device", "checkpointing (the default) and what was measured are not stated: nvidia-smi, in GiB",
        raw["attention_impl"], stated=False, scale=GIB / 1e9,
    )  # fmt: skip


def peft_docs(raw: Row) -> Read:
    """PEFT's guides to FSDP and DeepSpeed: nvidia-smi of Llama-2-70B."""
    if "-" in raw["peak_memory_gb"]:
        raise NotCoveredError("a range is stated")
    options = {
        **_adapter(raw, "all-linear"), **_run(raw), "trainer": "hf-trainer-4", "checkpointing": "layer",
        "attention_kernel": "flash", "packing": "full",
        "sharding": "zero3" if "ZeRO" in raw["sharding"] else "fsdp",
    }  # fmt: skip
    if "DDP" in raw["sharding"]:
        options["sharding"] = "ddp"
    if raw["method"] == "qlora":
        options |= {"method": "qlora", "quantize": "nf4-double", "upcast_small": False}
    if "+ CPU offload" in raw["sharding"]:
        options["offload"] = "all"
    return Read(options, "device", "read off a screenshot", raw["sharding"])


NOTEBOOK_PROBLEM = "lengths are capped, not stated: the longest example is not known"


def unsloth_notebook(raw: Row) -> Read:
    """Unsloth's notebooks: examples shorter than the cap, of a length that is not stated."""
    raise NotCoveredError(NOTEBOOK_PROBLEM)


def unsloth_capacity(raw: Row) -> Read:
    """Unsloth's table of the longest context that fits a GPU: QLoRA of Llama-3.1-8B, rank 32."""
    fused = raw["attention_impl"].startswith("unsloth")
    options = {
        **_adapter(raw), **_run(raw), "trainer": "unsloth-2025" if fused else "hf-trainer-4.46", "method": "qlora",
        "attention_kernel": "flash", "checkpointing": "layer-offload" if fused else "layer", "quantize": "nf4",
        "optimizer": "adamw-8bit",
    }  # fmt: skip
    return Read(
        options, "needed", "the most that fits a card of so many GiB; optimizer not stated", stated=False,
        scale=GIB / 1e9,
    )  # fmt: skip


def megatron(raw: Row) -> Read:
    """NeMo's Megatron-Bridge: recomputation by operation."""
    if raw["grad_checkpointing"] != "selective: [] no recompute":
        raise NotCoveredError("recomputation by operation")
    options = {
        "method": "full", "batch": 4, "seq_len": 4096, "gpus": 8, "tensor_parallel": 2, "expert_parallel": 4,
        "trainer": "megatron",
    }  # fmt: skip
    raise NotCoveredError(f"expert parallelism over tensor-parallel GPUs ({options['gpus']})")


def axolotl(raw: Row) -> Read:
    """axolotl's examples: packed to the length, figures of their READMEs, rounded."""
    if "offload" in raw["grad_checkpointing"] or "offload" in raw["notes"]:
        raise NotCoveredError("activation offloading by the trainer's own buffers")
    if "WITH target experts" in raw["notes"] or "int8" in raw["weights_dtype"] or raw["gpus"] not in ("1",):
        raise NotCoveredError("experts as bare parameters, int8 or FSDP 2 by its own kernels")
    names = raw["targets"].replace(";", ",")
    if raw["targets"].startswith("all linear"):
        names = "all-linear"
    if "layers" in names or "linear_attn" in names:
        raise NotCoveredError("targets given as an expression")
    options = {
        **_adapter(raw, names), **_run(raw), "trainer": "axolotl", "packing": "packed", "checkpointing": "layer",
        "attention_kernel": "flash" if "flash" in raw["attention_impl"] else "sdpa",
        "optimizer": "adamw-8bit" if "8bit" in raw["optimizer"] else "adamw",
    }  # fmt: skip
    if "CutCrossEntropy" in raw["notes"]:
        options["loss"] = "chunked"
    if raw["method"] == "qlora":
        options |= {"method": "qlora"}
    scale = 1.0 if raw["unit"].startswith("GiB") else GIB / 1e9
    return Read(options, "reserved", "the recipe may be newer than the figure", scale=scale)


READERS: dict[str, tuple[str, Callable[[Row], Read]]] = {
    "foundation-model-stack/": ("foundation-model-stack/fms-acceleration", fms),
    "Lightning-AI/litgpt tutorials": ("Lightning-AI/litgpt tutorials", litgpt),
    "Lightning-AI/litgpt config_hub": ("Lightning-AI/litgpt config_hub", litgpt),
    "pytorch/torchtune": ("pytorch/torchtune", torchtune),
    "meta-pytorch/torchtune": ("pytorch/torchtune", torchtune),
    "AnswerDotAI/": ("AnswerDotAI/fsdp_qlora", fsdp_qlora),
    "QwenLM/": ("QwenLM/Qwen", qwen),
    "modelscope/": ("modelscope/ms-swift", ms_swift),
    "pytorch/torchtitan": ("pytorch/torchtitan", torchtitan),
    "deepspeedai/": ("deepspeedai/DeepSpeedExamples", deepspeed),
    "hiyouga/": ("hiyouga/LLaMA-Factory", llama_factory),
    "huggingface/peft docs": ("huggingface/peft docs", peft_docs),
    "unslothai/notebooks": ("unslothai/notebooks", unsloth_notebook),
    "unslothai/unsloth": ("unslothai/unsloth", unsloth_capacity),
    "NVIDIA-NeMo/": ("NVIDIA-NeMo/Megatron-Bridge", megatron),
    "axolotl-ai-cloud/": ("axolotl-ai-cloud/axolotl", axolotl),
}
