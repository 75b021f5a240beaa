"""estimate: from a model and a few choices to the whole Plan, in closed form."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from . import adapter as adapters
from . import break_even, capacity, facts, information, ranks
from . import flops as flop_counts
from .adapter import Adapted, AdapterSpec
from .adapter.files import base_model, check_weights
from .adapter.options import spec_of
from .adapter.peft_rules import peft_line
from .adapter.whole import Whole, trained_whole
from .architecture.build import build, build_by_its_code, carries_code
from .architecture.resolve import ResolvedConfig, resolve
from .choices import DTYPE_BYTES
from .dataclass import dataclass
from .errors import InputError, UnsupportedArchitectureError
from .given import Given, whole_number
from .given import read as read_given
from .information import Information
from .learning_rate import lookup
from .notices import collect
from .objective import step_tally
from .objective_rules import SEQUENCES
from .pictured import check_length, image_notices, pictured
from .pictured import section as images_section
from .pictured import sources as of_images
from .plan import AdapterSection, CapacitySection, FlopsSection, ModelSection, Plan, Workload
from .ranks import SUMMARY_SETS, RankPrice
from .regret import law_for
from .samples import samples_of
from .schema import Architecture, Notice, Source
from .setup import Setup
from .stored.weights import Stored, left_whole, stored

if TYPE_CHECKING:
    from .dataset.result import DatasetReport

DEFAULT_SEQ_LEN = 2048
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
# The last config that was read elsewhere, with its inventory: an answer asks for its model twice.
_last: list[tuple[ResolvedConfig, bool, Architecture]] = []


def _architecture(found: ResolvedConfig, trust_remote_code: bool) -> Architecture:
    if not _last or _last[0][:2] != (found, trust_remote_code):
        _last[:] = [(found, trust_remote_code, _built(found, trust_remote_code))]
    return _last[0][2]


def _built(found: ResolvedConfig, trust_remote_code: bool) -> Architecture:
    if trust_remote_code and found.origin in ("local", "hub"):
        return build_by_its_code(found.model_id, found.config)
    try:
        return left_whole(found.config, build(found.config))
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


def sequence_length(arch: Architecture, asked: int | None) -> int:
    """Tokens of a sequence: as asked, or 2,048, of a model of fewer positions as many as it has. Raises InputError
    where they are none, or where images fill them."""
    usual = min(DEFAULT_SEQ_LEN, arch.max_position or DEFAULT_SEQ_LEN)
    found = usual if asked is None else whole_number("seq-len", asked)
    check_length(arch, found, asked is not None)
    return found


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
    even = break_even.break_even_rank(lora, full, spec, adapted)
    return _counted(lora, full, work.batch, work, break_even.rule_ratio(adapted), even)


def _counted(
    lora: flop_counts.Tally, full: flop_counts.Tally, sequences: int, work: Workload, rule_ratio: float | None,
    break_even_rank: int | None,
) -> FlopsSection:  # fmt: skip
    """The section of a step of so many sequences, from the multiply-adds of both kinds of it."""
    each = flop_counts.FLOPS_PER_MAC
    done_lora, done_full = (each * (tally.total - tally.overcount) for tally in (lora, full))
    totals: tuple[int | None, int | None] = (None, None)
    if work.total_tokens is not None:
        tokens, seen = sequences * work.seq_len, work.total_tokens * work.epochs
        totals = (done_full * seen // tokens, done_lora * seen // tokens)
    return FlopsSection(
        full=done_full, lora=done_lora, counted_full=flop_counts.flops(full), counted_lora=flop_counts.flops(lora),
        masked_full=done_full - each * full.hidden, masked_lora=done_lora - each * lora.hidden,
        forward=each * lora.forward, attention=each * lora.attention, batch=sequences, seq_len=work.seq_len,
        rule_ratio=rule_ratio, break_even_rank=break_even_rank, total_full=totals[0], total_lora=totals[1],
        checkpointing=work.checkpointing,
    )  # fmt: skip


def with_objective(plan: Plan, arch: Architecture, setup: Setup) -> Plan:
    """The plan with the FLOPs of its objective, and of how the library runs pairs; `batch` of a step is then of
    sequences."""
    assert plan.flops
    pairs, found, work = adapters.adapt(arch, plan.adapter.spec), plan.flops, plan.workload
    sequences = SEQUENCES.get(setup.objective, 1) * found.batch
    whole = trained_whole(arch, plan.adapter.spec, pairs)
    lora = step_tally(arch, setup, pairs, whole, sequences)
    full = step_tally(arch, setup, None, batch=sequences)
    section = _counted(lora, full, sequences, work, found.rule_ratio, found.break_even_rank)
    return replace(plan, flops=section)


def _capacity_section(
    arch: Architecture,
    spec: AdapterSpec,
    params: int,
    fixed: int,
    info: Information | None,
    options: Mapping[str, Any],
) -> CapacitySection:
    bits = capacity.bits_per_param(options["bits_per_param"])
    curves = ranks.curves(arch, spec, info, bits) if options["curves"] else None
    held = capacity.capacity_bits(params, bits.value)
    if info is None:
        return CapacitySection(bits.value, held, None, None, None, None, bits.low, bits.high, curves=curves)
    line = adapters.slope(arch, spec)
    needed = capacity.required_ranks(info.interval, lambda rank: line.params(rank) + fixed, bits)
    used, low, high = (
        amount / capacity.capacity_bits(params, each)
        for amount, each in zip(info.interval, (bits.value, bits.high, bits.low), strict=True)
    )
    return CapacitySection(
        bits.value, held, needed.value, used, capacity.verdict(used), params / info.units if info.units else None,
        bits.low, bits.high, needed.low, needed.high, low, high, curves,
        "assumed" if options["bits_per_param"] is None else "measured",
    )  # fmt: skip


def _rank_price(
    arch: Architecture, spec: AdapterSpec, section: AdapterSection, whole: Whole, work: Workload, given: Given
) -> RankPrice | None:
    per_step = None
    if given.loss_tokens and given.total_tokens:
        per_step = given.loss_tokens / given.total_tokens * work.batch * work.seq_len
    return ranks.rank_price(arch, spec, section.params, whole.params, given.info, per_step)


def _sources(
    found: ResolvedConfig, arch: Architecture, given: Given, law: facts.LawFact
) -> tuple[tuple[str, Source], ...]:
    sources = [("model config", source) for source in found.sources]
    if arch.built_by:
        name, _, version = arch.built_by.partition(" ")
        url = f"https://github.com/huggingface/transformers/tree/v{version}" if name == "transformers" else ""
        where = f"model_type {arch.model_type}"
        sources.append(("inventory", Source(arch.built_by, url or found.model_id, where, "", "derived")))
    sources += of_images(arch)
    sources.append(("information and the bare FLOP rule", information.ARTICLE))
    known = facts.capacities()
    sources.append(("bits per parameter", known["knowledge"].source))
    sources.append(("bits per parameter, at most", known["memorisation"].source))
    sources.append(("learning rate", law.source))
    if given.info is not None and given.info.kind == "sft":
        sources.append(("expected regret", law_for(arch.has_experts).source))
    if given.fact is not None:
        sources.append(("dataset", given.fact.source))
    return tuple(sources)


def _noted(base: _Base, arch: Architecture, work: Workload) -> tuple[Notice, ...]:
    """What to know of the model, of its images and of its stored weights."""
    seen = image_notices(arch, work.seq_len, work.total_tokens)
    return (*base.found.notices, *seen, *base.kept.notices)


def estimate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, rank: int = 32, alpha: float = 32,
    layers: str | Sequence[str] | None = None, targets: str | Sequence[str] | None = None,
    experts: str = "scaled", layout: str | None = None, variant: str = "lora", adapter_dtype: str = "float32",
    dataset: str | None = None, tokens: int | str | None = None, episodes: int | str | None = None,
    success_rate: float | None = None, group_size: int | None = None,
    data: str | os.PathLike[str] | DatasetReport | None = None, tokenizer: str | os.PathLike[str] | None = None,
    loss_on: str | None = None, format: str | None = None, split: str | None = None,
    columns: str | Mapping[str, str] | None = None, nats: float | None = None,
    bits_per_param: float | None = None, curves: bool = False, epochs: int = 1, seq_len: int | None = None,
    batch: int = 1, checkpointing: bool = False, target_regex: str | None = None,
    target_parameters: str | Sequence[str] | None = None,
    layers_to_transform: int | str | Sequence[int] | None = None,
    exclude_modules: str | Sequence[str] | None = None, rank_pattern: str | Mapping[str, int] | None = None,
    alpha_pattern: str | Mapping[str, float] | None = None, modules_to_save: str | Sequence[str] | None = None,
    bias: str = "none", use_rslora: bool = False, adapter: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False, law: str | os.PathLike[str] | None = None, family: str | None = None,
    images: int | None = None, image_size: str | Sequence[int] | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Plan:  # fmt: skip
    """The Plan of a LoRA fine-tune of `model`: a name, a path, or a config as a mapping.

    The options are those of `lora-plan estimate`, by the same names; `on_progress` is told bytes read, bytes in all
    and rows while `data` are read. Raises a PlannerError (InputError, ConfigError, UnknownModelError, HubError,
    UnsupportedArchitectureError) whose message says what to do.
    """
    options: dict[str, Any] = dict(locals())
    spec = spec_of(options)
    base = _base(model_of(options), trust_remote_code)
    found, arch, kept = base.found, pictured(base.arch, base.found.config, options), base.kept
    given = read_given(options, found.model_id, found.origin == "local")
    samples = None if images else samples_of(given)
    work = Workload(
        batch=whole_number("batch", batch),
        seq_len=sequence_length(arch, seq_len), seq_len_given=seq_len is not None,
        epochs=whole_number("epochs", epochs), checkpointing=bool(checkpointing),
        dataset=given.name, total_tokens=given.total_tokens,
        examples=samples.count if samples else None,
    )  # fmt: skip
    adapted = adapters.adapt(arch, spec)
    whole = trained_whole(arch, spec, adapted)
    section = _adapter_section(arch, spec, adapted, whole)
    cap = _capacity_section(arch, spec, section.params, whole.params, given.info, options)
    flops = _flops_section(arch, spec, adapted, work, whole)
    rates = lookup.find_law(law or lookup.DEFAULT_LAW)
    lr = lookup.look_up(
        model_id=found.model_id, model_type=arch.model_type, hidden_size=arch.hidden_size,
        named=found.origin in ("catalogue", "hub"), rank=spec.rank, law=rates,
        family=lookup.known_family(family, rates),
    )  # fmt: skip
    published = found.published_params
    about = ModelSection(
        found.model_id, found.origin, arch.model_type, arch.hidden_size, arch.n_layers, arch.vocab_size,
        arch.params, arch.params_active, published, kept.bytes, kept.quantization, kept.checkpoint,
    )  # fmt: skip
    price = _rank_price(arch, spec, section, whole, work, given)
    noted = (*_noted(base, arch, work), *given.notices, *ranks.notices(spec, price))
    if adapter is not None:
        noted = (*noted, *check_weights(os.fspath(adapter), arch, adapted, whole))
    return Plan(
        model=about, adapter=section, workload=work, flops=flops, information=given.info,
        capacity=cap, learning_rate=lr, regret=price,
        data=given.report, samples=samples,
        warnings=collect(noted, arch, spec, adapted, whole, work, flops, cap, lr, given.fact),
        sources=_sources(found, arch, given, rates), images=images_section(arch, work.seq_len),
    )  # fmt: skip
