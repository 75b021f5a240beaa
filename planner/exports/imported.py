"""`planner.import_config`: what people already train with, as a request to estimate, review or export."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from .. import facts
from ..adapter import adapt
from ..adapter.files import spec_from
from ..adapter.options import DEFAULTS, spec_of
from ..dataclass import dataclass
from ..errors import InputError, PlannerError, hint
from ..estimator import load
from ..plan import Plan
from ..schema import Architecture, Notice
from .from_axolotl import from_axolotl
from .from_hf import from_llamafactory, from_trl
from .from_torchtune import from_torchtune
from .reading import Fields, read_file
from .registry import profile_of
from .trainers import trainer

SCHEMA = 1
Read = Callable[[Fields, int, Any, Any], tuple[dict[str, Any], dict[str, Any]]]
FORMATS: Mapping[str, Read | None] = {
    "peft": None, "trl-sft": from_trl, "trl-grpo": from_trl, "axolotl": from_axolotl,
    "llamafactory": from_llamafactory, "torchtune": from_torchtune,
}  # fmt: skip
# Options that tell one trainer's file from another's.
MARKS = {
    "peft": ("peft_type",),
    "axolotl": ("base_model", "micro_batch_size", "sequence_len"),
    "llamafactory": ("finetuning_type", "lora_rank", "stage", "cutoff_len"),
    "torchtune": ("checkpointer", "metric_logger", "tokenizer"),
    "trl-grpo": ("reward_funcs", "num_generations", "max_completion_length"),
    "trl-sft": (
        "use_peft", "lora_r", "model_name_or_path", "dataset_name", "max_length", "num_train_epochs",
        "per_device_train_batch_size",
    ),
}  # fmt: skip
_OWN_FOR_EXPORT = ("full", "lr", "train_data", "seed", "out", "group", "schedule", "warmup", "weight_decay")
FULL = (
    "The config trains every parameter: its memory is that of full fine-tuning. What an estimate says of an adapter, "
    "time and cost is of LoRA in its place; `lora-plan compare --config` lays both side by side."
)


@dataclass(frozen=True)
class Unread:
    """An option that the plan does not have: its value in short, and whether the trainer knows it."""

    name: str
    value: str
    reason: str
    known: bool


@dataclass(frozen=True)
class Imported:
    """A trainer's config as options of `estimate` (`request`) and of the run (`run`: lr, schedule, seed ...).
    `unread` lists what is in the file and not in the plan."""

    format: str
    file: str | None
    request: Mapping[str, Any]
    run: Mapping[str, Any]
    unread: tuple[Unread, ...] = ()
    notices: tuple[Notice, ...] = field(default=())

    @property
    def full(self) -> bool:
        """Whether every parameter trains: the request is then that of the run without an adapter."""
        return bool(self.run.get("full"))

    def options(self) -> dict[str, Any]:
        """What `planner.export(target, **options)` takes: another trainer has its own ways."""
        own = {name: self.run[name] for name in _OWN_FOR_EXPORT if self.run.get(name) not in (None, False)}
        return {**{name: value for name, value in self.request.items() if name != "trainer"}, **own}

    def plan(self, **options: Any) -> Plan:
        """The estimate, with further options of it (`gpu`, `tokens` ...)."""
        from ..planning import estimate

        return estimate(**{**self.request, **options})

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `import`."""
        return {
            "schema": SCHEMA,
            "format": self.format,
            "file": self.file,
            "request": dict(self.request),
            "run": dict(self.run),
            "unread": [dict(vars(item)) for item in self.unread],
            "warnings": [dict(vars(notice)) for notice in self.notices],
        }


def format_of(data: Mapping[str, Any], name: str) -> str:
    """Which trainer a config is of. Raises InputError."""
    for kind, marks in MARKS.items():
        if marks[0] in data or len(set(marks) & set(data)) >= 2:
            return kind
    raise InputError(
        "config", name, "a config of PEFT, TRL, Axolotl, LLaMA-Factory or torchtune",
        f"None of {', '.join(marks[0] for marks in MARKS.values())} stands in it; name the trainer with --format.",
    )  # fmt: skip


def _model_type(model: Any) -> str | None:
    if not isinstance(model, str):
        return None
    try:
        return load(model)[1].model_type
    except PlannerError:
        return None


def _deepspeed(place: str | None) -> Callable[[str], Any]:
    """Reads a DeepSpeed file that lies beside the config; None where it does not."""

    def read(name: str) -> Any:
        folder = os.path.dirname(place) if place else "."
        for path in (os.path.join(folder, name), name):
            if os.path.isfile(path):
                return read_file(path)
        return None

    return read


def _from_peft(data: dict[str, Any]) -> dict[str, Any]:
    """An adapter_config.json as options; what changes training and is not counted raises InputError."""
    spec = spec_from(data)
    found: dict[str, Any] = {
        "model": data.get("base_model_name_or_path") or None, "rank": spec.rank, "alpha": spec.alpha,
        "layers": ",".join(spec.layers) if spec.layers else None, "targets": list(spec.targets or ()) or None,
        "target_regex": spec.target_regex, "target_parameters": list(spec.target_parameters) or None,
        "layers_to_transform": list(spec.layers_to_transform) if spec.layers_to_transform else None,
        "exclude_modules": spec.exclude_regex or list(spec.exclude_modules) or None,
        "rank_pattern": dict(spec.rank_pattern) or None, "alpha_pattern": dict(spec.alpha_pattern) or None,
        "modules_to_save": list(spec.modules_to_save) or None, "bias": spec.bias, "experts": "peft",
        "variant": spec.variant, "use_rslora": spec.use_rslora,
    }  # fmt: skip
    dropout = data.get("lora_dropout") or 0.0
    return {**found, "lora_dropout": float(dropout)} if dropout else found


def _unread(data: Mapping[str, Any], asked: set[str], kind: str) -> list[Unread]:
    known = trainer(kind).options
    if kind == "llamafactory":
        known = known | trainer("trl-sft").options
    found = []
    for name, value in data.items():
        empty = value is None or (kind == "peft" and value in (False, {}, []))  # PEFT writes every field
        if name in asked or empty:
            continue
        text = repr(value)
        text = text if len(text) <= 60 else f"{text[:57]}..."
        if name in known:
            found.append(Unread(name, text, "the plan does not depend on it, or has no place for it", True))
        else:
            label = trainer(kind).label
            near = hint(name, known).strip()
            found.append(Unread(name, text, f"{label} has no such option. {near}".strip(), False))
    return found


_PEFT_READ = {
    "peft_type", "task_type", "base_model_name_or_path", "inference_mode", "r", "lora_alpha", "lora_dropout",
    "target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "modules_to_save", "bias", "use_dora", "use_rslora", "init_lora_weights", "fan_in_fan_out",
    "auto_mapping", "revision", "peft_version",
    "megatron_core", "qalora_group_size",
}  # fmt: skip


def _united(arch: Architecture, request: dict[str, Any]) -> dict[str, Any]:
    """All linear modules and some names as one choice: the preset where the names add nothing."""
    preset = {
        **DEFAULTS,
        "adapter_dtype": "float32",
        "layers": request["layers"],
        "experts": "peft",
        "rank": 1,
    }
    linear = list(dict.fromkeys(item.matrix.leaf for item in adapt(arch, spec_of(preset))))
    more = [name for name in request["targets"] if name not in linear]
    rest = {name: value for name, value in request.items() if name not in ("layers", "targets")}
    return {**rest, "targets": linear + more} if more else {**rest, "layers": request["layers"]}


def _matching(request: dict[str, Any]) -> tuple[dict[str, Any], list[Unread]]:
    """The request without names of modules that match nothing, which PEFT passes over."""
    dropped: list[Unread] = []
    names = request.get("targets")
    if not names or request.get("model") is None:
        return request, dropped
    try:
        arch = load(request["model"], bool(request.get("trust_remote_code")))[1]
    except PlannerError:
        alone = (
            request.get("layers") is None
        )  # beside a preset the names cannot be told apart without the model
        return request if alone else {k: v for k, v in request.items() if k != "targets"}, dropped
    if request.get("layers") is not None:  # Axolotl: every linear module, and these
        request = _united(arch, request)
        names = request.get("targets", [])
        if not names:
            return request, dropped
    kept = []
    for name in names:
        one = {**DEFAULTS, "adapter_dtype": "float32", "targets": [name], "experts": "peft", "rank": 1}
        try:
            adapt(arch, spec_of(one))
            kept.append(name)
        except InputError:
            dropped.append(Unread(name, "target", f"matches no module of {arch.model_type}", True))
    if not kept:
        raise InputError("targets", ",".join(names), f"names of modules that {arch.model_type} has")
    return {**request, "targets": kept}, dropped


def _dataset(run: Mapping[str, Any]) -> dict[str, Any]:
    """The fact about the data set, where its size is known."""
    name = run.get("train_data")
    if not isinstance(name, str):
        return {}
    try:
        return {"dataset": facts.dataset(name).name}
    except PlannerError:
        return {}


def _trainer(kind: str, request: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[Notice, ...]]:
    """The profile that a config's own trainer has, and the word about it."""
    name = profile_of(kind, request.get("kernels"))
    if name is None:
        return {}, ()
    text = (
        f"Memory and time are of a step as {name} runs it (--trainer {name}), since the config is "
        f"{trainer(kind).label}'s; --trainer names another, and plain none."
    )
    return {"trainer": name}, (Notice("trainer-of-config", text),)


def import_config(
    config: str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None, gpus: int | None = None
) -> Imported:
    """A trainer's config as a request: an adapter_config.json (or its folder), or the YAML of TRL, Axolotl,
    LLaMA-Factory or torchtune.

    `format` names the trainer where the file does not show it; `gpus` says on how many GPUs the file is launched,
    which most files leave open (1 otherwise). Raises InputError for what cannot be read or planned.
    """
    place = None if isinstance(config, Mapping) else os.fspath(config)
    data = dict(config) if isinstance(config, Mapping) else read_file(config)
    if format is not None and format not in FORMATS:
        raise InputError("format", format, f"one of {', '.join(FORMATS)}", hint(format, FORMATS).strip())
    kind = format or format_of(data, place or "a mapping")
    count = 1 if gpus is None else gpus
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError("gpus", gpus, "a whole number of at least 1")
    read = FORMATS[kind]
    fields = Fields(data)
    run: dict[str, Any] = {}
    if read is None:
        request = _from_peft(data)
        fields.asked |= _PEFT_READ
    else:
        request, run = read(fields, count, _model_type, _deepspeed(place))
    request = {name: value for name, value in request.items() if value is not None}
    if read is not None and not request.get("model"):
        raise InputError("model", None, "the model that the config trains")
    request, dropped = _matching(request)
    profile, said = _trainer(kind, request)
    if request.get("autocast") and str(request.get("sharding")).startswith("zero") and "trainer" in profile:
        del request["autocast"]  # the file's word is DeepSpeed's: the profile has what its engine does
    notices = [*fields.notices, *said]
    if read is not None and gpus is None and request.get("sharding"):
        text = "The file says how states are spread, but not over how many GPUs: 1 is taken; give --gpus."
        notices.append(Notice("gpus-assumed", text))
    if run.get("full"):
        notices.append(Notice("full-config", FULL))
    epochs = run.get("epochs_given")
    if epochs is not None and epochs != request.get("epochs"):
        text = f"The plan has whole epochs: {request['epochs']} instead of {epochs:g}."
        notices.append(Notice("epochs-rounded", text))
    if (run.get("max_steps") or -1) > 0 and kind != "trl-grpo":
        text = f"The run stops at {run['max_steps']} steps; the plan counts the whole of the data."
        notices.append(Notice("steps-not-planned", text))
    return Imported(
        kind, place, {**request, **profile, **_dataset(run)},
        {name: value for name, value in run.items() if value is not None and (name, value) != ("full", False)},
        (*_unread(data, fields.asked, kind), *dropped), tuple(notices),
    )  # fmt: skip
