"""What an objective asks of a set-up, and what it excludes."""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import InputError

# Sequences that an example of the batch is, for the objectives that see more than one.
SEQUENCES: dict[str, int] = {"dpo": 2, "orpo": 2}
COMPARED = ("dpo", "kto")  # objectives that hold what is trained against a reference inside the step
# Of preferences a loss keeps each label's log-probability: of logits in tiles, or of all of them, by one kernel, a
# sequence at a time, or together in float32; or it is Megatron's, which hands on each token's loss.
OF_PREFERENCES = (
    "tiled", "fused", "by-sequence", "by-sequence-unlogged", "by-sequence-copied", "full", "full-freed", "wide-fused",
)  # fmt: skip


class Selected(NamedTuple):
    """What KTO by TRL before 1.9 holds of logits beside what its loss keeps: copies of those of answers that were
    wanted and of those that were not, through the reference's passes; the reference's own (`again`); those of the
    `others`, by which it estimates a divergence, while the next pass runs; whether log-probabilities are of a copy of
    all but the last positions (`copied`); and whether entropies are `logged` of one."""

    again: bool = False
    others: bool = False
    copied: bool = False
    logged: bool = False


# By loss; of TRL 0.8 to 0.14, 0.15, 0.16 to 1.5, 1.6, 1.7 and 1.8 (kto_trainer.py, forward and _compute_loss).
SELECTED = {
    "full-selected": Selected(again=True, others=True),
    "by-sequence-selected-others": Selected(again=True, others=True),
    "by-sequence-selected": Selected(again=True),
    "by-sequence-selected-copied": Selected(copied=True),
    "by-sequence-selected-once": Selected(),
    "by-sequence-selected-logged": Selected(logged=True),
}
# Of ORPO by TRL up to 0.14 (and DPO by 0.9 to 0.11) and from 0.15 on: also what each token of the chosen answers
# says, as in SFT.
CHOSEN = ("full-chosen", "by-sequence-chosen")
OF_THESE_ALONE = (
    "by-sequence", "by-sequence-unlogged", "by-sequence-copied", "by-sequence-in-place", "full-freed",
    "sliced-fused", *SELECTED, *CHOSEN,
)  # fmt: skip
# Of completions: of their logits in tiles, of all of theirs by one kernel or operation by operation, or of those of
# prompts too, by one kernel: divided before, whose gradient takes their place (verl), or made float32 (OpenRLHF).
OF_ALL_LOGITS = ("scaled-fused", "scaled-in-place-fused", "widened-fused")
OF_COMPLETIONS = ("tiled", "fused", "by-sequence", "by-sequence-in-place", *OF_ALL_LOGITS, "sliced-fused")
# The share of a GPU that a vLLM beside the trainer takes where nobody says: vllm_gpu_memory_utilization of TRL 1.16
# (trainer/grpo_config.py), gpu_memory_utilization of Unsloth's FastLanguageModel.from_pretrained (models/loader.py).
VLLM_SHARES = {"colocate": 0.3, "shared": 0.5}
SHARES_GPU = tuple(VLLM_SHARES)
OF_SHARE = ("vllm_memory", "vllm_sleep", "states_asleep")  # of a vLLM that takes one
NOT_MODELLED = ("reward", "ppo", "rloo", "simpo", "cpo", "ipo")  # objectives that are known, not modelled


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def check_objective(setup: Any) -> None:
    """Raise InputError for what an objective excludes, naming the field."""
    _check_completions(setup)
    if setup.objective == "sft":
        if setup.loss in OF_THESE_ALONE:
            raise InputError(
                "loss", setup.loss, "another with objective sft", "It is of preferences and GRPO."
            )
        return
    known: tuple[str, ...] = OF_COMPLETIONS if setup.objective == "grpo" else OF_PREFERENCES
    if setup.objective == "kto":
        known = (*known, *SELECTED)
    if setup.objective == "orpo":
        known = ("full", *CHOSEN)
    if setup.objective == "dpo":
        known = (*known, CHOSEN[0])
    if setup.loss not in known:
        others = ", full that of LLaMA-Factory, wide-fused Megatron-Core's"
        if setup.objective == "grpo":
            others = ", scaled-fused verl's since 0.9, scaled-in-place-fused before, sliced-fused padded"
        before = "by-sequence that before (-copied: DPO's of 0.29 to 1.5, -unlogged: before; -selected: KTO's to 1.8)"
        told = f"Tiled is TRL's from 1.15 on, fused that of 1.14, {before}{others}."
        if setup.objective == "orpo":
            told = "Full is LLaMA-Factory's, by-sequence-chosen TRL's from 0.15 on, full-chosen that before."
        raise InputError("loss", setup.loss, f"{_listed(known)} with objective {setup.objective}", told)
    for name in ("pipeline_parallel", "sequence_parallel"):
        if getattr(setup, name) > 1:
            label = name.replace("_", "-")
            raise InputError(label, getattr(setup, name), f"1 with objective {setup.objective}")
    if setup.packing == "packed":
        raise InputError("packing", "packed", f"full or padded with objective {setup.objective}")


def _check_completions(setup: Any) -> None:
    """What goes with completions that are sampled, and with no other objective."""
    prompt, length = setup.prompt_tokens, setup.seq_len
    if isinstance(prompt, bool) or not isinstance(prompt, int) or prompt < 0:
        raise InputError("prompt-tokens", prompt, "a whole number of at least 0")
    if setup.objective != "grpo":
        if prompt:
            raise InputError("prompt-tokens", prompt, f"0 with objective {setup.objective}: it is for grpo")
        if setup.generation != "transformers":
            raise InputError("generation", setup.generation, "objective grpo beside it")
        _check_engine(setup)
        if setup.objective not in COMPARED and setup.reference != "base":
            raise InputError("reference", setup.reference, "objective dpo, kto or grpo beside it")
        if setup.reference == "none":
            raise InputError("reference", "none", f"base or precomputed with objective {setup.objective}")
        return
    if prompt >= length:
        raise InputError("prompt-tokens", prompt, f"fewer than the {length} tokens of a sequence")
    if setup.reference == "precomputed":
        raise InputError("reference", "precomputed", "none or base with objective grpo")
    _check_engine(setup)


def _check_engine(setup: Any) -> None:
    """What goes with a vLLM on the GPUs that train, and with one on others."""
    mean, allowed = setup.mean_completion, setup.seq_len - max(1, setup.prompt_tokens)
    if mean is not None:
        if setup.objective != "grpo":
            raise InputError("mean-completion", mean, "objective grpo beside it")
        if isinstance(mean, bool) or not isinstance(mean, int) or not 1 <= mean <= allowed:
            raise InputError(
                "mean-completion", mean, f"from 1 to the {allowed} tokens that a completion may have"
            )
    if setup.vllm_gpus != 1 and setup.generation != "server":
        raise InputError("vllm-gpus", setup.vllm_gpus, "generation server beside it")
    together, own = setup.vllm_tensor_parallel, "vllm_gpus" if setup.generation == "server" else "gpus"
    if together > 1 and setup.generation not in ("server", "colocate"):
        raise InputError("vllm-tensor-parallel", together, "generation server or colocate beside it")
    if together > 1 and getattr(setup, own) % together:
        raise InputError(
            "vllm-tensor-parallel",
            together,
            f"a divisor of the {getattr(setup, own)} of --{own.replace('_', '-')}",
        )
    share = setup.vllm_memory
    if setup.generation not in SHARES_GPU:
        for name in OF_SHARE:
            if (value := getattr(setup, name)) not in (None, False, "none"):
                raise InputError(
                    name.replace("_", "-"), value, f"generation {' or '.join(SHARES_GPU)} beside it"
                )
        return
    if (
        isinstance(share, bool)
        or not isinstance(share, (int, float, type(None)))
        or not 0 < (1 if share is None else share) <= 1
    ):
        raise InputError("vllm-memory", share, "a share of the GPU's memory, above 0 and at most 1")
    if setup.quantize == "int8":
        raise InputError(
            "quantize",
            "int8",
            f"none, nf4 or fp8 with generation {setup.generation}",
            "vLLM has no 8 bits of bitsandbytes.",
        )
    if setup.generation == "shared" and setup.method == "full":
        raise InputError(
            "generation",
            "shared",
            "lora or qlora beside it, or generation colocate",
            "The trainer reads vLLM's frozen weights.",
        )
    if setup.generation == "shared" and setup.gpus > 1:
        raise InputError("gpus", setup.gpus, "1 with generation shared", "Unsloth's vLLM runs on one GPU.")
