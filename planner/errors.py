"""The one family of errors: each says what is wrong, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# What values are called by PEFT, transformers, trainers and in speech, without case and punctuation: the choice here.
_ELSEWHERE = {
    "nf4": "4bit int4 4 fp4 bnb4bit bnb qlora loadin4bit bitsandbytes", "int8": "8bit 8 loadin8bit llmint8 bnb8bit",
    "fp32": "float32 float full", "bf16": "bfloat16", "fp16": "float16 half", "autocast": "amp mixed",
    "layer": "true yes on full block gradient unsloth", "none": "false no off",
    "layer-offload": "offload cpu", "all": "cpu everything",
    "time": "speed fast fastest quick", "cost": "price cheap cheapest money usd", "quality": "loss best regret",
    "flash": "flashattention flashattention2 flashattention3 fa fa2 fa3 flashattn kernelscommunityflashattn2",
    "sdpa": "xformers memefficient torch", "ddp": "dp dataparallel multigpu distributed", "fsdp": "fullshard fsdp2",
    "zero3": "deepspeed stage3", "zero2": "stage2 gradop shardgradop", "zero1": "stage1",
    "attention": "attn selfattn qkv qkvo", "mlp": "ffn feedforward experts moe", "unembedding": "lmhead head output",
    "all-linear": "linear alllinear", "adamw": "adam adamwtorch adamwtorchfused adamwfused",
    "adamw-8bit": "adam8bit adamwbnb8bit 8bit", "sgd-momentum": "momentum",
    "hf-trainer": "huggingface hf transformers",
    "trl": "sfttrainer trlsft", "megatron": "megatronlm nemo megatronbridge", "nemo-automodel": "automodel",
    "nemo-2": "nemo2 nemo20", "chunked": "liger ligerloss unsloth flce linearcrossentropy fusedlinearcrossentropy "
    "ligerfusedlinearcrossentropy cce cutcrossentropy", "split": "litgpt", "split-wide": "torchtune",
}  # fmt: skip


def _elsewhere(word: str, choices: Iterable[str]) -> list[str]:
    """The choices that other programs call so: 4bit is nf4."""
    plain = "".join(letter for letter in word.lower() if letter.isalnum())
    return [choice for choice in choices if plain in _ELSEWHERE.get(choice, "").split()]


LOOK_ALIKE = str.maketrans("oil", "011")


def nearest(word: str, choices: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The choices spelled most like `word`, best first, compared without case; where none is, letters that look like
    digits beside a digit are taken for these."""
    import difflib  # a tenth of a cold start, and needed only where something is misspelt

    by_lower = {choice.lower(): choice for choice in choices}
    typed, found = word.lower(), list[str]()
    for spelt in (typed, typed.translate(LOOK_ALIKE)) if any(map(str.isdigit, typed)) else (typed,):
        found = found or difflib.get_close_matches(spelt, list(by_lower), n=count, cutoff=cutoff)
    return [by_lower[key] for key in found]


def hint(
    word: str, choices: Iterable[str], cutoff: float = 0.6, called: Mapping[str, str] | None = None
) -> str:
    """A sentence that names the choices meant or nearest, or nothing where none is near; `called` has the name that
    each spelling stands for."""
    choices = list(choices)
    near = _elsewhere(word, choices) or nearest(word, choices, cutoff=cutoff)
    near = list(dict.fromkeys((called or {}).get(each, each) for each in near))
    return f" Did you mean {' or '.join(near)}?" if near else ""


class PlannerError(Exception):
    """Base class of every error that this package raises on purpose."""

    exit_code = 2


class InputError(PlannerError, ValueError):
    """A value that the user gave is not usable; the message names the field, the value and the remedy."""

    def __init__(self, field: str, found: object, expected: str, remedy: str = "") -> None:
        self.field = field
        self.found = found
        self.expected = expected
        self.remedy = remedy
        shown = repr(found)
        if len(shown) > 80:
            shown = f"{shown[:38]}...{shown[-39:]}"  # of a path, the end tells more than the start
        super().__init__(f"{field}: found {shown}, expected {expected}.{' ' + remedy if remedy else ''}")

    @property
    def args_after_field(self) -> tuple[object, str, str]:
        """What it says but for the field, for whoever knows it by another name."""
        return self.found, self.expected, self.remedy

    def __reduce__(self) -> tuple[type[InputError], tuple[object, ...]]:
        """Its own arguments, for a process that hands it on: an exception has its message alone."""
        return type(self), (self.field, self.found, self.expected, self.remedy)


class ConfigError(PlannerError, ValueError):
    """A model config cannot be read or lacks what its architecture needs."""


class UnknownModelError(PlannerError, LookupError):
    """No catalogue entry, file or hub repository has this name."""


class HubError(PlannerError, OSError):
    """The hub could not give the config: gated, missing, or not reachable."""


class UnsupportedArchitectureError(PlannerError, NotImplementedError):
    """No builder knows this model type yet."""


class FactError(PlannerError, ValueError):
    """A fact in data/ is malformed or has no source."""


class MissingDependencyError(PlannerError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
