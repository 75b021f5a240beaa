"""`planner.estimate`: a model's estimate, with the memory of LoRA, QLoRA and full fine-tuning, the time and
the cost."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import estimator, grpo, units
from .adapter import adapt
from .adapter.whole import NOTHING_WHOLE, trained_whole
from .choices import METHODS, Method
from .errors import InputError, UnsupportedArchitectureError
from .given import said_of, whole_number
from .host import Host, host_of
from .memory import memory_gap
from .notices import stored_notice
from .objective import changes_step
from .objective_rules import OF_SHARE
from .pacing import by_data, few_steps, optimizer_steps, packed_notice, processed_tokens, timed
from .pictured import pictured
from .plan import Plan
from .preferences import PLAIN_PREFERENCES, of_preferences
from .schema import Architecture, Notice, Source
from .trainers import asked_adapter_dtype, claimed, to_say, usual

if TYPE_CHECKING:  # loaded where memory is estimated
    from .cost import Cost, RunTime
    from .hardware import Cluster
    from .moments import MemoryEstimate
    from .remedies import SetupOf
    from .running import Running
    from .setup import Setup

OF_GRPO = (*OF_SHARE, "vllm_gpus", "vllm_tensor_parallel", "mean_completion")
ALPHA_RULES = {True: "alpha/sqrt(rank)", False: "alpha/rank"}
# The options that say how the fine-tune is run; None: as the trainer has it, else the field's own default.
USUAL: dict[str, Any] = {
    "precision": None, "autocast": None, "tf32": None, "quantize": None, "quantize_experts": None, "optimizer": None,
    "upcast_small": None, "optimizer_in_backward": None, "lora_dropout": None, "lengths_vary": None, "price": None,
    "attention_kernel": None, "kernels": None, "loss": None, "packing": None, "accumulation": 1, "calibration": None,
    "objective": None, "reference": None, "prompt_tokens": None, "generation": None, "gpus": 1, "gpu": None,
    "fsdp_units": None, "placing": None, "group": None, "gpus_per_node": 8, "sharding": None, "offload": None,
    "tensor_parallel": 1, **dict.fromkeys(("frozen_towers", "prepared_wide", "eval_batch", "loading", "base_dtype")),
    "pipeline_parallel": 1, "expert_parallel": 1, "sequence_parallel": 1, "shard_size": None, "reduce_buckets": None,
    **dict.fromkeys((*OF_GRPO, "gradients_late", "outputs_held", "host_memory", "trainer", "expandable_segments")),
}  # fmt: skip


def _setup_options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in options.items() if value is not None and name != "group"}
    quantize = found.pop("quantize", "none")
    if method == "qlora" and quantize != "none":
        found["quantize"] = quantize
    return {**found, "method": method}


def _options_of(
    plan: Plan, method: Method, options: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Options of a method's set-up, some changed; of one not asked for, layers run again as its trainer has it."""
    asked = "lora" if options["quantize"] in (None, "none") else "qlora"
    said = {} if method == asked else {"checkpointing": plan.request.get("checkpointing")}
    return _setup_options(method, {**options, **said, **(changes or {})})


def _runs(
    plan: Plan, arch: Architecture, options: Mapping[str, Any], machine: Cluster | None, main: Method
) -> Iterator[tuple[Method, Running | None]]:
    """The run of each method; None for one that cannot be run so, unless it is the one asked for (`main`)."""
    from .running import Running, setup_from
    from .selective import as_it_goes
    from .sharing import check_shares

    spec = plan.adapter.spec
    pairs = adapt(arch, spec)
    whole = trained_whole(arch, spec, pairs)
    peaks = options["calibration"].peaks if options["calibration"] else ()
    for method in METHODS:
        said = _options_of(plan, method, options)
        try:
            setup = by_data(setup_from(said, plan.workload.seq_len, arch.model_type), plan.samples, said)
            own = () if method == "full" else pairs
            setup = as_it_goes(arch, setup, own, plan.request.get("checkpointing"))
            check_shares(arch, setup, own)
        except InputError:
            if method == main:
                raise
            yield method, None
            continue
        full = method == "full"
        yield method, Running(
            plan.model.id, arch, None if full else spec, () if full else pairs, NOTHING_WHOLE if full else whole,
            setup, machine, not plan.workload.seq_len_given, said, peaks,
        )  # fmt: skip


def _memory(plan: Plan, run: Running, found: MemoryEstimate, room: int | None, host: Host) -> dict[str, Any]:
    """The contract's entry of a method, with the fewest GPUs on which it fits."""
    least = None
    if room:
        from .fewest import fewest_gpus

        least = fewest_gpus(run, room, found)
    said = {name: value for name, value in found.to_dict(room).items() if name != "moments"}
    if said["interval"] is not None:
        said["interval"]["length"] = _length(plan, run.setup)
    more = {"would_fit": None, "would_surely_fit": None, "host": host.to_dict()}
    return {**said, "fewest": least.to_dict() if least else None, **more}


def _length(plan: Plan, setup: Setup) -> str:
    """Whether sequences reach the length that memory is estimated for: "packed" to it, "assumed" where nobody gave
    one, "reached" or "shorter" by the longest of the data, else "typed", of which the data are not known."""
    if setup.packing == "packed":
        return "packed"
    if plan.data is not None and plan.data.lengths is not None:
        return "reached" if plan.data.lengths.max >= plan.workload.seq_len else "shorter"
    return "typed" if plan.workload.seq_len_given else "assumed"


def _shorter(plan: Plan) -> Notice:
    """That no sample is as long as what memory is estimated for."""
    assert plan.data is not None
    assert plan.data.lengths is not None
    asked, longest = plan.workload.seq_len, plan.data.lengths.max
    text = f"Memory is that of sequences of {asked:,} tokens, and the data's longest has {longest:,}."
    return Notice("shorter-than-length", f"{text} --seq-len {longest} would say what they need.")


def _setup_of(plan: Plan, run: Running, options: Mapping[str, Any]) -> SetupOf:
    """How a run's set-up is made with some of its options changed."""
    from .running import setup_from

    def setup_of(changes: Mapping[str, Any]) -> Setup:
        method: Method = "lora" if changes.get("quantize", run.setup.quantize) == "none" else "qlora"
        said = _options_of(plan, method, options, changes)
        return by_data(setup_from(said, plan.workload.seq_len, run.arch.model_type), plan.samples, said)

    return setup_of


def _does_not_fit(
    plan: Plan, run: Running, entry: Mapping[str, Any], room: int, options: Mapping[str, Any]
) -> tuple[Notice, list[dict[str, Any]]]:
    """That the run does not fit, and the nearest that does; what would, for the contract's entry."""
    from .remedies import remedies, with_more

    setup_of = _setup_of(plan, run, options)
    others = remedies(run, room, setup_of)
    more = None
    if not others and entry["fewest"]:
        more = with_more(run, room, setup_of, entry["fewest"], options["batch"])
    needed = f"{units.byte_size(entry['per_gpu_bytes'])} of a GPU's {units.byte_size(room)}"
    advice = "Nor would it with one sequence at a time, layers computed again and a base in four bits."
    if others:
        advice = f"{others[0].text} would ({units.byte_size(others[0].per_gpu_bytes)})."
    elif more:
        advice = f"{advice} {more.text} would ({units.byte_size(more.per_gpu_bytes)} a GPU)."
    how = "likely does" if entry["fit"] == "unlikely" else "does"
    told = Notice("does-not-fit", f"It {how} not fit: {needed}. {advice}")
    return told, [other.to_dict() for other in others]


def _not_surely(
    plan: Plan, run: Running, entry: Mapping[str, Any], room: int, options: Mapping[str, Any]
) -> tuple[Notice, list[dict[str, Any]]]:
    """That the run may yet not fit, and with what it does up to the upper end of its interval."""
    from .memory.interval_kinds import NARROWER
    from .remedies import remedies

    others = remedies(run, room, _setup_of(plan, run, options), sure=True)
    text = (
        f"By its interval it takes up to {units.byte_size(entry['high'])} of a GPU's {units.byte_size(room)}."
    )
    if narrower := NARROWER[entry["interval"]["kind"]]:
        text += f" {narrower[0].upper()}{narrower[1:]} narrows it."
    if others:
        text += f" Should it run out of memory: {others[0].text} fits up to the upper end."
    return Notice("may-not-fit", text), [other.to_dict() for other in others]


def _machine(options: Mapping[str, Any]) -> Cluster | None:
    """The machine that the options name; a price that is none is refused without one too."""
    if options["price"] is not None:
        from .cost import own_price

        own_price(options["price"])
    if options["gpu"] is None:
        return None
    from . import hardware

    return hardware.cluster(
        hardware.find(options["gpu"]), whole_number("gpus", options["gpus"]),
        per_node=whole_number("gpus-per-node", options["gpus_per_node"]),
    )  # fmt: skip


def _timed(
    plan: Plan, run: Running, machine: Cluster, options: Mapping[str, Any]
) -> tuple[RunTime | None, Cost | None, list[Notice]]:
    """Time and cost of the run on the machine, and what to know of them; None where a rate is not known."""
    from .cost import cost_of, price_of
    from .running import calibration_of

    given = calibration_of(options["calibration"])  # none is no correction
    try:
        time = timed(run, plan.samples, processed_tokens(plan), plan.workload.epochs, given)
    except InputError as error:  # a rate of this GPU that no source states
        return None, None, [Notice("no-time", f"Time and cost are not estimated. {error}")]
    if time is None:
        return None, None, []
    asked, unpriced = price_of(machine.accelerator, options["price"])
    packed = packed_notice(plan.samples, run.setup, options["packing"] is not None, plan.workload.epochs)
    unpriced = unpriced if time.steps is not None else ()
    notices = [*few_steps(time.steps), *([packed] if packed else []), *time.step.notices, *unpriced]
    return time, cost_of(time, asked) if asked else None, notices


def _with_run(plan: Plan, arch: Architecture, options: Mapping[str, Any]) -> Plan:
    """The plan with memory, time, cost and serving."""
    if options["calibration"] is not None:
        from .running import calibration_of

        options = {**options, "calibration": calibration_of(options["calibration"])}
    machine = _machine(options)
    room = machine.accelerator.memory_bytes if machine else None
    main: Method = "lora" if options["quantize"] in (None, "none") else "qlora"
    stored = stored_notice(plan.model.id, plan.model.quantization) if main == "lora" else None
    first: list[Notice] = [stored] if stored else []
    notices: list[Notice] = []
    memory: dict[str, Any] = {}
    time = cost = None
    for method, run in _runs(plan, arch, options, machine, main):
        try:
            found = run.memory() if run else None
        except InputError:
            if method == main:
                raise
            found = None
        host = host_of(found, options) if found else None
        memory[method] = _memory(plan, run, found, room, host) if run and found and host else None
        if method == main and host and host.notice:
            (first if host.fits is False else notices).append(host.notice)
        if method == main and run and found and room and not found.fits(room):
            told, memory[method]["would_fit"] = _does_not_fit(plan, run, memory[method], room, options)
            first.append(told)
        elif method == main and run and found and room and found.fit(room) == "likely":
            told, memory[method]["would_surely_fit"] = _not_surely(plan, run, memory[method], room, options)
            notices.append(told)
        notices += found.notices if found else ()
        notices += (*to_say(run.setup), *run.peak_notices()) if method == main and run else ()
        if method == main and run and plan.flops and changes_step(arch, run.setup, run.pairs):
            plan = estimator.with_objective(plan, arch, run.setup)
            if run.setup.objective == "grpo":
                plan = grpo.section(plan, arch, run.setup, options)
        if method == main and run and found and machine:
            time, cost, more = _timed(plan, run, machine, options)
            notices += more
    if machine and room is None:
        name = machine.accelerator.name
        text = f"How much memory {name} has differs by machine: whether it fits is for you to say."
        notices.append(Notice("gpu-memory-unknown", text))
    plan = grpo.timed(plan) if plan.grpo and time else plan
    asked = memory[main]
    if asked and asked["interval"] and asked["interval"]["length"] == "shorter":
        notices.append(_shorter(plan))
    done = replace(
        plan, memory=memory, time=time.to_dict() if time else None, cost=cost.to_dict() if cost else None,
        warnings=(*first, *plan.warnings, *dict.fromkeys(notices)),
        sources=(*plan.sources, *_of_memory(options["trainer"])),
    )  # fmt: skip
    return _with_serving(done, arch, machine, options) if machine else done


def _of_memory(trainer: str | None) -> tuple[tuple[str, Source], ...]:
    """Where the profile of a trainer and the constants of memory come from."""
    from .memory.constants import sources

    return (*claimed(trainer), *sources())


def _with_serving(plan: Plan, arch: Architecture, machine: Cluster, options: Mapping[str, Any]) -> Plan:
    """The plan with what serving its adapter takes."""
    from .serving import SOURCE, place_params, serving

    spec = plan.adapter.spec
    adapted = adapt(arch, spec)
    rank = max((pair.rank for item in adapted for pair in item.pairs), default=spec.rank)
    found = serving(
        arch, plan.adapter.params, rank, machine, tokens=plan.workload.seq_len,
        quantize=options["quantize"] or "none", place=place_params(adapted),
    )  # fmt: skip
    if found is None:
        return plan
    return replace(plan, serving=found.to_dict(), sources=(*plan.sources, ("serving", SOURCE)))


def _with_rate(plan: Plan, batch: int | None) -> Plan:
    """The plan with the learning rate of its run, as `lr` gives it. `batch` is None where nobody gave one: the rate
    is then that of the law's own."""
    from .learning_rate.factors import Run, at_run, sources_of, to_mind

    if (objective := plan.request.get("objective") or "sft") not in ("sft", "grpo"):
        return of_preferences(plan, str(objective))
    spec = plan.adapter.spec
    of_rewards = plan.information is not None and plan.information.kind == "rl"
    task = "rl" if of_rewards or objective == "grpo" else "sft"
    steps = None if batch is None else optimizer_steps(plan, batch)
    run = Run.of(spec.rank, spec.alpha, ALPHA_RULES[spec.use_rslora], steps, batch)
    rate = at_run(plan.learning_rate, plan.model.hidden_size, task, run)
    warnings: tuple[Notice, ...] = (*plan.warnings, *to_mind("lora", task, run))
    sources = (*plan.sources, *sources_of(rate.factors))
    if task == "rl":
        of_law = ("learning-rate-", "learning rate")
        warnings = tuple(each for each in warnings if not each.code.startswith(of_law[0]))
        if asked := plan.request.get("law"):
            text = f"No law covers reinforcement learning: {os.fspath(asked)} is not used."
            warnings = (*warnings, Notice("learning-rate-law", text))
        assert rate.context
        sources = tuple(
            (use, rate.context.source if use == of_law[1] else source) for use, source in plan.sources
        )
    return replace(plan, learning_rate=rate, warnings=warnings, sources=sources)


def estimate(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, rank: int = 32, alpha: float = 32,
    layers: str | Sequence[str] | None = None, targets: str | Sequence[str] | None = None,
    experts: str = "scaled", seq_len: int | None = None, batch: int | None = None,
    checkpointing: bool | str | None = None, **options: Any,
) -> Plan:  # fmt: skip
    """The Plan of a LoRA fine-tune of `model`: a name, a path, or a config as a mapping.

    The options are those of `lora-plan estimate`, by the same names: more of the adapter, the data, how it is run
    (`precision`, `quantize`, `optimizer`, `sharding` ..., or a `trainer` whose profile fills them) and on what
    (`gpu`, `gpus`, `price`). Raises a PlannerError (InputError, ConfigError, UnknownModelError, HubError,
    UnsupportedArchitectureError) whose message says what to do.
    """
    request = said_of(dict(locals()))
    asked = {name: options.pop(name, usual) for name, usual in USUAL.items()}
    asked["group"] = grpo.one_group(asked, options.get("group_size"))
    whole_number("gpus-per-node", asked["gpus_per_node"])
    typed, seq_len = seq_len is not None, grpo.length_of(seq_len, asked)
    sequences = _one_each(asked) if batch is None else batch
    how = _checkpointing(checkpointing, asked)
    try:
        plan = estimator.estimate(
            model, rank=rank, alpha=alpha, layers=layers, targets=targets, experts=experts, seq_len=seq_len,
            batch=sequences, checkpointing=how != "none", **options,
        )  # fmt: skip
    except TypeError as error:
        raise _unknown(error, options) from error
    if plan.information is not None and plan.information.kind == "preference" and not asked["objective"]:
        plan = replace(plan, warnings=(*plan.warnings, PLAIN_PREFERENCES))
    plan = replace(plan, workload=replace(plan.workload, seq_len_given=typed))
    grpo.check_given(plan, sequences, asked)
    own_batch = sequences if batch is not None or asked["accumulation"] != 1 else None
    plan = _with_rate(replace(plan, request=request), own_batch)
    found, arch = estimator.load(
        estimator.model_of({"model": model, "adapter": options.get("adapter")}),
        options.get("trust_remote_code", False),
    )
    arch = pictured(arch, found.config, options)
    if (reason := memory_gap(arch)) is not None:
        notice = Notice(
            "no-memory", f"Memory, time and cost are not estimated for {arch.model_type}: {reason}."
        )
        return replace(plan, warnings=(*plan.warnings, notice))
    try:
        held = asked_adapter_dtype(options.get("adapter_dtype"), asked["trainer"])
        return _with_run(
            plan, arch, {**asked, "batch": sequences, "checkpointing": how, "adapter_dtype": held}
        )
    except UnsupportedArchitectureError as error:
        notice = Notice("no-memory", f"Memory, time and cost are not estimated: {error}")
        return replace(plan, warnings=(*plan.warnings, notice))


def _one_each(asked: Mapping[str, Any]) -> int:
    """The batch where none is given: a sequence for each data-parallel GPU and micro-step; of GRPO as TRL has it."""
    if asked["objective"] == "grpo":
        alone = _one_each({**asked, "objective": None})
        return grpo.batch_of(alone, asked)
    if asked["gpus"] == asked["accumulation"] == 1:
        return 1
    from .running import setup_from

    length = whole_number("sequence-parallel", asked["sequence_parallel"])  # one that these GPUs can share
    unsaid = dict.fromkeys(
        ("quantize", "objective", "reference", "generation", "prompt_tokens", "loss", *OF_GRPO)
    )
    return setup_from(_setup_options("lora", {**asked, **unsaid}), length).global_batch


def _checkpointing(given: bool | str | None, asked: Mapping[str, Any]) -> str:
    """Whether and how layers run again: as given, as the trainer has it, or not."""
    method = "lora" if asked["quantize"] in (None, "none") else "qlora"
    spread = {"method": method, **{name: asked[name] for name in ("trainer", "sharding", "objective")}}
    own = usual(spread, "checkpointing")
    if isinstance(given, str):
        return given
    if given is None:
        return own or "none"
    return (own if own not in (None, "none") else "layer") if given else "none"


def _unknown(error: TypeError, options: Mapping[str, Any]) -> Exception:
    """An option that nobody knows, as an error that names the nearest."""
    import inspect

    from .errors import hint

    known = {*inspect.signature(estimator.estimate).parameters, *USUAL}
    name = next((name for name in options if name not in known), None)
    if name is None:
        return error
    return InputError(name, options[name], "an option of estimate", hint(name, known).strip())
