"""LLaMA-Factory: the YAML of `llamafactory-cli train`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import data, deepspeed, hf
from .data import refused
from .limits import check_precision, choose, lora_fields, no_head, whole_alpha
from .lines import Line, Section, yaml_text
from .trainers import trainer
from .training import Training

if TYPE_CHECKING:
    from ..dataset.shape import Shape

NAME = "LLaMA-Factory"
FILE = "llamafactory.yaml"
DEEPSPEED = "deepspeed.json"
INFO = "dataset_info.json"
PLANNED = "planned"
SUFFIXES = (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".txt")
TAGS = {
    "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool",
}  # fmt: skip
HAS = ("modules_to_save", "use_dora", "use_rslora")
ATTENTION = {"eager": "disabled", "sdpa": "sdpa", "flash": "fa2"}
# (bf16, fp16, pure_bf16); weights follow the precision that is computed in.
PRECISION = {
    ("bf16", True): ("bf16",), ("bf16", False): ("bf16", "pure_bf16"), ("fp16", True): ("fp16",), ("fp32", False): (),
}  # fmt: skip


def _model(t: Training) -> list[Line]:
    kind = choose(t, "quantize", {"none": 0, "nf4": 4, "nf4-double": 4, "int8": 8}, NAME)
    kernel = choose(t, "kernels", {"transformers": "", "liger": "enable_liger_kernel", "unsloth": "use_unsloth",
                                   "compiled": "torch_compile"}, NAME)  # fmt: skip
    lines = [
        Line("model_name_or_path", t.model_or_blank),
        Line("trust_remote_code", bool(t.said.get("trust_remote_code"))),
        Line("flash_attn", choose(t, "attention_kernel", ATTENTION, NAME)),
        *([Line(kernel, True)] if kernel else []),
    ]
    if kind:
        lines += [Line("quantization_bit", kind, "The frozen base."), Line("quantization_method", "bnb")]
    if kind == 4:
        double = t.setup.quantize == "nf4-double"
        lines += [Line("quantization_type", "nf4"), Line("double_quantization", double)]
    return lines


def _stage(t: Training, kind: str) -> list[Line]:
    texts = t.shape is not None and t.shape.format == "text"
    return [
        Line("stage", "pt" if texts else "sft", "Plain texts, without a template." if texts else ""),
        Line("do_train", True),
        Line("finetuning_type", kind, "All parameters train." if kind == "full" else ""),
    ]


def _adapter(t: Training) -> list[Line]:
    if t.full:
        return _stage(t, "full")
    config = t.peft(HAS)
    lora_fields(config, NAME, HAS)
    if t.setup.kernels in ("liger", "unsloth"):
        no_head(
            t,
            f"the fused loss of {t.setup.kernels} reads the weight past an adapter, which then learns nothing",
        )
    odd = next((name for name in config["target_modules"] if "," in name), None)
    if odd is not None or not config["target_modules"]:
        raise InputError("targets", odd, "names of modules, which LLaMA-Factory parts at commas")
    scale = "alpha / sqrt(rank)" if t.spec.use_rslora else "alpha / rank"
    why = f"The scale is {scale}; the learning rate below is for it. {NAME}'s own default is twice the rank."
    lines = [
        *_stage(t, "lora"),
        Line("lora_rank", t.spec.rank, f"{t.plan.adapter.params:,} parameters. {t.room_text()}".strip()),
        Line("lora_alpha", whole_alpha(t, NAME), why),
        Line("lora_dropout", float(t.setup.lora_dropout)),
        Line(
            "lora_target",
            ",".join(config["target_modules"]),
            "These names match the plan's matrices and no other.",
        ),
    ]
    if config["modules_to_save"]:
        lines.append(Line("additional_target", ",".join(config["modules_to_save"])))
    return lines + [Line(name, True) for name in ("use_rslora", "use_dora") if config[name]]


def _place(t: Training) -> list[Line]:
    if t.shape is not None:
        why = f"{data.text_of(t.shape)} {INFO} beside this file says so to {NAME}: start it in this folder."
        return [Line("dataset_dir", ".", why), Line("dataset", PLANNED)]
    local = t.data is not None and ("/" not in t.data or t.data.startswith((".", "/")))
    why = "" if local else "Data sets are named by their hub ids; columns as in Alpaca."
    place = Line("dataset_dir", "data" if local else "ONLINE", why)
    return [place, Line("dataset", t.data_or_blank, "", t.data is None)]


def _info(shape: Shape) -> dict[str, Any]:
    """The entry of dataset_info.json: where the rows lie, their columns and tags. Raises InputError."""
    expected = "one file of JSON lines, JSON, CSV, Parquet, Arrow or text"
    if shape.loader == "hub":
        place = {"hf_hub_url": shape.data}
    elif shape.loader is None or len(shape.files) != 1 or not shape.files[0].endswith(SUFFIXES):
        raise refused(shape, NAME, expected)
    else:
        place = {"file_name": shape.files[0]}
    c = shape.columns
    if shape.format in ("messages", "sharegpt"):
        roles = data.by_role(shape)
        if any(len(names) > 1 for names in roles.values()):
            raise refused(shape, NAME, "one name for each speaker")
        names = {tag: roles[role][0] for tag, role in TAGS.items() if role in roles}
        tags = {"role_tag": shape.role, "content_tag": shape.content, **names}
        kept = {what: c[what] for what in ("messages", "system") if what in c}
        return {**place, "formatting": "sharegpt", "columns": kept, "tags": tags}
    if shape.format == "text":
        return {**place, "columns": {"prompt": c["text"]}}
    if shape.format not in ("alpaca", "prompt-completion") or shape.chat:
        raise refused(shape, NAME, "conversations as messages, prompts with completions as text, or texts")
    named = {
        "prompt": "prompt",
        "input": "query",
        "completion": "response",
        "system": "system",
        "history": "history",
    }
    return {**place, "columns": {named[what]: name for what, name in c.items() if what in named}}


def _data(t: Training) -> list[Line]:
    template = trainer("llamafactory").extra.get("templates", {}).get(t.model or "")
    none = f"{NAME} has no template for this model: without one it reads the tokenizer's own."
    packing = choose(
        t, "packing", {"full": (True, False), "packed": (True, True), "padded": (False, False)}, NAME
    )
    why = {
        (True, False): "Sequences are filled with documents, all full.",
        (True, True): "Documents share a sequence, each with its own attention.",
    }.get(packing, "")
    everything = t.shape is not None and t.said.get("loss_on") == "all"
    return [
        *_place(t),
        *([Line("train_on_prompt", True, "As --loss-on all says.")] if everything else []),
        Line("template", template or "default", "" if template else none, template is None),
        Line("cutoff_len", t.setup.seq_len, "The plan's length."),
        Line("packing", packing[0], why),
        Line("neat_packing", packing[1]),
        Line("overwrite_cache", True),
    ]


def _precision(t: Training) -> list[Line]:
    key = (t.setup.precision, t.setup.autocast)
    if t.full:  # it makes float32 of what it trains, unless pure bfloat16 is asked for
        check_precision(t, ("autocast", "bf16", "fp32"), NAME)
        key = ("bf16", True) if key[0] in ("autocast", "bf16-master") else (key[0], False)
    if key not in PRECISION:
        raise InputError(
            "precision", t.setup.precision, f"bf16, fp16 (with autocast) or fp32, which {NAME} can run",
            "The nearest is bf16 with autocast, under which the adapter is held in float32.",
        )  # fmt: skip
    if "pure_bf16" in PRECISION[key] and t.setup.sharding == "zero3":
        raise InputError(
            "precision", "bf16", f"bf16 with autocast: {NAME} refuses pure bfloat16 under ZeRO-3"
        )
    return [*(Line(name, True) for name in PRECISION[key]), *hf.tf32_lines(t)]


def _checkpointing(t: Training) -> list[Line]:
    choose(t, "checkpointing", {"none": 0, "layer": 1}, NAME)
    fsdp = t.setup.sharding.startswith("fsdp")
    off = t.setup.checkpointing == "none" or fsdp
    why = "FSDP checkpoints by itself, below." if fsdp and t.setup.checkpointing != "none" else ""
    lines = [
        Line("disable_gradient_checkpointing", off, why or f"{NAME} computes activations again unless told.")
    ]
    if not off:
        lines.append(Line("use_reentrant_gc", t.setup.sharding == "zero3"))
    return lines


def _rate(t: Training) -> list[Line]:
    lines = hf.rate_lines(t)
    return [hf.by_ratio(line) if line.name == "warmup_steps" else line for line in lines]


def export(t: Training) -> dict[str, str]:
    """llamafactory.yaml, and deepspeed.json where ZeRO shards."""
    if t.task == "rl":
        raise InputError(
            "target", "llamafactory", "a plan of supervised training", "The nearest is trl-grpo."
        )
    sharding = hf.sharding_lines(t, NAME, DEEPSPEED)
    sections = [
        Section("Model", tuple(_model(t))),
        Section("Method" if t.full else "Adapter", tuple(_adapter(t))),
        Section("Data", tuple(_data(t))),
        Section("Step", (*hf.batch_lines(t), *_checkpointing(t))),
        Section("Rate", (*_rate(t), *hf.length_lines(t))),
        Section("Run", (*_precision(t), Line("seed", t.own["seed"]), Line("output_dir", t.own["out"]),
                        Line("report_to", "none"), *sharding)),
    ]  # fmt: skip
    launch = "FORCE_TORCHRUN=1 " if t.setup.gpus > 1 else ""
    header = t.header(NAME, trainer("llamafactory").label, f"{launch}llamafactory-cli train {FILE}")
    files = {FILE: yaml_text(header, sections)}
    if t.shape is not None:
        files[INFO] = json.dumps({PLANNED: _info(t.shape)}, indent=2, ensure_ascii=False) + "\n"
    if any(line.name == "deepspeed" for line in sharding):
        files[DEEPSPEED] = deepspeed.config_text(t)
    return files
