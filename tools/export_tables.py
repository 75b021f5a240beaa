"""Tables of docs/exports.md, made by trying: what is exported, what each trainer can express, what a review asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from planner import export
from planner.errors import PlannerError
from planner.exports.checks import CHECKS
from planner.exports.checks_full import FULL_CHECKS
from planner.exports.imported import FORMATS
from planner.exports.registry import TARGETS
from planner.exports.trainers import trainer

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
EXPERTS = "experts.gate_up_proj,experts.down_proj"
BASE: dict[str, Any] = {
    "model": MODEL, "layers": "attention,mlp", "dataset": "alpaca", "batch": 16, "accumulation": 1,
}  # fmt: skip
# What a plan may ask for: the options, and what they are beside the plain plan.
TRIED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("adapter on attention and the MLP", {}),
    ("adapter on the unembedding too", {"layers": "all"}),
    ("some layers only", {"layers_to_transform": "0-7"}),
    ("a rank of its own for a module", {"rank_pattern": "q_proj=8"}),
    ("an alpha of its own for a module", {"alpha_pattern": "q_proj=8"}),
    ("alpha that is no whole number", {"alpha": 12.5}),
    ("experts as parameters (one pair for gate and up)", {
        "model": "Qwen/Qwen3-30B-A3B", "layers": "attention", "target_parameters": EXPERTS}),
    ("experts at rank over active ones", {
        "model": "Qwen/Qwen3-30B-A3B", "layers": "attention", "target_parameters": EXPERTS,
        "rank_pattern": "experts.gate_up_proj=4,experts.down_proj=4"}),
    ("experts as Tinker has them", {"model": "Qwen/Qwen3-30B-A3B", "layers": "all", "experts": "shared-outer"}),
    ("rsLoRA", {"use_rslora": True}),
    ("DoRA", {"variant": "dora"}),
    ("modules trained in full", {"modules_to_save": "lm_head"}),
    ("no adapter: full fine-tuning", {"layers": None, "full": True}),
    ("dropout", {"lora_dropout": 0.05}),
    ("base in NF4", {"quantize": "nf4"}),
    ("base in NF4, scales quantised too", {"quantize": "nf4-double"}),
    ("base in int8", {"quantize": "int8"}),
    ("8-bit AdamW", {"optimizer": "adamw-8bit"}),
    ("sequences packed together", {"packing": "packed", "attention_kernel": "flash"}),
    ("padded sequences", {"packing": "padded"}),
    ("checkpointing with offload", {"checkpointing": "layer-offload"}),
    ("several GPUs, DDP", {"gpus": 8, "sharding": "ddp"}),
    ("FSDP", {"gpus": 8, "sharding": "fsdp"}),
    ("ZeRO 1", {"gpus": 8, "sharding": "zero1"}),
    ("ZeRO 3", {"gpus": 8, "sharding": "zero3"}),
    ("tensor parallelism", {"gpus": 8, "tensor_parallel": 8}),
    ("a cosine instead of a constant rate", {"schedule": "cosine"}),
    ("episodes of reinforcement learning", {"dataset": None, "episodes": 32_000}),
)  # fmt: skip


def row(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(head: list[str], body: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    return "\n".join([row(head), row(["---"] * len(head)), *(row(cells) for cells in body)]) + "\n"


def targets() -> str:
    """What can be exported."""
    body = []
    for found in TARGETS.values():
        read = "its documentation"
        if found.id != "deepspeed":
            facts = trainer(found.id)
            read = f"[{facts.label}]({facts.source.url}), {facts.source.locator}"
        usual = ", ".join(f"{name} {str(value).lower()}" for name, value in found.usual.items())
        body.append(
            [f"`{found.id}`", found.title, ", ".join(f"`{name}`" for name in found.files), read, usual or "-"]
        )
    return table(
        ["target", "for", "files", "names of options read from", "taken where nothing is said"], body
    )


def can(target: str, options: dict[str, Any]) -> str:
    """Whether a target can express a plan with these options, or settles them by itself."""
    asked = {name: value for name, value in {**BASE, **options}.items() if value is not None}
    if target == "trl-grpo" and "episodes" not in asked:
        asked = {**asked, "episodes": 32_000}
        asked.pop("dataset", None)
    try:
        done = export(target, **asked)
    except PlannerError:
        return "-"
    own = next((notice.message for notice in done.notices if notice.code == "trainers-own"), "")
    return "its own" if any(f"{name} {value}" in own for name, value in options.items()) else "yes"


def abilities() -> str:
    """What each trainer's config can express, by trying."""
    names = [name for name in TARGETS if name not in ("accelerate", "deepspeed", "peft")]
    body = [[what, *(can(name, options) for name in names)] for what, options in TRIED]
    return table(["plan", *(f"`{name}`" for name in names)], body)


def formats() -> str:
    """What can be imported."""
    body = [[f"`{name}`", trainer(name).label, str(len(trainer(name).options))] for name in FORMATS]
    return table(["format", "read from", "options known"], body)


def checks() -> str:
    """What a review asks."""
    body = [[f"`{check.__name__}`", str(inspect.getdoc(check)).split("\n")[0]] for check in CHECKS]
    return table(["check", "what it holds"], body)


def full_checks() -> str:
    """What a review asks of full fine-tuning."""
    body = [[f"`{check.__name__}`", str(inspect.getdoc(check)).split("\n")[0]] for check in FULL_CHECKS]
    return table(["check", "what it holds"], body)


TABLES: dict[str, Callable[[], str]] = {
    "targets": targets, "abilities": abilities, "formats": formats, "checks": checks,
    "full checks": full_checks,
}  # fmt: skip
