"""`planner.plan`: from a model, data, GPUs and limits to the best plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import facts, hardware, units
from ..adapter.options import spec_of
from ..adapter.spec import LAYER_SETS, PRESETS
from ..choices import CHOICES
from ..cost import own_price
from ..errors import InputError, UnsupportedArchitectureError, hint
from ..estimator import load, sequence_length
from ..learning_rate.factors import Run, at_run
from ..learning_rate.lookup import LearningRate, look_up
from ..memory.overhead import said_narrower
from ..pacing import few_steps, packed_notice
from ..running import OF_FILE, SPEC_DEFAULTS, calibration_of, data_of
from ..schema import Notice
from ..setup import Setup
from ..speed import Calibration, time_gap
from ..trainers import SETUP_FIELDS, USUAL_QLORA, asked_adapter_dtype, filled, is_usual_qlora
from .evaluate import Evaluated, price_of
from .result import Binding, Found, Rejected, changed, why
from .space import (
    BATCH,
    CHECKPOINTING,
    COUNTS,
    LAYERS,
    MICRO_BATCHES,
    QUANTIZE,
    RANKS,
    SHARDINGS,
    Job,
    Limits,
    Space,
    chosen,
    counted,
    divided,
    layouts,
    limits,
)

if TYPE_CHECKING:
    from ..dataset.result import DatasetReport
    from ..fact_types import Accelerator
    from .screen import Cells
    from .select import Chooser

ANY = "any"


def _many(value: Any) -> list[Any]:
    """One value, a comma list or a sequence, as a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _numbers(name: str, value: Any) -> tuple[int, ...]:
    return counted(name, (units.parse_count(name, item) for item in _many(value)))


def accelerators(gpu: Any, price: float | None, adapter_dtype: str = "float32") -> tuple[Accelerator, ...]:
    """The accelerators of these names; "any": all whose memory, price and speed are known, the adapter type's too."""
    names = _many(gpu)
    if [str(name).lower() for name in names] != [ANY]:
        return tuple(dict.fromkeys(hardware.find(name) for name in names))
    return tuple(
        fact
        for fact in facts.accelerators()
        if fact.memory_bytes
        and fact.bandwidth_bytes_per_s
        and (fact.bf16_dense_flops_per_s or fact.fp16_dense_flops_per_s)
        and (fact.fp32_flops_per_s or adapter_dtype != "float32")
        and (price is not None or facts.prices_of(fact.name, "on-demand"))
    )


def _space(options: Mapping[str, Any]) -> Space:
    layer_names = (*LAYER_SETS, *PRESETS, "all-linear")
    return Space(
        accelerators=accelerators(options["gpu"], options["price"], options["adapter_dtype"]),
        layouts=layouts(
            _numbers("gpus", options["gpus"]), chosen("sharding", _many(options["sharding"]), CHOICES["sharding"])
        ),
        ranks=_numbers("ranks", options["ranks"]),
        layers=chosen("layers", _many(options["layers"]), layer_names),
        quantize=chosen("quantize", _many(options["quantize"]), CHOICES["quantize"]),
        checkpointing=chosen("checkpointing", _many(options["checkpointing"]), CHOICES["checkpointing"]),
        micro_batches=_numbers("micro-batch", options["micro_batch"]),
        batches=_numbers("batch", options["batch"]),
    )  # fmt: skip


def _job(options: Mapping[str, Any], setup: Mapping[str, Any]) -> tuple[Job, str, tuple[Notice, ...]]:
    """The job, the model's name, and what to know of the data."""
    found, arch = load(options["model"])
    seq_len = sequence_length(arch, options["seq_len"])
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
    if setup.get("objective", "sft") != "sft":
        raise InputError(
            "objective", setup["objective"], "sft in a search over plans", "estimate counts the others."
        )
    job = Job(
        arch=arch,
        setup=Setup(**{**filled(setup, arch.model_type), "seq_len": seq_len}),
        given=setup,
        spec=spec,
        tokens=data.tokens,
        loss_tokens=data.loss_tokens,
        calibration=calibration_of(options["calibration"]),
        price=options["price"],
        per_node=options["gpus_per_node"],
        lengths_open=options["seq_len"] is None,
        samples=data.samples,
        epochs=data.epochs,
    )
    return job, found.model_id, data.notices


def _notices(job: Job, found: Sequence[Evaluated], own: bool) -> Iterator[Notice]:
    """What to know of these plans; `own`: whether the GPUs are named, and the usual numbers of them tried."""
    best = found[0]
    if own and best.choice.layout.gpus > 1:
        yield Notice(
            "gpus-tried",
            f"{', '.join(map(str, COUNTS))} GPUs were tried: --gpus 1 keeps to one.",
        )
    yield from few_steps(best.run.steps)
    if job.loss_tokens is None:
        yield Notice(
            "regret-unknown",
            "No expected regret: its law is of supervised data. Rollouts are not in the time, which is that of "
            "training on one sequence an episode.",
        )
    if "attention" in (plan.choice.layers for plan in found):
        yield Notice(
            "regret-of-attention",
            "The law of regret was fitted on adapters of all layers; attention alone lags behind it.",
        )
    if best.choice.layout.expert_parallel > 1:
        yield Notice(
            "experts-divided",
            "No plan fits in which every GPU gathers all experts of a layer. The plans shown divide the experts over "
            "GPUs (expert parallelism), which Megatron-Bridge, NeMo and few others do.",
        )
    if best.over_bytes("sure") > 0:
        yield Notice(
            "memory-tight",
            f"The upper end of the memory's interval, {units.byte_size(best.memory.high)}, is more than the GPU has. "
            f"--fit sure keeps to plans whose upper end fits too.{said_narrower(best.memory)}",
        )
    if best.regret is not None and best.regret.extrapolated:
        yield Notice(
            "regret-extrapolated",
            "The best plan's parameters per loss token lie outside the range that the law of regret was fitted on.",
        )
    if packed := packed_notice(
        job.samples, best.memory.setup, job.given.get("packing") is not None, job.epochs
    ):
        yield packed
    if is_usual_qlora(best.memory.setup):
        yield USUAL_QLORA
    yield from best.run.step.notices


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
        said = {"memory": "With more memory", "regret": "Without the limit on regret"}
        start = said.get(limit, f"Without the {limit}")
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
    fit: str = "expected", price: float | None = None,
    calibration: str | os.PathLike[str] | Calibration | None = None,
    ranks: int | str | Sequence[int] = RANKS, layers: str | Sequence[str] = LAYERS,
    quantize: str | Sequence[str] = QUANTIZE, checkpointing: str | Sequence[str] = CHECKPOINTING,
    sharding: str | Sequence[str] = SHARDINGS, micro_batch: int | str | Sequence[int] = MICRO_BATCHES,
    alpha: float = 32, experts: str = "scaled", adapter_dtype: str = "float32", gpus_per_node: int = 8,
    alternatives: int = 4, frontier: int = 16, **setup: Any,
) -> Found:  # fmt: skip
    """The best plan of a LoRA fine-tune within the limits, and what stands around it.

    `gpu` is one or more names, or "any" (all with a known price); `gpus` their counts. `budget` is in dollars,
    `deadline` in seconds or as "12h", `max_regret` a share of the loss. `fit` says what has to fit on a GPU: the peak
    that is "expected", or ("sure") the upper end of its interval. `setup` takes the other fields of
    planner.setup.Setup (precision, optimizer, attention_kernel, kernels, loss, trainer ...), held fixed. Raises
    InputError where an option is bad, or where nothing fits, naming the nearest plan.
    """
    options = {name: value for name, value in locals().items() if name != "setup"}
    seconds = None if deadline is None else units.parse_duration("deadline", deadline)
    within = limits(budget, seconds, max_regret, prefer, fit)
    space = _space(options)
    job, name, of_data = _job(options, setup)
    for accelerator in space.accelerators:
        price_of(job, accelerator)
    from .screen import screen  # numpy is loaded here, where it is needed
    from .select import Chooser, nothing_fits

    if gap := time_gap(job.arch):
        raise UnsupportedArchitectureError(f"No step time: {gap}")
    cells = screen(job, space)
    chooser = Chooser(cells, within.fit)
    best = chooser.best(within)
    if best is None and (apart := divided(space.layouts, job.arch.n_experts)):
        cells = screen(job, replace(space, layouts=apart))
        chooser = Chooser(cells, within.fit)
        best = chooser.best(within)
    if best is None:
        raise nothing_fits(chooser, within)
    others = chooser.next_best(best, within, alternatives)
    front = chooser.frontier(within, frontier)
    plans = [chooser.full(cell) for cell in (best, *others)]
    own = gpu != ANY and _numbers("gpus", gpus) == COUNTS
    return Found(
        model=name, tokens=job.tokens, loss_tokens=job.loss_tokens, limits=within,
        candidates=len(cells.seconds), feasible=chooser.count(within), best=plans[0],
        sure=_sure(cells, within) if plans[0].over_bytes("sure") > 0 else None,
        alternatives=tuple(plans[1:]), frontier=tuple(chooser.full(cell) for cell in front),
        binding=tuple(_binding(chooser, best, within)), rejected=_sorted(_rejected(chooser, best, within)),
        warnings=(*of_data, *_notices(job, plans, own)), learning_rate=_rate(model, job, plans[0]),
        given=_held(options, setup),
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
    return at_run(looked, arch.hidden_size, "sft" if job.loss_tokens is not None else "rl", run)


def _sure(cells: Cells, within: Limits) -> Evaluated | None:
    """The best plan of which the upper end of the memory's interval fits too."""
    from .select import Chooser

    chooser = Chooser(cells, "sure")
    best = chooser.best(within)
    return None if best is None else chooser.full(best)


def _held(options: Mapping[str, Any], setup: Mapping[str, Any]) -> dict[str, Any]:
    """What the search held fixed, as options of an estimate."""
    names = (
        "model", "tokens", "dataset", "episodes", "success_rate", "epochs", *OF_FILE[:-1], "seq_len", "alpha",
        "experts", "adapter_dtype", "gpus_per_node", "price", "calibration",
    )  # fmt: skip
    found = {**{name: options[name] for name in names}, **setup}
    return {name: value for name, value in found.items() if value not in (None, "float32")}


def _sorted(rejected: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """What breaks a limit first, in the order of the limits."""
    order = ("memory", "deadline", "budget", "regret", "worse")
    return tuple(sorted(rejected, key=lambda item: order.index(item.kind)))
