"""The list of targets: what can be exported, and which module does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from importlib import import_module
from typing import Any

from ..dataclass import dataclass
from ..errors import InputError, hint
from .training import Training

Build = Callable[[Training], dict[str, str]]


@dataclass(frozen=True)
class Target:
    """A trainer to export for.

    `files` are the names that it may write, the main one first; `language` is the main one's. `usual` are its own
    values for options of the set-up that are not given; `chooses` are options that it settles by itself, whatever the
    plan says; `full` is the precision of the weights that it trains in full, "" where only adapters are written.
    """

    id: str
    title: str
    files: tuple[str, ...]
    language: str
    module: str
    function: str = "export"
    usual: Mapping[str, Any] = field(default_factory=dict)
    chooses: tuple[str, ...] = ("loss", "adapter_dtype")
    full: str = ""

    @property
    def build(self) -> Build:
        """The function that makes the files, imported when it is first used."""
        found: Build = getattr(import_module(f".{self.module}", __package__), self.function)
        return found


_HF = {"autocast": True}
_SERVICE = (
    "gpu", "gpus", "sharding", "shard_size", "precision", "autocast", "tf32", "packing", "checkpointing", "kernels",
    "attention_kernel", "loss", "accumulation", "adapter_dtype",
)  # fmt: skip
_ALL = (
    Target("trl-sft", "TRL, supervised", ("trl-sft.yaml", "trl-sft.sh", "deepspeed.json"), "yaml", "trl", "sft", _HF,
           full="autocast"),
    Target("trl-grpo", "TRL, GRPO", ("trl-grpo.yaml", "trl-grpo.sh", "deepspeed.json"), "yaml", "trl", "grpo", _HF,
           full="autocast"),
    Target("axolotl", "Axolotl", ("axolotl.yaml", "deepspeed.json"), "yaml", "axolotl",
           usual={**_HF, "packing": "packed", "attention_kernel": "flash"}, full="bf16"),
    Target("llamafactory", "LLaMA-Factory", ("llamafactory.yaml", "deepspeed.json"), "yaml", "llamafactory",
           usual=_HF, full="autocast"),
    Target("unsloth", "Unsloth", ("unsloth_train.py",), "python", "unsloth", usual={**_HF, "kernels": "unsloth"},
        chooses=("loss", "adapter_dtype", "attention_kernel")),
    Target("tinker", "Tinker", ("tinker_train.py",), "python", "tinker", chooses=_SERVICE),
    Target("torchtune", "torchtune (wound down)", ("torchtune.yaml",), "yaml", "torchtune",
           usual={"packing": "packed"}),
    Target("megatron", "NeMo Megatron-Bridge", ("megatron_train.py",), "python", "megatron",
           usual={"precision": "bf16-master", "packing": "padded"},
        chooses=("loss", "adapter_dtype", "attention_kernel", "kernels")),
    Target("accelerate", "accelerate (launcher)", ("accelerate.yaml", "deepspeed.json"), "yaml", "accelerate",
           usual=_HF),
    Target("deepspeed", "DeepSpeed", ("deepspeed.json",), "json", "deepspeed", usual={"sharding": "zero2"}),
)  # fmt: skip
PEFT = Target("peft", "PEFT", ("adapter_config.json",), "json", "peft", "files")
TARGETS: Mapping[str, Target] = {target.id: target for target in (PEFT, *_ALL)}


# Whose profile of memory a file is run by, where it has one; PEFT's is no trainer's, GRPO's steps have none.
PROFILES: Mapping[str, str] = {
    "trl-sft": "trl", "axolotl": "axolotl", "llamafactory": "llama-factory", "unsloth": "unsloth",
    "torchtune": "torchtune", "megatron": "megatron",
}  # fmt: skip


def profile_of(target: str, kernels: str | None) -> str | None:
    """The profile of the trainer that runs a file; LLaMA-Factory runs Unsloth's code where it is told to."""
    return "unsloth" if target == "llamafactory" and kernels == "unsloth" else PROFILES.get(target)


def target(name: str) -> Target:
    """The target of this name. Raises InputError naming the nearest."""
    if name not in TARGETS:
        raise InputError("target", name, f"one of {', '.join(TARGETS)}", hint(str(name), TARGETS).strip())
    return TARGETS[name]
