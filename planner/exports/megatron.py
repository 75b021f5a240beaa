"""NeMo's Megatron-Bridge: a Python script, with PEFT's draw of A so that the learning rate needs no translation."""

from __future__ import annotations

from ..errors import InputError
from ..learning_rate.parametrisation import convert
from . import data, leaves
from .data import refused
from .limits import choose, of_own, refuse, whole_alpha
from .lines import Code, Line, comment, python_call, python_value
from .peft import nearest_experts
from .trainers import trainer
from .training import Training

NAME = "Megatron-Bridge"
FILE = "megatron_train.py"
SPLIT = {
    "q_proj": "linear_q", "k_proj": "linear_k", "v_proj": "linear_v", "o_proj": "linear_proj",
    "gate_proj": "linear_fc1_gate", "up_proj": "linear_fc1_up", "down_proj": "linear_fc2",
}  # fmt: skip
FUSED = {
    "qkv_proj": "linear_qkv",
    "o_proj": "linear_proj",
    "gate_up_proj": "linear_fc1",
    "down_proj": "linear_fc2",
}
SCHEDULES = {
    "constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine",
}  # fmt: skip
BUILDERS = ("ChatSFTPreprocessingConfig", "GPTSFTDatasetConfig", "HFDatasetSourceConfig")
PLAIN = "PromptCompletionSFTPreprocessingConfig"
PRECISION = {"bf16-master": "bf16_mixed", "fp16": "fp16_mixed"}


def _experts(t: Training) -> tuple[list[str], list[Line]]:
    """Targets and options of routed experts: one pair for gate and up together, at the rank or its share."""
    items = leaves.expert_items(t)
    if not items:
        return [], []
    if any(not item.as_peft for item in items):
        raise InputError(
            "experts", t.spec.experts, f"what {NAME} can train: it has one pair on an expert's gate and up together",
            nearest_experts(t.arch, t.spec, t.adapted),
        )  # fmt: skip
    if {item.matrix.leaf for item in items} != {m.leaf for m in t.arch.matrices if m.kind == "experts"}:
        raise InputError("target-parameters", items[0].matrix.leaf, "both of an expert's tensors, as linear_fc1 and "
                         "linear_fc2 name those of every layer")  # fmt: skip
    ranks = {item.pairs[0].rank for item in items}
    top_k = items[0].matrix.experts_active
    lines = [Line("share_expert_adapters", False, "Every expert has a pair of its own.")]
    if ranks == {t.spec.rank}:
        return ["linear_fc1_up", "linear_fc1_gate", "linear_fc2"], lines
    if t.spec.rank % top_k == 0 and ranks == {t.spec.rank // top_k}:
        lines.append(
            Line("normalize_moe_lora", True, f"Experts have rank {t.spec.rank} / {top_k} active ones.")
        )
        return ["linear_fc1_up", "linear_fc1_gate", "linear_fc2"], lines
    raise InputError("rank-pattern", sorted(ranks), f"{t.spec.rank}, or {t.spec.rank} / {top_k} for experts")


def adapter(t: Training) -> tuple[str, list[Line]]:
    """The class and its arguments. Raises InputError where Megatron-Bridge has no name for a matrix."""
    names = leaves.uniform(t, NAME, experts=True)
    expert_targets, expert_lines = _experts(t)
    fused = bool({"qkv_proj", "gate_up_proj"} & set(names))
    table = FUSED if fused else SPLIT
    odd = next((name for name in names if name not in table), None)
    if odd is not None:
        raise InputError(
            "layers",
            odd,
            f"{', '.join(table)}: {NAME} adapts no other",
            "The nearest is --layers attention,mlp.",
        )
    targets = list(dict.fromkeys([*(table[name] for name in names), *expert_targets]))
    every = {m.leaf for m in t.arch.matrices if m.role in ("mlp", "shared_expert") and m.kind != "experts"}
    if (expert_targets and every - set(names)) or (
        every & set(names) and not expert_targets and t.arch.has_experts
    ):
        raise InputError(
            "layers", ",".join(sorted(every)), f"dense MLPs and experts together: in {NAME} they share their names",
            "The nearest adapts both: --layers attention,mlp with the experts as parameters.",
        )  # fmt: skip
    return ("LoRA" if fused else "CanonicalLoRA"), [
        Line("target_modules", targets, "linear_q and so on are Megatron's names for the plan's matrices."),
        Line("dim", t.spec.rank, f"{t.plan.adapter.params:,} parameters. {t.room_text()}".strip()),
        Line("alpha", whole_alpha(t, NAME), "The scale is alpha / rank; the learning rate below is for it."),
        Line("dropout", float(t.setup.lora_dropout)),
        Line("lora_A_init_method", "kaiming", _own_draw(t)),
        *expert_lines,
    ]


def _own_draw(t: Training) -> str:
    """What the rate would be with the trainer's own draw of A."""
    own = convert(
        "article", "megatron", lr=t.rate.value, rank=t.spec.rank, alpha=t.spec.alpha, d_in=t.arch.hidden_size
    )
    return (
        f"The draw that the rate below is for. With {NAME}'s own (xavier) the same training, to first order, has "
        f"alpha {own.after.alpha:.3g} and a learning rate of {own.after.lr_b:.3g}."
    )


def _data(t: Training) -> list[Line]:
    """Where the rows lie, and how they become tokens."""
    shape, chat = t.shape, Code("ChatSFTPreprocessingConfig()")
    if shape is None:
        source = f"HFDatasetSourceConfig(path_or_dataset={python_value(t.data_or_blank)}, split='train')"
        return [Line("hf_dataset", Code(source)), Line("preprocessing", chat)]
    c, whole = shape.columns, t.said.get("loss_on") == "all"
    if shape.loader is None or not (
        (
            shape.format == "messages"
            and not shape.renamed
            and c["messages"] == "messages"
            and "system" not in c
        )
        or (shape.format == "prompt-completion" and not shape.chat)
    ):
        raise refused(shape, NAME, "a column messages, or prompts with completions", data.EVERY[:2])
    found = data.arguments(shape)
    path = found.pop("path")
    more = f", load_kwargs={python_value(found)}" if found else ""
    source = f"HFDatasetSourceConfig(path_or_dataset={python_value(path)}, split='train'{more})"
    if shape.format == "prompt-completion":
        columns = f"prompt_column={c['prompt']!r}, completion_column={c['completion']!r}"
        columns += ", loss_mode='full'" if whole else ""
        # Unstripped, as the plan and TRL join the two.
        chat = Code(f"PromptCompletionSFTPreprocessingConfig({columns}, strip_whitespace=False)")
    elif whole:
        chat = Code("ChatSFTPreprocessingConfig(loss_mode='full')")
    return [Line("hf_dataset", Code(source), data.text_of(shape)), Line("preprocessing", chat)]


def _config(t: Training) -> list[str]:
    s = t.setup
    steps, constant = t.steps, SCHEDULES[t.own["schedule"]] == "constant"
    out = python_call("train=TrainingConfig", [
        Line("train_iters", steps if steps else 1000, f"{steps:,} steps hold the plan's data." if steps else
             "The plan names no data: put in the number of steps."),
        Line("global_batch_size", t.batch, f"{s.micro_batch} x {s.accumulation} x {s.data_parallel} GPUs."),
        Line("micro_batch_size", s.micro_batch),
    ], "    ")  # fmt: skip
    out[-1] += ","
    out += python_call("optimizer=OptimizerConfig", [
        Line("optimizer", "adam"), Line("lr", t.rate.value, t.rate.why),
        Line("min_lr", t.rate.value if constant else 0.0),
        Line("weight_decay", float(t.own["weight_decay"])),
        Line("adam_beta1", 0.9), Line("adam_beta2", 0.999), Line("adam_eps", 1e-8),
        Line("bf16", s.precision == "bf16-master"), Line("fp16", s.precision == "fp16"),
        Line("use_distributed_optimizer", s.sharding == "zero1", f"Sharding is {s.sharding}."),
    ], "    ")  # fmt: skip
    out[-1] += ","
    out += python_call("scheduler=SchedulerConfig", [
        Line("lr_decay_style", of_own(t, "schedule", SCHEDULES, NAME), t.schedule_text()),
        Line("lr_warmup_fraction" if 0 < t.own["warmup"] < 1 else "lr_warmup_iters", t.own["warmup"]),
    ], "    ")  # fmt: skip
    out[-1] += ","
    out += python_call("dataset=GPTSFTDatasetConfig", [
        Line("seq_length", s.seq_len, "The plan's length."),
        *_data(t), Line("seed", t.own["seed"]),
        Line("do_validation", False), Line("do_test", False),
    ], "    ")  # fmt: skip
    out[-1] += ","
    return out


def _builders(t: Training) -> tuple[str, ...]:
    plain = t.shape is not None and t.shape.format == "prompt-completion"
    return (*BUILDERS[1:], PLAIN) if plain else BUILDERS


def _checked(t: Training) -> str:
    """The name of the precision, after what cannot be run was refused."""
    if t.task == "rl":
        raise InputError("target", "megatron", "a plan of supervised training", "The nearest is trl-grpo.")
    refuse(t, {"quantize": "none", "optimizer": "adamw", "offload": "none", "tf32": False}, NAME)
    choose(t, "sharding", {"none": 0, "ddp": 0, "zero1": 1}, NAME)
    choose(t, "checkpointing", {"none": 0, "layer": 1}, NAME)
    choose(t, "packing", {"padded": 0}, NAME)
    if t.spec.use_rslora:
        near = round(t.spec.alpha * t.spec.rank**0.5)
        raise InputError(
            "use-rslora", True, f"alpha / rank: {NAME} has no other", f"The nearest is alpha {near}."
        )
    found: str = choose(t, "precision", PRECISION, NAME)
    return found


def export(t: Training) -> dict[str, str]:
    """megatron_train.py."""
    precision = _checked(t)
    kind, lines = adapter(t)
    s = t.setup
    module = "lora" if kind == "LoRA" else "canonical_lora"
    head = t.header(NAME, trainer("megatron").label, f"torchrun --nproc_per_node {min(s.gpus, 8)} {FILE}")
    out = [line for text in head for line in comment(text)]
    out += [
        "", "from megatron.bridge import AutoBridge",
        f"from megatron.bridge.data.builders import {', '.join(_builders(t))}",
        f"from megatron.bridge.peft.{module} import {kind}",
        "from megatron.bridge.training.config import (", "    CheckpointConfig,", "    ConfigContainer,",
        "    LoggerConfig,", "    RNGConfig,", "    SchedulerConfig,", "    TokenizerConfig,", "    TrainingConfig,",
        ")",
        "from megatron.bridge.training.finetune import finetune",
        "from megatron.bridge.training.gpt_step import forward_step",
        "from megatron.core.optimizer import OptimizerConfig", "",
        *comment("The model's weights, downloaded: a folder with config.json and safetensors."),
        f"MODEL = {python_value(t.model_or_blank)}", 'WEIGHTS = "PATH/TO/THE/DOWNLOADED/MODEL"', "",
        "model = AutoBridge.from_hf_pretrained(MODEL).to_megatron_provider(load_weights=False)",
        f"model.seq_length = {s.seq_len}", f"model.tensor_model_parallel_size = {s.tensor_parallel}",
        f"model.pipeline_model_parallel_size = {s.pipeline_parallel}",
        f"model.expert_model_parallel_size = {s.expert_parallel}",
        f"model.context_parallel_size = {s.sequence_parallel}",
    ]  # fmt: skip
    if s.checkpointing == "layer":
        out += ['model.recompute_granularity = "full"', 'model.recompute_method = "uniform"',
                "model.recompute_num_layers = 1"]  # fmt: skip
    out += ["", *python_call(f"adapter = {kind}", lines), "", "config = ConfigContainer(", "    model=model,"]
    out += _config(t)
    out += [
        "    logger=LoggerConfig(log_interval=1),",
        "    tokenizer=TokenizerConfig(tokenizer_type=\"HuggingFaceTokenizer\", tokenizer_model=MODEL),",
        f"    checkpoint=CheckpointConfig(pretrained_checkpoint=WEIGHTS, save={python_value(t.own['out'])}),",
        f"    rng=RNGConfig(seed={t.own['seed']}),", f"    mixed_precision={python_value(precision)},",
        "    peft=adapter,", ")", "finetune(config, forward_step)",
    ]  # fmt: skip
    return {FILE: "\n".join(out) + "\n"}
