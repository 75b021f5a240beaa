"""What a review looks for: one short function a question, each finding with its reason, its source and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from .. import facts, units
from ..adapter.peft_rules import PEFT_VERSION
from ..dataclass import dataclass
from ..information import ARTICLE
from ..moments import FIT_WORDS
from ..plan import Plan
from ..remedies import typed
from ..schema import Architecture, Source
from ..setup import Setup
from .trainers import trainer
from .training import Rate, Training

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LARGE_BATCH = 128  # the largest at which the law and most sweeps were run
FAR = 16  # a rank so many times what the data need is far from it
FAR_RATE = 10.0
MLP = ("mlp", "expert", "shared_expert")


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong or should be known: what is there, why it matters, and what to do."""

    code: str
    severity: Severity
    message: str
    reason: str
    advice: str
    source: Source

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "source": dict(vars(self.source))}


@dataclass(frozen=True)
class Case:
    """What is reviewed: the run, the law's rate for it, and what of the file is beside the plan."""

    training: Training
    law: Rate | None
    run: dict[str, Any]
    format: str | None

    @property
    def plan(self) -> Plan:
        """The estimate."""
        return self.training.plan

    @property
    def arch(self) -> Architecture:
        """The model."""
        return self.training.arch

    @property
    def other_stage(self) -> str | None:
        """A stage of training that no law here covers (preferences, reward models ...), by the trainer's word."""
        stage = self.run.get("stage")
        return None if stage in (None, "sft", "pt") else str(stage)

    def roles(self) -> set[str]:
        """Roles of what is adapted."""
        return {item.matrix.role for item in self.training.adapted}


def derived(locator: str) -> Source:
    """A finding that follows from the model's config and the counts alone."""
    return Source(
        "lora-plan, from the model's config", "https://huggingface.co/docs/peft", locator, "2026", "derived"
    )


def law_source(case: Case) -> Source:
    """Where the learning rate's law comes from."""
    return next(source for use, source in case.plan.sources if use == "learning rate")


def attention_only(case: Case) -> Iterator[Finding]:
    """LoRA on attention alone does worse than on the MLP, also at equal parameters."""
    if case.roles() & set(MLP) or not any(m.role in MLP for m in case.arch.matrices):
        return
    sets = case.plan.adapter.layer_sets
    yield Finding(
        "attention-only", "warning",
        f"Only attention is adapted: {case.plan.adapter.params:,} parameters; with the MLP they would be "
        f"{sets['attention'] + sets['mlp']:,} at this rank.",
        "Attention-only LoRA did worse than MLP-only or all layers, also with a higher rank to match the parameters; "
        "adding attention to the MLP brought little more.",
        "Adapt every linear layer: --layers all, all-linear in PEFT's words.", ARTICLE,
    )  # fmt: skip


def experts_frozen(case: Case) -> Iterator[Finding]:
    """A mixture of experts holds most of its parameters in experts."""
    experts = [m for m in case.arch.matrices if m.kind == "experts"]
    if not experts or "expert" in case.roles():
        return
    share = sum(m.params for m in experts) / case.arch.params
    names = ", ".join(dict.fromkeys(f"experts.{m.leaf}" for m in experts))
    yield Finding(
        "experts-frozen", "warning",
        f"No expert is trained: {share:.0%} of the model's parameters stay as they are.",
        f"Experts are tensors of three dimensions, which PEFT {PEFT_VERSION} adapts only where target_parameters "
        "names them. Where the MLP is left out, LoRA falls behind.",
        f"Name them: target_parameters {names}; or take a trainer that has pairs for experts.", ARTICLE,
    )  # fmt: skip


def rate_apart(case: Case, run: str, otherwise: str) -> Iterator[Finding]:
    """The rate against the law's for this `run` (in words); `otherwise` is what could change instead of the rate."""
    given, law = case.run.get("lr"), case.law
    if case.other_stage is not None:
        yield Finding(
            "other-stage", "note", f"The run is of the kind {case.other_stage}; its learning rate is not judged.",
            "The law was fitted on supervised training.", "Sweep the rate.", law_source(case),
        )  # fmt: skip
        return
    if given is None or law is None or law.low is None or law.high is None or law.low <= given <= law.high:
        return
    times = given / law.value
    word = f"{times:.3g} times" if times > 1 else f"1/{1 / times:.3g} of"
    yield Finding(
        "learning-rate", "error" if max(times, 1 / times) > FAR_RATE else "warning",
        f"The learning rate {given:g} is {word} the law's {law.value:.2g} for {run}; the best lies within "
        f"{law.low:.2g} to {law.high:.2g}.",
        law.why, f"Start at {law.value:.2g}{otherwise}.", law_source(case),
    )  # fmt: skip


def learning_rate(case: Case) -> Iterator[Finding]:
    """The rate against the law's, for this alpha, batch and number of steps."""
    given, law, spec = case.run.get("lr"), case.law, case.training.spec
    # With one rate for A and B the best one goes with 1 / sqrt(alpha): the alpha that this rate would fit.
    fits = spec.alpha / (given / law.value) ** 2 if given and law else 0.0
    run = f"rank {spec.rank}, alpha {spec.alpha:g} and {case.training.batch} sequences a step"
    return rate_apart(case, run, f"; or set alpha to about {fits:.2g}" if 1 <= fits <= 1024 else "")


def alpha_and_rank(case: Case) -> Iterator[Finding]:
    """With alpha in proportion to the rank, the best rate falls as the rank grows."""
    spec = case.training.spec
    if spec.use_rslora or spec.alpha == 32 or spec.rank < 64 or spec.alpha < spec.rank:
        return
    yield Finding(
        "alpha-grows-with-rank", "note",
        f"Alpha {spec.alpha:g} at rank {spec.rank}: a scale of {spec.alpha / spec.rank:g}, as at any rank.",
        "With the scale alpha / rank and a fixed alpha the best learning rate hardly depends on the rank; with alpha "
        f"in proportion to it, another rank needs another rate (here {math.sqrt(32 / spec.alpha):.2g} times that of "
        "alpha 32).",
        "Keep alpha at 32 while the rank is tried.", facts.rate_contexts()["alpha"].source,
    )  # fmt: skip


def large_batch(case: Case) -> Iterator[Finding]:
    """LoRA loses more than full fine-tuning at large batches."""
    if case.training.task == "rl" or case.other_stage or case.training.batch <= LARGE_BATCH:
        return
    yield Finding(
        "large-batch", "warning", f"{case.training.batch} sequences a step.",
        "LoRA loses more than full fine-tuning as batches grow, whatever the rank: the product of two matrices is "
        "harder to optimise than one.",
        f"At most {LARGE_BATCH}, better 32, and more steps.", ARTICLE,
    )  # fmt: skip


def room(case: Case) -> Iterator[Finding]:
    """The rank against what the data need."""
    cap, spec = case.plan.capacity, case.training.spec
    if cap.verdict is None:
        yield Finding(
            "no-data-size", "note", "How much there is to learn is not known, and so neither the rank that it needs.",
            "Capacity is compared with the loss tokens, or the episodes, of the data.",
            "Give --dataset, --tokens or --episodes.", ARTICLE,
        )  # fmt: skip
    elif cap.verdict == "exceeded":
        better = f"rank {cap.required_rank}" if cap.required_rank else "no rank"
        yield Finding(
            "capacity-exceeded", "warning",
            f"The data hold {cap.utilisation or 0:.3g} times what rank {spec.rank} can.",
            f"At {cap.bits_per_param:g} bits a parameter {better} would hold them; beyond that LoRA falls behind "
            "full fine-tuning.",
            f"Take {better}, or full fine-tuning.", facts.capacities()["knowledge"].source,
        )  # fmt: skip
    elif cap.required_rank is not None and spec.rank >= FAR * cap.required_rank:
        yield Finding(
            "rank-far-above", "note",
            f"Rank {spec.rank} is {spec.rank / cap.required_rank:.3g} times the {cap.required_rank} that data need.",
            f"At {cap.bits_per_param:g} bits a parameter {cap.utilisation or 0:.2%} of the capacity is used. A high "
            "rank does no harm to the loss, but costs memory, time and storage.",
            f"Rank {min(spec.rank, max(8, 2 ** math.ceil(math.log2(2 * cap.required_rank))))} would be ample.",
            facts.capacities()["knowledge"].source,
        )  # fmt: skip


def tied(case: Case) -> Iterator[Finding]:
    """An adapter or a copy on a tied matrix unties it."""
    touched = {
        item.matrix.leaf for item in case.training.adapted if item.matrix.role in ("unembedding", "embedding")
    }
    saved = {case.arch.matrices[i].leaf for i in case.training.whole.matrices
             if case.arch.matrices[i].role in ("unembedding", "embedding")}  # fmt: skip
    if not case.arch.tied_embeddings or not touched | saved:
        return
    what = " and ".join(sorted(touched | saved))
    yield Finding(
        "tied-embeddings", "warning", f"{what} shares its weights with another matrix, and is trained apart from it.",
        "Embedding and unembedding are one tensor in this model: merging the adapter unties them, and some servers "
        "then load the wrong one.",
        "Leave it out, or untie before training and save both.", derived("tie_word_embeddings"),
    )  # fmt: skip


def schedule(case: Case) -> Iterator[Finding]:
    """The law was fitted at a constant rate."""
    name = case.run.get("schedule")
    if name in (None, "constant", "constant_with_warmup") or case.law is None or case.other_stage:
        return
    yield Finding(
        "schedule", "note", f"The rate follows {name}, not a constant.",
        "The law was fitted at a constant rate without warm-up: under a decay to zero the mean rate is about half "
        "the peak, so that the best peak lies higher, by a factor that was not measured here.",
        "Take a constant rate, or sweep a little above the law's.", law_source(case),
    )  # fmt: skip


def beyond_context(case: Case) -> Iterator[Finding]:
    """Sequences longer than the model's positions."""
    most = case.arch.max_position
    if most and case.plan.workload.seq_len > most:
        yield Finding(
            "beyond-context", "error", f"Sequences of {case.plan.workload.seq_len:,} tokens; the model has {most:,} "
            "positions.", "Positions beyond were never trained.", f"At most {most:,}.",
            derived("max_position_embeddings"),
        )  # fmt: skip


def thin_matrix(case: Case) -> Iterator[Finding]:
    """A rank above a matrix's smaller side."""
    for notice in case.plan.warnings:
        if notice.code == "rank-above-matrix":
            why = "A product of two matrices has at most the rank of its smaller side."
            advice = "Take a lower rank there (rank_pattern)."
            yield Finding("rank-above-matrix", "warning", notice.message, why, advice, derived("shapes"))
        if notice.code == "refused-by-peft":
            yield Finding("refused-by-peft", "error", notice.message, "PEFT raises an error on these modules.",
                          "Leave them out (exclude_modules).", trainer("peft").source)  # fmt: skip


def head_past_its_adapter(case: Case) -> Iterator[Finding]:
    """TRL refuses a pair on the unembedding; fused losses read its weight past one."""
    adapted = {
        item.matrix.leaf for item in case.training.adapted if item.matrix.role in ("unembedding", "embedding")
    }
    fused = case.training.setup.kernels in ("liger", "unsloth")
    refused = case.format in ("trl-sft", "trl-grpo")
    if not adapted or not (fused or refused):
        return
    yield Finding(
        "head-adapter", "error", f"{' and '.join(sorted(adapted))} has an adapter.",
        "TRL computes its loss from the unembedding's weight directly and refuses an adapter there." if refused else
        f"The fused loss of {case.training.setup.kernels} reads the weight past the adapter, which learns nothing.",
        "Take it out of the targets, or train it in full (modules_to_save).",
        trainer("trl-sft" if refused else "unsloth").source,
    )  # fmt: skip


def weights_of_32_bits(case: Case) -> Iterator[Finding]:
    """Frozen weights held in float32 where 16 bits would do."""
    setup, arch = case.training.setup, case.arch
    if setup.weight_dtype != "float32" or setup.method == "qlora" or case.format is None:
        return
    yield Finding(
        "weights-of-32-bits", "warning",
        f"The frozen weights are held in float32: {units.byte_size(4 * arch.params)} instead of "
        f"{units.byte_size(2 * arch.params)}.",
        "They are not updated, so that the digits beyond bfloat16 serve nothing where the model was published in it.",
        "Load them in bfloat16 (dtype, bf16); the adapter stays in float32.", derived("parameters x 4 bytes"),
    )  # fmt: skip


def does_not_fit(case: Case, method: str, advice: str) -> Iterator[Finding]:
    """Whether a method's memory fits on the GPU that was named."""
    found = (case.plan.memory or {}).get(method)
    if not found or found.get("fits") is not False:
        return
    yield Finding(
        "does-not-fit", "error",
        f"A GPU needs about {units.byte_size(found['per_gpu_bytes'])}, which {FIT_WORDS[found['fit']]}.",
        f"{case.training.setup.micro_batch} x {case.plan.workload.seq_len:,} tokens in a micro-step; parts: "
        + ", ".join(f"{name} {units.byte_size(size)}" for name, size in found["parts"].items() if size) + ".",
        _what_would(found, case.training.setup) or advice, derived("memory (analytic)"),
    )  # fmt: skip


def _what_would(found: Mapping[str, Any], setup: Setup) -> str:
    """The changes with which a run would fit, as `estimate` takes them, or on how many GPUs; "" where none would."""
    if others := found["would_fit"]:
        said = []
        for other in others[:2]:
            micro = (
                setup.micro_batch
                * setup.accumulation
                // other["options"].get("accumulation", setup.accumulation)
            )
            size = units.byte_size(other["per_gpu_bytes"])
            said.append(f"{typed(other['options'])} ({micro} in a micro-step, {size})")
        return f"{' or '.join(said)} would fit."
    fewest = (found.get("fewest") or {}).get("gpus")
    return f"{fewest} GPUs would hold it." if fewest and fewest > setup.gpus else ""


def memory(case: Case) -> Iterator[Finding]:
    """Whether the run fits on the GPU that was named."""
    method = "qlora" if case.training.setup.method == "qlora" else "lora"
    return does_not_fit(case, method, "A smaller model, shorter sequences or a larger GPU.")


def reinforcement(case: Case) -> Iterator[Finding]:
    """High ranks are no use in RL, where an episode brings at most a bit."""
    spec = case.training.spec
    if case.training.task == "rl" and spec.rank > 64:
        yield Finding(
            "rl-rank", "note", f"Rank {spec.rank} for reinforcement learning.",
            "An episode brings about a bit, so that ranks from 1 on did as well; collapse was reported above 64.",
            "Rank 1 to 32.", ARTICLE,
        )  # fmt: skip


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    memory, head_past_its_adapter, beyond_context, learning_rate, attention_only, experts_frozen, large_batch, room,
    tied, weights_of_32_bits, thin_matrix, alpha_and_rank, schedule, reinforcement,
)  # fmt: skip
