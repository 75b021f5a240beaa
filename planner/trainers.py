"""Trainers: what a named program really does in a step, as defaults for a `Setup`, each with its source.

A profile is data (data/trainers.toml): fields of Setup that always hold, and more of them by method, by sharding and
with checkpointing. What a user gives stands before what a profile says. `plain` has none: the fields' own defaults.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

from .choices import CHOICES
from .dataclass import dataclass
from .errors import FactError, InputError, hint
from .facts import plain, read_data, source_from
from .schema import Notice, Source
from .setup import Setup

PLAIN = "plain"
ADAPTER_DTYPE = "float32"  # what PEFT makes it on 16-bit weights too (autocast_adapter_dtype)
# What DeepSpeed's engine takes back under ZeRO, as it makes all of a model 16 bits: `module.bfloat16()` or `half()`
# (deepspeed 007cca6a, runtime/engine.py, _configure_distributed_model).
TAKEN_BACK = ("upcast_small", "upcast_norms")
QUANTISED_IN_PLACE = ("nf4", "nf4-double", "int8")  # by bitsandbytes, whose models PEFT prepares
USUAL_QLORA = Notice(
    "usual-qlora",
    "QLoRA as PEFT prepares it and transformers' Trainer runs it: what is not quantised in float32, under autocast. "
    "--trainer names another program, or plain for neither.",
)
SETUP_FIELDS = tuple(Setup.__dataclass_fields__)
# Tokens (entries of the vocabulary, positions) of a piece, of losses that cut as one program does: a loss that is
# asked for by name, and that the trainer's profile does not have, has these and not the profile's.
LOSS_CHUNKS = {
    "recomputed": 256, "recomputed-wide": 256, "chunked-vocabulary": 2048, "split": 128, "split-wide": 512,
    "split-fused": 512,
}  # fmt: skip
# When a group of fields applies, in the order in which they are laid over each other.
GROUPS = (
    "setup", "lora", "qlora", "full", "fsdp", "zero", "zero3", "ddp", "alone-full", "fsdp-full", "zero-full",
    "fsdp-qlora", "zero-qlora", "checkpointed", "qlora-checkpointed", "grpo", "grpo-full", "preferences", "kto",
    "orpo",
)  # fmt: skip
BESIDE = (
    "name", "title", "aliases", "metric", "notes", "advice", "claim", "experts_quantised", "own_functions",
    "sharded_alone", "around_trainer", "ends_apart", "general", "like",
)  # fmt: skip
INHERITED = ("experts_quantised", "own_functions", "sharded_alone", "around_trainer", "ends_apart")


# Fields that a profile sets for the model types of a list.
_OF_TYPES = {
    "quantize_experts": "experts_quantised",
    "copy_shared": "own_functions",
    "fsdp_units": "ends_apart",
}


@dataclass(frozen=True)
class Claim:
    """Something that a trainer does, and where it is written."""

    fields: tuple[str, ...]
    what: str
    source: Source


@dataclass(frozen=True)
class Trainer:
    """A profile. `groups` holds fields of Setup by when they apply, those of "grpo" and "preferences" by
    `for_objective`; `metric` is
    what its own figures of memory are (allocated, reserved, device), where it has some; QLoRA quantises the experts
    of `experts_quantised`, model types; those of `own_functions` are run by functions of its own, whose quantised
    matrices are made whole in one buffer.
    `sharded_alone`: its sharding holds on one GPU too, whose units are still gathered in what is computed in.
    `ends_apart`: model types of which full fine-tuning by FSDP 2 has embedding and unembedding as units of their own.
    `around_trainer`: it makes its optimizer as transformers' Trainer does.
    `general`: of a sort of programs, such as loops of one's own, and not of one whose code was read.
    `like`: the profile that holds but for what this one says; `own` are the claims that are its own.
    `notes` are of this very profile, which versions it is of among them; `advice` is what else its program may do and
    which option says so, and holds for those like it that have no other (an empty one takes it back).
    """

    name: str
    title: str
    groups: Mapping[str, Mapping[str, Any]]
    claims: tuple[Claim, ...]
    aliases: tuple[str, ...] = ()
    metric: str = ""
    notes: str = ""
    experts_quantised: tuple[str, ...] = ()
    own_functions: tuple[str, ...] = ()
    sharded_alone: bool = False
    around_trainer: bool = False
    ends_apart: tuple[str, ...] = ()
    general: bool = False
    like: str = ""
    own: int = 0
    advice: str | None = None

    @property
    def differs(self) -> tuple[str, ...]:
        """What its own claims say where it is like another."""
        return tuple(claim.what for claim in self.claims[: self.own])

    def fields(self, method: str, sharding: str, checkpointing: str) -> dict[str, Any]:
        """The fields that apply to a method under a sharding."""
        family = _family(sharding)
        names = ["setup", method, family, sharding, f"{'alone' if family == 'none' else family}-{method}"]
        if checkpointing != "none":
            names += ["checkpointed", f"{method}-checkpointed"]
        found: dict[str, Any] = {}
        for group in GROUPS:
            if group in names:
                found |= self.groups.get(group, {})
        return found


def _family(sharding: str) -> str:
    return "zero" if sharding.startswith("zero") else "fsdp" if sharding.startswith("fsdp") else sharding


def _check(values: Mapping[str, Any], owner: str) -> None:
    for name, value in values.items():
        if name not in SETUP_FIELDS or (name in CHOICES and value not in CHOICES[name]):
            raise FactError(f"{owner}: {name} = {value!r} is no field of a set-up, or no choice of it.")


def _claims(raw: Mapping[str, Any], owner: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(tuple(claim["fields"]), str(claim["what"]), source_from(claim.get("source"), owner))
        for claim in raw.get("claim", ())
    )


def _own(raw: Mapping[str, Any]) -> Trainer:
    """The profile of a table's entry by itself; a field that no Setup has, or one without a source, is refused."""
    owner = f"trainers.toml: {raw.get('name', '?')}"
    groups = {name: MappingProxyType(dict(raw[name])) for name in GROUPS if name in raw}
    odd = sorted(set(raw) - {*GROUPS, *BESIDE})
    if odd:
        raise FactError(f"{owner}: {', '.join(odd)} not known.")
    for group, values in groups.items():
        _check(values, f"{owner}, {group}")
    claims = _claims(raw, owner)
    said = {name for claim in claims for name in claim.fields}
    models, functions = (tuple(raw.get(name, ())) for name in ("experts_quantised", "own_functions"))
    used = {name for values in groups.values() for name in values}
    used |= {name for name, types in _OF_TYPES.items() if raw.get(types)}
    unsaid = sorted(used - said)
    if unsaid or not claims:
        raise FactError(f"{owner}: {', '.join(unsaid) or 'a profile'} without a source.")
    return Trainer(
        raw["name"], raw["title"], MappingProxyType(groups), claims, tuple(raw.get("aliases", ())),
        raw.get("metric", ""), raw.get("notes", ""), models, functions, bool(raw.get("sharded_alone")),
        bool(raw.get("around_trainer")), tuple(raw.get("ends_apart", ())), bool(raw.get("general")),
        str(raw.get("like", "")), len(claims), raw.get("advice"),
    )  # fmt: skip


def _over(own: Trainer, base: Trainer) -> Trainer:
    """A profile with that which it is like under it: its own values stand before the other's in each group, and the
    other's claims hold but where its own speak of all their fields."""
    groups = {
        name: MappingProxyType({**base.groups.get(name, {}), **own.groups.get(name, {})})
        for name in GROUPS
        if name in base.groups or name in own.groups
    }
    said = {name for claim in own.claims for name in claim.fields}
    kept = tuple(claim for claim in base.claims if set(claim.fields) - said)
    found = {name: getattr(own, name) or getattr(base, name) for name in INHERITED}
    found["advice"] = base.advice if own.advice is None else own.advice
    return replace(own, groups=MappingProxyType(groups), claims=(*own.claims, *kept), **found)


def parse(table: Mapping[str, Any]) -> tuple[Trainer, ...]:
    """The profiles of a table, each after the one that it is like; see `_own` for what is refused."""
    found: dict[str, Trainer] = {}
    for raw in table.get("trainer", ()):
        own = _own(raw)
        if own.like and own.like not in found:
            raise FactError(f"trainers.toml: {own.name}: like {own.like!r}, which no profile before it is.")
        found[own.name] = _over(own, found[own.like]) if own.like else own
    return tuple(found.values())


@cache
def _table() -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(read_data("compiled", "trainers.json"))
    except ValueError as error:
        raise FactError(f"data/compiled/trainers.json cannot be read: {error}.") from error
    return table


@cache
def trainers() -> tuple[Trainer, ...]:
    """Every profile of data/trainers.toml."""
    return parse(_table())


@cache
def _named(name: str) -> Trainer:
    """One profile, read with those that it is like and no other: all take 8 ms."""
    wanted = lineage(name)
    return parse({"trainer": [raw for raw in _table()["trainer"] if raw["name"] in wanted]})[-1]


def names() -> list[str]:
    """Names of all profiles, `plain` first, without what they hold."""
    return [PLAIN, *(str(raw["name"]) for raw in _table()["trainer"])]


@cache
def _spelt() -> Mapping[str, str]:
    """Names and aliases, as they may be spelt, of every profile."""
    return {
        plain(n): str(raw["name"])
        for raw in _table()["trainer"]
        for n in (raw["name"], *raw.get("aliases", ()))
    }


def find(name: str) -> Trainer | None:
    """The profile of a name or alias, None for `plain`. Raises InputError naming the nearest."""
    if name == PLAIN:
        return None
    found = _spelt().get(plain(name)) if isinstance(name, str) else None
    if found is None:
        spelt = {PLAIN: PLAIN, **{s: t.name for t in trainers() for s in (t.name, *t.aliases)}}
        near = hint(str(name), spelt, called=spelt).strip()
        some = (
            f"plain or one of {len(names()) - 1} profiles, which --help lists: hf-trainer, trl, unsloth ..."
        )
        raise InputError("trainer", name, some, near)
    return _named(found)


@cache
def lineage(name: str) -> tuple[str, ...]:
    """A profile's name and those that it is like, nearest first."""
    if name == PLAIN:
        return (name,)
    found = [name]
    by_name = {str(raw["name"]): str(raw.get("like", "")) for raw in _table()["trainer"]}
    while like := by_name.get(found[-1], ""):
        found.append(like)
    return tuple(found)


def one_of(name: str, programs: Iterable[str]) -> bool:
    """Whether a profile is one of these programs, or like one."""
    return any(each in programs for each in lineage(name))


def likeness(name: str) -> Notice | None:
    """What is said of a set-up's trainer whose profile is another's but for what its own code says."""
    found = None if name == PLAIN else find(name)
    if found is None or not found.like:
        return None
    text = f"{found.title}: taken as the profile {found.like}, but that {'; '.join(found.differs)}."
    return Notice("trainer-like", text)


def noted(name: str) -> Notice | None:
    """What a profile notes: what else its program may do, and which option or profile says so."""
    found = None if name == PLAIN else find(name)
    said = " ".join(text for text in (found.notes, found.advice) if text) if found else ""
    return Notice("trainer-noted", f"{found.title}: {said}") if found and said else None


def known(name: str) -> bool:
    """Whether a set-up's trainer is one program, by a profile of its own: not `plain`, nor a sort of programs."""
    return name != PLAIN and any(
        raw["name"] == name and not raw.get("general") for raw in _table()["trainer"]
    )


def claimed(name: str | None) -> tuple[tuple[str, Source], ...]:
    """What a trainer's profile says, each with its source; nothing where none is named."""
    found = None if name is None else find(name)
    return () if found is None else tuple((f"trainer {name}: {c.what}", c.source) for c in found.claims)


def asked_adapter_dtype(dtype: str | None, trainer: str | None) -> str | None:
    """The adapter's type that an option with a usual value asks for: beside a named trainer the usual one says
    nothing, so that the trainer's own holds."""
    return None if dtype == ADAPTER_DTYPE and trainer not in (None, PLAIN) else dtype


def unnamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of QLoRA where nobody names a program: what is not quantised in float32, as PEFT's
    prepare_model_for_kbit_training leaves it, and autocast, as transformers' Trainer has both (the profile hf-trainer
    has the sources). Empty for all else, and under DeepSpeed, whose engine makes the model 16 bits again.

    Published QLoRA whose trainer is kept silent it predicts at 0.93 of what was measured in the middle
    (docs/peers.md, "told the same")."""
    quantised = given.get("method") == "qlora" and (given.get("quantize") or "nf4") in QUANTISED_IN_PLACE
    if not quantised or given.get("trainer") is not None or str(given.get("sharding")).startswith("zero"):
        return {}
    return {"upcast_small": True, "autocast": (given.get("precision") or "bf16") in ("bf16", "fp16")}


def is_usual_qlora(setup: Setup) -> bool:
    """Whether a set-up is QLoRA with what `unnamed` takes, by no program in particular."""
    return setup.trainer == PLAIN and setup.method == "qlora" and setup.upcast_small and setup.autocast


def to_say(setup: Setup) -> tuple[Notice, ...]:
    """What is to be said of how a set-up's trainer was read: that none was named, that it is like another, and
    what its profile notes."""
    if is_usual_qlora(setup):
        return (USUAL_QLORA,)
    return tuple(notice for notice in (likeness(setup.trainer), noted(setup.trainer)) if notice)


def as_spelt(field: str, value: Any) -> Any:
    """A choice in our spelling: ADAMW_8bit is adamw-8bit."""
    if not isinstance(value, str) or field not in CHOICES or value in CHOICES[field]:
        return value
    ours = value.lower().replace("_", "-")
    return ours if ours in CHOICES[field] else value


def _experts_too(said: Mapping[str, Any], trainer: Trainer | None, model_type: str) -> dict[str, Any]:
    """That tensors of experts are quantised, where a trainer does it for a type of model, or by FP8: transformers 5
    puts its FP8Experts in their place (integrations/finegrained_fp8.py: replace_with_fp8_linear)."""
    by_trainer = trainer is not None and model_type in trainer.experts_quantised
    quantised = by_trainer or said.get("quantize") == "fp8"
    return {"quantize_experts": True} if said.get("method") == "qlora" and quantised else {}


def by_base(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that follow from how the base is held, where no profile says them: those of QLoRA that nobody names a
    program for, and experts in FP8."""
    return {**unnamed(given), "quantize_experts": False, **_experts_too(given, None, "")}


def _pieces(said: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """How much a loss takes at a time that was asked for by name, where `own`, the trainer's, is another."""
    loss = said.get("loss", own.get("loss"))
    if "loss_chunk" in said or loss == own.get("loss"):
        return {}
    return {"loss_chunk": LOSS_CHUNKS.get(str(loss), Setup.loss_chunk)}


def filled(given: Mapping[str, Any], model_type: str = "") -> dict[str, Any]:
    """Fields of a set-up with those of their trainer's profile for a type of model laid under them; `given` holds
    what a user said (method, sharding, gpus, checkpointing among it). None is not said."""
    said = {n: as_spelt(n, v) for n, v in given.items() if v is not None and n in SETUP_FIELDS}
    trainer = find(str(said.get("trainer", PLAIN)))
    experts = _experts_too(said, trainer, model_type)
    if trainer is None:
        said.setdefault("adapter_dtype", ADAPTER_DTYPE)
        return {**unnamed(said), **experts, **_pieces(said, {}), **said}
    said["trainer"] = trainer.name
    method = str(said.get("method", "lora"))
    sharding = str(said.get("sharding", "none"))
    asked = said.get("checkpointing", trainer.fields(method, sharding, "none").get("checkpointing", "none"))
    of_type: dict[str, Any] = {"copy_shared": True} if model_type in trainer.own_functions else {}
    if model_type in trainer.ends_apart and method == "full" and sharding.startswith("fsdp"):
        of_type["fsdp_units"] = "layers-ends"
    own = trainer.fields(method, sharding, str(asked))
    found = {**own, **experts, **of_type, **_pieces(said, own), **said}
    if found.get("packing") == "packed" and "lengths_vary" not in said:
        found.pop("lengths_vary", None)  # packed sequences have one length
    if found.get("checkpointing") == "selective" and "reentrant" not in said:
        found.pop("reentrant", None)  # it is of torch's newer way
    if sharding.startswith("zero") and found.get("precision", "bf16") in ("bf16", "bf16-master", "fp16"):
        found = {name: value for name, value in found.items() if name in said or name not in TAKEN_BACK}
    if said.get("placing") == "whole" and method != "qlora" and "gathered_kept" not in said:
        found["gathered_kept"] = (
            True  # made outside of zero.Init, which alone replaces torch's linear function
        )
    if found.get("precision") == "fp32" and "autocast" not in said:
        found.pop("autocast", None)  # it is 16 bits that a trainer's autocast is for
    return found


def for_objective(objective: str, name: str | None, method: str = "lora") -> Mapping[str, Any]:
    """Fields of a set-up that learns from completions, or from pairs and answers that were judged, by the trainer of
    that name and by a method; empty where it says nothing."""
    trainer = find(name or PLAIN)
    if trainer is None or objective == "orpo":
        return trainer.groups.get("orpo", {}) if trainer else {}
    if objective == "grpo":
        return {**trainer.groups.get("grpo", {}), **trainer.groups.get(f"grpo-{method}", {})}
    found = trainer.groups.get("preferences", {})
    return {**found, **trainer.groups.get("kto", {})} if objective == "kto" else found


def sharded_alone(given: Mapping[str, Any]) -> bool:
    """Whether the trainer in `given` shards on one GPU too."""
    trainer = find(str(given.get("trainer") or PLAIN))
    return trainer is not None and trainer.sharded_alone


def around_trainer(name: str) -> bool:
    """Whether the program of a profile makes its optimizer as transformers' Trainer does."""
    trainer = find(name)
    return trainer is not None and trainer.around_trainer


def usual(given: Mapping[str, Any], field: str) -> Any:
    """What the trainer in `given` makes of a field where nobody says otherwise; None where it says nothing."""
    trainer = find(str(given.get("trainer") or PLAIN))
    method, sharding = str(given.get("method") or "lora"), str(given.get("sharding") or "none")
    if trainer is None:
        return None
    own = for_objective("grpo", trainer.name, method) if given.get("objective") == "grpo" else {}
    return {**trainer.fields(method, sharding, "none"), **own}.get(field)
