"""torchtune: the YAML of its LoRA recipes. The project was wound down; its last release still runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError, nearest
from . import data, leaves
from .limits import ONE_GPU_WORK, choose, of_own, refuse
from .lines import Line, Section, yaml_text
from .trainers import trainer
from .training import Training

if TYPE_CHECKING:
    from ..dataset.shape import Shape

NAME = "torchtune"
FILE = "torchtune.yaml"
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
OPTIMIZER = {
    "adamw": {"_component_": "torch.optim.AdamW", "fused": True},
    "adamw-8bit": {"_component_": "bitsandbytes.optim.AdamW8bit"},
    "paged-adamw": {"_component_": "bitsandbytes.optim.PagedAdamW"},
    "paged-adamw-8bit": {"_component_": "bitsandbytes.optim.PagedAdamW8bit"},
    "sgd": {"_component_": "torch.optim.SGD"},
    "sgd-momentum": {"_component_": "torch.optim.SGD", "momentum": 0.9},
}  # fmt: skip
WOUND_DOWN = (
    "torchtune was wound down: its maintainers stopped its development on 2025-07-15 "
    "(github.com/meta-pytorch/torchtune/issues/2883). For new work take another target."
)


def _twin(name: str) -> str:
    """The base model's -Instruct, or that one's base: both are of one shape."""
    base = name.removesuffix("-instruct")
    return base if base != name else f"{name}-instruct"


def _known(t: Training) -> dict[str, Any]:
    """torchtune's own components for the model. Raises InputError where it has none."""
    models: dict[str, dict[str, Any]] = trainer("torchtune").extra["models"]
    name = plain(t.model or "")
    found = models.get(name)
    if found is None and (twin := models.get(_twin(name))) is not None:
        return {**twin, "hub": t.model, "twin": twin["hub"]}
    if found is None:
        names = sorted(entry["hub"] for entry in models.values())
        near = nearest(t.model or "", names, cutoff=0.0)
        raise InputError(
            "model", t.model, f"one of the {len(names)} models that torchtune has a LoRA config for",
            f"The nearest in name is {near[0]}.",
        )  # fmt: skip
    return found


def plain(name: str) -> str:
    """A hub id without what differs between a model's own names."""
    return name.lower().replace("meta-llama-", "llama-")


def _model(t: Training, known: dict[str, Any]) -> dict[str, Any]:
    names = leaves.uniform(t, NAME)
    odd = next((n for n in names if n not in ATTENTION and n not in MLP and n != "lm_head"), None)
    if odd is not None:
        raise InputError(
            "targets", odd, f"{', '.join(ATTENTION)}, the MLP and lm_head, which torchtune adapts"
        )
    mlp = MLP & set(names)
    if mlp and mlp != MLP:
        raise InputError("targets", ",".join(sorted(mlp)), "all three of the MLP, or none, in torchtune",
                         "The nearest adapts the whole MLP: --layers attention,mlp.")  # fmt: skip
    head = "lm_head" in names
    if head and not known["output"]:
        raise InputError("layers", "unembedding", f"none: {known['builder']} has no LoRA on it",
                         "The nearest is --layers attention,mlp.")  # fmt: skip
    attention = [ATTENTION[name] for name in names if name in ATTENTION]
    if not attention:
        raise InputError("targets", ",".join(names), "some of attention: torchtune's builders ask for it",
                         "The nearest is --layers attention,mlp.")  # fmt: skip
    four = choose(t, "quantize", {"none": False, "nf4": True}, NAME)
    alpha = t.spec.alpha * (t.spec.rank**0.5 if t.spec.use_rslora else 1)
    model: dict[str, Any] = {
        "_component_": known["builder"].replace(".lora_", ".qlora_") if four else known["builder"],
        "lora_attn_modules": attention, "apply_lora_to_mlp": bool(mlp),
        **({"apply_lora_to_output": head} if known["output"] else {}),
        "lora_rank": t.spec.rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": float(t.setup.lora_dropout),
    }  # fmt: skip
    return model


def _data(t: Training) -> tuple[dict[str, Any], str]:
    """torchtune's builder of a data set, and what to know of it."""
    where = "torchtune.datasets."
    shape = t.shape
    if shape is None:
        chat = {"conversation_column": "messages", "conversation_style": "openai"}
        plain = {"_component_": where + "chat_dataset", "source": t.data_or_blank, "split": "train", **chat}
        return plain, "Conversations in the form of OpenAI's: change it to your data's."
    if shape.loader is None:
        raise data.refused(shape, NAME, "JSON lines, CSV, Parquet or text")
    found, c = data.arguments(shape), shape.columns
    place = {"source": found.pop("path"), **found, "split": "train"}
    everything = t.said.get("loss_on") == "all"
    usual = {("role", "content"): "openai", ("from", "value"): "sharegpt"}.get((shape.role, shape.content))
    kind: dict[str, Any] = {}
    if shape.format in ("messages", "sharegpt") and usual and "system" not in c and _speaks(shape, usual):
        kind = {"_component_": where + "chat_dataset", **place, "conversation_column": c["messages"],
                "conversation_style": usual, "train_on_input": everything}  # fmt: skip
    elif shape.format == "alpaca" and not {"system", "history"} & set(c):
        names = {"instruction": c["prompt"], "output": c["completion"], "input": c.get("input", "input")}
        kind = {
            "_component_": where + "alpaca_dataset",
            **place,
            "column_map": names,
            "train_on_input": everything,
        }
    elif shape.format == "prompt-completion" and not shape.chat:
        kind = {"_component_": where + "instruct_dataset", **place, "train_on_input": everything,
                "column_map": {"input": c["prompt"], "output": c["completion"]}}  # fmt: skip
    elif shape.format == "text":
        kind = {"_component_": where + "text_completion_dataset", **place, "column": c["text"]}
    if not kind:
        raise data.refused(shape, NAME, "conversations as messages, prompts with completions, or texts")
    return kind, data.text_of(shape)


def _speaks(shape: Shape, style: str) -> bool:
    own = {"openai": {"system", "user", "assistant", "tool"}, "sharegpt": {"system", "human", "gpt"}}[style]
    return set(shape.speakers or {}) <= own


def _sections(t: Training, known: dict[str, Any]) -> list[Section]:
    s, folder = t.setup, "models/" + known["hub"].rsplit("/", 1)[-1]
    tokenizer = {key: value.replace("{}", folder) for key, value in known["tokenizer"].items()}
    files = known["files"]
    cycles = of_own(t, "schedule", {"constant": 0.0, "constant_with_warmup": 0.0, "cosine": 0.5}, NAME)
    if 0 < t.own["warmup"] < 1:
        raise InputError("warmup", t.own["warmup"], f"a number of steps: {NAME} takes no share of them")
    packed = choose(t, "packing", {"packed": True, "padded": False}, NAME)
    dtype = choose(t, "precision", {"bf16": "bf16", "fp32": "fp32"}, NAME)
    rule = "alpha x sqrt(rank), for torchtune's alpha / rank" if t.spec.use_rslora else "alpha / rank"
    optimizer = {
        **choose(t, "optimizer", OPTIMIZER, NAME),
        "lr": t.rate.value,
        "weight_decay": float(t.own["weight_decay"]),
    }
    scheduler = {"_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
                 "num_warmup_steps": t.own["warmup"], "num_cycles": cycles}  # fmt: skip
    offload = s.checkpointing == "layer-offload"
    rows, about = _data(t)
    return [
        Section("Model", (
            Line("output_dir", t.own["out"]),
            Line("model", _model(t, known), f"{t.plan.adapter.params:,} parameters; the scale is {rule}. "
                 f"{t.room_text()}".strip()),
            Line("tokenizer", {**tokenizer, "max_seq_len": s.seq_len}, f"Download with: tune download {known['hub']} "
                 f"--output-dir {folder}"),
            Line("checkpointer", {"_component_": known["checkpointer"], "checkpoint_dir": folder,
                                  "checkpoint_files": files, "recipe_checkpoint": None, "output_dir": t.own["out"],
                                  "model_type": known["model_type"]},
                 f"The names of the files are those of {known['twin']}: look whether your folder has these."
                 if "twin" in known else ""),
            Line("resume_from_checkpoint", False), Line("save_adapter_weights_only", True),
        )),
        Section("Data", (
            Line("dataset", {**rows, "packed": packed}, about),
            Line("seed", t.own["seed"]), Line("shuffle", True),
            Line("batch_size", s.micro_batch, f"{s.micro_batch} x {s.accumulation} x {s.data_parallel} GPUs = "
                 f"{t.batch} sequences a step."),
            Line("gradient_accumulation_steps", s.accumulation),
            Line("epochs", t.plan.workload.epochs), Line("max_steps_per_epoch", None),
        )),
        Section("Rate", (
            Line("optimizer", optimizer, t.rate.why),
            Line("lr_scheduler", scheduler, f"Zero cycles of a cosine are a constant rate. {t.schedule_text()}"),
            Line("clip_grad_norm", None),
            Line("loss", {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"}),
        )),
        Section("Run", (
            Line("device", "cuda"), Line("dtype", dtype), Line("compile", s.kernels == "compiled"),
            Line("enable_activation_checkpointing", s.checkpointing != "none"),
            Line("enable_activation_offloading", offload),
            *((Line("fsdp_cpu_offload", s.offload == "all"),) if s.gpus > 1 else ()),
            Line("metric_logger", {"_component_": "torchtune.training.metric_logging.DiskLogger",
                                   "log_dir": t.own["out"]}),
            Line("log_every_n_steps", 1), Line("log_peak_memory_stats", True),
        )),
    ]  # fmt: skip


def export(t: Training) -> dict[str, str]:
    """torchtune.yaml."""
    if t.task == "rl":
        raise InputError("target", "torchtune", "a plan of supervised training", "The nearest is trl-grpo.")
    refuse(t, dict.fromkeys(ONE_GPU_WORK, 1), NAME)
    choose(t, "kernels", {"transformers": 0, "compiled": 1}, NAME)
    choose(t, "attention_kernel", {"sdpa": 0}, NAME)
    refuse(t, {"autocast": False, "tf32": False}, NAME)
    choose(t, "sharding", {"fsdp": 0} if t.setup.gpus > 1 else {"none": 0, "ddp": 0, "fsdp": 0}, NAME)
    choose(t, "offload", {"none": 0, "all": 1} if t.setup.gpus > 1 else {"none": 0}, NAME)
    single = t.setup.gpus == 1
    recipe = "lora_finetune_single_device" if single else "lora_finetune_distributed"
    workers = "" if single else f"--nproc_per_node {t.setup.gpus} "
    head = t.header(NAME, trainer("torchtune").label, f"tune run {workers}{recipe} --config {FILE}")
    return {FILE: yaml_text([*head, WOUND_DOWN], _sections(t, _known(t)))}
