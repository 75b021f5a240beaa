"""A measured peak of memory against the estimate of its set-up, and which other set-up would have had it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import units
from .choices import CHOICES, PEAK_OF
from .errors import InputError, PlannerError
from .memory.calibration import Peak, ends_of, figures, split_of
from .moments import MemoryEstimate
from .remedies import typed
from .running import Running
from .schema import Notice

CLOSE = 0.02  # of a measured peak: as near as what torch allocates is predicted where a set-up is known
TRIED = ("checkpointing", "attention_kernel", "precision", "loss", "optimizer", "quantize")
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MOST = 3
Run = Callable[[Mapping[str, Any]], Running]


def peak_of(asked: Running, before: MemoryEstimate, size: object, of: object) -> Peak:
    """A measured peak of a run, `size` bytes or such as 21.4GiB, `of` what was measured, against the estimate of the
    run. Raises InputError."""
    measured = units.parse_bytes("peak", size)
    if of not in PEAK_OF:
        raise InputError(
            "peak-of", of, f"one of {', '.join(PEAK_OF)}",
            "Say what was measured: torch.cuda.max_memory_allocated, max_memory_reserved, or what nvidia-smi shows.",
        )  # fmt: skip
    setup = asked.setup
    if setup.offload != "none":
        raise InputError(
            "offload", setup.offload, "none beside a measured peak",
            "No published figures tell what a peak with offloading says of another.",
        )  # fmt: skip
    room = asked.machine.accelerator.memory_bytes if asked.machine else None
    predicted, fixed = figures(before, str(of), room)
    low, high = ends_of(before, str(of))
    return Peak(
        asked.model, asked.arch.model_type, asked.arch.params, setup.trainer, setup.method, setup.objective,
        setup.sharding, setup.loss, split_of(setup), setup.gpus, str(of), measured, predicted, fixed, low, high,
        described(asked),
    )  # fmt: skip


def described(asked: Running) -> str:
    """A run in few words: its model, method and batch."""
    setup = asked.setup
    return (
        f"{asked.model}, {setup.method}, {setup.gpus} x {setup.accumulation} x {setup.micro_batch} x "
        f"{setup.seq_len} tokens"
    )


def outside_notices(peak: Peak, asked: Running, run_of: Run) -> tuple[Notice, ...]:
    """What to say of a peak above what the GPU has, or outside of the interval that it had: there with the options
    that would have it to `CLOSE`, one changed at a time, of what torch allocates alone, in whose figure nothing is
    fitted. `run_of` is the run with options changed."""
    room = asked.machine.accelerator.memory_bytes if asked.machine else None
    if room is not None and peak.measured_bytes > room:
        text = f"{units.byte_size(peak.measured_bytes)} are more than the {units.byte_size(room)} of the GPU named."
        return (Notice("peak-over-gpu", f"{text} What was measured ran on another, or over several."),)
    if not peak.outside:
        return ()
    text = (
        f"{units.byte_size(peak.measured_bytes)} lie outside of {units.byte_size(peak.low_bytes)} to "
        f"{units.byte_size(peak.high_bytes)}, the interval of this peak: the options are probably not those that ran."
    )
    if peak.of == "allocated" and (others := _others(peak, asked, run_of)):
        said = "; ".join(f"{typed(options)}: {units.byte_size(size)}" for options, size in others)
        text += f" It would be, with {said}."
    return (Notice("peak-outside", text),)


def _others(peak: Peak, asked: Running, run_of: Run) -> list[tuple[Mapping[str, Any], int]]:
    """The options that would have a peak, the nearest first."""
    found: dict[int, Mapping[str, Any]] = {}
    for options in _changes(asked):
        try:
            size = run_of(options).memory().allocated_bytes
        except PlannerError:  # what does not go together is no explanation
            continue
        if abs(size / peak.measured_bytes - 1) <= CLOSE:
            found.setdefault(size, options)
    nearest = sorted(found, key=lambda size: abs(size - peak.measured_bytes))
    return [(found[size], size) for size in nearest[:MOST]]


def _changes(asked: Running) -> Iterator[Mapping[str, Any]]:
    """One option changed at a time: sequences at a time, then words."""
    setup = asked.setup
    for each in BATCHES:
        if each != setup.micro_batch:
            yield {"batch": setup.global_batch // setup.micro_batch * each}
    for name in TRIED:
        yield from ({name: word} for word in CHOICES[name] if word != getattr(setup, name))
