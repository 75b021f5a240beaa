"""What to change where a run does not fit on its GPU: the fewest changes that leave what is trained and on which data
as they are.

Tried are fewer sequences at a time (`accumulation`: the step stays the same), layers computed again in the backward
pass, a loss that does not hold all logits, and a base in four bits, or in 16 where its experts would be float32.
Every answer is a whole estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from .dataclass import dataclass
from .errors import InputError
from .memory.engine import engine
from .objective_rules import SHARES_GPU
from .running import Running
from .setup import Setup

MOST = 4
LARGEST_PRIME = 1_000_000
# From the change that costs least to the one that costs most: time, then digits of the base. vLLM's share becomes
# what holds all completions of a step.
CHANGES: tuple[tuple[str, Any], ...] = (
    ("eval_batch", 1), ("vllm_memory", None), ("vllm_sleep", True), ("loss", "fused"),
    ("checkpointing", "layer"), ("quantize", "nf4"),
)  # fmt: skip
LAYOUT = (
    "gpus", "sharding", "tensor_parallel", "pipeline_parallel", "expert_parallel", "sequence_parallel",
    "checkpointing",
)  # fmt: skip
SHARED = ("sequence_parallel", "expert_parallel")
SetupOf = Callable[[Mapping[str, Any]], Setup]


@dataclass(frozen=True)
class Remedy:
    """Options, by their names in `estimate`, with which a run fits: the peak and the upper end of its interval."""

    options: Mapping[str, Any]
    per_gpu_bytes: int
    high: int
    step_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "options": dict(self.options)}

    @property
    def text(self) -> str:
        """The options as they are typed."""
        return typed(self.options)


def typed(options: Mapping[str, Any]) -> str:
    """Options as they are typed."""
    words = {name.replace("_", "-"): "" if value is True else f" {value}" for name, value in options.items()}
    return " ".join(f"--{name}{value}" for name, value in words.items())


def _open(run: Running) -> tuple[tuple[str, Any], ...]:
    """The changes that say something new of this run. Logits that an adapter reads and writes have to be held, so
    that no fused loss goes with an adapted unembedding."""
    setup = run.setup
    head = any(pair.matrix.role == "unembedding" for pair in run.pairs)
    beside = engine(run.arch, setup)
    all_held = beside.share_for(beside.wanted) if beside else None
    share = 1.0 if all_held is None else math.ceil(all_held * 100) / 100
    new = {
        "eval_batch": setup.eval_batch > 1,
        "vllm_memory": share < setup.vllm_share,
        "vllm_sleep": setup.generation in SHARES_GPU and not setup.vllm_sleep,
        "loss": setup.objective == "sft" and setup.loss in ("full", "full-copied", "shifted") and not head,
        "checkpointing": setup.checkpointing == "none",
        "quantize": (setup.quantize == "none" and setup.method == "lora") or _widened(run),
    }
    other = {"vllm_memory": share} | ({"quantize": "none"} if _widened(run) else {})
    return tuple((name, other.get(name, value)) for name, value in CHANGES if new[name])


def _widened(run: Running) -> bool:
    """Whether a quantised base has experts that are not quantised but in float32, and so takes more than 16."""
    setup = run.setup
    unquantised = run.arch.has_experts and not setup.quantize_experts
    return setup.method == "qlora" and unquantised and setup.upcast_small and setup.weight_dtype != "float32"


def _thinner(setup: Setup) -> list[int]:
    """Micro-steps of a step, from as many as there are to one sequence at a time; of counts of sequences with prime
    factors above a million, those are not split."""
    pieces, left, prime = [1], setup.micro_batch, 2
    while left > 1:
        if prime * prime > left or prime > LARGEST_PRIME:
            prime = left
        own, power = pieces, 1
        while left % prime == 0:
            left, power = left // prime, power * prime
            pieces = pieces + [power * each for each in own]
        prime += 1
    return [setup.accumulation * each for each in sorted(pieces)]


def _tried(
    run: Running, room: int, changes: Mapping[str, Any], setup_of: SetupOf, sure: bool
) -> Remedy | None:
    """These changes with as few micro-steps as will do; None where one sequence at a time is too much. Fewer
    sequences at a time are taken never to need more, but where micro-steps become several."""

    def made(accumulation: int) -> Remedy | None:
        more = {} if accumulation == run.setup.accumulation else {"accumulation": accumulation}
        options = {**changes, **more}
        changed = replace(run, setup=setup_of(options))
        found = changed.memory()
        fits = (found.high if sure else found.per_gpu_bytes) <= room
        return Remedy(options, found.per_gpu_bytes, found.high, _step_s(changed)) if fits else None

    own, *more = _thinner(run.setup)
    try:
        found = made(own) if changes else None
        if found is not None or not more:
            return found
        found, low, high = made(more[-1]), 0, len(more) - 1
        while found is not None and low < high:
            middle = (low + high) // 2
            less = made(more[middle])
            found, low, high = (found, middle + 1, high) if less is None else (less, low, middle)
        return found
    except InputError:  # what does not go together is no remedy
        return None


def _step_s(run: Running) -> float | None:
    try:
        step = run.time()
    except InputError:  # a rate of this GPU that no source states
        return None
    return step.seconds if step else None


def with_more(
    run: Running, room: int, setup_of: SetupOf, least: Mapping[str, Any], batch: int | None
) -> Remedy | None:
    """The options of the `least` layout that fits (`fewest_gpus`) where its GPUs are more than the run's, or where
    sequences or experts are shared among the run's own; None where it is none of these, or would not fit as it is
    typed. A step keeps its sequences, or gets the next more that so many GPUs can share."""
    setup = run.setup
    if least["gpus"] <= setup.gpus and all(least[name] <= getattr(setup, name) for name in SHARED):
        return None
    gpus = max(least["gpus"], setup.gpus)
    wanted = {**least, "gpus": gpus, "tensor_parallel": 1, "pipeline_parallel": 1}
    options = {name: wanted[name] for name in LAYOUT if wanted[name] != getattr(setup, name)}
    copies = gpus // least["sequence_parallel"]
    if batch is not None or setup.accumulation > 1:
        whole = setup.global_batch if batch is None else batch
        steps = -(-whole // copies)
        asked = {"batch": (steps * copies, batch), "accumulation": (steps, setup.accumulation)}
        options |= {name: new for name, (new, old) in asked.items() if new != old}
    try:
        found = replace(run, setup=setup_of(options)).memory()
    except InputError:  # what does not go together is no remedy
        return None
    return Remedy(options, found.per_gpu_bytes, found.high, None) if found.fits(room) else None


def remedies(run: Running, room: int, setup_of: SetupOf, sure: bool = False) -> tuple[Remedy, ...]:
    """The least changes with which a run fits into `room` bytes a GPU: none holds another's among its own.

    `setup_of` gives the set-up with options changed; `sure`: up to the interval's upper end. Empty where none of
    these changes is enough.
    """
    found: list[Remedy] = []
    enough: list[set[str]] = []
    changes = _open(run)
    for count in range(len(changes) + 1):
        for some in combinations(changes, count):
            names = {name for name, _ in some}
            if any(fewer <= names for fewer in enough):
                continue
            remedy = _tried(run, room, dict(some), setup_of, sure)
            if remedy is not None:
                found.append(remedy)
                enough.append(names)
    return tuple(found[:MOST])
