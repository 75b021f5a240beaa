"""A supervised run: Adam at a constant rate, nothing else. Seeded: the same configuration gives the same curve."""

from __future__ import annotations

import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from . import adapters
from .batches import Batch, encode_batch, evaluate, loss_of
from .models import fingerprint, fresh
from .peak import forget, peak_bytes
from .records import RunConfig, Status
from .require import require
from .tasks import Task, task

# A run is given up where its loss is no number, or where ten steps in a row average above this multiple of the first.
DIVERGED_AT = 1.5
WINDOW = 10
EVALUATION_BATCH = 64
# Batches made at a time: making text between two steps finds the processor's caches full of the model, and takes
# three times as long as making the same text at once. Their tokens take at most as much memory as PREPARED_TOKENS.
PREPARED, PREPARED_TOKENS = 40, 2**18
# Adam's own settings follow Tinker's documentation; the schedule is constant, without warm-up or decay.
OPTIMIZERS = ("adam", "sgd")


class OutOfTimeError(Exception):
    """The budget ended inside a run, which leaves no record."""


@dataclass
class Outcome:
    """What a run yields, before it becomes a record."""

    status: Status = "ok"
    reason: str = ""
    curve: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    norms: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    flops: int | None = None
    trainable: int | None = None
    step_s: float | None = None
    peak_memory_bytes: int | None = None
    weights: str = ""


def indices(config: RunConfig, known: Task, step: int) -> list[int]:
    """The examples of a step: fresh ones, or the task's in an order drawn anew for each epoch from the seed."""
    size = config.examples or known.size
    first = step * config.batch
    if not size:
        start = config.seed * 10_000_000
        return list(range(start + first, start + first + config.batch))
    found = []
    for position in range(first, first + config.batch):
        epoch, place = divmod(position, size)
        found.append(_order(config.seed, epoch, size)[place])
    return found


_orders: dict[tuple[int, int, int], list[int]] = {}


def _order(seed: int, epoch: int, size: int) -> list[int]:
    key = (seed, epoch, size)
    if key not in _orders:
        if len(_orders) > 4:
            _orders.clear()
        _orders[key] = random.Random(f"order/{seed}/{epoch}").sample(range(size), size)
    return _orders[key]


def has_diverged(curve: list[float]) -> str:
    """Why a run is given up, or nothing."""
    if not math.isfinite(curve[-1]):
        return f"the loss of step {len(curve)} is no number"
    if len(curve) > WINDOW and statistics.fmean(curve[-WINDOW:]) > DIVERGED_AT * curve[0]:
        return f"{WINDOW} steps to step {len(curve)} average above {DIVERGED_AT} times the first loss"
    return ""


def optimizer_of(model: Any, config: RunConfig) -> Any:
    """Adam without weight decay (or plain SGD, for claims about the optimizer)."""
    torch = require()
    found = adapters.groups(model, config)
    if config.optimizer == "adam":
        return torch.optim.Adam(found, betas=config.betas)
    if config.optimizer == "sgd":
        return torch.optim.SGD([{k: v for k, v in group.items() if k != "eps"} for group in found])
    raise InputError("optimizer", config.optimizer, f"one of {', '.join(OPTIMIZERS)}")


class Trainer:
    """One run on one device. `beat` is called at every step and may raise OutOfTimeError."""

    def __init__(self, config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> None:
        torch = require()
        self.config, self.device, self.beat = config, device, beat
        self.task = task(config.task)
        torch.manual_seed(config.seed)
        forget(device)
        model, self.base = fresh(config.model, device)
        self.model = adapters.attach(model, config, self.base.config).train()
        if config.checkpointing:
            with warnings.catch_warnings():  # transformers is renaming this method
                warnings.simplefilter("ignore", FutureWarning)
                self.model.gradient_checkpointing_enable()
        self.optimizer = optimizer_of(self.model, config)
        self.outcome = Outcome(weights=self.base.weights)
        self.outcome.trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def batch(self, step: int) -> Batch:
        """The step's examples as tensors."""
        examples = [self.task.example(index) for index in indices(self.config, self.task, step)]
        return encode_batch(examples, self.base.tokenizer, self.config.seq_len, self.device)

    def batches(self) -> Iterator[Batch]:
        """The batches of all steps, made some at a time."""
        config = self.config
        ahead = max(1, min(PREPARED, PREPARED_TOKENS // (config.batch * config.seq_len)))
        for start in range(0, config.steps, ahead):
            yield from [self.batch(step) for step in range(start, min(start + ahead, config.steps))]

    def held_out(self) -> list[Batch]:
        """The evaluation set as tensors."""
        known = self.task.evaluation
        return [
            encode_batch(
                known[n : n + EVALUATION_BATCH], self.base.tokenizer, self.config.seq_len, self.device
            )
            for n in range(0, len(known), EVALUATION_BATCH)
        ]

    def autocast(self) -> Any:
        """Mixed precision where the configuration asks for it: products in bfloat16, weights and adapter float32."""
        if self.config.precision != "bfloat16":
            return nullcontext()
        torch = require()
        return torch.autocast(self.device.split(":")[0], torch.bfloat16)

    def forward_backward(self, batch: Batch) -> float:
        """The loss, with gradients left in the parameters; the first step goes through torch's FLOP counter."""
        with self.autocast():
            if self.outcome.flops is None:
                from torch.utils.flop_counter import FlopCounterMode

                with FlopCounterMode(display=False) as counter:
                    loss = loss_of(self.model, batch)
                    loss.backward()
                self.outcome.flops = int(counter.get_total_flops())
            else:
                loss = loss_of(self.model, batch)
                loss.backward()
        return float(loss.item())

    def run(self) -> Outcome:
        """The whole run."""
        out, config = self.outcome, self.config
        held_out = self.held_out()
        stops = {*config.evaluate_at, config.steps}
        times: list[float] = []
        started = time.perf_counter()
        for step, batch in enumerate(self.batches()):
            out.curve.append(self.forward_backward(batch))
            if reason := has_diverged(out.curve):
                out.status, out.reason = "diverged", reason
                break
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            times.append(time.perf_counter() - started)
            if step + 1 in stops:
                out.evaluations.append((step + 1, evaluate(self.model, held_out)))
            if self.beat is not None:
                self.beat(step + 1)
            started = time.perf_counter()
        self.finish(times)
        return out

    def first_pass(self) -> list[float]:
        """Losses of the steps that saw only examples never seen before; nothing where the run diverged."""
        size = self.config.examples or self.task.size
        steps = size // self.config.batch if size else len(self.outcome.curve)
        return self.outcome.curve[:steps] if self.outcome.status == "ok" else []

    def finish(self, times: list[float]) -> None:
        """Norms, time and memory at the end."""
        out = self.outcome
        out.step_s = statistics.median(times[1:]) if len(times) > 1 else None
        out.peak_memory_bytes = peak_bytes(self.device)
        # What `lora-plan calibrate` and `lora-plan dataset` read beside the configuration.
        out.measured["attention_kernel"] = "eager"
        if self.config.kind == "sft" and (first := self.first_pass()):
            out.measured["first_epoch_loss"] = statistics.fmean(first)
        if self.config.method == "lora" and out.status == "ok":
            out.norms = adapters.norms(self.model)
            out.measured["change"] = fingerprint(adapters.changes(self.model))


def train(config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> Outcome:
    """Run a supervised configuration."""
    return Trainer(config, device, beat).run()


__all__ = ["OutOfTimeError", "Outcome", "Trainer", "train"]
