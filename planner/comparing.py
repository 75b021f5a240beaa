"""`planner.compare`: LoRA, QLoRA and full fine-tuning side by side, over models and ranks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from . import grpo, hardware, units
from .choices import METHODS, Method
from .cost import Cost, RunTime, cost_of, own_price, price_of
from .dataclass import dataclass
from .errors import InputError, UnsupportedArchitectureError, hint
from .fewest import Fewest, fewest_gpus
from .given import whole_number
from .host import Host, host_of
from .memory import memory_gap
from .moments import MemoryEstimate
from .notices import beyond_context
from .pacing import by_data, few_steps, packed_notice, timed
from .pictured import image_notices
from .regret import Regret, expected_regret
from .running import DATA, Data, Running, calibration_of, data_of, running
from .schema import Notice
from .speed import Calibration, time_gap
from .speed.timing import model_flops
from .tables import frame, rows_of_comparison
from .trainers import asked_adapter_dtype, to_say
from .version import __version__


@dataclass(frozen=True)
class Column:
    """One way to fine-tune with its figures; None where what they need was not given. `fewest` is the
    least power of two of these GPUs on which it fits, a sequence each; `untimed` says why a GPU is named and no time
    is known, `unpriced` that its price is not."""

    run: Running
    memory: MemoryEstimate
    memory_bytes: int | None
    host: Host
    fewest: Fewest | None
    flops_per_token: float | None
    time: RunTime | None
    cost: Cost | None
    regret: Regret | None
    untimed: str | None = None
    unpriced: tuple[Notice, ...] = ()

    @property
    def method(self) -> Method:
        """lora, qlora or full."""
        return self.run.setup.method

    @property
    def rank(self) -> int | None:
        """The adapter's rank."""
        return self.run.spec.rank if self.run.spec else None

    @property
    def label(self) -> str:
        """Its name: the model, and the method with its rank."""
        how = self.method if self.rank is None else f"{self.method} r{self.rank}"
        return f"{self.run.model} {how}"

    def to_dict(self) -> dict[str, Any]:
        """A column, for JSON."""
        return {
            "label": self.label,
            "model": self.run.model,
            "method": self.method,
            "rank": self.rank,
            "params": self.run.params,
            "flops_per_token": self.flops_per_token,
            "memory": {**self.memory.to_dict(self.memory_bytes), "host": self.host.to_dict()},
            "smallest_gpus": self.fewest.gpus if self.fewest else None,
            "fewest": self.fewest.to_dict() if self.fewest else None,
            "time": self.time.to_dict() if self.time else None,
            "cost": self.cost.to_dict() if self.cost else None,
            "regret": None
            if self.regret is None
            else {"value": self.regret.value, "low": self.regret.low, "high": self.regret.high},
        }


@dataclass(frozen=True)
class Comparison:
    """What `lora-plan compare` says."""

    columns: tuple[Column, ...]
    data: Data | None
    warnings: tuple[Notice, ...]

    def __repr__(self) -> str:
        """A line for each way."""
        return "\n".join(
            f"{column.label}: {units.byte_size(column.memory.per_gpu_bytes)} a GPU"
            + (f", {units.duration(column.time.step.seconds)} a step" if column.time else "")
            for column in self.columns
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON of `compare`."""
        return {
            "schema": 1,
            "version": __version__,
            "tokens": self.data.tokens if self.data else None,
            "loss_tokens": self.data.loss_tokens if self.data else None,
            "columns": [column.to_dict() for column in self.columns],
            "warnings": [dict(vars(notice)) for notice in self.warnings],
        }

    def to_frame(self, table: str = "columns") -> Any:
        """A table as a pandas DataFrame: columns (a row for each way to fine-tune), memory (by part) or warnings."""
        return frame(self.to_dict(), table, rows_of_comparison)


def _column(run: Running, data: Data | None, calibration: Calibration, asked: Mapping[str, Any]) -> Column:
    """One way's figures; `asked`: the options of its machine."""
    run = replace(run, peaks=calibration.peaks)
    memory = run.memory()
    accelerator = run.machine.accelerator if run.machine and asked["gpu"] is not None else None
    room = accelerator.memory_bytes if accelerator else None
    flops = model_flops(run.arch, run.setup, run.pairs, run.whole)
    time, untimed = _time(run, data, calibration) if accelerator is not None else (None, None)
    price, unpriced = price_of(accelerator, asked["price"]) if accelerator and time else (None, ())
    regret = None
    if data and data.loss_tokens and run.setup.method != "full":
        regret = expected_regret(run.params / data.loss_tokens, moe=run.arch.has_experts)
    tokens = run.setup.global_batch * run.setup.seq_len
    return Column(
        run, memory, room, host_of(memory, asked), fewest_gpus(run, room, memory) if room else None,
        None if flops is None else flops / tokens, time, cost_of(time, price) if time and price else None, regret,
        untimed, unpriced if time and time.steps is not None else (),
    )  # fmt: skip


def _time(run: Running, data: Data | None, calibration: Calibration) -> tuple[RunTime | None, str | None]:
    """The run's time, or why there is none: a rate of the GPU that no source states, or operations not known."""
    samples, tokens, epochs = (data.samples, data.tokens, data.epochs) if data else (None, None, 1)
    try:
        time = timed(run, samples, tokens, epochs, calibration)
    except InputError as error:
        return None, str(error)
    return time, None if time else time_gap(run.arch, run.whole)


def _names(field: str, value: Any, known: Sequence[str] | None = None) -> list[Any]:
    """One value, a comma list or a sequence, as a list. Raises InputError."""
    if isinstance(value, str):
        items: list[Any] = [part.strip() for part in value.split(",") if part.strip()]
    else:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
    if not items:
        raise InputError(field, value, "one or more, separated by commas")
    for item in items:
        if known is not None and item not in known:
            raise InputError(field, item, f"one of {', '.join(known)}", hint(str(item), known).strip())
    return items


def _options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one method: a quantised base for QLoRA alone."""
    found = {
        name: value for name, value in options.items() if name not in DATA or name == "trust_remote_code"
    }
    found["adapter_dtype"] = asked_adapter_dtype(found.get("adapter_dtype"), found.get("trainer"))
    quantize = found.pop("quantize", None)
    if method == "qlora" and quantize not in (None, "none"):
        found["quantize"] = quantize
    return {**found, "method": method}


def _runs(
    models: Iterable[Any], ranks: Sequence[int], methods: Sequence[Method], options: Mapping[str, Any],
    left_out: dict[Method, InputError],
) -> Iterator[Running]:  # fmt: skip
    """The runs. Of all three methods those but the one that an estimate would be of may not go with the options: they
    are put in `left_out`."""
    own: Method = "lora" if options.get("quantize") in (None, "none") else "qlora"
    for model in models:
        for method in methods:
            try:
                for rank in ranks if method != "full" else ranks[:1]:
                    yield running(model, {**_options(method, options), "rank": rank})
            except InputError as error:
                if method == own or tuple(methods) != METHODS:
                    raise
                left_out[method] = error


def _possible(runs: list[Running]) -> list[Running]:
    """The runs; raises UnsupportedArchitectureError where the memory of one is not known."""
    for run in runs:
        if (reason := memory_gap(run.arch)) is not None:
            raise UnsupportedArchitectureError(f"the memory of {run.arch.model_type} is not known: {reason}.")
    return runs


def _batch_of_grpo(run: Running, data: Data | None, options: Mapping[str, Any]) -> int:
    """The batch that is given, or that an estimate of GRPO has. Raises InputError where the data are no episodes, or
    it is no whole number of groups."""
    group = {"group": options.get("group_size")}
    grpo.check_data(data.info if data else None)
    if options.get("batch") is None:
        return grpo.batch_of(run.setup.global_batch, group)
    grpo.check_batch(run.setup.global_batch, group)
    return run.setup.global_batch


def _left_out(ways: Mapping[Method, InputError]) -> Iterator[Notice]:
    """Which methods do not go with the options."""
    for method, error in ways.items():
        yield Notice("method-left-out", f"{method} is left out, with which these options do not go. {error}")


def _of_steps(columns: Iterable[Column], data: Data, packing_given: bool) -> Iterator[Notice]:
    """What to know of how many steps the data make, as an estimate says it."""
    for column in columns:
        if column.time is not None:
            yield from few_steps(column.time.steps)
            if packed := packed_notice(data.samples, column.run.setup, packing_given, data.epochs):
                yield packed


def _of_host(columns: Sequence[Column]) -> Iterator[Notice]:
    """Ways that take more of the host's memory than a machine has, or, where nobody said how much that is, the way
    that takes most."""
    said = [(column, notice) for column in columns if (notice := column.host.notice)]
    most = max(said, key=lambda each: each[0].host.node_bytes, default=None)
    for column, notice in said if most and most[0].host.fits is False else [most] if most else []:
        told = ", which takes most there" if column.host.fits is None and len(said) > 1 else ""
        yield replace(notice, message=f"{column.label}{told}: {notice.message}")


def _untimed(columns: Iterable[Column]) -> Iterator[Notice]:
    """Why ways have neither time nor cost, those with one reason together."""
    ways: dict[str, list[str]] = {}
    for column in columns:
        if column.untimed is not None:
            ways.setdefault(column.untimed, []).append(column.label)
    for reason, labels in ways.items():
        yield Notice("no-time", f"{', '.join(labels)}: time and cost are not estimated. {reason}")


def compare(
    model: str | os.PathLike[str] | Mapping[str, Any] | Sequence[str], *,
    ranks: int | str | Sequence[int] = 32, methods: str | Sequence[str] = METHODS,
    price: float | None = None, calibration: str | os.PathLike[str] | Calibration | None = None,
    host_memory: int | str | None = None, **options: Any,
) -> Comparison:  # fmt: skip
    """Methods, models and ranks side by side: parameters, FLOPs, memory by part, time, cost and expected regret.

    `options` are those of an estimate (`data` to read a file among them) and the fields of Setup, `gpu` and `gpus`
    too; `host_memory` is what a machine's host has for what is offloaded. Raises InputError.
    """
    models = [model] if isinstance(model, Mapping) else _names("model", model)
    picked = _names("methods", methods, get_args(Method))
    wanted = [whole_number("ranks", rank) for rank in _names("ranks", ranks)]
    given = calibration_of(calibration)
    if price is not None:
        own_price(price)
    if options.get("gpu") is not None:
        hardware.find(options["gpu"])
    asked = {
        "gpu": options.get("gpu"), "price": price, "host_memory": host_memory,
        "gpus_per_node": whole_number("gpus-per-node", options.get("gpus_per_node", hardware.GPUS_PER_NODE)),
    }  # fmt: skip
    of_grpo = {"objective": options.get("objective"), "prompt_tokens": options.get("prompt_tokens")}
    options["seq_len"] = grpo.length_of(options.get("seq_len"), of_grpo)
    apart: dict[Method, InputError] = {}
    runs = _possible(list(_runs(models, wanted, picked, options, apart)))
    data = data_of(models[0], options, runs[0].setup.seq_len)
    if data:
        runs = [replace(run, setup=by_data(run.setup, data.samples, options)) for run in runs]
    if of_grpo["objective"] == "grpo":
        options["batch"] = _batch_of_grpo(runs[0], data, options)
        runs = list(_runs(models, wanted, picked, options, apart))
    columns = tuple(_column(run, data, given, asked) for run in runs)
    of_first = len(models) > 1 and options.get("data") is not None
    notices = _notices(columns, data, of_first, options.get("packing") is not None)
    return Comparison(columns, data, tuple(dict.fromkeys((*_left_out(apart), *notices))))


def _notices(
    columns: Sequence[Column], data: Data | None, of_first: bool, packing_given: bool
) -> Iterator[Notice]:
    """What to know of these ways; `of_first`: the data were counted for the first of several models."""
    yield from data.notices if data else ()
    yield from _of_host(columns)
    yield from _untimed(columns)
    if of_first:
        text = f"The data are counted with the tokenizer of the first model, {columns[0].run.model}."
        yield Notice("data-of-first", text)
    for run in {id(column.run.arch): column.run for column in columns}.values():
        yield from beyond_context(run.arch, run.setup.seq_len)
        yield from image_notices(run.arch, run.setup.seq_len, data.tokens if data else None)
    for column in columns:
        yield from column.memory.notices
        yield from column.time.step.notices if column.time else ()
        yield from column.unpriced
    for column in [c for c in columns if c.memory.corrected] or columns[:1]:
        yield from column.run.peak_notices()
    if data:
        yield from _of_steps(columns, data, packing_given)
    for column in columns:
        yield from to_say(column.run.setup)
