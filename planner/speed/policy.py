"""Seconds of a step of GRPO: its completions are made, weights are handed over, they are scored and learnt from.

    step       = generation + handover + scoring + training
    generation = prompts in one pass + a pass for each further token, over the sequences that go on (decode.py)
    handover   = of a vLLM that does not share the base: COPIES x base / (bandwidth x memory) and OPERATIONS launches
                 for each matrix; to a server base / link besides, to one that sleeps base / the host's bus
    scoring    = forward passes without gradients (the reference; the trained model again after another engine)
    training   = planner/speed's step, of sequences as long as the longest, to which a batch is padded

The step waits for its longest completion. transformers' generate goes on with every sequence until the longest has
ended; vLLM takes up those that wait as soon as others end. Neglected: rewards, moving data, logging; a server's HTTP;
that TRL's colocated vLLM is woken from a disk where it sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass, replace
from ..hardware import Cluster, pcie_bytes_per_s
from ..memory.engine import engine as beside
from ..memory.engine import engine_weights, served
from ..schema import Architecture, Notice
from ..setup import Setup
from .calibration import NOTHING_MEASURED, Calibration
from .decode import (
    Engine,
    Load,
    Pace,
    cache_bytes,
    decoding,
    load_of,
    pace_of,
    pass_s,
    read_of,
    reduces_s,
)
from .efficiency import constants
from .kinds import GRPO, Grounds
from .lengths import going_on, longest_of
from .timing import Counted, StepTime, step_time, tokens_of

CHUNKS = 24  # of a completion's tokens, within which a pass is taken at its middle
COPIES = (
    4  # times the base moves as an adapter is merged into it, taken out, and it is written into the engine
)
FEW = 10  # sources, below which the output says so
OPERATIONS = 10  # kernels for each matrix that is merged and handed over


@dataclass(frozen=True)
class Making:
    """How the completions of one engine are made: `number` of them, `at_once` of these at a time, `passes` in which
    a token of each is made."""

    number: int
    at_once: int
    allowed: int
    mean: float
    longest: int


def making_of(arch: Architecture, setup: Setup, machine: Cluster) -> Making:
    """The completions of the slowest engine of a step: a GPU's own (of GPUs that run one together, all of theirs), or
    a server's share of all. Raises InputError where a server holds not even one."""
    allowed = setup.seq_len - max(1, setup.prompt_tokens)
    mean, longest = _lengths(setup, setup.global_batch)
    number = setup.micro_batch * setup.accumulation
    if setup.generation == "server":
        found = served(arch, setup, machine.accelerator.memory_bytes)
        return Making(found.wanted, found.sequences, allowed, mean, longest)
    own = beside(arch, setup)
    if own is None:
        return Making(number, number, allowed, mean, longest)
    return Making(own.wanted, own.sequences, allowed, mean, longest)


def learnt_tokens(setup: Setup, batch: int) -> int:
    """Tokens of a sequence as it is learnt from: the prompt, and as many as the longest completion of the batch has
    where they are padded to it, else as many as one has on average."""
    prompt = max(1, setup.prompt_tokens)
    mean, longest = _lengths(setup, batch)
    return prompt + (longest if setup.packing == "padded" else math.ceil(mean))


def _lengths(setup: Setup, batch: int) -> tuple[float, int]:
    """Tokens of a completion on average, and of the longest of a step."""
    allowed = setup.seq_len - max(1, setup.prompt_tokens)
    mean = float(min(allowed, setup.mean_completion or allowed))
    return mean, longest_of(batch, allowed, mean)


def chunks(first: int, last: int) -> Iterator[tuple[float, int]]:
    """The tokens from `first` to `last` in pieces: the middle of each, and how many. A quantity that is linear over a
    piece adds up exactly."""
    total = last - first + 1
    pieces = min(CHUNKS, total)
    for piece in range(pieces):
        begin, end = first + piece * total // pieces, first + (piece + 1) * total // pieces
        yield (begin + end - 1) / 2, end - begin


def prompts_s(
    load: Load, pace: Pace, engine: Engine, number: float, prompt: int, flops_of_prompt: float
) -> float:
    """Seconds of passing so many prompts: arithmetic, or reading the weights once where that is longer; what the host
    launches where it launches every kernel."""
    if not prompt or not number:
        return 0.0
    weights = read_of(load.weights, number * prompt) / pace.bytes_per_s
    busy = load.part * max(number * flops_of_prompt / pace.flops_per_s, weights)
    busy += reduces_s(load, pace, number * prompt)
    return busy + engine.pass_s if engine.graphs else max(busy, load.kernels * pace.host_s)


def _tail_s(load: Load, pace: Pace, engine: Engine, number: float, setup: Setup, making: Making) -> float:
    """Seconds of the passes of `number` completions that begin together and wait for the longest."""
    prompt = max(1, setup.prompt_tokens)
    pieces = _tail(load.arch, load.width, load.weights, engine.graphs, number, prompt, making)
    return sum(
        passes * pass_s(load, pace, engine, active, cached, read) for passes, active, cached, read in pieces
    )


@lru_cache(maxsize=256)
def _tail(
    arch: Architecture, width: int, weights: tuple[tuple[float, int, int], ...], ends: bool, number: float,
    prompt: int, making: Making,
) -> tuple[tuple[int, float, float, float], ...]:  # fmt: skip
    """Passes of a tail in pieces, each with the sequences that go on, the bytes that they have cached and those of
    weights that it reads; `ends`: whether one that has ended leaves."""
    found = []
    for token, passes in chunks(1, max(1, making.longest - 1)):
        share = going_on(token, making.allowed, making.mean) if ends else 1.0
        active = max(1.0, number * share)
        cached = active * cache_bytes(arch, round(prompt + token), width)
        found.append((passes, active, cached, read_of(weights, active)))
    return tuple(found)


def passes_s(load: Load, pace: Pace, engine: Engine, setup: Setup, making: Making) -> float:
    """Seconds of all passes that make a token of each sequence. Of more completions than go at a time the others
    follow: in whole waves where all are as long, else as each ends, full batches for their tokens before the tail."""
    at_once, number = making.at_once, making.number
    if number <= at_once:
        return _tail_s(load, pace, engine, number, setup, making)
    if making.mean >= making.allowed:
        waves, rest = divmod(number, at_once)
        total = waves * _tail_s(load, pace, engine, at_once, setup, making)
        return total + (_tail_s(load, pace, engine, rest, setup, making) if rest else 0.0)
    tokens = (number - at_once) * making.mean / at_once
    middle = round(max(1, setup.prompt_tokens) + making.mean / 2)
    cached = at_once * cache_bytes(load.arch, middle, load.width)
    full = tokens * pass_s(load, pace, engine, at_once, cached)
    return full + _tail_s(load, pace, engine, at_once, setup, making)


def handover_s(arch: Architecture, setup: Setup, machine: Cluster, pace: Pace) -> float:
    """Seconds of handing this step's weights to an engine with a base of its own; none where it is the trainer's."""
    if setup.generation in ("transformers", "shared"):
        return 0.0
    base = engine_weights(arch, setup)
    matrices = sum(matrix.copies for matrix in arch.matrices)
    found = COPIES * base / pace.bytes_per_s + OPERATIONS * matrices * pace.host_s
    if setup.generation == "server":
        found += base / machine.link_bytes_per_s
    if setup.vllm_sleep:
        found += base / setup.vllm_tensor_parallel / pcie_bytes_per_s(machine.accelerator)
    return found


def maker(setup: Setup) -> Engine:
    """The engine that makes completions."""
    return Engine(constants().efficiency.memory) if setup.generation == "transformers" else decoding().vllm


def made_load(arch: Architecture, setup: Setup, pairs: Iterable[Adapted]) -> Load:
    """The load of its passes, which batch, layout and GPU do not change."""
    return load_of(arch, setup, pairs if setup.generation == "transformers" else (), maker(setup))


def generation_s(
    arch: Architecture, setup: Setup, machine: Cluster, pairs: Iterable[Adapted], load: Load | None = None
) -> tuple[float, float]:
    """Seconds of making a step's completions, and of handing weights over; `load` is `made_load`, where it is known.
    Raises InputError where a rate is not known."""
    engine, load = maker(setup), load or made_load(arch, setup, pairs)
    pace = pace_of(machine, setup, engine, constants().efficiency)
    making, prompt = making_of(arch, setup, machine), max(1, setup.prompt_tokens)
    first = prompts_s(load, pace, engine, making.number, prompt, prompt * load.token_flops)
    return first + passes_s(load, pace, engine, setup, making), handover_s(arch, setup, machine, pace)


def policy_step(
    arch: Architecture, setup: Setup, machine: Cluster, adapted: Iterable[Adapted] = (),
    whole: Whole = NOTHING_WHOLE, *, calibration: Calibration = NOTHING_MEASURED,
    known: dict[Setup, Counted] | None = None,
) -> StepTime:  # fmt: skip
    """Seconds of a whole step of GRPO with its phases; a server's GPUs are among those that are paid for. The
    interval is that of published steps; without a mean length the seconds are assumed. `known` as for `step_time`.
    Raises InputError where a rate is not known, UnsupportedArchitectureError where the model's operations are not."""
    pairs, facts = tuple(adapted), decoding()
    making = making_of(arch, setup, machine)
    learnt = replace(setup, seq_len=learnt_tokens(setup, setup.global_batch), mean_completion=None)
    step = step_time(arch, learnt, machine, pairs, whole, calibration=calibration, known=known)
    alone = replace(
        learnt,
        reference="none",
        generation="transformers",
        vllm_memory=None,
        vllm_sleep=False,
        states_asleep="none",
        vllm_gpus=1,
        vllm_tensor_parallel=1,
    )
    training = step_time(arch, alone, machine, pairs, whole, calibration=calibration, known=known).seconds
    making_s, handing_s = generation_s(arch, setup, machine, pairs)
    seconds = step.seconds + making_s + handing_s
    phases = {
        "generation": making_s, "handover": handing_s, "scoring": step.seconds - training, "training": training,
    }  # fmt: skip
    return replace(
        step, seconds=seconds, low=facts.low * seconds, high=facts.high * seconds, coverage=facts.coverage,
        parts={**step.parts, "generation": making_s, "handover": handing_s}, tokens=tokens_of(setup), phases=phases,
        grounds=Grounds(GRPO, facts.sources, facts.steps, facts.judged, facts.held),
        gpus=setup.gpus + (setup.vllm_gpus if setup.generation == "server" else 0),
        model_flops=None, basis="assumed" if setup.mean_completion is None else facts.basis,
        notices=(*step.notices, *_notices(setup, making)),
    )  # fmt: skip


def _notices(setup: Setup, making: Making) -> Iterator[Notice]:
    """What the time rests on."""
    known = decoding()
    if setup.mean_completion is None:
        lengths = (
            f"All completions are taken to reach {making.allowed:,} tokens, which few do: --mean-completion says how "
            "long they are on average."
        )
    else:
        lengths = (
            f"Completions are taken to end at any token with the same chance: of a mean of {making.mean:,.0f} the "
            f"longest of {setup.global_batch:,} has {making.longest:,}, for which the step waits."
        )
    few = ", fewer than ten" if known.sources < FEW else ""
    text = (
        f"{lengths} Rewards are not counted. The interval rests on published steps of {known.sources} sources{few}, "
        "as they were predicted first."
    )
    yield Notice("grpo-time", text)
