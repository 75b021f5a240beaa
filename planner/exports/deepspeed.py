"""DeepSpeed: a JSON config for the plan's ZeRO stage, with sizes filled in so that any launcher can read it."""

from __future__ import annotations

import json
from typing import Any

from .limits import choose
from .training import Training

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
OFFLOAD = {
    "none": (), "optimizer": ("offload_optimizer",), "parameters": ("offload_param",),
    "all": ("offload_optimizer", "offload_param"),
}  # fmt: skip


def config(t: Training) -> dict[str, Any]:
    """The config. Raises InputError where the plan is not sharded by ZeRO."""
    stage = choose(t, "sharding", STAGES, "DeepSpeed")
    if stage < 3:
        names = choose(
            t, "offload", {key: OFFLOAD[key] for key in ("none", "optimizer")}, f"ZeRO stage {stage}"
        )
    else:
        names = choose(t, "offload", OFFLOAD, "DeepSpeed")
    zero: dict[str, Any] = {
        "stage": stage, "overlap_comm": True, "contiguous_gradients": True,
    }  # fmt: skip
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    for name in names:
        zero[name] = {"device": "cpu", "pin_memory": True}
    s = t.setup
    return {
        "train_batch_size": t.batch,
        "train_micro_batch_size_per_gpu": s.micro_batch,
        "gradient_accumulation_steps": s.accumulation,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": s.compute_dtype == "bfloat16"},
        "fp16": {"enabled": s.compute_dtype == "float16"},
        "zero_optimization": zero,
    }


def config_text(t: Training) -> str:
    """The config as a file."""
    return json.dumps(config(t), indent=2) + "\n"


def export(t: Training) -> dict[str, str]:
    """deepspeed.json."""
    return {"deepspeed.json": config_text(t)}
