"""accelerate: the YAML that `accelerate launch --config_file` reads, for one GPU, DDP, FSDP or DeepSpeed."""

from __future__ import annotations

from . import deepspeed
from .limits import ONE_GPU_WORK, choose, refuse
from .lines import Line, Section, yaml_text
from .trainers import trainer
from .training import Training

KINDS = {
    "none": "NO", "ddp": "MULTI_GPU", "fsdp": "FSDP", "zero1": "DEEPSPEED", "zero2": "DEEPSPEED",
    "zero3": "DEEPSPEED",
}  # fmt: skip


def _fsdp(t: Training) -> list[Line]:
    choose(t, "offload", {"none": 0, "all": 1}, "FSDP")
    config = {
        "fsdp_version": 2,
        "fsdp_reshard_after_forward": True,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_offload_params": t.setup.offload == "all",
        "fsdp_activation_checkpointing": t.setup.checkpointing != "none",
        "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_state_dict_type": "FULL_STATE_DICT",
    }
    return [Line("fsdp_config", config, f"Parameters, gradients and states over {t.setup.shards} GPUs.")]


def export(t: Training) -> dict[str, str]:
    """accelerate.yaml, and deepspeed.json where ZeRO shards."""
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), "accelerate's launcher")
    kind = choose(t, "sharding", KINDS, "accelerate")
    per_node = min(t.setup.gpus, int(t.said.get("gpus_per_node") or 8))
    nodes = -(-t.setup.gpus // per_node)
    mixed = {"bfloat16": "bf16", "float16": "fp16"}.get(t.setup.compute_dtype, "no")
    if not t.setup.under_autocast and t.setup.precision != "bf16-master" and kind in ("NO", "MULTI_GPU"):
        mixed = "no"
    lines = [
        Line("compute_environment", "LOCAL_MACHINE"),
        Line("distributed_type", kind, f"The plan's sharding is {t.setup.sharding}."),
        Line("num_machines", nodes),
        Line("num_processes", t.setup.gpus),
        Line("machine_rank", 0),
        Line("main_training_function", "main"),
    ]
    if nodes > 1:
        lines.append(Line("rdzv_backend", "static"))
    if kind == "DEEPSPEED":
        config = {"deepspeed_config_file": "deepspeed.json", "zero3_init_flag": t.setup.sharding == "zero3"}
        lines.append(Line("deepspeed_config", config, "Precision and accumulation stand in deepspeed.json."))
    else:
        lines.append(Line("mixed_precision", mixed))
        if kind == "FSDP":
            lines += _fsdp(t)
        else:
            lines.append(Line("gpu_ids", "all"))
    header = t.header(
        "accelerate", trainer("accelerate").label, "accelerate launch --config_file accelerate.yaml ..."
    )
    files = {"accelerate.yaml": yaml_text(header, [Section("Launch", tuple(lines))])}
    if kind == "DEEPSPEED":
        files["deepspeed.json"] = deepspeed.config_text(t)
    return files
