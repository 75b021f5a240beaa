"""What a user should know beside the numbers: each with a code that programs can match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .adapter import Adapted, AdapterSpec
from .adapter.peft_rules import (
    PEFT_VERSION,
    TRANSFORMERS_VERSION,
    converted_names,
    expert_targets,
    refused_names,
)
from .adapter.whole import Whole
from .learning_rate.lookup import LearningRate
from .plan import CapacitySection, FlopsSection, Workload
from .schema import Architecture, Matrix, Notice

# Methods that keep a base quantised while an adapter trains, and the form that is nearest by bytes of 4 and 8 bits.
KEPT = {"bitsandbytes", "gptq", "awq", "hqq", "eetq", "aqlm"}
NEAREST = {4: "nf4", 8: "int8"}
_NAMED = re.compile(r"(?<![a-z])(bnb-4bit|bnb-8bit|gptq|awq|hqq|gguf)(?![a-z])", re.IGNORECASE)
_BITS = re.compile(r"(?<![a-z])(?:int|w)([2-8])(?!\d)|(?<!\d)([2-8])-?bit", re.IGNORECASE)


def stored_notice(name: str, quantization: Mapping[str, Any] | None) -> Notice | None:
    """That a base which is stored quantised is counted in 16 bits, by its config or else by its name; of one in other
    than 4 or 8 bits no form is near."""
    how = quantization.get("label") if quantization and quantization["method"] in KEPT else None
    bits = quantization["bits"] if quantization else None
    if quantization is None and (found := _NAMED.search(name)):
        width = _BITS.search(name)
        how, bits = f"{found[1]} by its name", int(width[1] or width[2]) if width else 4
        how += "" if width else ", 4 bits assumed"
        if found[1].lower() == "gguf":
            text = "GGUF files are for inference: trainers load the weights that they were made from, as is counted."
            return Notice("stored-for-inference", text)
    if how is None:
        return None
    text = f"The base is stored quantised ({how}); time and what fits are of a base in 16 bits."
    if bits in NEAREST:
        text += f" Loaded as it is stored, it is --quantize {NEAREST[bits]} or near it."
    return Notice("stored-quantised", text)


def _route_notices(arch: Architecture) -> Iterator[Notice]:
    if arch.built_by:
        yield Notice(
            "built-by-transformers",
            f"{arch.model_type} has no builder here: its inventory was read from {arch.built_by}, built without "
            "weights.",
        )


MATERIALISED = (
    "PEFT forms the product B A of every expert in each step, whatever the number of tokens: its FLOPs a token fall "
    "as the batch grows. A second adapter on the same model must have pairs on the same bare tensors or on none: "
    f"PEFT {PEFT_VERSION} refuses another set."
)


def _adapter_notices(arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted]) -> Iterator[Notice]:
    thin = sorted(
        {
            item.matrix.leaf
            for item in adapted
            for pair in item.pairs
            if pair.rank > min(pair.d_in, pair.d_out)
        }
    )
    if thin:
        yield Notice(
            "rank-above-matrix",
            f"The rank exceeds the smaller side of {', '.join(thin)}: there the pair holds more parameters than "
            "it can use.",
        )
    if spec.target_regex is not None and spec.experts == "peft" and converted_names(arch):
        yield Notice(
            "expression-by-last-names",
            f"On {arch.model_type} PEFT {PEFT_VERSION} keeps only the last names of what the expression matches: it "
            "holds in every layer.",
        )
    refused = sorted({item.matrix.leaf for item in adapted} & refused_names(arch))
    if refused:
        yield Notice(
            "refused-by-peft",
            f"PEFT {PEFT_VERSION} refuses LoRA on {', '.join(refused)} of {arch.model_type}; another trainer is "
            "needed, or targets without it.",
        )
    yield from _expert_notices(arch, spec, adapted)
    if arch.tied_embeddings and any(item.matrix.role == "unembedding" for item in adapted):
        yield Notice(
            "tied-unembedding",
            "The unembedding shares its weights with the input embedding: its adapter is separate, and merging it "
            "unties the two.",
        )


def _expert_notices(arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted]) -> Iterator[Notice]:
    experts = [item for item in adapted if item.matrix.kind == "experts"]
    if experts and spec.experts == "scaled":
        top_k = experts[0].matrix.experts_active
        if spec.rank % top_k:
            yield Notice(
                "expert-rank-rounded",
                f"Rank {spec.rank} does not divide by the {top_k} active experts: each expert gets rank "
                f"{experts[0].pairs[0].rank}.",
            )
    if experts and spec.experts != "peft" and not expert_targets(arch):
        yield Notice(
            "experts-frozen-by-peft",
            f"PEFT {PEFT_VERSION} on transformers {TRANSFORMERS_VERSION} leaves the experts of "
            f"{arch.model_type} frozen when modules are named; these figures adapt them ({spec.experts}).",
        )
    if spec.experts != "peft" and any(_own_expert(item.matrix) for item in adapted):
        yield Notice(
            "experts-as-modules",
            f"The experts of {arch.model_type} are modules of their own: each has a pair of its own at the full "
            f"rank, as PEFT gives it, also where experts is {spec.experts}.",
        )
    if spec.experts == "peft" and not experts and arch.has_experts:
        yield Notice(
            "experts-not-trained",
            f"With these targets PEFT {PEFT_VERSION} trains no expert of this model.",
        )
    if any(pair.materialised for item in experts for pair in item.pairs):
        yield Notice(
            "experts-materialised",
            MATERIALISED,
        )


def _own_expert(matrix: Matrix) -> bool:
    """Whether this is a matrix of one expert, a module of its own."""
    return matrix.role == "expert" and matrix.kind != "experts"


def _whole_notices(arch: Architecture, spec: AdapterSpec, whole: Whole) -> Iterator[Notice]:
    tied = [
        arch.matrices[i].leaf for i in whole.matrices if arch.matrices[i].role in ("embedding", "unembedding")
    ]
    if arch.tied_embeddings and tied:
        yield Notice(
            "tied-module-saved",
            f"{' and '.join(tied)}: PEFT trains a copy of its own, which unties embedding and unembedding.",
        )
    if spec.use_rslora:
        yield Notice(
            "rslora-scale",
            f"The scale is alpha / sqrt(rank) = {spec.alpha / spec.rank**0.5:.4g} instead of "
            f"{spec.alpha / spec.rank:.4g}; the count is the same.",
        )


def beyond_context(arch: Architecture, seq_len: int) -> tuple[Notice, ...]:
    """That sequences are longer than the model has positions for."""
    if not arch.max_position or seq_len <= arch.max_position:
        return ()
    text = f"Sequences of {seq_len:,} tokens exceed the model's {arch.max_position:,} positions."
    return (Notice("beyond-context", text),)


def _workload_notices(
    arch: Architecture, work: Workload, flops: FlopsSection | None, whole: Whole
) -> Iterator[Notice]:
    yield from beyond_context(arch, work.seq_len)
    if flops is None:
        yield Notice(
            "flops-unavailable", arch.flops_gap or whole.gap or "This architecture has no FLOP formula."
        )
        return
    if flops.lora >= flops.full:
        yield Notice("lora-costs-more", "At this rank a LoRA step costs at least as much as a full one.")
    if flops.counted_full != flops.full:
        yield Notice(
            "counter-overcounts",
            f"torch's FLOP counter shows {flops.counted_full / flops.full - 1:.0%} more for a full step than is "
            "done: it takes the weight gradient of depthwise convolutions for a dense one. Only flops.step has it.",
        )


def _learning_notices(
    spec: AdapterSpec, cap: CapacitySection, lr: LearningRate, fact: object
) -> Iterator[Notice]:
    if cap.verdict == "exceeded":
        rank = f"rank {cap.required_rank} would hold it" if cap.required_rank else "no rank would hold it"
        yield Notice(
            "capacity-exceeded",
            f"The data hold more information than this adapter: expect it to fall behind full fine-tuning; {rank}.",
        )
    if getattr(fact, "kind", None) == "sft" and getattr(fact, "loss_tokens", None) is None:
        yield Notice(
            "loss-tokens-unknown",
            "Nobody counted this dataset's completion tokens: all its tokens are taken to carry loss, which "
            "overstates the information.",
        )
    if lr.reason:
        yield Notice("learning-rate-unknown", f"No learning rate: {lr.reason}.")
        return
    if lr.by_architecture:
        yield Notice(
            "learning-rate-by-architecture",
            f"The config names no model: its type places it in the family {lr.family}.",
        )
    yield from lr.extrapolates
    if spec.alpha_pattern:
        yield Notice(
            "learning-rate-alpha",
            f"The learning rate is that of alpha {spec.alpha:g}: modules of the alpha pattern have another scale.",
        )


def collect(
    found: Iterable[Notice], arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted],
    whole: Whole, work: Workload, flops: FlopsSection | None, cap: CapacitySection, lr: LearningRate, fact: object,
) -> tuple[Notice, ...]:  # fmt: skip
    """Every notice of a plan, in the order in which a reader meets its subject."""
    notes = (Notice("architecture", note) for note in arch.notes)
    return (
        *found,
        *_route_notices(arch),
        *notes,
        *_adapter_notices(arch, spec, adapted),
        *_whole_notices(arch, spec, whole),
        *_workload_notices(arch, work, flops, whole),
        *_learning_notices(spec, cap, lr, fact),
    )
