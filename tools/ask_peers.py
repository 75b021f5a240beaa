"""What other calculators say of published set-ups; run by a Python that has them, without `planner`.

    python tools/ask_peers.py REQUESTS.json VRAM_ESTIMATION.py > answers.json

`REQUESTS.json` is written by `python -m tools.compare_peers --requests`; the Python needs ftuneai, llm-analysis and
accelerate; the file is Unsloth Studio's studio/backend/utils/hardware/vram_estimation.py. Each is given what it has
an input for. What it cannot be told is refused with the reason, never bent to fit. `beyond` says how much of its
answer is what it calls overhead outside of tensors, so that it can be left away where only tensors were measured.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

Request = dict[str, Any]
Answer = dict[str, Any]
GIB = 2**30


class CannotSayError(Exception):
    """The calculator has no input for this set-up."""


def _one_gpu(ask: Request) -> None:
    if ask["gpus"] > 1:
        raise CannotSayError("one GPU only")


def ftuneai(ask: Request) -> Answer:
    """ftuneai's MemoryEstimator."""
    from ftuneai.core import memory, models  # type: ignore[import-not-found]

    sharding = {
        "none": "none", "ddp": "none", "zero1": "zero_1", "zero2": "zero_2", "zero3": "zero_3", "fsdp": "fsdp",
        "fsdp-hybrid": "fsdp",
    }.get(ask["sharding"])  # fmt: skip
    split = ask["tensor_parallel"] * ask["pipeline_parallel"] > 1
    if sharding is None or split or ask["offload"] != "none":
        raise CannotSayError("no tensor or pipeline parallelism, no offloading")
    named = set(ask["targets"])
    narrow = {"attention": {"q_proj", "v_proj"}, "attention_all": {"q_proj", "k_proj", "v_proj", "o_proj"}}
    target = next((name for name, held in narrow.items() if named <= held), "all_linear")
    quantization = {"none": "none", "int8": "8bit", "nf4": "4bit", "nf4-double": "4bit"}.get(ask["quantize"])
    if quantization is None:
        raise CannotSayError("no such quantisation")
    optimizers = {
        "sgd": "sgd",
        "adafactor": "adafactor",
        "adamw-8bit": "adam_8bit",
        "paged-adamw-8bit": "adam_8bit",
    }
    shape = ask["model"]
    spec = models.ModelSpec(
        ask["name"], shape["params"], shape["hidden"], shape["layers"], shape["heads"], shape["kv_heads"],
        shape["intermediate"], shape["vocab"], 1 << 30, is_moe=shape["experts"] > 1,
        num_experts=shape["experts"] if shape["experts"] > 1 else None,
        num_active_experts=shape["active"] if shape["experts"] > 1 else None,
    )  # fmt: skip
    config = models.TrainingConfig(
        model=ask["name"], method=models.FineTuneMethod(ask["method"]),
        quantization=models.Quantization(quantization), batch_size=ask["micro_batch"], seq_length=ask["seq_len"],
        gradient_checkpointing=ask["checkpointing"] != "none",
        optimizer=models.OptimizerType(optimizers.get(ask["optimizer"], "adamw")), lora_rank=ask["rank"] or 16,
        lora_target=models.LoRATarget(target), flash_attention=ask["attention_kernel"] in ("flash", "sdpa"),
        sharding=models.ShardingStrategy(sharding), num_gpus=ask["gpus"],
    )  # fmt: skip
    total = memory.MemoryEstimator(spec, config).estimate().total_gb * GIB
    return {"bytes": total, "beyond": total - total / (1 + memory.CUDA_OVERHEAD_FRACTION)}


def unsloth(vram: ModuleType) -> Callable[[Request], Answer]:
    """Unsloth Studio's estimate_training_vram."""

    def say(ask: Request) -> Answer:
        _one_gpu(ask)
        text = ask["config"].get("text_config") or ask["config"]
        plain = {**text, "quantization_config": None}
        if ask["quantize"] == "nf4-double":
            plain["quantization_config"] = {"bnb_4bit_use_double_quant": True}
        arch = vram.extract_arch_config(SimpleNamespace(**plain))
        if arch is None or ask["quantize"] == "int8" or ask["offload"] != "none":
            raise CannotSayError("no such model or quantisation")
        optimizers = {
            "adamw-8bit": "adamw_8bit", "paged-adamw-8bit": "paged_adamw_8bit", "paged-adamw": "paged_adamw_32bit",
            "sgd": "sgd",
        }  # fmt: skip
        config = vram.TrainingVramConfig(
            training_method=ask["method"], batch_size=ask["micro_batch"], max_seq_length=ask["seq_len"],
            lora_rank=ask["rank"] or 16, target_modules=ask["targets"] or list(vram.DEFAULT_TARGET_MODULES),
            gradient_checkpointing={"none": "none", "layer": "true"}.get(ask["checkpointing"], "unsloth"),
            optimizer=optimizers.get(ask["optimizer"], "adamw_torch"),
            load_in_4bit=ask["quantize"].startswith("nf4"),
            attention_implementation="eager" if ask["attention_kernel"] == "eager" else "flash_attention_2",
        )  # fmt: skip
        found = vram.estimate_training_vram(arch, config)
        return {"bytes": found.total, "beyond": found.cuda_overhead}

    return say


def accelerate(ask: Request) -> Answer:
    """What `accelerate estimate-memory` prints as training with Adam: the largest of its four figures."""
    from accelerate.commands.estimate import estimate_training_usage

    _one_gpu(ask)
    if ask["method"] != "full":
        raise CannotSayError("full fine-tuning only")
    words = {"fp32": "float32", "fp16": "float16"}
    found = estimate_training_usage(4 * ask["model"]["params"], words.get(ask["precision"], "bfloat16"))
    return {"bytes": max(found.values()), "beyond": 0}


def llm_analysis(ask: Request) -> Answer:
    """llm-analysis's LLMAnalysis.training."""
    from llm_analysis import analysis, config  # type: ignore[import-not-found]

    if ask["method"] != "full" or ask["offload"] != "none":
        raise CannotSayError("full fine-tuning only, no offloading")
    stage = {"none": 0, "ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}.get(ask["sharding"])
    if stage is None:
        raise CannotSayError("no such sharding")
    shape = ask["model"]
    model = config.ModelConfig(
        ask["name"], shape["layers"], shape["heads"], shape["hidden"], shape["vocab"], 1 << 30, shape["kv_heads"],
        ffn_embed_dim=shape["intermediate"], expansion_ratio=shape["intermediate"] / shape["hidden"],
        moe_num_experts=max(1, shape["experts"]), moe_top_k=max(1, shape["active"]),
    )  # fmt: skip
    gpu = config.get_gpu_config_by_name("a100-sxm-80gb")
    gpu.mem_per_GPU_in_GB = 1e5  # so that it answers where it finds that nothing fits
    tensor, pipeline = ask["tensor_parallel"], ask["pipeline_parallel"]
    layout = config.ParallelismConfig(tensor, pipeline, ask["gpus"] // (tensor * pipeline))
    logging.disable()
    made = analysis.LLMAnalysis(model, gpu, config.DtypeConfig(), layout, flops_efficiency=0.5)
    found = made.training(
        batch_size_per_gpu=ask["micro_batch"], gradient_accumulation_steps=ask["accumulation"],
        seq_len=ask["seq_len"],
        activation_recomputation=analysis.ActivationRecomputation(0 if ask["checkpointing"] == "none" else 2),
        ds_zero=analysis.DSZeRO(stage), flash_attn=ask["attention_kernel"] != "eager",
        mlp_gated_linear_units=shape["gated"],
    )  # fmt: skip
    return {"bytes": found["(weight+op_state+grad+act)_memory_per_gpu"], "beyond": 0}


def main() -> None:
    """Answer every request by every calculator."""
    requests, file = sys.argv[1:3]
    spec = importlib.util.spec_from_file_location("vram_estimation", file)
    assert spec is not None
    assert spec.loader is not None
    vram = importlib.util.module_from_spec(spec)
    sys.modules["vram_estimation"] = vram
    spec.loader.exec_module(vram)
    peers: dict[str, Callable[[Request], Answer]] = {
        "ftuneai": ftuneai, "unsloth": unsloth(vram), "llm-analysis": llm_analysis, "accelerate": accelerate,
    }  # fmt: skip
    with open(requests, encoding="utf-8") as opened:
        asked = json.load(opened)
    answers = []
    for ask in asked:
        for name, peer in peers.items():
            answer: Answer
            try:
                answer = peer(ask)
            except CannotSayError as error:
                answer = {"problem": str(error)}
            except Exception as error:  # whatever another program raises is its answer
                answer = {"problem": f"{type(error).__name__}: {error}"[:200]}
            answers.append({"case": ask["case"], "method": ask["method"], "peer": name, **answer})
    json.dump(answers, sys.stdout, indent=0)


if __name__ == "__main__":
    main()
