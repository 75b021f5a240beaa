"""Estimates and comparisons of random options: an answer whose parts add up, or one line of an error, and both the
same."""

from __future__ import annotations

import random
from typing import Any

import pytest

from planner import compare, estimate, facts
from planner.choices import CHOICES
from planner.errors import PlannerError
from planner.trainers import names

TYPES = sorted({facts.model(name).model_type: name for name in facts.model_ids()}.values())
GPUS = [fact.name for fact in facts.accelerators() if fact.memory_bytes]
WORDS = (
    "checkpointing", "attention_kernel", "kernels", "precision", "quantize", "optimizer", "sharding", "offload",
    "packing", "fsdp_units", "placing", "loading",
)  # fmt: skip


def drawn(seed: int) -> tuple[str, dict[str, Any]]:
    """A model and options of an estimate, of which many go together."""
    rng = random.Random(seed)
    gpus, parts = rng.choice([1, 1, 2, 8, 16]), rng.choice([1, 1, 2, 4])
    options: dict[str, Any] = {
        "rank": rng.choice([1, 8, 64]), "layers": rng.choice(["attention", "mlp", "all", "all-linear"]),
        "seq_len": rng.choice([128, 1000, 4096]), "gpu": rng.choice(GPUS), "tokens": 10**7,
        "accumulation": rng.choice([1, 1, 4]), "gpus": gpus,
    }  # fmt: skip
    if gpus % parts == 0 and rng.random() < 0.3:
        options[rng.choice(["tensor_parallel", "pipeline_parallel", "sequence_parallel"])] = parts
    if rng.random() < 0.5:
        options["batch"] = gpus * options["accumulation"] * rng.choice([1, 3])
    if rng.random() < 0.4:
        options["trainer"] = rng.choice(names())
    if rng.random() < 0.15:
        options["objective"] = rng.choice(["dpo", "orpo", "kto"])
    options.update({word: rng.choice(CHOICES[word]) for word in WORDS if rng.random() < 0.2})
    return rng.choice(TYPES), options


def answer(function: Any, *given: Any, **options: Any) -> Any:
    """What a function says, None where it refuses in one line."""
    try:
        return function(*given, **options)
    except PlannerError as error:
        said = str(error)
    assert said.strip() and "\n" not in said
    return None


@pytest.mark.parametrize("first", range(0, 120, 30))
def test_parts_add_up_and_both_say_the_same(first: int) -> None:
    for seed in range(first, first + 30):
        model, options = drawn(seed)
        alone = answer(estimate, model, **options)
        if alone is None or not alone.memory:
            continue
        for found in filter(None, alone.memory.values()):
            assert sum(found["parts"].values()) == found["per_gpu_bytes"], seed
            assert min(found["parts"].values()) >= 0, seed
            assert found["low"] <= found["per_gpu_bytes"] <= found["high"], seed
            assert found["allocated_bytes"] <= found["reserved_bytes"] <= found["device_bytes"], seed
        if alone.time:
            parts = alone.time["step"]["parts"]
            assert sum(parts.values()) == pytest.approx(alone.time["step"]["seconds"]), seed
        if alone.cost:
            hours = alone.time["gpu_hours"]
            assert alone.cost["usd"] == pytest.approx(hours * alone.cost["price"]["usd_per_gpu_hour"]), seed
        beside = answer(compare, model, **{"ranks": options.pop("rank"), **options})
        for column in beside.columns if beside else ():
            said = alone.memory[column.method]
            assert said and column.memory.per_gpu_bytes == said["per_gpu_bytes"], seed
