"""Answers from walks that are remembered against the same made anew, bit for bit; and the arithmetic behind it."""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import PlannerError
from planner.memory import kinds, known, peak, sharding, states, step
from planner.memory.linear import Linear, NotLinearError, is_exact, symbols
from planner.memory.stretch import Peaks, Stretch, at_values, stretch
from planner.memory.tape import Tape
from planner.moments import MemoryEstimate
from planner.running import running

MODELS = (
    "meta-llama/Llama-3.2-1B", "Qwen/Qwen3-30B-A3B", "openai-community/gpt2", "Qwen/Qwen3-Next-80B-A3B-Instruct",
)  # fmt: skip
OF_TWO_STACKS = ("openai/whisper-small", "google/flan-t5-base")
CHOICES: dict[str, tuple[Any, ...]] = {
    "checkpointing": ("layer", "layer-offload"),
    "attention_kernel": ("eager", "flash"),
    "kernels": ("unsloth", "liger", "litgpt", "compiled"),
    "loss": ("chunked", "split", "shifted-fused"),
    "packing": ("padded",),
    "precision": ("fp32", "bf16-master", "autocast"),
    "quantize": ("nf4", "int8"),
    "quantize_experts": (True,),
    "optimizer": ("adamw-8bit", "muon", "sgd"),
    "lora_dropout": (0.1,),
    "trainer": ("torchtune", "unsloth", "litgpt", "llama-factory"),
    "gpus": (2, 3, 6),
    "sharding": ("zero2", "zero3", "fsdp"),
    "tensor_parallel": (2, 3),
    "offload": ("parameters",),
    "variant": ("dora",),
    "experts": ("per-expert", "shared-outer"),
    "layers_to_transform": ("0,1",),
    "accumulation": (2,),
}


def forget() -> None:
    """Nothing is remembered."""
    for remembered in (
        known._walks,
        peak._of_full,
        known._without_experts,
        states.base_weights,
        sharding.units,
    ):
        remembered.cache_clear()


def answers(requests: list[tuple[str, dict[str, Any]]], anew: bool) -> Iterator[MemoryEstimate | str]:
    """The memory of each request, or why there is none."""
    for model, options in requests:
        if anew:
            forget()
        try:
            yield running(model, options).memory()
        except PlannerError as error:
            yield str(error)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_remembered_is_what_would_be_found(seed: int) -> None:
    chance = random.Random(seed)
    requests = []
    for _ in range(8):
        options = {name: chance.choice(values) for name, values in CHOICES.items() if chance.random() < 0.15}
        options = {"batch": 12, "seq_len": 256, **options}
        model = chance.choice((*MODELS, *OF_TWO_STACKS))
        requests += [(model, {**options, "rank": rank}) for rank in (8, 9, 31, 64, 1, 8, 57)]
        requests += [(model, {**options, "method": "full", "variant": "lora", "quantize": "none"})]
    chance.shuffle(requests)
    fresh = list(answers(requests, anew=True))
    forget()
    assert list(answers(requests, anew=False)) == fresh
    assert list(answers(requests[::-1], anew=False))[::-1] == fresh
    assert sum(isinstance(answer, MemoryEstimate) for answer in fresh) > 20


def test_ranks_are_walked_with_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    for rank in range(1, 40):
        running(MODELS[1], {"rank": rank, "seq_len": 256, "batch": 4}).memory()
    assert (
        known._walks.cache_info().currsize == 2 * 2
    )  # layers and head; an expert has another rank or, at 1, the same
    monkeypatch.setattr(kinds, "walk_layer", None)  # another rank needs no walk
    monkeypatch.setattr(step, "walk_layer", None)
    running(MODELS[1], {"rank": 57, "seq_len": 256, "batch": 4}).memory()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.booleans()), max_size=25), st.data())
def test_the_highest_point_over_ranks_is_that_of_each(
    steps: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    """Random tapes of constant and rank-wide buffers: symbols first and ranks later, or ranks at once."""
    (symbol,) = symbols(1)
    ranks = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))

    def walk(rank: Any) -> Stretch:
        tape, held = Tape(), []
        held.append(tape.new(1 * rank))
        for number, (constant, factor, goes) in enumerate(steps):
            held.append(tape.new(constant + factor * rank, ("a", "b", None)[number % 3]))
            if goes:
                held.pop(len(held) // 2)
        return stretch(tape, 0, len(tape.events))

    once = walk(symbol)
    assert isinstance(once.highest, Peaks)
    for rank in ranks:
        found, expected = at_values(once, [rank]), walk(rank)
        assert found.change == expected.change
        assert found.highest == expected.highest


def test_linear_sizes_refuse_what_is_not_linear() -> None:
    one, other = symbols(2)
    size = 3 * one + 0.5 * other - 7
    assert size.at([10, 4]) == 25
    assert is_exact(size)
    assert not is_exact(one * (1 / 3))
    for attempt in (operator.mul, operator.gt, max):
        with pytest.raises(NotLinearError):
            attempt(one, other)
    assert not Linear(0, (0, 0))


BATCHES = (1, 2, 3, 5, 8, 64)
OBJECTIVES: tuple[dict[str, Any], ...] = (
    {}, {}, {"objective": "dpo", "reference": "precomputed"},
    {"objective": "grpo", "reference": "none", "loss": "tiled"},
)  # fmt: skip


def stages_of(model: str, options: dict[str, Any], follow: bool) -> Any:
    """The estimates of a pipeline's stages, as a search asks for them (`follow`) or walked at this rank and batch."""
    own = running(model, options)
    try:
        return peak._stages(own.arch, own.setup, own.pairs, own.whole, None, False, ranks_follow=follow)
    except PlannerError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_walked_for_every_micro_batch_is_what_each_is(seed: int) -> None:
    """Walks with numbers alone against those with symbols for ranks and the micro-batch, byte for byte."""
    chance, judged, mixed = random.Random(seed), 0, 0
    for _ in range(10):
        model, choices = chance.choice((*MODELS, *OF_TWO_STACKS)), chance.choice(OBJECTIVES)
        options = {name: chance.choice(values) for name, values in CHOICES.items() if chance.random() < 0.15}
        options = {"seq_len": 96, **choices, **options, "accumulation": 1}
        copies = options.get("gpus", 1) // options.get("tensor_parallel", 1) or 1
        for batch, rank in itertools.product(BATCHES, (1, 57)):
            own = {**options, "rank": rank, "batch": batch * copies}
            try:
                running(model, own)
            except PlannerError:
                break
            forget()
            fresh = stages_of(model, own, follow=False)
            forget()
            assert stages_of(model, own, follow=True) == fresh, (model, own)
            judged += not isinstance(fresh, str)
            mixed += batch > 1 and known._walks.cache_info().currsize >= 4  # of this micro-batch and of any
    assert judged > 20
    assert mixed > 10
