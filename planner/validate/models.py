"""Loading a model to train: the zoo by name, anything transformers loads by path or hub id, with its tokenizer."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from ..errors import InputError, PlannerError, UnknownModelError, hint
from . import zoo
from .batches import Tokenizer
from .require import require
from .text import Characters


class Library:
    """A tokenizer of transformers behind our two verbs."""

    def __init__(self, tokenizer: Any) -> None:
        self.inner = tokenizer
        self.pad = int(tokenizer.pad_token_id or tokenizer.eos_token_id or 0)

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text, without special tokens."""
        return list(self.inner.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token numbers."""
        return str(self.inner.decode([token for token in tokens if token != self.pad]))


@dataclass(frozen=True)
class Base:
    """A model to start from, its tokenizer, its config and a fingerprint of its weights."""

    model: Any
    tokenizer: Tokenizer
    config: Mapping[str, Any]
    weights: str


def fingerprint(tensors: Sequence[Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of tensors' bytes."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _from_library(name: str, eager: bool) -> tuple[Any, Tokenizer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch = require()
    options: dict[str, Any] = {"dtype": torch.float32}
    if eager:
        options["attn_implementation"] = "eager"
    try:
        return AutoModelForCausalLM.from_pretrained(name, **options), Library(
            AutoTokenizer.from_pretrained(name)
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise UnknownModelError(
            f"model: transformers cannot load {name!r} ({str(error).splitlines()[0]}). "
            f"Models of our own are {', '.join(zoo.ZOO)}.{hint(name, zoo.ZOO)}"
        ) from error


@lru_cache(maxsize=2)
def load(name: str, eager: bool = True) -> Base:
    """The model of this name, once a process. `eager` attention is what torch's counter sees whole."""
    torch = require()
    if name in zoo.ZOO:
        from transformers import AutoModelForCausalLM

        options = {"experts_implementation": "eager"} if zoo.ZOO[name].experts else {}
        model = AutoModelForCausalLM.from_pretrained(
            zoo.make(name), attn_implementation="eager", dtype=torch.float32, **options
        )
        tokenizer: Tokenizer = Characters()
        config: Mapping[str, Any] = zoo.ZOO[name].config()
    else:
        model, tokenizer = _from_library(name, eager)
        config = json.loads(model.config.to_json_string(use_diff=False))
    return Base(model, tokenizer, config, fingerprint([p for _, p in model.named_parameters()]))


def fresh(name: str, device: str) -> tuple[Any, Base]:
    """A copy of the model to train on a device, in float32."""
    base = load(name)
    return copy.deepcopy(base.model).to(device), base


def shape(name: str) -> Mapping[str, Any]:
    """A model's config without its weights: the zoo's, the catalogue's, or what transformers reads."""
    if name in zoo.ZOO:
        return zoo.ZOO[name].config()
    from ..architecture.resolve import resolve

    try:
        return resolve(name).config
    except PlannerError as error:
        near = hint(name, zoo.ZOO).strip()
        raise InputError(
            "model", name, f"one of {', '.join(zoo.ZOO)}, a folder or a hub id", near or _sentence(str(error))
        ) from error


def check(name: str) -> None:
    """Raise InputError for a model that is not known, or whose weights are quantised."""
    found = shape(name).get("quantization_config")
    if isinstance(found, Mapping):
        kind = found.get("quant_method", "some method")
        raise InputError(
            "model", name, "one with weights as trained",
            f"It is quantised ({kind}): runs here train full weights or LoRA on them, QLoRA is only planned "
            "(estimate --quantize, simulate).",
        )  # fmt: skip


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def prepare(names: Sequence[str], progress: Callable[[str, int, int], None] | None = None) -> None:
    """Make the zoo models among these that are not made yet."""
    for name in names:
        if name in zoo.ZOO:
            zoo.make(name, None if progress is None else partial(progress, name))
