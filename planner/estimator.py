"""estimate: from a model and a few choices to the whole Plan, in closed form."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from . import adapter as adapters
from . import capacity, facts, information
from . import flops as flop_counts
from .adapter import DTYPE_BYTES, Adapted, AdapterSpec
from .adapter.files import base_model, check_weights
from .adapter.options import spec_of
from .adapter.peft_rules import peft_line
from .adapter.whole import Whole, trained_whole
from .architecture.build import build, build_by_its_code, carries_code
from .architecture.resolve import ResolvedConfig, resolve
from .errors import InputError, UnsupportedArchitectureError
from .information import Information
from .learning_rate import lookup
from .notices import collect
from .plan import AdapterSection, CapacitySection, FlopsSection, ModelSection, Plan, Workload
from .schema import Architecture, Source
from .stored.weights import Stored, stored
from .units import parse_count

DEFAULT_SEQ_LEN = 2048
SUMMARY_SETS = ("attention", "mlp", "unembedding", "all", adapters.ALL_LINEAR)
SUMMARY_ROLES = {
    "attention": "attention",
    "state_space": "attention",
    "mlp": "mlp",
    "expert": "mlp",
    "shared_expert": "mlp",
    "unembedding": "unembedding",
    "embedding": "embedding",
    "router": "router",
    "vision": "vision",
}


@dataclass(frozen=True)
class _Base:
    """A model ready for estimates: its config, its inventory, and how its weights are stored."""

    found: ResolvedConfig
    arch: Architecture
    kept: Stored


# Models of the catalogue by the name they were asked for; files are read anew each time.
_known: dict[Any, _Base] = {}
_MOST_KNOWN = 1024


def _architecture(found: ResolvedConfig, trust_remote_code: bool) -> Architecture:
    if trust_remote_code and found.origin in ("local", "hub"):
        return build_by_its_code(found.model_id, found.config)
    try:
        return build(found.config)
    except UnsupportedArchitectureError as error:
        if not carries_code(found.config) or found.origin not in ("local", "hub"):
            raise
        raise UnsupportedArchitectureError(
            f"{error} Its repository carries code that builds it: read it, and run it with --trust-remote-code."
        ) from None


def _key(model: Any) -> Any:
    """Under what a model of the catalogue is remembered; None for what is read anew."""
    if isinstance(model, ResolvedConfig):
        return ("catalogue", model.model_id) if model.origin == "catalogue" else None
    return model if isinstance(model, str) else None


def _base(model: str | os.PathLike[str] | Mapping[str, Any], trust_remote_code: bool = False) -> _Base:
    key = _key(model)
    if key is not None and key in _known:
        return _known[key]
    found = resolve(model)
    arch = _architecture(found, trust_remote_code)
    base = _Base(found, arch, stored(found.config, arch, found.model_id if found.origin == "local" else None))
    if key is not None and found.origin == "catalogue":
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = base
    return base


def load(
    model: str | os.PathLike[str] | Mapping[str, Any], trust_remote_code: bool = False
) -> tuple[ResolvedConfig, Architecture]:
    """Resolve a model and build its inventory."""
    base = _base(model, trust_remote_code)
    return base.found, base.arch


def whole_number(field: str, value: object) -> int:
    """A whole number of at least 1. Raises InputError."""
    number = parse_count(field, value)
    if number < 1:
        raise InputError(field, value, "a whole number of at least 1")
    return number


def model_of(options: Mapping[str, Any]) -> str | os.PathLike[str] | Mapping[str, Any]:
    """The model of a call: the option, or the one that an existing adapter names as its base."""
    model: str | os.PathLike[str] | Mapping[str, Any] | None = options["model"]
    if model is None and options["adapter"] is not None:
        model = base_model(os.fspath(options["adapter"]))
        if model is None:
            raise InputError("model", None, "a model beside this adapter", "Its config names no base model.")
    if model is None:
        raise InputError("model", None, "a model's name, a config.json or its folder, or a hub id")
    return model


def _adapter_section(
    arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted], whole: Whole
) -> AdapterSection:
    roles = dict.fromkeys((*dict.fromkeys(SUMMARY_ROLES.values()), "other"), 0)
    expert_rank = None
    total = 0
    for item in adapted:
        held = item.params
        total += held
        roles[SUMMARY_ROLES.get(item.matrix.role, "other")] += held
        if item.matrix.kind == "experts":
            expert_rank = item.pairs[0].rank
    for role, held in whole.saved:
        roles[SUMMARY_ROLES.get(role, "other")] += held
    roles["other"] += whole.bias
    total += whole.params
    sets = {name: adapters.slope(arch, spec, (name,)).params(spec.rank) for name in SUMMARY_SETS}
    sizes = {dtype: total * width for dtype, width in DTYPE_BYTES.items()}
    line = None
    if all(item.as_peft for item in adapted):
        line = peft_line(total, arch.params + total - whole.bias)
    return AdapterSection(
        spec, total, adapters.slope(arch, spec).per_rank, roles, sets, sizes, expert_rank, whole.saved_params,
        whole.bias, line,
    )  # fmt: skip


@lru_cache(maxsize=512)
def _full_step(arch: Architecture, step: flop_counts.Step) -> flop_counts.Tally:
    return flop_counts.step_macs(arch, step, None)


def _flops_section(
    arch: Architecture, spec: AdapterSpec, adapted: Sequence[Adapted], work: Workload, whole: Whole
) -> FlopsSection | None:
    if arch.flops_gap or not arch.blocks or whole.gap:
        return None
    step = flop_counts.Step(work.batch, work.seq_len, work.checkpointing)
    lora, full = flop_counts.step_macs(arch, step, adapted, whole), _full_step(arch, step)
    done_lora, done_full = (flop_counts.FLOPS_PER_MAC * (t.total - t.overcount) for t in (lora, full))
    totals: tuple[int | None, int | None] = (None, None)
    if work.total_tokens is not None:
        tokens, seen = work.batch * work.seq_len, work.total_tokens * work.epochs
        totals = (done_full * seen // tokens, done_lora * seen // tokens)
    return FlopsSection(
        full=done_full, lora=done_lora, counted_full=flop_counts.flops(full), counted_lora=flop_counts.flops(lora),
        masked_full=done_full - flop_counts.FLOPS_PER_MAC * full.hidden,
        masked_lora=done_lora - flop_counts.FLOPS_PER_MAC * lora.hidden,
        forward=flop_counts.FLOPS_PER_MAC * lora.forward, attention=flop_counts.FLOPS_PER_MAC * lora.attention,
        batch=work.batch, seq_len=work.seq_len, rule_ratio=flop_counts.rule_ratio(adapted),
        break_even_rank=flop_counts.break_even_rank(lora, full, spec, adapted),
        total_full=totals[0], total_lora=totals[1], checkpointing=work.checkpointing,
    )  # fmt: skip


def _information(options: Mapping[str, Any]) -> tuple[Information | None, int | None, Any]:
    """Information, total tokens and the dataset's fact from the three ways to give them."""
    given = [name for name in ("dataset", "tokens", "episodes") if options[name] is not None]
    if len(given) > 1:
        raise InputError(given[1], options[given[1]], f"nothing beside {given[0]}", "Give one of them.")
    p = options["success_rate"]
    if p is not None:
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise InputError("success-rate", p, "a number from 0 to 1")
        if given not in (["episodes"], ["dataset"]):
            raise InputError(
                "success-rate", p, "episodes beside it", "It describes an RL run: give --episodes."
            )
    if options["tokens"] is not None:
        tokens = whole_number("tokens", options["tokens"])
        return information.supervised(tokens), tokens, None
    if options["episodes"] is not None:
        return information.policy_gradient(whole_number("episodes", options["episodes"]), p), None, None
    if options["dataset"] is None:
        return None, None, None
    fact = facts.dataset(options["dataset"])
    if fact.kind == "rl":
        return information.policy_gradient(fact.episodes or 0, p), None, fact
    if p is not None:
        raise InputError("success-rate", p, "an RL dataset", f"{fact.name} is for supervised training.")
    known = fact.loss_tokens if fact.loss_tokens is not None else fact.total_tokens
    return information.supervised(known or 0), fact.total_tokens, fact


def _capacity_section(
    arch: Architecture, spec: AdapterSpec, params: int, fixed: int, info: Information | None
) -> CapacitySection:
    bits = capacity.capacity_bits(params)
    if info is None:
        return CapacitySection(capacity.BITS_PER_PARAM, bits, None, None, None, None)
    needed = info.bits

    used, line = needed / bits, adapters.slope(arch, spec)
    return CapacitySection(
        capacity.BITS_PER_PARAM, bits, capacity.required_rank(needed, lambda rank: line.params(rank) + fixed), used,
        capacity.verdict(used), params / info.units if info.units else None,
    )  # fmt: skip


def _sources(
    found: ResolvedConfig, arch: Architecture, fact: Any, law_id: str
) -> tuple[tuple[str, Source], ...]:
    sources = [("model config", source) for source in found.sources]
    if arch.built_by:
        name, _, version = arch.built_by.partition(" ")
        url = f"https://github.com/huggingface/transformers/tree/v{version}" if name == "transformers" else ""
        where = f"model_type {arch.model_type}"
        sources.append(("inventory", Source(arch.built_by, url or found.model_id, where, "", "derived")))
    sources.append(("information and the bare FLOP rule", information.ARTICLE))
    sources.append(("bits per parameter", capacity.SOURCE))
    sources.append(("learning rate", facts.law(law_id).source))
    if fact is not None:
        sources.append(("dataset", fact.source))
    return tuple(sources)


def estimate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, rank: int = 32, alpha: float = 32,
    layers: str | Sequence[str] | None = None, targets: str | Sequence[str] | None = None,
    experts: str = "scaled", layout: str | None = None, variant: str = "lora", adapter_dtype: str = "float32",
    dataset: str | None = None, tokens: int | str | None = None, episodes: int | str | None = None,
    success_rate: float | None = None, epochs: int = 1, seq_len: int | None = None, batch: int = 1,
    checkpointing: bool = False, target_regex: str | None = None,
    target_parameters: str | Sequence[str] | None = None,
    layers_to_transform: int | str | Sequence[int] | None = None,
    exclude_modules: str | Sequence[str] | None = None, rank_pattern: str | Mapping[str, int] | None = None,
    alpha_pattern: str | Mapping[str, float] | None = None, modules_to_save: str | Sequence[str] | None = None,
    bias: str = "none", use_rslora: bool = False, adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
) -> Plan:  # fmt: skip
    """The Plan of a LoRA fine-tune of `model`: a name, a path, or a config as a mapping.

    The options are those of `lora-plan estimate`, by the same names. Raises a PlannerError (InputError,
    ConfigError, UnknownModelError, HubError, UnsupportedArchitectureError) whose message says what to do.
    """
    options: dict[str, Any] = dict(locals())
    spec = spec_of(options)
    info, total_tokens, fact = _information(options)
    base = _base(model_of(options), trust_remote_code)
    found, arch, kept = base.found, base.arch, base.kept
    length = whole_number("seq-len", seq_len) if seq_len is not None else None
    work = Workload(
        batch=whole_number("batch", batch),
        seq_len=length or min(DEFAULT_SEQ_LEN, arch.max_position or DEFAULT_SEQ_LEN),
        seq_len_given=length is not None, epochs=whole_number("epochs", epochs), checkpointing=bool(checkpointing),
        dataset=fact.name if fact else None, total_tokens=total_tokens,
    )  # fmt: skip
    adapted = adapters.adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    section = _adapter_section(arch, spec, adapted, whole)
    cap = _capacity_section(arch, spec, section.params, whole.params, info)
    flops = _flops_section(arch, spec, adapted, work, whole)
    lr = lookup.look_up(
        model_id=found.model_id, model_type=arch.model_type, hidden_size=arch.hidden_size,
        named=found.origin in ("catalogue", "hub"), rank=spec.rank,
    )  # fmt: skip
    published = found.published_params
    about = ModelSection(
        found.model_id, found.origin, arch.model_type, arch.hidden_size, arch.n_layers, arch.vocab_size,
        arch.params, arch.params_active, published, kept.bytes, kept.quantization, kept.checkpoint,
    )  # fmt: skip
    noted = (*found.notices, *kept.notices)
    if adapter is not None:
        noted = (*noted, *check_weights(os.fspath(adapter), arch, adapted, whole))
    return Plan(
        model=about, adapter=section, workload=work, flops=flops, information=info, capacity=cap,
        learning_rate=lr, warnings=collect(noted, arch, spec, adapted, whole, work, flops, cap, lr, fact),
        sources=_sources(found, arch, fact, lr.law),
    )  # fmt: skip
