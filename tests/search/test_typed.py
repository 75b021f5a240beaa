"""Every plan that a search shows, typed as an estimate with its options, has the same figures to the digit."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cli.main import cli
from planner.errors import InputError
from planner.search import Found, plan
from planner.search.evaluate import Evaluated

Figures = dict[str, Any]


def typed(command: str) -> dict[str, Any]:
    """The JSON of a command line."""
    ran = CliRunner().invoke(cli, [*shlex.split(command)[1:], "--json"])
    assert ran.exit_code == 0, f"{command}\n{ran.output}"
    found: dict[str, Any] = json.loads(ran.output)
    return found


def estimated(command: str, quantize: str) -> Figures:
    """What an estimate says of a plan."""
    said = typed(command)
    memory = said["memory"]["lora" if quantize == "none" else "qlora"]
    regret = said["regret"]
    return {
        "params": said["adapter"]["params"],
        "memory": {key: memory[key] for key in ("per_gpu_bytes", "low", "high", "moment")},
        "time": {key: said["time"][key] for key in ("seconds", "low", "high", "steps")},
        "cost": said["cost"] and {key: said["cost"][key] for key in ("usd", "low", "high")},
        "regret": regret and {key: regret[key] for key in ("value", "low", "high")},
    }


def searched(found: Evaluated) -> Figures:
    """What a search says of it."""
    said = found.to_dict()
    return {
        "params": said["params"],
        "memory": {key: said["memory"][key] for key in ("per_gpu_bytes", "low", "high", "moment")},
        "time": {key: said["time"][key] for key in ("seconds", "low", "high", "steps")},
        "cost": said["cost"],
        "regret": said["regret"],
    }


def shown(found: Found) -> list[Evaluated]:
    """One plan of each kind that a page shows."""
    lists = (
        found.alternatives,
        found.frontier,
        [b.without for b in found.binding],
        [r.plan for r in found.rejected],
    )
    return [found.best, *(plans[-1] for plans in lists if plans)]


SCENARIOS: list[dict[str, Any]] = [
    {"model": "Qwen/Qwen3-0.6B", "tokens": 123_457, "gpu": "l4,v100 sxm2 16gb", "price": 1.2345678, "alpha": 1 / 3},
    {"model": "google/gemma-2-2b", "tokens": "3M", "gpu": ["t4", "l4"], "gpus": (1, 2), "budget": 40.0},
    {"model": "LiquidAI/LFM2-1.2B", "tokens": "1M", "gpu": "rtx 3090", "trainer": "litgpt-2024", "loss": "full"},
    {"model": "Qwen/Qwen3-4B", "tokens": "2M", "gpu": "a100 40gb", "gpus": 32, "sharding": "fsdp-hybrid", "batch": 64,
     "micro_batch": (1, 2)},
    {"model": "Qwen/Qwen3-4B", "dataset": "alpaca", "gpu": "l4", "trainer": "trl", "checkpointing": "none"},
    {"model": "Qwen/Qwen3-8B", "tokens": "2M", "gpu": "h100", "quantize": "nf4", "trainer": "plain", "gpus": (1, 4)},
    {"model": "Qwen/Qwen3-30B-A3B", "episodes": 2000, "gpu": "h100", "gpus": (4, 8), "fit": "sure", "epochs": 2},
    {"model": "Qwen/Qwen3-0.6B", "dataset": "alpaca", "gpu": "l4", "packing": "padded", "epochs": 3},
    {"model": "Qwen/Qwen3-4B", "episodes": 9000, "gpu": "h100", "objective": "grpo", "prompt_tokens": 200,
     "mean_completion": 250, "vllm_gpus": (1, 2), "vllm_sleep": True, "group": 4, "gpus": (1, 2), "epochs": 2},
    {"model": "Qwen/Qwen3-4B", "tokens": "1M", "gpu": "h100", "objective": "dpo", "batch": 16, "gpus": (1, 2)},
    {"model": "gpt2", "tokens": "1M", "gpu": "a100 40gb", "gpus": 1, "precision": "fp32", "tf32": True},
    {"model": "gpt2", "tokens": "2M", "gpu": "t4,l4", "gpus": (1, 2),
     "precision": "bf16,fp16,fp32,autocast,bf16-master"},
    {"model": "gpt2", "tokens": "2M", "gpu": "l4", "eval_batch": 8, "offload": "optimizer", "lora_dropout": 0.05},
    {"model": "Qwen/Qwen3-8B", "tokens": "2M", "gpu": "h100", "gpus": (4, 8), "tensor_parallel": "1,2,4",
     "pipeline_parallel": (1, 2), "sequence_parallel": (1, 2, 4), "offload": "none,optimizer,all", "prefer": "time"},
    {"model": "Qwen/Qwen3-8B", "tokens": "2M", "gpu": "h100", "gpus": 8, "trainer": "megatron",
     "tensor_parallel": (2, 8), "pipeline_parallel": 1, "sequence_parallel": (1, 2, 4)},
    {"model": "Qwen/Qwen3-30B-A3B", "tokens": "2M", "gpu": "h100", "gpus": 16, "sharding": "fsdp-hybrid,zero1",
     "shard_size": (2, 4), "expert_parallel": (1, 2), "sequence_parallel": (1, 2), "micro_batch": 1},
    {"model": "ibm-granite/granite-3.1-1b-a400m-instruct", "tokens": "1M", "gpu": "h100", "quantize": "fp8,nf4,int8",
     "gpus": (1, 2), "prefer": "cost"},
    {"model": "gpt2", "tokens": "1M", "gpu": "l4", "loss": "recomputed", "trainer": "litgpt"},
    {"model": "meta-llama/Llama-3.1-70B", "tokens": "10M", "gpu": "h100", "gpus": 8, "seq_len": 65536},
]  # fmt: skip


@pytest.mark.parametrize("options", SCENARIOS, ids=lambda o: f"{o['model']} {o.get('objective', '')}")
def test_every_plan_is_the_estimate_that_its_command_makes(options: dict[str, Any]) -> None:
    found = plan(**{"ranks": (8, 64), **options})
    for each in shown(found):
        command = found.command(each)
        assert estimated(command, each.choice.quantize) == searched(each), command


models = st.sampled_from(
    ["Qwen/Qwen3-0.6B", "gpt2", "google/gemma-3-1b-it", "ibm-granite/granite-3.1-1b-a400m-instruct"]
)
options = st.fixed_dictionaries(
    {
        "tokens": st.integers(10**4, 10**9),
        "gpu": st.sampled_from(["t4,l4", "rtx 4090", "v100 sxm2 16gb,a100 80gb", "h100"]),
        "gpus": st.sampled_from([1, (1, 2), 8]),
    },
    optional={
        "trainer": st.sampled_from(["trl", "unsloth", "axolotl", "plain", "torchtune", "hf-trainer"]),
        "precision": st.sampled_from(["bf16", "fp16", "autocast"]),
        "loss": st.sampled_from(["full", "fused"]),
        "seq_len": st.sampled_from([512, 777]),
        "price": st.floats(0.1, 10),
        "prefer": st.sampled_from(["cost", "time"]),
        "adapter_dtype": st.sampled_from(["float32", "bfloat16"]),
        "packing": st.sampled_from(["full", "packed", "padded"]),
        "sharding": st.sampled_from(["zero2", "zero3", "ddp,fsdp-hybrid"]),
        "tensor_parallel": st.sampled_from([2, (1, 4)]),
        "pipeline_parallel": st.sampled_from([2, (1, 2)]),
        "sequence_parallel": st.sampled_from([2, (1, 8), "1,2,7"]),
        "offload": st.sampled_from(["optimizer", "none,all"]),
    },
)


@settings(max_examples=4, deadline=None)
@given(models, options)
def test_so_are_those_of_random_searches(model: str, options: dict[str, Any]) -> None:
    try:
        found = plan(model, ranks=(4, 32), micro_batch=(1, 8), **options)
    except InputError:  # what does not go together, or does not fit
        return
    for each in (found.best, found.rejected[-1].plan) if found.rejected else (found.best,):
        command = found.command(each)
        assert estimated(command, each.choice.quantize) == searched(each), command
