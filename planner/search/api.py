"""`planner.plan`: from a model, data, GPUs and limits to the best plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import facts, grpo, hardware, units
from ..adapter.options import spec_of
from ..adapter.spec import LAYER_SETS, PRESETS
from ..choices import CHOICES
from ..cost import own_price
from ..errors import InputError, UnsupportedArchitectureError, hint
from ..estimator import load, sequence_length
from ..learning_rate.factors import Run, at_run
from ..learning_rate.lookup import LearningRate, look_up
from ..memory import memory_gap
from ..pacing import LENGTHS, by_data
from ..preferences import unknown_rate
from ..running import OF_FILE, SPEC_DEFAULTS, calibration_of, data_of, usual_of
from ..schema import Notice
from ..selective import SELECTIVE
from ..setup import Setup
from ..speed import Calibration, time_gap
from ..trainers import SETUP_FIELDS, asked_adapter_dtype, filled
from .evaluate import Evaluated, price_of
from .layout import SHARDINGS, WAYS, in_precisions, layouts, spread
from .result import WITHOUT, Binding, Found, Rejected, changed, why
from .space import (
    BATCH,
    CHECKPOINTING,
    COUNTS,
    LAYERS,
    MAKERS,
    MICRO_BATCHES,
    QUANTIZE,
    RANKS,
    Job,
    Limits,
    Space,
    at_least_none,
    check_engine,
    check_regret,
    chosen,
    counted,
    limits,
    plain_engine,
    with_makers,
)
from .telling import notices
from .usable import narrowed, open_to, told, widened

if TYPE_CHECKING:
    from ..dataset.result import DatasetReport
    from ..fact_types import Accelerator
    from .select import Chooser

ANY = "any"
RECOMPUTED = tuple(
    way for way in CHOICES["checkpointing"] if way != SELECTIVE
)  # that is not on a quantised base
# Fields of a set-up that a search neither varies nor can hold.
NOT_SEARCHED = ("accumulation", "method", "optimizer_in_backward", "gpu_bytes")
OTHERWISE = {"method": "--quantize says which.", "gpu_bytes": "It is the GPU's own."}


def _many(value: Any) -> list[Any]:
    """One value, a comma list or a sequence, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _numbers(name: str, value: Any) -> tuple[int, ...]:
    return counted(name, (units.parse_count(name, item) for item in _many(value)))


def accelerators(
    gpu: Any, price: float | None, adapter_dtype: str = "float32", quantize: Any = ()
) -> tuple[Accelerator, ...]:
    """The accelerators of these names; "any": all whose memory, price and speed are known, the adapter type's too,
    and that in int8 where such a base is tried."""
    names = _many(gpu)
    if not names:
        raise InputError("gpu", "", "one or more accelerators, or any")
    if [str(name).lower() for name in names] != [ANY]:
        return tuple(dict.fromkeys(hardware.find(name) for name in names))
    return tuple(
        fact
        for fact in facts.accelerators()
        if fact.memory_bytes
        and fact.bandwidth_bytes_per_s
        and (fact.bf16_dense_flops_per_s or fact.fp16_dense_flops_per_s)
        and (fact.fp32_flops_per_s or adapter_dtype != "float32")
        and ("int8" not in _many(quantize) or hardware.knows_int8(fact))
        and (price is not None or facts.prices_of(fact.name, "on-demand"))
    )


def _precisions(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The precisions that are asked for, each once; Setup says which there are."""
    asked = options["precision"]
    found = () if asked is None else tuple(dict.fromkeys(_many(asked)))
    if asked is not None and not found:
        chosen("precision", found, CHOICES["precision"])
    return found


def _one_precision(options: Mapping[str, Any]) -> dict[str, Any]:
    """The precision as a field that is held, where one is asked for."""
    found = _precisions(options)
    return {"precision": found[0]} if len(found) == 1 else {}


def _space(options: Mapping[str, Any]) -> Space:
    layer_names = (*LAYER_SETS, *PRESETS, "all-linear")
    return Space(
        accelerators=accelerators(*(options[n] for n in ("gpu", "price", "adapter_dtype", "quantize"))),
        layouts=in_precisions(
            layouts(
                _numbers("gpus", options["gpus"]),
                chosen("sharding", _many(options["sharding"]), CHOICES["sharding"]),
            ),
            _precisions(options),
        ),
        ranks=_numbers("ranks", options["ranks"]),
        layers=chosen("layers", _many(options["layers"]), layer_names),
        quantize=chosen("quantize", _many(options["quantize"]), CHOICES["quantize"]),
        checkpointing=chosen("checkpointing", _many(options["checkpointing"]), RECOMPUTED),
        micro_batches=_numbers("micro-batch", options["micro_batch"]),
        batches=_numbers("batch", options["batch"]),
    )  # fmt: skip


def _job(options: Mapping[str, Any], setup: Mapping[str, Any]) -> tuple[Job, str, tuple[Notice, ...]]:
    """The job, the model's name, and what to know of the data."""
    found, arch = load(options["model"])
    setup = {name: value for name, value in setup.items() if value is not None} | _one_precision(options)
    if setup.get("vllm_tensor_parallel") == 1:
        del setup["vllm_tensor_parallel"]
    if (objective := str(setup.get("objective", "sft"))) != "sft":
        setup = {**usual_of(objective, setup.get("trainer"), generation=options["generation"]), **setup}
    asked = {"objective": objective, "prompt_tokens": setup.get("prompt_tokens")}
    seq_len = sequence_length(arch, grpo.length_of(options["seq_len"], asked))
    data = data_of(options["model"], options, seq_len)
    if data is None:
        raise InputError(
            "tokens", None, "the amount of data", "Give --tokens, --episodes, --dataset or --data."
        )
    if options["price"] is not None:
        own_price(options["price"])
    names = ("alpha", "experts", "adapter_dtype")
    spec = spec_of({**SPEC_DEFAULTS, **{name: options[name] for name in names}, "rank": 1})
    held = asked_adapter_dtype(options["adapter_dtype"], setup.get("trainer"))
    setup = {"adapter_dtype": held, **setup}
    for field in setup:
        if field not in SETUP_FIELDS:
            raise InputError(field, setup[field], "a known option", hint(field, SETUP_FIELDS).strip())
    for field in NOT_SEARCHED:
        if (value := setup.get(field)) is True or value not in (None, 1, False):
            told = OTHERWISE.get(field, "`estimate` takes it.")
            raise InputError(field.replace("_", "-"), value, "none in a search over plans", told)
    if objective == "grpo":
        grpo.check_model(arch)
        grpo.check_data(data.info)
        for batch in _numbers("batch", options["batch"]):
            grpo.check_batch(batch, options)
        check_engine(setup)
    elif options["group"] is not None:
        raise InputError("group", options["group"], "objective grpo beside it")
    said = plain_engine(setup) if objective == "grpo" else setup
    plain = Setup(**{**filled(said, arch.model_type), "seq_len": seq_len})
    made = by_data(plain, data.samples, setup)
    of_data = {name: getattr(made, name) for name in LENGTHS} if made is not plain else {}
    job = Job(
        arch=arch,
        setup=made,
        given={**setup, **of_data},
        spec=spec,
        tokens=data.tokens,
        loss_tokens=data.loss_tokens if objective == "sft" else None,
        calibration=calibration_of(options["calibration"]),
        price=options["price"],
        per_node=options["gpus_per_node"],
        lengths_open=options["seq_len"] is None,
        bits=data.info.bits if data.info is not None and data.info.kind == "rl" else None,
        samples=data.samples,
        epochs=data.epochs,
    )
    return job, found.model_id, data.notices


def _shared_out(job: Job, space: Space, options: Mapping[str, Any]) -> Space:
    """The space with every way that is asked for in which GPUs share experts, matrices, layers and sequences."""
    counts = {
        name: (1,) if options[name] is None else _numbers(name.replace("_", "-"), options[name])
        for name in ("expert_parallel", *WAYS)
    }
    sizes = () if options["shard_size"] is None else _numbers("shard-size", options["shard_size"])
    offload = chosen("offload", _many(options["offload"] or "none"), CHOICES["offload"])
    return replace(space, layouts=spread(job.arch, job.setup, space.layouts, counts, offload, sizes))


def _with_makers(job: Job, space: Space, options: Mapping[str, Any]) -> Space:
    """The space with who makes completions, for GRPO."""
    makers, servers = options["generation"], _numbers("vllm-gpus", options["vllm_gpus"])
    if job.setup.objective != "grpo":
        for name, value in (("generation", makers), ("vllm-gpus", None if servers == (1,) else servers)):
            if value is not None:
                raise InputError(name, options[name.replace("-", "_")], "objective grpo beside it")
        return space
    if makers is None:
        makers = job.given.get("generation", MAKERS)  # the trainer's own, where it has one
    tried = chosen("generation", _many(makers), CHOICES["generation"])
    own = job.on(space.accelerators[0]) if space.accelerators else job
    return replace(space, layouts=with_makers(own, space.layouts, tried, servers))


def _rejected(chooser: Chooser, best: int, within: Limits) -> Iterator[Rejected]:
    from .select import neighbours

    for _, cell in neighbours(chooser.cells, best):
        plan = chooser.full(cell)
        kind, reason = why(chooser.full(best), plan, within)
        yield Rejected(plan, changed(chooser.full(best), plan), kind, reason)


def _binding(chooser: Chooser, best: int, within: Limits) -> Iterator[Binding]:
    from .select import binding

    for limit, plan in binding(chooser, best, within):
        gain = why(plan, chooser.full(best), Limits(prefer=within.prefer))[1]
        start = WITHOUT.get(limit, f"Without the {limit}")
        yield Binding(limit, plan, f"{start}: {plan.choice.text}; the best plan is {gain}.")


def plan(
    model: str | os.PathLike[str] | Mapping[str, Any], *, gpu: str | Sequence[str] = ANY,
    gpus: int | str | Sequence[int] = COUNTS, tokens: int | str | None = None, dataset: str | None = None,
    episodes: int | str | None = None, success_rate: float | None = None, epochs: int = 1,
    data: str | os.PathLike[str] | DatasetReport | None = None, tokenizer: str | os.PathLike[str] | None = None,
    format: str | None = None, loss_on: str | None = None, split: str | None = None,
    columns: str | Mapping[str, str] | None = None, nats: float | None = None,
    group_size: int | None = None, on_progress: Callable[[int, int, int], None] | None = None,
    seq_len: int | None = None, batch: int | str | Sequence[int] = BATCH, budget: float | None = None,
    deadline: float | str | None = None, max_regret: float | None = None, prefer: str = "quality",
    fit: str = "expected", price: float | None = None, host_memory: int | str | None = None,
    calibration: str | os.PathLike[str] | Calibration | None = None,
    ranks: int | str | Sequence[int] = RANKS, layers: str | Sequence[str] = LAYERS,
    quantize: str | Sequence[str] = QUANTIZE, checkpointing: str | Sequence[str] = CHECKPOINTING,
    sharding: str | Sequence[str] = SHARDINGS, micro_batch: int | str | Sequence[int] = MICRO_BATCHES,
    tensor_parallel: int | str | Sequence[int] = 1, pipeline_parallel: int | str | Sequence[int] = 1,
    sequence_parallel: int | str | Sequence[int] | None = None,
    expert_parallel: int | str | Sequence[int] | None = None, offload: str | Sequence[str] | None = None,
    shard_size: int | str | Sequence[int] | None = None,
    alpha: float = 32, experts: str = "scaled", adapter_dtype: str = "float32", gpus_per_node: int = 8,
    precision: str | Sequence[str] | None = None, group: int | None = None,
    generation: str | Sequence[str] | None = None,
    vllm_gpus: int | str | Sequence[int] = 1, alternatives: int = 4, frontier: int = 16, **setup: Any,
) -> Found:  # fmt: skip
    """The best plan of a LoRA fine-tune within the limits, and what stands around it.

    `gpu` is one or more names, or "any" (all with a known price); `gpus` their counts. `budget` is in dollars,
    `deadline` in seconds or as "12h", `max_regret` a share of the loss. `fit` says what has to fit on a GPU: the peak
    that is "expected", or ("sure") the upper end of its interval, and `host_memory` what a machine's host has for
    what is offloaded: bytes or such as 512GiB. Of `precision`, one is held, several are weighed; `setup` takes the
    other fields of planner.setup.Setup (optimizer, attention_kernel, kernels, loss, trainer ...), held fixed. With
    `objective` "grpo" it also weighs who makes the completions (`generation`) and a server's `vllm_gpus`. Raises
    InputError where an option is bad, or where nothing fits, naming the nearest plan.
    """
    options = {name: value for name, value in locals().items() if name != "setup"}
    options["group"] = group = grpo.one_group({**setup, "group": group}, group_size)
    seconds = None if deadline is None else units.parse_duration("deadline", deadline)
    within = limits(budget, seconds, max_regret, prefer, fit, host_memory)
    at_least_none(alternatives=alternatives, frontier=frontier)
    fitting = narrowed(options, setup.get("trainer"))
    space = _space({**options, **fitting})
    job, name, of_data = _job(options, setup)
    check_regret(job, within)
    space = _with_makers(job, _shared_out(job, space, options), options)
    for accelerator in space.accelerators:
        price_of(job, accelerator)
    from .widening import best_of  # numpy is loaded here, where it is needed

    if reason := memory_gap(job.arch):
        raise UnsupportedArchitectureError(f"the memory of {job.arch.model_type} is not known: {reason}.")
    if gap := time_gap(job.arch):
        raise UnsupportedArchitectureError(f"No step time: {gap}")
    free = open_to(options, setup.get("trainer"), fitting)
    chooser, best = best_of(job, space, within, free)
    plans = [chooser.full(cell) for cell in (best, *chooser.next_best(best, within, alternatives))]
    front = chooser.frontier(within, frontier)
    own = gpu != ANY and _numbers("gpus", gpus) == COUNTS
    warnings = (
        *of_data, *told(fitting, setup.get("trainer")), *widened(plans[0].choice.layout, free),
        *notices(job, plans, own, group, within),
    )  # fmt: skip
    return _found(chooser, best, within, plans, front, warnings, name, model, _held(options, setup))


def _found(
    chooser: Chooser, best: int, within: Limits, plans: Sequence[Evaluated], front: Iterable[int],
    warnings: tuple[Notice, ...], name: str, model: str | os.PathLike[str] | Mapping[str, Any],
    given: Mapping[str, Any],
) -> Found:  # fmt: skip
    """The answer: the best of `plans` and the next best, with what stands around them."""
    job, cells = chooser.cells.job, chooser.cells
    return Found(
        model=name, tokens=job.tokens, loss_tokens=job.loss_tokens, limits=within,
        candidates=len(cells.seconds), feasible=chooser.count(within), best=plans[0],
        sure=_sure(chooser, within) if plans[0].over_bytes("sure") > 0 else None,
        alternatives=tuple(plans[1:]), frontier=tuple(chooser.full(cell) for cell in front),
        binding=tuple(_binding(chooser, best, within)), rejected=_sorted(_rejected(chooser, best, within)),
        warnings=warnings, learning_rate=_rate(model, job, plans[0]), given=given,
    )  # fmt: skip


def _rate(model: str | os.PathLike[str] | Mapping[str, Any], job: Job, best: Evaluated) -> LearningRate:
    """The learning rate of the best plan, as an estimate of it gives it."""
    found, arch = load(model)
    named = found.origin in ("catalogue", "hub")
    rank = best.choice.rank
    looked = look_up(
        model_id=found.model_id,
        model_type=arch.model_type,
        hidden_size=arch.hidden_size,
        named=named,
        rank=rank,
    )
    run = Run.of(rank, job.spec.alpha, "alpha/rank", best.run.steps, best.choice.batch)
    objective = job.setup.objective
    task = "rl" if objective == "grpo" or job.bits is not None else "sft"
    rate = at_run(looked, arch.hidden_size, task, run)
    return rate if objective in ("sft", "grpo") else unknown_rate(rate, objective)


def _sure(chooser: Chooser, within: Limits) -> Evaluated | None:
    """The best plan of which the upper end of the memory's interval fits too."""
    surely = chooser.surely()
    best = surely.best(within)
    return None if best is None else surely.full(best)


def _held(options: Mapping[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
    """What the search held fixed, as options of an estimate."""
    names = (
        "model", "tokens", "dataset", "episodes", "success_rate", "epochs", *OF_FILE[:-1], "seq_len", "alpha",
        "experts", "adapter_dtype", "gpus_per_node", "host_memory", "price", "calibration", "group",
    )  # fmt: skip
    found = {**{name: options[name] for name in names}, **setup, **_one_precision(options)}
    usual = {"vllm_tensor_parallel": 1}
    return {
        name: value
        for name, value in found.items()
        if value not in (None, "float32") and (name not in usual or value != usual[name])
    }


def _sorted(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """What breaks a limit first, in the order of the limits."""
    order = ("memory", "host-memory", "deadline", "budget", "regret", "worse")
    return tuple(sorted(rejected, key=lambda item: order.index(item.kind)))
