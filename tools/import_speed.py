"""Make data/measured/speed.csv: published step times, in the words of planner/setup.py.

    python tools/import_speed.py FACTS_FOLDER LLM_FOUNDRY_README

FACTS_FOLDER holds measured_memory.csv and peft_method_comparison.csv as gathered from trainers' own tables; the
second argument is scripts/train/benchmarking/README.md of mosaicml/llm-foundry. What a source does not state is in
`assumed`. Left out: runs of 2023 in which old attention kernels dominate, and, because the work of a step is not
known, runs whose sequence lengths are only capped, PEFT methods other than LoRA, and techniques that a Setup cannot
say (float8 training, selective checkpointing).
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "data" / "measured" / "speed.csv"
COLUMNS = (
    "source", "quality", "model", "config", "method", "rank", "targets", "gpu", "gpus", "step_time_s",
    "tokens_per_s_per_gpu", "setup", "link", "assumed",
)  # fmt: skip
Row = dict[str, str]
Setup = dict[str, object]

LLAMA_LIKE = {"model_type": "llama", "hidden_act": "silu", "max_position_embeddings": 32768}


def _llama(hidden: int, layers: int, heads: int, width: int, vocab: int) -> str:
    return json.dumps(
        {
            **LLAMA_LIKE, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": heads, "intermediate_size": width, "vocab_size": vocab,
        }
    )  # fmt: skip


def _mpt(d_model: int, heads: int, layers: int) -> str:
    return json.dumps(
        {
            "model_type": "mpt", "d_model": d_model, "n_heads": heads, "n_layers": layers, "expansion_ratio": 4,
            "vocab_size": 50368, "max_seq_len": 65536,
        }
    )  # fmt: skip


def _qwen(hidden: int, layers: int, heads: int, width: int, vocab: int) -> str:
    """Qwen 1: Llama with one product for queries, keys and values, as InternLM 2 has it."""
    same = json.loads(_llama(hidden, layers, heads, width, vocab))
    return json.dumps({**same, "model_type": "internlm2", "bias": False})


# Models outside the catalogue, by the shapes in their configs.
CONFIGS = {
    "Qwen/Qwen-7B": _qwen(4096, 32, 32, 11008, 151936),
    "Qwen/Qwen-14B": _qwen(5120, 40, 40, 13696, 152064),
    "Qwen/Qwen-14B-Chat": _qwen(5120, 40, 40, 13696, 152064),
    "Qwen/Qwen-72B-Chat": _qwen(8192, 80, 64, 24576, 152064),
    "custom transformer 6.86B (h4096, 32 layers, 32 heads)": json.dumps(
        {
            "model_type": "gpt_neox", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
            "intermediate_size": 16384, "vocab_size": 50257, "max_position_embeddings": 4096,
            "use_parallel_residual": False,
        }
    ),
    "bigcode/gpt_bigcode-santacoder": json.dumps(
        {
            "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192,
            "vocab_size": 49280, "n_positions": 2048, "multi_query": True,
        }
    ),
    "stabilityai/stablelm-base-alpha-3b": json.dumps(
        {
            "model_type": "gpt_neox", "hidden_size": 4096, "num_hidden_layers": 16, "num_attention_heads": 32,
            "intermediate_size": 16384, "vocab_size": 50688, "max_position_embeddings": 4096,
        }
    ),
}  # fmt: skip
MPT = {
    "125m": _mpt(768, 12, 12), "350m": _mpt(1024, 16, 24), "760m": _mpt(1536, 12, 24), "1b": _mpt(2048, 16, 24),
    "3b": _mpt(2560, 20, 32), "7b": _mpt(4096, 32, 32), "13b": _mpt(5120, 40, 40), "30b": _mpt(7168, 56, 48),
    "70b": _mpt(8192, 64, 80),
}  # fmt: skip


def _row(
    source: str, raw: Row, setup: Setup, *, gpu: str, tokens: float, step_s: float, assumed: str = "", link: str = "",
    targets: str | None = None, rank: str | None = None,
) -> Row:  # fmt: skip
    """`tokens` are those of one GPU in an optimizer step of `step_s` seconds."""
    return {
        "source": source, "quality": raw.get("quality", "A"), "model": raw["model"],
        "config": CONFIGS.get(raw["model"], ""), "method": str(setup["method"]),
        "rank": raw.get("rank", "") if rank is None else rank,
        "targets": (raw.get("targets", "") if targets is None else targets).replace(";", ","), "gpu": gpu,
        "gpus": str(setup.get("gpus", 1)), "step_time_s": f"{step_s:.6g}",
        "tokens_per_s_per_gpu": f"{tokens / step_s:.6g}", "setup": json.dumps(setup, sort_keys=True), "link": link,
        "assumed": assumed,
    }  # fmt: skip


def _note(raw: Row, pattern: str) -> str:
    found = re.search(pattern, raw["notes"])
    return found[1].strip() if found else ""


def fms(raw: Row) -> Row | None:
    """IBM's fms-acceleration: HF's Trainer on A100s, with and without fused kernels."""
    tokens = float(raw["tokens_per_s"]) * float(raw["step_time_s"])
    accumulation, batch = int(raw["grad_accum"]), int(raw["batch"])
    config = _note(raw, r"framework_config=([^;]*)")
    length = int(raw["seq_len"]) if raw["seq_len"] else round(tokens / accumulation / batch)
    precision = "bf16" if "bfloat16" in _note(raw, r"torch dtype ([^;]*)") else "fp16"
    amp = re.search(r"(bf16|fp16)=(True|TRUE)", raw["notes"]) is not None
    kernels = "transformers"
    if "santacoder" not in raw["model"]:  # its fused kernels know Llama's kind only
        kernels = "unsloth" if "foak" in config else kernels
        kernels = "liger" if "liger" in config else kernels
    assumed = []
    if not raw["seq_len"]:
        assumed.append("length from tokens a second and step time")
    if raw["weights_dtype"] == "gptq":
        assumed.append("GPTQ taken as NF4: dequantised for each product")
    targets = raw["targets"]
    if "c_attn" in targets:  # one list for all models, of which each has its own
        targets = "c_attn" if "santacoder" in raw["model"] else targets.replace(";c_attn", "")
    gpus = int(raw["gpus"])
    setup: Setup = {
        "method": raw["method"], "precision": precision, "autocast": amp, "checkpointing": "layer",
        "attention_kernel": "flash", "micro_batch": batch, "seq_len": length, "accumulation": accumulation,
        "quantize": "nf4" if raw["method"] == "qlora" else "none", "kernels": kernels, "gpus": gpus,
        "sharding": "fsdp" if gpus > 1 else "none", "packing": "padded" if not raw["seq_len"] else "packed",
        "loss": "fused" if kernels == "liger" else "full", "upcast_small": config.startswith("baseline-peft"),
        "trainer": "fms-acceleration" if "unsloth" in kernels or "liger" in kernels else "hf-peft",
    }  # fmt: skip
    return _row(
        "foundation-model-stack/fms-acceleration", raw, setup, gpu="A100 SXM 80GB", tokens=tokens,
        step_s=float(raw["step_time_s"]), assumed="; ".join(assumed), targets=targets,
    )  # fmt: skip


def qwen(raw: Row) -> Row:
    """QwenLM's finetune.py: HF's Trainer, batch 1, padded to the length."""
    full = "modules_to_save" in raw["targets"]
    setup: Setup = {
        "method": "lora", "precision": "bf16", "autocast": True, "checkpointing": "layer",
        "attention_kernel": "flash", "micro_batch": 1, "seq_len": int(raw["seq_len"]), "accumulation": 8,
        "gpus": int(raw["gpus"]), "sharding": "zero3" if raw["gpus"] != "1" else "none", "lora_dropout": 0.05,
        "trainer": "qwen-finetune",
    }  # fmt: skip
    targets = "all-linear+tok_embeddings+output" if full else "all-linear"
    assumed = "as InternLM 2 of the same shapes" + ("; embedding and head trained in full" if full else "")
    return _row(
        "QwenLM/Qwen", raw, setup, gpu="A100 SXM 80GB", tokens=8 * int(raw["seq_len"]),
        step_s=float(raw["step_time_s"]), targets=targets, assumed=assumed,
    )  # fmt: skip


# 4,804,985 tokens over 52,002 examples (data/datasets.toml), and the words around them (litgpt/prompts.py, Alpaca:
# about 34 tokens, 49 with an input, which 40% have).
ALPACA_TOKENS = 92 + 39


def litgpt(raw: Row) -> Row | None:
    """Lightning's litgpt: batch 1 on Alpaca, so that a step has an example's mean length."""
    if raw["method"] not in ("lora", "qlora") or raw["batch"] != "1":
        return None
    sharded = raw["gpus"] != "1"
    form = "nf4-double" if "dq" in raw["weights_dtype"] else "nf4"
    setup: Setup = {
        "method": raw["method"], "precision": "autocast" if "mixed" in raw["weights_dtype"] else "bf16",
        "checkpointing": "layer" if sharded else "none", "attention_kernel": "flash", "micro_batch": 1,
        "seq_len": ALPACA_TOKENS, "quantize": form if raw["method"] == "qlora" else "none", "gpus": int(raw["gpus"]),
        "sharding": "fsdp" if sharded else "none", "accumulation": 1, "trainer": "litgpt",
    }  # fmt: skip
    targets = "q_proj,v_proj" if "phi" in raw["model"] else "query_key_value"
    return _row(
        "Lightning-AI/litgpt", raw, setup, gpu="A100 SXM 40GB", tokens=ALPACA_TOKENS,
        step_s=float(raw["step_time_s"]), targets=targets, assumed="mean length of Alpaca with the prompt's words",
    )  # fmt: skip


# Its two RTX 3090s gathered LoRA's 13.5 GB a pass and QLoRA's 3.7 GB with 2.96 s between the two steps of 512 tokens:
# 3.3 GB/s, what a slot with four lanes of PCIe 3 carries.
SLOW_LINK = "lanes 4e9"


def fsdp_qlora(raw: Row) -> Row:
    """Answer.AI's fsdp_qlora on consumer cards without NVLink: 1024 samples of exactly the length."""
    sharding = "ddp" if "NO_SHARD" in raw["sharding"] else "fsdp"
    setup: Setup = {
        "method": raw["method"], "precision": "bf16", "checkpointing": "layer", "attention_kernel": "sdpa",
        "micro_batch": int(raw["batch"]), "seq_len": int(raw["seq_len"]), "gpus": int(raw["gpus"]),
        "sharding": sharding, "quantize": "nf4" if raw["method"] == "qlora" else "none", "lora_dropout": 0.1,
        "trainer": "fsdp-qlora", "offload": "all" if "offload" in raw["sharding"] else "none",
    }  # fmt: skip
    gpu = "RTX 3090" if "3090" in raw["gpu_type"] else "RTX 4090"
    step = float(raw["step_time_s"])
    return _row(
        "AnswerDotAI/fsdp_qlora", raw, setup, gpu=gpu, tokens=int(raw["batch"]) * int(raw["seq_len"]), step_s=step,
        link=SLOW_LINK if "3090" in raw["gpu_type"] else "pcie",
        assumed="quoted twice with other figures" if "INCONSISTENT" in raw["notes"] else "",
    )  # fmt: skip


def llama_factory(raw: Row) -> Row:
    """LLaMA-Factory's wiki: QLoRA of Llama-2-7B at growing lengths."""
    fused = "unsloth" in raw["attention_impl"]
    length = int(raw["seq_len"])
    setup: Setup = {
        "method": "qlora", "precision": "bf16", "autocast": True, "quantize": "nf4", "micro_batch": 1,
        "seq_len": length, "accumulation": 4, "checkpointing": "layer-offload" if fused else "layer",
        "attention_kernel": "flash", "kernels": "unsloth" if fused else "transformers",
        "trainer": "unsloth" if fused else "llama-factory",
    }  # fmt: skip
    return _row(
        "hiyouga/LLaMA-Factory", raw, setup, gpu="A100 SXM 40GB", tokens=4 * length,
        step_s=4 * length / float(raw["tokens_per_s"]), targets="all-linear",
        assumed="checkpointing, the default, is not stated; SXM is not stated",
    )  # fmt: skip


def torchtune(raw: Row) -> Row | None:
    """torchtune's README: compiled, packed to 2048."""
    if raw["gpus"] != "1":
        return None
    small = "4090" in raw["gpu_type"]
    full = raw["method"] == "full"
    setup: Setup = {
        "method": raw["method"], "precision": "bf16", "checkpointing": "layer" if small else "none",
        "attention_kernel": "sdpa", "micro_batch": 2, "seq_len": 2048, "kernels": "compiled", "packing": "packed",
        "quantize": "nf4" if raw["method"] == "qlora" else "none", "loss": "chunked", "trainer": "torchtune",
        "optimizer": "paged-adamw-8bit" if full else "adamw", "optimizer_in_backward": full,
    }  # fmt: skip
    gpu = "RTX 4090" if small else "RTX A6000"
    return _row(
        "pytorch/torchtune", raw, setup, gpu=gpu, tokens=4096, step_s=4096 / float(raw["tokens_per_s"]),
        assumed="checkpointing on the RTX 4090, none on the A6000",
    )  # fmt: skip


def deepspeed(raw: Row) -> Row:
    """DeepSpeed's example of ZeRO-3 with 16-bit master weights."""
    setup: Setup = {
        "method": "full", "precision": "bf16-master" if "fp32 master" in raw["weights_dtype"] else "bf16",
        "checkpointing": "layer", "attention_kernel": "sdpa", "micro_batch": 1, "seq_len": 512, "gpus": 4,
        "sharding": "zero3", "trainer": "deepspeed",
    }  # fmt: skip
    return _row(
        "deepspeedai/DeepSpeedExamples", raw, setup, gpu="H100 SXM 80GB", tokens=512,
        step_s=float(raw["step_time_s"]), assumed="SXM",
    )  # fmt: skip


READERS: dict[str, Callable[[Row], Row | None]] = {
    "foundation-model-stack/": fms, "QwenLM/": qwen, "Lightning-AI/litgpt tutorials/resource": litgpt,
    "Lightning-AI/litgpt tutorials/finetune": litgpt, "AnswerDotAI/": fsdp_qlora, "hiyouga/": llama_factory,
    "pytorch/torchtune README.md (HEAD": torchtune, "deepspeedai/": deepspeed,
}  # fmt: skip


def gathered(folder: Path) -> Iterator[Row]:
    """The rows of measured_memory.csv with a speed whose work is known."""
    with (folder / "measured_memory.csv").open(encoding="utf-8", newline="") as file:
        for raw in csv.DictReader(file):
            reader = next((read for start, read in READERS.items() if raw["source"].startswith(start)), None)
            if reader and (raw["tokens_per_s"] or raw["step_time_s"]) and (row := reader(raw)):
                yield row


def peft(folder: Path) -> Iterator[Row]:
    """PEFT's own comparison on one L40S: LoRA rows; the length is the mean that tokens a second imply."""
    with (folder / "peft_method_comparison.csv").open(encoding="utf-8", newline="") as file:
        for raw in csv.DictReader(file):
            plain = raw["peft_type"] == "LORA" and raw["task"] == "MetaMathQA"
            if not plain or not raw["step_time_s_mean"] or "lorafa" in raw["experiment"]:
                continue
            tokens = float(raw["step_time_s_mean"]) * float(raw["tokens_per_s_mean"])
            setup: Setup = {
                "method": "lora", "precision": "bf16", "checkpointing": "none", "attention_kernel": "sdpa",
                "micro_batch": 4, "seq_len": round(tokens / 4), "adapter_dtype": "float32",
                "trainer": "peft-comparison",
            }  # fmt: skip
            named = {**raw, "rank": raw["r"], "targets": raw["target_modules"]}
            yield _row(
                "huggingface/peft method_comparison", named, setup,
                gpu="L40S", tokens=tokens, step_s=float(raw["step_time_s_mean"]), assumed="mean length",
            )  # fmt: skip


LONGEST_FOUNDRY = 4096  # beyond, attention counts, and these runs of 2023 had flash attention's first kernels
FOUNDRY_GPU = {"h100_80gb": "H100 SXM 80GB", "a100_80gb": "A100 SXM 80GB", "a100_40gb": "A100 SXM 40GB"}


def foundry(readme: Path) -> Iterator[Row]:
    """llm-foundry's tables of pretraining under FSDP; 16-bit rows."""
    head: list[str] = []
    for line in readme.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == "Model":
            head = cells
        if cells[0] not in MPT or len(cells) != len(head):
            continue
        raw = dict(zip(head, cells, strict=True))
        if "fp8" in raw["Precision"] or int(raw["SeqLen (T)"]) > LONGEST_FOUNDRY:
            continue
        gpus, length = int(raw["# GPUs"]), int(raw["SeqLen (T)"])
        micro, steps = int(raw["MicroBatchSize"]), int(raw["GradAccum"])
        tokens = micro * steps * length
        setup: Setup = {
            "method": "full", "precision": "bf16-master", "attention_kernel": "flash", "micro_batch": micro,
            "checkpointing": "layer" if raw["Activation Checkpointing"] == "True" else "none", "seq_len": length,
            "accumulation": steps, "gpus": gpus, "sharding": "fsdp", "packing": "packed", "kernels": "fused",
            "trainer": "llm-foundry",
        }  # fmt: skip
        gpu = FOUNDRY_GPU[raw["GPU"]]
        yield _row(
            "mosaicml/llm-foundry", {"model": f"MPT {cells[0]}"}, setup, gpu=gpu, tokens=tokens, rank="", targets="",
            step_s=tokens / float(raw["Throughput (T/s/GPU)"]),
            link="network 25e9" if "a100" in raw["GPU"] else "network 50e9",
        ) | {"config": MPT[cells[0]]}  # fmt: skip


AUTOMODEL = (  # model, GPUs, global batch, micro-batch, accumulation, tensor parallel, checkpointing, step time
    ("meta-llama/Llama-3.1-8B", 1, 32, 2, 16, 1, "none", 10.51),
    ("Qwen/Qwen2.5-7B", 1, 32, 2, 16, 1, "none", 9.29),
    ("meta-llama/Llama-3.1-70B", 8, 32, 2, 4, 2, "layer", 15.00),
    ("Qwen/Qwen2.5-32B", 8, 32, 2, 4, 2, "layer", 7.28),
    ("meta-llama/Llama-3.1-70B", 16, 32, 2, 2, 2, "layer", 8.32),
    ("Qwen/Qwen2.5-32B", 16, 32, 2, 2, 2, "layer", 3.95),
)


def automodel() -> Iterator[Row]:
    """NeMo AutoModel's LoRA table on H100s: docs/performance-summary.mdx at 36044ad3, and the recipes it names."""
    for model, gpus, batch, micro, steps, tensor, checkpointing, seconds in AUTOMODEL:
        setup: Setup = {
            "method": "lora", "precision": "bf16", "attention_kernel": "sdpa", "micro_batch": micro, "seq_len": 4096,
            "accumulation": steps, "gpus": gpus, "tensor_parallel": tensor, "checkpointing": checkpointing,
            "sharding": "fsdp" if gpus > tensor else "none", "packing": "packed",
            "kernels": "compiled" if gpus > 1 else "fused", "adapter_dtype": "bfloat16",
            "lora_dropout": 0.1 if gpus == 1 else 0.0, "trainer": "nemo-automodel",
        }  # fmt: skip
        yield _row(
            "NVIDIA-NeMo/Automodel", {"model": model}, setup, gpu="H100 SXM 80GB",
            tokens=batch * 4096 / gpus, step_s=seconds, rank="16", targets="all-linear", link="network 50e9",
        )  # fmt: skip


def write(rows: Iterable[Row]) -> int:
    """Write the table."""
    found = list(rows)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with TARGET.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    return len(found)


def main() -> None:
    """Write data/measured/speed.csv."""
    folder, readme = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [*gathered(folder), *peft(folder), *foundry(readme), *automodel()]
    print(f"{write(rows)} rows in {TARGET.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
