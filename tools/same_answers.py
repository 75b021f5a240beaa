"""Whether another checkout gives the same answers to the last digit, for changes that are to be faster and no more.

    python tools/same_answers.py CHECKOUT [--requests 600] [--seed 0]
    python tools/same_answers.py CHECKOUT --search [--requests 60] [--seed 0]

Both answer the same random requests (model, adapter, data, set-up, machine), errors among them, each in one process
whose caches fill as they do in a service, this one twice and in another order the second time. Every difference is
shown by its request and the first key that differs. `--search` asks for searches over plans in place of estimates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 10

ADAPTER: dict[str, tuple[Any, ...]] = {
    "rank": (1, 3, 8, 16, 32, 48, 64, 256),
    "alpha": (16, 32, 64.0),
    "layers": ("all", "attention", "mlp", "all-linear", "attention,unembedding"),
    "experts": ("scaled", "per-expert", "shared-outer", "peft", "none"),
    "variant": ("lora", "dora"),
    "adapter_dtype": ("float32", "bfloat16"),
    "modules_to_save": ("lm_head", "embed_tokens"),
    "layers_to_transform": ("0,1", "1-3"),
    "rank_pattern": ("q_proj=7", "down_proj=5,v_proj=2"),
    "bias": ("all", "lora_only"),
    "use_rslora": (True,),
}
DATA: dict[str, tuple[Any, ...]] = {
    "tokens": (1_000_000, "50M"),
    "episodes": (320_000,),
    "dataset": ("tulu-3-sft-mixture",),
    "epochs": (2, 3),
    "curves": (True,),
}
STEP: dict[str, tuple[Any, ...]] = {
    "seq_len": (128, 2048, 4096, 8191),
    "batch": (1, 8, 64, 192, 768),
    "accumulation": (2, 4),
    "checkpointing": (True, False, "layer", "layer-offload"),
    "attention_kernel": ("eager", "flash"),
    "kernels": ("fused", "liger", "unsloth", "compiled", "litgpt", "transformer-engine"),
    "loss": ("fused", "chunked", "split", "shifted", "wide"),
    "packing": ("padded", "packed"),
    "precision": ("fp32", "bf16-master", "fp16", "autocast"),
    "autocast": (True,),
    "tf32": (True,),
    "quantize": ("nf4", "nf4-double", "int8"),
    "quantize_experts": (True,),
    "optimizer": ("adamw-8bit", "paged-adamw", "sgd", "adafactor", "muon", "lion"),
    "lora_dropout": (0.1,),
    "trainer": (
        "trl",
        "axolotl",
        "unsloth",
        "torchtune",
        "hf-trainer",
        "llama-factory",
        "litgpt",
        "deepspeed",
    ),
}
MACHINE: dict[str, tuple[Any, ...]] = {
    "gpu": ("h100", "a100-80gb", "rtx 4090", "b200", "mi300x", "l4"),
    "gpus": (2, 3, 8, 16, 64),
    "sharding": ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp-hybrid"),
    "tensor_parallel": (2, 8),
    "pipeline_parallel": (2,),
    "expert_parallel": (2, 8),
    "sequence_parallel": (2,),
    "offload": ("optimizer", "parameters", "all"),
    "price": (2.5,),
}
# Asked for together, and seldom: most options above do not go with them.
OBJECTIVE: dict[str, tuple[Any, ...]] = {
    "objective": ("dpo", "orpo", "kto", "grpo", "grpo"),
    "reference": ("none", "base"),
    "prompt_tokens": (64, 500),
    "mean_completion": (40, 300),
    "eval_batch": (4, 8),
    "images": (1, 3),
}
# Options that go with another, and would be an error without it more often than not.
WITH = {
    "gpus": ("gpu",),
    **dict.fromkeys(
        ("sharding", "tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel"),
        ("gpus",),
    ),
}
# What a search is asked for, of all of which most options are left out. One kind of GPU or two, seldom every kind.
SEARCH: dict[str, tuple[Any, ...]] = {
    "gpu": ("h100", "a100-80gb,t4", "rtx 4090,l4", "v100-32gb", "h100,b200", "any"),
    "gpus": (1, 8, "1,2", "4,8,16", 3),
    "batch": (8, 16, "8,64", 24),
    "seq_len": (512, 8192, 65536),
    "budget": (5, 100, 2000),
    "deadline": ("30m", "12h"),
    "max_regret": (0.002, 0.01),
    "prefer": ("cost", "time"),
    "fit": ("sure",),
    "ranks": (16, "1,32,96", "8,256"),
    "layers": ("attention", "all", "all-linear"),
    "quantize": ("none", "int8", "nf4,none"),
    "micro_batch": ("1,2", 3),
    "sharding": ("ddp,zero2,zero3", "fsdp", "fsdp-hybrid"),
    "tensor_parallel": ("1,2",),
    "pipeline_parallel": ("1,2",),
    "sequence_parallel": ("1,2",),
    "expert_parallel": ("1,2,4",),
    "offload": ("none,optimizer", "all"),
    "host_memory": ("64GiB",),
    "precision": ("bf16", "fp16", "bf16,fp16", "autocast"),
    "adapter_dtype": ("bfloat16", "float16"),
    "attention_kernel": ("eager",),
    "experts": ("per-expert", "shared-outer"),
    "trainer": ("trl", "unsloth", "torchtune", "axolotl", "deepspeed", "megatron"),
    "optimizer": ("adamw-8bit", "muon", "paged-adamw"),
    "price": (2.5,),
}
SEARCHED = {"sft": 0.6, "grpo": 0.3, "dpo": 0.1}  # objectives, and how often
# Models that are asked about most, so that later requests meet what earlier ones left in the caches.
OFTEN = (
    "meta-llama/Llama-3.1-8B", "moonshotai/Kimi-K2-Instruct", "Qwen/Qwen3-30B-A3B", "google/gemma-3-27b-it",
    "Qwen/Qwen3-Next-80B-A3B-Instruct", "openai-community/gpt2", "deepseek-ai/DeepSeek-V3",
)  # fmt: skip


def request(chance: random.Random, models: list[str]) -> dict[str, Any]:
    """One random request; most options are left out of it."""
    found: dict[str, Any] = {"model": chance.choice(OFTEN if chance.random() < 0.5 else models)}
    share = chance.choice((0.08, 0.2))
    for group in (ADAPTER, DATA, STEP, MACHINE):
        for name, values in group.items():
            often = 0.6 if name in ("rank", "batch", "gpu", "tokens") else share
            if name in WITH and not found.keys() & set(WITH[name]):
                continue
            if chance.random() < often and not (name in ("episodes", "dataset") and "tokens" in found):
                found[name] = chance.choice(values)
    if chance.random() < 0.15:
        found |= {name: chance.choice(values) for name, values in OBJECTIVE.items() if chance.random() < 0.4}
    if "gpus" in found and chance.random() < 0.8:  # a batch that divides
        found["batch"] = 768
    return found


def search_request(chance: random.Random, models: list[str]) -> dict[str, Any]:
    """One random search."""
    found: dict[str, Any] = {"model": chance.choice(OFTEN if chance.random() < 0.7 else models)}
    share = chance.choice((0.05, 0.15))
    found |= {"tokens": chance.choice((1_000_000, "50M", "3B")), "gpu": chance.choice(SEARCH["gpu"])}
    found |= {
        name: chance.choice(values)
        for name, values in SEARCH.items()
        if chance.random() < share and name != "gpu"
    }
    objective = chance.choices(list(SEARCHED), list(SEARCHED.values()))[0]
    if objective != "sft":
        found["objective"] = objective
    if objective == "grpo":
        del found["tokens"]
        found |= {"episodes": 320_000, "prompt_tokens": 200, "mean_completion": 300}
    return found


ANSWER = """
import json, sys
from planner import PlannerError, ASKED
for line in sys.stdin:
    try:
        found = ASKED(**json.loads(line)).to_dict()
    except PlannerError as error:
        found = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(found), flush=True)
"""
MODELS = "import json; from planner import facts; print(json.dumps(facts.model_ids()))"


def run(checkout: Path, code: str, lines: str = "") -> list[Any]:
    """What the code prints in a checkout, a line of JSON each."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=lines,
        capture_output=True,
        text=True,
        env=env,
        check=False,
        cwd=checkout,  # which -c imports from first
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place at which two answers differ; the order of keys counts."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"{where}: keys {sorted(set(one) ^ set(other)) or 'in another order'}"
        return next(filter(None, (difference(one[key], other[key], f"{where}.{key}") for key in one)), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)), None)
    same = type(one) is type(other) and one == other
    return None if same else f"{where}: {one!r:.300} became {other!r:.300}"


def compared(
    requests: list[dict[str, Any]], answer: Callable[[list[dict[str, Any]]], list[Any]], expected: list[Any]
) -> int:
    """The number of answers that differ from those expected; the first ones are shown."""
    wrong = 0
    for asked, before, now in zip(requests, expected, answer(requests), strict=True):
        if (found := difference(before, now)) is not None:
            wrong += 1
            if wrong <= SHOWN:
                print(f"{json.dumps(asked)}\n  {found}")
    return wrong


def main() -> int:
    """Ask both, compare, and say how many of the answers are plans."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("checkout", type=Path, help="the other checkout, or its `git archive`")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    models: list[str] = run(options.checkout, MODELS)[0]
    one, asks = (search_request, "plan") if options.search else (request, "estimate")
    requests = [one(chance, models) for _ in range(options.requests)]
    answer = ANSWER.replace("ASKED", asks)

    def here(asked: list[dict[str, Any]]) -> list[Any]:
        return run(ROOT, answer, "".join(f"{json.dumps(each)}\n" for each in asked))

    def backwards(asked: list[dict[str, Any]]) -> list[Any]:
        return here(asked[::-1])[::-1]

    expected = run(options.checkout, answer, "".join(f"{json.dumps(each)}\n" for each in requests))
    wrong = compared(requests, here, expected) + compared(requests, backwards, expected)
    plans = sum("error" not in found for found in expected)
    fitted = sum(any((found.get("memory") or found.get("best") or {}).values()) for found in expected)
    print(f"{len(requests)} requests: {plans} plans, {fitted} with memory, the rest errors; {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
