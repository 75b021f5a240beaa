"""What is reserved where micro-steps are as long as data has them: against steps that are recorded one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.estimator import load
from planner.samples import Samples
from planner.setup import Setup
from planner.simulate import core, simulate
from planner.simulate.between import MOST_EACH, Between, Each, Recorded, recorded
from planner.simulate.layers import everyone, stacks
from planner.simulate.model import make
from planner.simulate.optimizers import Update
from planner.simulate.orders import Orders, orders
from planner.simulate.requests import Unrolled
from planner.simulate.reserving import Requests, reserved_bytes
from planner.simulate.spread import Spread, spread_of
from planner.simulate.step import PLAIN, run
from planner.simulate.timeline import IrregularError
from planner.simulate.tracker import Tracker

from .small import LORA

SMALL = "HuggingFaceTB/SmolLM2-135M"
CONFIG = load(SMALL)[0].config
BASE = Setup(micro_batch=2, seq_len=700, packing="padded", lengths_vary=True)
EVEN = Spread(tuple((length, 3) for length in range(208, 701, 41)))


def recording(setup: Setup, whole: bool) -> Callable[[int], Recorded]:
    """Steps of any length, of all layers or of those that stand for them."""
    made = make(CONFIG, LORA, setup, None)
    found = stacks(made.model)
    if whole:
        found = [everyone(stack.path, stack.length) for stack in found]

    def at(length: int) -> Recorded:
        record = run(made, replace(setup, seq_len=length), found, Tracker(1), PLAIN)
        kept = replace(record, events=list(record.events))
        made.model.zero_grad(set_to_none=True)
        return recorded(Unrolled(kept, found))

    return at


@pytest.mark.parametrize("checkpointing", ["none", "layer"])
@pytest.mark.parametrize(("kernel", "precision"), [("sdpa", "bf16"), ("eager", "bf16"), ("sdpa", "fp32")])
def test_steps_between_are_those_that_run(kernel: Any, precision: Any, checkpointing: Any) -> None:
    """Of a few lengths that run, with a few layers, any other length's requests follow, of all layers."""
    setup = replace(BASE, checkpointing=checkpointing, attention_kernel=kernel, precision=precision)
    some, real = recording(setup, False), recording(setup, True)
    some(64), real(64)  # the first makes buffers that later ones find
    lengths = range(300, 701)
    between = Between(some, lengths)
    assert between.runs <= 10
    for length in (333, 396, 456, 577, 640):
        told, ran = between.at(length), real(length)
        assert told.order == ran.order
        assert sum(abs(a - b) for a, b in zip(told.sizes, ran.sizes, strict=True)) <= 0.002 * sum(ran.sizes)


def test_one_length_is_the_step_itself() -> None:
    found = core.simulate_step(CONFIG, LORA, BASE, reserve=True, spread=Spread(((700, 12),)))
    assert found.varied is not None and set(found.varied.reserved) == {found.reserved_bytes}
    assert found.varied.lengths == 1 and found.varied.micro_steps == 6


@pytest.mark.parametrize("accumulation", [1, 3])
def test_steps_that_are_passed_over_leave_little(accumulation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All micro-steps, one after another, against those that are longer than all before and a few after them."""
    setup = replace(BASE, accumulation=accumulation, eval_batch=2)
    told = core.simulate_step(CONFIG, LORA, setup, reserve=True, spread=EVEN).varied
    monkeypatch.setattr(import_module("planner.simulate.orders"), "AFTER", 10**6)
    every = core.simulate_step(CONFIG, LORA, setup, reserve=True, spread=EVEN).varied
    assert told is not None and every is not None
    assert (
        told.micro_steps == every.micro_steps == 19 // accumulation * accumulation
        and told.lengths == every.lengths > 5
    )
    for some, full in zip(told.reserved, every.reserved, strict=True):
        assert 0.9 * full <= some <= 1.02 * full
    plain = core.simulate_step(CONFIG, LORA, setup, reserve=True)
    assert plain.reserved_bytes is not None and told.median > 1.05 * plain.reserved_bytes


class _Every(Between):
    """Steps that are each recorded, of which all are played."""

    def __init__(self, run: Callable[[int], Recorded], lengths: Iterable[int]) -> None:
        self.lengths, self.at = sorted(set(lengths)), run  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("loss", ["recomputed", "split"])
def test_a_loss_in_pieces_is_told_by_the_steps_that_are_played(
    loss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of pieces makes requests of its own, more than a few recordings tell: against all steps, each
    recorded and played."""
    setup = replace(BASE, loss=loss, loss_chunk=32, checkpointing="layer")
    counted: list[int] = []

    def counting(made: Any, own: Setup, *rest: Any) -> Any:
        counted.append(own.seq_len)
        return run(made, own, *rest)

    monkeypatch.setattr(core, "run", counting)
    told = core.simulate_step(CONFIG, LORA, setup, reserve=True, spread=EVEN).varied
    assert told is not None and len(counted) < MOST_EACH
    monkeypatch.setattr(core, "Each", _Every)
    monkeypatch.setattr(core, "Between", _Every)
    monkeypatch.setattr(import_module("planner.simulate.orders"), "AFTER", 10**6)
    every = core.simulate_step(CONFIG, LORA, setup, reserve=True, spread=EVEN).varied
    assert every is not None and every.allocated == told.allocated
    for some, full in zip(told.reserved, every.reserved, strict=True):
        assert 0.9 * full <= some <= 1.03 * full


def test_a_longest_first_step_finds_no_states_and_a_later_one_does() -> None:
    """20 MiB and states of 8 that the first update makes: 28 at the second step of the longest, 24 at a shorter."""
    mib = 2**20

    def at(length: int) -> Recorded:
        return Recorded((0, ~0), (length * mib,))

    states = Update(0, 0, first=((("state",), 8 * mib),))
    asked = Requests((), (), False, (), states)
    between = Between(at, (16, 20))
    most = [orders(asked, between, [order]).allocated[0] for order in ([20, 16, 16, 20], [20, 16, 16])]
    assert most == [28 * mib, 24 * mib]


def test_too_many_lengths_that_need_more_are_not_told() -> None:
    each = Each(lambda length: Recorded((0, ~0), (length,)), range(MOST_EACH + 1))
    assert each.at(5) == each.at(5) == Recorded((0, ~0), (5,)) and each.runs == 1
    for length in range(MOST_EACH):
        each.at(length)
    with pytest.raises(IrregularError):
        each.at(MOST_EACH)


def test_segments_that_grow_take_little_more_than_is_allocated_and_a_card_serves_by_order() -> None:
    sizes = {}
    for expandable in (False, True):
        setup = replace(BASE, expandable_segments=expandable)
        found = core.simulate_step(CONFIG, LORA, setup, reserve=True, spread=EVEN, room=2**60).varied
        assert found is not None and found.served == len(found.reserved)
        sizes[expandable] = found
    assert 0.95 <= sizes[True].most_allocated_bytes / sizes[False].most_allocated_bytes <= 1
    assert sum(sizes[True].reserved) < sum(sizes[False].reserved)
    none = core.simulate_step(
        CONFIG, LORA, BASE, reserve=True, spread=EVEN, room=sizes[False].most_allocated_bytes - 1
    ).varied
    assert none is not None and none.served == 0


def test_by_hand() -> None:
    """A block of so many MiB a step: a longer one gets a segment of its own, a shorter takes what another left."""
    mib = 2**20

    def at(length: int) -> Recorded:
        return Recorded((0, ~0), (length * mib,))

    asked = Requests((), (), False, (), Update(0, 0))
    drawn = [[30, 20, 40], [40, 30, 20]]
    found = orders(asked, Between(at, (20, 30, 40)), drawn, room=60 * mib)
    assert found == Orders((70 * mib, 40 * mib), (40 * mib, 40 * mib), 3, 3, 2)
    assert found.median == 40 * mib and reserved_bytes(asked) == 0
    assert orders(asked, Between(at, (20, 30, 40)), drawn, room=39 * mib).served == 0


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.integers(1, 3000), st.integers(1, 9), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_orders_are_of_the_data(counts: dict[int, int], batch: int, accumulation: int) -> None:
    spread = spread_of(Samples(sum(counts.values()), 1.0, counts), 1000)
    assert sum(count for _, count in spread.lengths) == sum(counts.values())
    assert spread.longest == min(1000, max(counts))
    setup = Setup(micro_batch=batch, accumulation=accumulation)
    drawn = spread.drawn(setup)
    assert {len(order) % accumulation for order in drawn} == {0} and all(drawn)
    assert all(length in dict(spread.lengths) for order in drawn for length in order)


def test_data_by_their_file(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"prompt": "Count.", "completion": "and one " * (5 + 7 * number)} for number in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = simulate(SMALL, methods="lora", data=data, batch=2, gpu="h100")
    step = found.steps["lora"]
    assert step.varied is not None and step.fits is True and step.setup.lengths_vary
    told = found.to_dict()["lora"]["by_data"]
    assert told["least_reserved_bytes"] <= told["reserved_bytes"] <= told["most_reserved_bytes"]
    assert told["orders"] == told["orders_served"] == 3 and told["micro_steps"] == 20
    assert "reserved-of-one-length" not in {notice.code for notice in found.warnings}
    cut = simulate(SMALL, methods="lora", data=data, seq_len=128).steps["lora"]
    assert cut.setup.seq_len == 128 < step.setup.seq_len
    assert simulate(SMALL, methods="lora", seq_len=128).to_dict()["lora"]["by_data"] is None
    (tmp_path / "adapter_config.json").write_text(
        json.dumps(
            {"peft_type": "LORA", "base_model_name_or_path": SMALL, "r": 8, "target_modules": ["q_proj"]}
        ),
        encoding="utf-8",
    )
    its = simulate(adapter=tmp_path, methods="lora", data=data, seq_len=128).steps["lora"]
    assert its.varied is not None and its.varied.lengths == cut.varied.lengths  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"packing": "packed"}, "packing"), ({"packing": "full"}, "packing"), ({"objective": "grpo"}, "objective"),
        ({"seq_len": 0}, "seq-len"), ({"data": None, "loss_on": "all"}, "loss-on"),
    ],
)  # fmt: skip
def test_what_has_no_lengths_of_its_own(options: dict[str, Any], field: str, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    with pytest.raises(InputError) as error:
        simulate(SMALL, methods="lora", **{"data": data, **options})
    assert error.value.field == field
