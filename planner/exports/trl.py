"""TRL: a YAML file for `trl sft` and `trl grpo`, and the same as arguments of the script."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InputError
from . import data, deepspeed, hf
from .data import refused
from .limits import choose, lora_fields, needs_task, no_dropout, no_head
from .lines import Line, Section, arguments, shell_text, yaml_text
from .trainers import trainer
from .training import Training

if TYPE_CHECKING:
    from ..dataset.shape import Shape

HAS = ("target_parameters", "modules_to_save", "use_dora", "use_rslora")
DEEPSPEED = "deepspeed.json"


def _adapter(t: Training) -> list[Line]:
    if t.full:
        return [Line("use_peft", False, "All parameters train.")]
    config = t.peft(HAS)
    lora_fields(config, "TRL's script", HAS)
    no_head(t, "TRL's loss reads the unembedding's weight directly, so it refuses an adapter there")
    no_dropout(t, config)
    targets = config["target_modules"]
    if not targets:
        raise InputError(
            "targets", "none but parameters", "a module beside them: TRL's script would add PEFT's own choice",
            "The nearest adds attention: --layers attention.",
        )  # fmt: skip
    scale = "alpha / sqrt(rank)" if t.spec.use_rslora else "alpha / rank"
    lines = [
        Line("use_peft", True),
        Line("lora_r", t.spec.rank, f"{t.plan.adapter.params:,} parameters. {t.room_text()}".strip()),
        Line("lora_alpha", t.alpha, f"The scale is {scale}; the learning rate below is for it."),
        Line("lora_dropout", float(t.setup.lora_dropout), "TRL's own default is 0.05."),
        Line("lora_target_modules", targets, "These names match the plan's matrices and no other."),
    ]
    for name, key in (
        ("lora_target_parameters", "target_parameters"),
        ("lora_modules_to_save", "modules_to_save"),
    ):
        if config[key]:
            lines.append(Line(name, config[key]))
    lines += [Line(key, True) for key in ("use_rslora", "use_dora") if config[key]]
    if config["task_type"] not in (None, "CAUSAL_LM"):
        lines.append(Line("lora_task_type", config["task_type"]))
    return lines


def _model(t: Training) -> list[Line]:
    dtype, _, _ = hf.precision(t)
    lines = [
        Line("model_name_or_path", t.model_or_blank),
        Line("dtype", dtype, "How the weights are held." if t.full else "How the frozen weights are held."),
        Line("attn_implementation", choose(t, "attention_kernel", hf.ATTENTION, "TRL")),
    ]
    if t.said.get("trust_remote_code"):
        lines.append(Line("trust_remote_code", True))
    return lines + hf.bits_lines(t, "TRL")


def _packing(t: Training) -> list[Line]:
    """Whole sequences are cut from a stream; packed ones keep documents apart, which needs flash attention."""
    kind = choose(t, "packing", {"full": "wrapped", "packed": "bfd", "padded": ""}, "TRL")
    if kind == "bfd" and t.setup.attention_kernel != "flash":
        raise InputError(
            "packing", "packed", "attention-kernel flash beside it: TRL keeps packed documents apart by it alone",
            "The nearest is --packing full.",
        )  # fmt: skip
    if not kind:
        return [Line("packing", False)]
    why = {
        "wrapped": "Sequences are cut from the stream at the length, all full.",
        "bfd": "Documents stay apart.",
    }
    return [Line("packing", True, why[kind]), Line("packing_strategy", kind)]


def _named(t: Training) -> Line:
    """A hub id or a folder, which the script loads by its name."""
    data = t.data_or_blank
    file = data.endswith((".jsonl", ".json", ".csv", ".parquet"))
    why = "The script loads a hub id or a folder: put this file into a folder of its own and name that."
    return Line("dataset_name", data, why if file else "", t.data is None)


def _data(t: Training) -> list[Line]:
    """Where the data lie and what of them carries loss. TRL renames no column."""
    shape = t.shape
    if shape is None:
        return [_named(t)]
    if shape.loader is None or not _reads(shape):
        raise refused(
            shape, "TRL", "a column messages, or prompt and completion, or text, in JSON lines or Parquet"
        )
    found = data.arguments(shape)
    lines = [Line("dataset_name", found["path"], data.text_of(shape))]
    if shape.loader != "hub":
        lines = [Line("datasets", [{**found, "split": "train"}], data.text_of(shape))]
    everything = t.said.get("loss_on") == "all"
    if shape.format == "text" and shape.columns["text"] != "text":
        lines.append(Line("dataset_text_field", shape.columns["text"]))
    if shape.format == "prompt-completion":
        lines.append(Line("completion_only_loss", not everything))
    if shape.format in ("messages", "sharegpt") and not everything:
        why = (
            "As the plan counts. TRL marks the assistant's words in the chat templates of common families; for "
            "another set it to false, and plan with --loss-on all."
        )
        lines.append(Line("assistant_only_loss", True, why))
    return lines


def _reads(shape: Shape) -> bool:
    """Whether TRL trains on the columns as they are: it renames keys of messages, and no roles."""
    columns = {what: name for what, name in shape.columns.items() if what != "tools"}
    own_roles = all(theirs == ours for theirs, ours in (shape.speakers or {}).items())
    if shape.format in ("messages", "sharegpt"):
        return own_roles and columns in ({"messages": "messages"}, {"messages": "conversations"})
    if shape.format == "prompt-completion":
        return own_roles and columns == {"prompt": "prompt", "completion": "completion"}
    return shape.format == "text"


def _prompts(t: Training) -> list[Line]:
    """GRPO's data: a column prompt; what a reward needs stays beside it."""
    shape = t.shape
    if shape is None:
        return [_named(t)]
    if shape.columns.get("prompt") != "prompt" or shape.loader is None:
        name = shape.columns.get("prompt", shape.format)
        raise InputError(
            "data", name, "a column prompt, which `trl grpo` asks for", f"Name the column {name} so."
        )
    found = data.arguments(shape)
    if shape.loader == "hub":
        return [Line("dataset_name", found["path"], data.text_of(shape))]
    return [Line("datasets", [{**found, "split": "train"}], data.text_of(shape))]


def _sections(t: Training, task: list[Line], rows: list[Line]) -> list[Section]:
    step = [*hf.batch_lines(t), *task, *hf.checkpointing_lines(t)]
    if t.setup.checkpointing == "layer-offload":
        step.append(Line("activation_offloading", True))
    return [
        Section("Model", tuple(_model(t))),
        Section("Method" if t.full else "Adapter", tuple(_adapter(t))),
        Section("Data", tuple(rows)),
        Section("Step", tuple(step)),
        Section("Rate", (*hf.rate_lines(t), *hf.length_lines(t))),
        Section("Run", (*hf.run_lines(t), *hf.kernel_lines(t, "TRL"),
                        *hf.sharding_lines(t, "TRL", DEEPSPEED))),
    ]  # fmt: skip


def _files(t: Training, script: str, target: str, sections: list[Section]) -> dict[str, str]:
    name = f"trl-{script}.yaml"
    workers = f" --num_processes {t.setup.gpus}" if t.setup.gpus > 1 else ""
    label = trainer(target).label
    files = {
        name: yaml_text(
            t.header(f"`trl {script}`", label, f"trl {script} --config {name}{workers}"), sections
        )
    }
    lines = [line for section in sections for line in section.lines]
    if any(line.name == "datasets" for line in lines):  # which no argument can hold
        command = [
            "trl\0" + script,
            f"--config\0{name}",
            *([f"--num_processes\0{t.setup.gpus}"] * bool(workers)),
        ]
        about = f"A data file can be named in {name} alone; options behind it win over its own."
        return {**files, f"trl-{script}.sh": shell_text(command, [about]), **_deepspeed(t, lines)}
    # On the command line fsdp is a word of old; both mean FSDP2 over all parameters.
    lines = [replace(line, value="full_shard") if line.name == "fsdp" else line for line in lines]
    command = [
        f"trl\0{script}",
        *([f"--num_processes\0{t.setup.gpus}"] if t.setup.gpus > 1 else []),
        *arguments(lines),
    ]
    files[f"trl-{script}.sh"] = shell_text(command, [f"The same as {name}, as arguments of the script."])
    return {**files, **_deepspeed(t, lines)}


def _deepspeed(t: Training, lines: list[Line]) -> dict[str, str]:
    return {DEEPSPEED: deepspeed.config_text(t)} if any(line.name == "deepspeed" for line in lines) else {}


def sft(t: Training) -> dict[str, str]:
    """`trl sft`."""
    needs_task(t, "sft", "trl-sft", "trl-grpo")
    step = [Line("max_length", t.setup.seq_len, "TRL's own default is 1024."), *_packing(t)]
    return _files(t, "sft", "trl-sft", _sections(t, step, _data(t)))


def _divergence(t: Training) -> Line:
    """Beta, the weight of the divergence from the reference, where the plan has one."""
    if t.setup.runs_reference and t.setup.objective == "grpo":
        return Line("beta", 0.04, "The plan has a reference, but no weight for it: this is DeepSeekMath's.")
    return Line("beta", 0.0, "No reference model, whose forward pass the plan does not have.")


def _completions(t: Training) -> list[Line]:
    """vLLM where the plan has one: on other GPUs, or beside the trainer."""
    setup = t.setup
    if setup.generation == "transformers":
        return []
    if setup.generation == "server":
        more = (
            f" --tensor_parallel_size {setup.vllm_tensor_parallel}" if setup.vllm_tensor_parallel > 1 else ""
        )
        return [
            Line("use_vllm", True),
            Line("vllm_mode", "server", f"`trl vllm-serve{more}` runs on other GPUs."),
        ]
    shared = (
        "" if setup.generation == "colocate" else " TRL's vLLM holds a base of its own beside the trainer's."
    )
    found = [
        Line("use_vllm", True),
        Line("vllm_mode", "colocate", f"vLLM on the GPUs that train.{shared}"),
        Line("vllm_gpu_memory_utilization", setup.vllm_share, "The plan's share of a GPU."),
        Line(
            "vllm_max_model_length",
            setup.seq_len,
            "The plan's sequence: without it vLLM takes the model's own.",
        ),
    ]
    if setup.vllm_tensor_parallel > 1:
        found.append(Line("vllm_tensor_parallel_size", setup.vllm_tensor_parallel))
    return [*found, Line("vllm_enable_sleep_mode", True)] if setup.vllm_sleep else found


def grpo(t: Training) -> dict[str, str]:
    """`trl grpo`."""
    needs_task(t, "rl", "trl-grpo", "trl-sft")
    group: int = t.own["group"]
    if t.batch % group:
        near = max(1, round(t.batch / group)) * group
        raise InputError(
            "batch", t.batch, f"a multiple of the group of {group} completions", f"The nearest is {near}."
        )
    if t.setup.checkpointing == "layer-offload":
        raise InputError(
            "checkpointing", "layer-offload", "layer: `trl grpo` offloads none", "The nearest is layer."
        )
    completion = t.setup.seq_len - t.own["prompt_tokens"]
    if completion < 1:
        raise InputError(
            "prompt-tokens", t.own["prompt_tokens"], f"fewer than the {t.setup.seq_len} of a sequence"
        )
    said = "" if t.own["prompt_tokens"] else " Prompts come on top: --prompt-tokens takes them off."
    step: list[Line] = [
        Line("num_generations", group, f"{t.batch // group} prompts a step, {group} completions each."),
        Line("max_completion_length", completion, f"The plan's sequence of {t.setup.seq_len:,} tokens.{said}"),
        Line("temperature", 1.0),
        _divergence(t), *_completions(t),
        Line("reward_funcs", ["accuracy_reward"], "Put in what your task rewards; this one needs math-verify."),
    ]  # fmt: skip
    return _files(t, "grpo", "trl-grpo", _sections(t, step, _prompts(t)))
