"""Training steps that are run on a real GPU (`tools/gpu_steps.py`) and predicted (`tools/compare_gpu.py`): a model of
the catalogue, who runs the step, and the options of `lora-plan estimate` that say how.

Weights are random, so that nothing is downloaded: neither memory nor time depends on their values. `CONFIG` changes a
published config, where a whole model is more than the GPU has; everything else is as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LLAMA, QWEN, MISTRAL = "meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-7B", "mistralai/Mistral-7B-v0.3"
SMALL = ("Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-1.7B")
# One of each kind of code that transformers has for a layer, of a size that takes seconds.
FAMILIES = (
    "Qwen/Qwen3-4B", "google/gemma-2-2b", "google/gemma-3-1b-pt", "microsoft/Phi-3.5-mini-instruct",
    "allenai/OLMo-2-0425-1B", "ibm-granite/granite-3.3-2b-instruct", "EleutherAI/pythia-1.4b",
    "bigscience/bloom-1b1", "facebook/opt-1.3b", "bigcode/starcoder2-3b", "HuggingFaceTB/SmolLM3-3B",
    "LiquidAI/LFM2-1.2B", "microsoft/phi-2", "google/gemma-7b", "THUDM/glm-4-9b", "tiiuae/falcon-7b",
    "stabilityai/stablelm-2-1_6b", "Qwen/Qwen2.5-3B", "internlm/internlm2_5-7b",
    "CohereLabs/c4ai-command-r7b-12-2024", "google/gemma-4-E2B-it", "openai-community/gpt2-large",
    "arcee-ai/AFM-4.5B",
)  # fmt: skip
MIXTURES = ("allenai/OLMoE-1B-7B-0924", "Qwen/Qwen1.5-MoE-A2.7B", "deepseek-ai/DeepSeek-V2-Lite",
            "ibm-granite/granite-3.1-3b-a800m-instruct", "openai/gpt-oss-20b", "Qwen/Qwen3-30B-A3B")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A step: `options` are those of `lora-plan estimate`; `changes` those of the model's config."""

    model: str
    options: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called in the record."""
        said = [f"{name}={value}" for name, value in {**self.options, **self.changes}.items()]
        return " ".join((self.model, *said))


def _case(
    model: str, batch: int, seq_len: int, /, changes: dict[str, Any] | None = None, **options: Any
) -> Case:
    defaults = {"method": "lora", "rank": 16, "layers": "all-linear", "experts": "peft"}
    if options.get("method") == "full":
        defaults = {}
    return Case(model, {**defaults, "batch": batch, "seq_len": seq_len, **options}, changes or {})


def _plain() -> Iterator[Case]:
    """A bare loop, one thing after another changed."""
    layer: dict[str, Any] = {"checkpointing": "layer"}
    yield _case(LLAMA, 1, 1024)
    yield _case(LLAMA, 2, 2048)
    yield _case(LLAMA, 4, 2048, **layer)
    yield _case(LLAMA, 1, 16384, **layer)
    yield _case(LLAMA, 16, 512, **layer)
    yield _case(LLAMA, 1, 1024, rank=256)
    yield _case(LLAMA, 1, 2048, rank=8, layers="attention")
    yield _case(LLAMA, 1, 1024, attention_kernel="eager")
    yield _case(LLAMA, 2, 1024, attention_kernel="eager", **layer)
    yield _case(LLAMA, 2, 1024, variant="dora")
    yield _case(LLAMA, 2, 1024, variant="dora", **layer)
    yield _case(LLAMA, 2, 2048, packing="padded", **layer)
    yield _case(LLAMA, 2, 1024, lora_dropout=0.1)
    yield _case(LLAMA, 4, 1024, accumulation=4, rank=128, **layer)
    yield _case(LLAMA, 2, 2048, precision="autocast", **layer)
    yield _case(LLAMA, 2, 1024, autocast=True)
    for optimizer in ("adamw-8bit", "paged-adamw-8bit", "sgd", "lion-8bit"):
        yield _case(LLAMA, 1, 512, rank=256, optimizer=optimizer, **layer)
    for quantize in ("nf4", "nf4-double", "int8"):
        yield _case(LLAMA, 1, 1024, method="qlora", quantize=quantize)
        yield _case(LLAMA, 4, 2048, method="qlora", quantize=quantize, **layer)
    yield _case(LLAMA, 2, 1024, method="full", **layer)
    yield _case(LLAMA, 1, 2048, method="full")
    yield _case(LLAMA, 1, 2048, method="full", optimizer="adamw-8bit", **layer)
    yield _case(LLAMA, 1, 2048, method="full", optimizer="sgd", **layer)
    yield _case(LLAMA, 1, 2048, method="full", optimizer="adafactor", **layer)
    yield _case(LLAMA, 2, 4096, loss="chunked", **layer)
    yield _case(LLAMA, 1, 4096, checkpointing="layer-offload")
    for model in SMALL:
        yield _case(model, 4, 1024)
        yield _case(model, 4, 1024, method="full")
        yield _case(model, 4, 1024, method="full", precision="fp32")
        yield _case(model, 4, 1024, method="full", precision="autocast", **layer)
        yield _case(model, 4, 1024, method="full", optimizer="adamw-8bit")


def _families() -> Iterator[Case]:
    for model in FAMILIES:
        yield _case(model, 2, 1024)
        yield _case(model, 2, 1024, method="full", optimizer="sgd", checkpointing="layer")
    for model in MIXTURES:
        yield _case(model, 2, 1024)
        yield _case(model, 2, 2048, checkpointing="layer")


def _large() -> Iterator[Case]:
    yield _case("microsoft/phi-4", 2, 2048, checkpointing="layer")
    yield _case("Qwen/Qwen2.5-32B", 1, 2048, checkpointing="layer")
    yield _case("Qwen/Qwen2.5-32B", 2, 2048, method="qlora", quantize="nf4", checkpointing="layer")
    yield _case(
        "meta-llama/Llama-3.1-70B",
        1,
        2048,
        method="qlora",
        quantize="nf4",
        checkpointing="layer",
        changes={"num_hidden_layers": 30},
    )
    yield _case("meta-llama/Llama-3.1-70B", 1, 4096, checkpointing="layer", changes={"num_hidden_layers": 20})
    yield _case("mistralai/Mixtral-8x7B-v0.1", 1, 2048, checkpointing="layer", layers="attention")
    yield _case("google/gemma-2-9b", 1, 2048, checkpointing="layer")


def _trainers() -> Iterator[Case]:
    for model in (QWEN, "meta-llama/Llama-3.2-1B"):
        hf: dict[str, Any] = {"trainer": "hf-trainer"}
        yield _case(model, 2, 1024, **hf)
        yield _case(model, 4, 2048, **hf, checkpointing="layer")
        yield _case(model, 4, 1024, **hf, method="qlora", quantize="nf4", checkpointing="layer")
        yield _case(model, 4, 1024, **hf, method="full", checkpointing="layer")
        yield _case(model, 4, 1024, **hf, accumulation=2, checkpointing="layer")
        yield _case(model, 4, 2048, trainer="trl")
        yield _case(model, 4, 1024, trainer="trl", method="qlora", quantize="nf4")
        yield _case(model, 4, 1024, trainer="trl", method="full")
        yield _case(model, 2, 1024, trainer="trl", objective="dpo")
        yield _case(model, 4, 2048, **hf, kernels="liger", loss="chunked", checkpointing="layer")
    yield _case("Qwen/Qwen2.5-0.5B", 8, 512, trainer="trl", objective="grpo", prompt_tokens=256)


def first() -> list[Case]:
    """All cases, those first that a short loan of a GPU should not miss."""
    return [*_plain(), *_trainers(), *_families(), *_large()]
