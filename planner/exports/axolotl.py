"""Axolotl: the YAML of `axolotl train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import data, deepspeed, hf
from .data import refused
from .limits import (
    ONE_GPU_WORK,
    check_precision,
    choose,
    lora_fields,
    no_dropout,
    no_head,
    refuse,
    whole_alpha,
)
from .lines import Line, Section, yaml_text
from .trainers import trainer
from .training import Training

if TYPE_CHECKING:
    from ..dataset.shape import Shape

NAME = "Axolotl"
FILE = "axolotl.yaml"
DEEPSPEED = "deepspeed.json"
HAS = ("target_parameters", "modules_to_save", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
# The options that a precision and autocast are. bf16 is `auto` unless said, which turns autocast to bfloat16 on with
# every GPU that has it, whatever else stands there; `bfloat16` does too: there is no bfloat16 without autocast
# (axolotl/utils/config, core/builders/base.py).
PRECISION: dict[tuple[str, bool], dict[str, Any]] = {
    ("bf16", True): {"bf16": True},
    ("fp16", True): {"bf16": False, "fp16": True},
    ("fp16", False): {"bf16": False, "fp16": False, "float16": True},
    ("fp32", False): {"bf16": False, "fp16": False, "float32": True, "tf32": False},
}
WHY = {
    ("bf16", True): "Weights in bfloat16, under autocast.",
    ("fp32", False): "Axolotl takes bfloat16 on its own unless both are off.",
}
OPTIMIZER = {**hf.OPTIM, "muon": "muon"}
LIGER_LOSS = "Liger's fused loss reads the unembedding's weight past an adapter, which then learns nothing"
LIGER = "axolotl.integrations.liger.LigerPlugin"


def _model(t: Training) -> list[Line]:
    kind = choose(t, "quantize", {"none": "", "nf4": "4", "nf4-double": "4d", "int8": "8"}, NAME)
    lines = [
        Line("base_model", t.model_or_blank),
        Line("attn_implementation", choose(t, "attention_kernel", hf.ATTENTION, NAME)),
        *([Line("trust_remote_code", True)] if t.said.get("trust_remote_code") else []),
    ]
    if kind.startswith("4"):
        lines.append(Line("load_in_4bit", True, "The frozen base in NF4."))
        double = kind == "4d"
        if not double:
            why = "Axolotl quantises the scales too unless told otherwise."
            lines.append(Line("bnb_config_kwargs", {"bnb_4bit_use_double_quant": False}, why))
    elif kind == "8":
        lines.append(Line("load_in_8bit", True))
    return lines


def _adapter(t: Training) -> list[Line]:
    config = t.peft(HAS)
    lora_fields(config, NAME, HAS)
    no_dropout(t, config)
    if t.setup.kernels == "liger":
        no_head(t, LIGER_LOSS)
    scale = "alpha / sqrt(rank)" if t.spec.use_rslora else "alpha / rank"
    four = t.setup.quantize in ("nf4", "nf4-double")
    lines = [
        Line("adapter", "qlora" if four else "lora"),
        Line("lora_r", t.spec.rank, f"{t.plan.adapter.params:,} parameters. {t.room_text()}".strip()),
        Line("lora_alpha", whole_alpha(t, NAME), f"The scale is {scale}; the learning rate below is for it."),
        Line("lora_dropout", float(t.setup.lora_dropout)),
    ]
    if config["target_modules"]:
        why = "These names match the plan's matrices and no other."
        lines.append(Line("lora_target_modules", config["target_modules"], why))
    if config["target_parameters"]:
        lines.append(
            Line("lora_target_parameters", config["target_parameters"], "Experts, as one tensor each.")
        )
    if config["modules_to_save"]:
        lines.append(Line("lora_modules_to_save", config["modules_to_save"]))
    if config["rank_pattern"]:
        lines.append(Line("lora_rank_pattern", config["rank_pattern"]))
    if config["alpha_pattern"]:
        odd = next((a for a in config["alpha_pattern"].values() if a != int(a)), None)
        if odd is not None:
            raise InputError(
                "alpha-pattern", odd, f"whole alphas: {NAME} takes no other", f"The nearest is {round(odd)}."
            )
        lines.append(Line("lora_alpha_pattern", {key: int(a) for key, a in config["alpha_pattern"].items()}))
    lines += [Line(f"peft_{name}", True) for name in ("use_rslora", "use_dora") if config[name]]
    return lines


def _rows(t: Training) -> tuple[dict[str, Any], str]:
    """The entry of `datasets`: where the rows lie, and of what type they are."""
    shape = t.shape
    if shape is None:
        why = (
            "Put in your data."
            if t.data is None
            else "The type is that of conversations: change it to your data's."
        )
        return {"path": t.data_or_blank, "type": "chat_template"}, why
    if shape.loader is None:
        raise refused(shape, NAME, "JSON lines, CSV, Parquet, Arrow or text")
    found = data.arguments(shape)
    place = {"path": found["path"]}
    if shape.loader != "hub":
        files = found["data_files"]
        place = {"path": files, "ds_type": shape.loader} if isinstance(files, str) else {
            "path": shape.loader, "data_files": files}  # fmt: skip
    kind, why = _type(shape)
    return {**place, **kind}, f"{data.text_of(shape)} {why}".strip()


def _type(shape: Shape) -> tuple[dict[str, Any], str]:
    """Axolotl's type of rows, with its columns."""
    c = shape.columns
    plain = not {"system", "history"} & set(c)
    if shape.format in ("messages", "sharegpt") and plain:
        roles = data.by_role(shape)
        kind: dict[str, Any] = {
            "type": "chat_template", "field_messages": c["messages"],
            "message_property_mappings": {"role": shape.role, "content": shape.content},
        }  # fmt: skip
        return ({**kind, "roles": roles} if any([a] != b for a, b in roles.items()) else kind), ""
    if shape.format == "alpaca" and plain and (c["prompt"], c["completion"]) == ("instruction", "output") and (
        c.get("input", "input") == "input"
    ):  # fmt: skip
        return {
            "type": "alpaca"
        }, "Axolotl puts Alpaca's own headings around them; the plan counts the chat template."
    if shape.format == "prompt-completion" and not shape.chat:
        fields = {"field_instruction": c["prompt"], "field_output": c["completion"]}
        return {"type": {**fields, "format": "{instruction}", "no_input_format": "{instruction}"}}, ""
    if shape.format == "text":
        return {"type": "completion", "field": c["text"]}, ""
    raise refused(shape, NAME, "conversations as messages, prompts with completions, or texts")


def _data(t: Training) -> list[Line]:
    entry, why = _rows(t)
    packing = choose(t, "packing", {"packed": True, "padded": False}, NAME)
    if packing and t.setup.attention_kernel == "eager":
        raise InputError(
            "attention-kernel", "eager", "flash or sdpa for packed documents", "The nearest is sdpa."
        )
    about = "Documents share a sequence, each with its own attention." if packing else ""
    return [
        Line("datasets", [entry], why),
        *(
            [Line("train_on_inputs", True, "As --loss-on all says.")]
            if t.said.get("loss_on") == "all"
            else []
        ),
        Line("val_set_size", 0.0),
        Line("sequence_len", t.setup.seq_len, "The plan's length."),
        Line(
            "excess_length_strategy",
            "truncate",
            "As the plan counts; Axolotl drops what is longer unless told.",
        ),
        Line("sample_packing", packing, about),
        *([Line("pad_to_sequence_len", True)] if packing else []),
        *([Line("eval_sample_packing", True)] if packing else []),
    ]


def _checkpointing(t: Training) -> list[Line]:
    fsdp = t.setup.sharding.startswith("fsdp")
    on = t.setup.checkpointing != "none" and not fsdp
    lines = [Line("gradient_checkpointing", on, "Computes activations again, for memory." if on else "")]
    if on:
        lines.append(Line("gradient_checkpointing_kwargs", {"use_reentrant": t.setup.sharding == "zero3"}))
    if t.setup.checkpointing == "layer-offload":
        lines.append(Line("activation_offloading", True, "Kept activations go to the host's memory."))
    return lines


def _pairs(t: Training, on: bool) -> list[Line]:
    """Functions of pairs, which Axolotl switches on by itself, where a plan says whether they run."""
    if t.full or "kernels" not in t.said:
        return []
    return [Line(f"lora_{name}_kernel", on) for name in ("mlp", "qkv", "o")]


def _step(t: Training) -> list[Line]:
    s = t.setup
    why = hf.batch_lines(t)[0].why
    kernels = choose(t, "kernels", {"transformers": _pairs(t, False), "pairs": _pairs(t, True), "liger": [
        Line("plugins", [LIGER]), Line("liger_rope", True), Line("liger_rms_norm", True),
        Line("liger_glu_activation", True), Line("liger_fused_linear_cross_entropy", True),
    ], "compiled": [Line("torch_compile", True)]}, NAME)  # fmt: skip
    found: list[Line] = [
        Line("micro_batch_size", s.micro_batch, why), Line("gradient_accumulation_steps", s.accumulation),
        *_checkpointing(t), *kernels,
    ]  # fmt: skip
    return found


def _rate(t: Training) -> list[Line]:
    rate, schedule, warmup, _, *rest = hf.rate_lines(t) if t.setup.optimizer != "muon" else _muon(t)
    optimizer = Line("optimizer", choose(t, "optimizer", OPTIMIZER, NAME))
    if t.setup.optimizer == "sgd-momentum":
        rest[0] = Line("optim_args", {"momentum": 0.9})
    about = f"About {t.steps:,} step{'s' * (t.steps > 1)} by the plan's tokens." if t.steps else ""
    return [
        rate, Line("lr_scheduler", schedule.value, schedule.why), hf.by_ratio(warmup), optimizer, *rest,
        Line("num_epochs", t.plan.workload.epochs, about),
    ]  # fmt: skip


def _muon(t: Training) -> list[Line]:
    return [
        Line("learning_rate", t.rate.value, t.rate.why),
        Line("lr_scheduler_type", t.own["schedule"], t.schedule_text()), Line("warmup_steps", t.own["warmup"]),
        Line("optim", "muon"), hf.decay_line(t),
    ]  # fmt: skip


def _precision(t: Training) -> list[Line]:
    key = (t.setup.precision, t.setup.autocast)
    if t.full:  # FSDP2 and DeepSpeed make weights or masters of float32 from those that are loaded
        check_precision(t, ("bf16", "fp32"), NAME)
        key = ("fp32", False) if key[0] == "fp32" else ("bf16", True)
    if key not in PRECISION:
        raise InputError(
            "precision", t.setup.precision, f"bf16, fp16 or fp32, which {NAME} can run",
            "The nearest is bf16 with autocast, under which the adapter is held in float32.",
        )  # fmt: skip
    said = {**PRECISION[key], **({"tf32": True} if t.setup.tf32 else {})}
    return [Line(name, on, WHY.get(key, "") if n == 0 else "") for n, (name, on) in enumerate(said.items())]


def _sharding(t: Training) -> list[Line]:
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), NAME)
    kinds = {"none": "", "ddp": "", "zero1": "ds", "zero2": "ds", "zero3": "ds", "fsdp": "fsdp"}
    kind = choose(t, "sharding", kinds, NAME)
    if kind == "ds":
        return [Line("deepspeed", DEEPSPEED, f"{t.setup.sharding} over {t.setup.shards} GPUs.")]
    if kind != "fsdp":
        refuse(t, {"offload": "none"}, f"{NAME} without FSDP or DeepSpeed")
        return []
    choose(t, "offload", {"none": 0, "all": 1}, f"{NAME} under FSDP")
    config: dict[str, Any] = {
        "reshard_after_forward": True, "offload_params": t.setup.offload == "all",
        "activation_checkpointing": t.setup.checkpointing != "none", "cpu_ram_efficient_loading": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "state_dict_type": "FULL_STATE_DICT",
    }  # fmt: skip
    return [Line("fsdp_version", 2, f"Sharded over {t.setup.shards} GPUs."), Line("fsdp_config", config)]


def export(t: Training) -> dict[str, str]:
    """axolotl.yaml, and deepspeed.json where ZeRO shards."""
    if t.task == "rl":
        raise InputError("target", "axolotl", "a plan of supervised training", "The nearest is trl-grpo.")
    sharding = _sharding(t)
    launch = f" --num-processes {t.setup.gpus}" if t.setup.gpus > 1 else ""
    run = [Line("seed", t.own["seed"]), Line("output_dir", t.own["out"])]
    sections = [
        Section("Model", tuple(_model(t))),
        *([] if t.full else [Section("Adapter", tuple(_adapter(t)))]),
        Section("Data", tuple(_data(t))),
        Section("Step", tuple(_step(t))),
        Section("Rate", tuple(_rate(t))),
        Section("Run", (*_precision(t), *run, *sharding)),
    ]
    header = t.header("Axolotl", trainer("axolotl").label, f"axolotl train {FILE}{launch}")
    files = {FILE: yaml_text(header, sections)}
    if any(line.name == "deepspeed" for line in sharding):
        files[DEEPSPEED] = deepspeed.config_text(t)
    return files
