"""What torch's allocator reserves for a simulated step: requests worked by hand, and published runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import PlannerError
from planner.setup import Setup
from planner.simulate import core, simulate
from planner.simulate.allocator import LARGE_SEGMENT, MIB, Block, CachingAllocator, OutOfMemoryError
from planner.simulate.core import simulate_step
from planner.simulate.optimizers import Update
from planner.simulate.requests import Unrolled
from planner.simulate.reserving import Requests, reserved_bytes, serves
from planner.simulate.timeline import IrregularError
from tools.compare_reserved import PAGE, cases, page, simulated

from .small import CONFIGS, LORA

NOTHING = Update(0, 0)
BASE = Setup(micro_batch=2, seq_len=256)


def requests(*sizes: int) -> tuple[tuple[tuple[str, int], int], ...]:
    """Blocks that come, each when the one before has gone where its size is negative."""
    found: list[tuple[tuple[str, int], int]] = []
    for number, size in enumerate(sizes):
        if size < 0:
            found.append((("block", number - 1), 0))
        found.append((("block", number), abs(size)))
    return tuple(found)


def test_a_block_that_grew_leaves_its_old_segment_free() -> None:
    """100 MiB of weights; 30 MiB that go before 40 MiB come: both segments are taken, 70 MiB, though never more than
    40 are held. A later step finds both."""
    step = requests(30 * MIB, -40 * MIB)
    found = Requests((100 * MIB,), (), False, step, NOTHING)
    assert reserved_bytes(found) == 170 * MIB
    assert reserved_bytes(replace(found, expandable=True)) == 140 * MIB


def test_a_full_card_gives_back_what_is_free_and_no_more() -> None:
    """100 MiB of weights, then 30 MiB that go before 40 MiB come: 170 MiB are reserved, but a card of 140 serves it
    by giving the 30 back, and one of 138 does not. Of 24 blocks of 5 MiB, four to a segment, each second one goes: no
    60 MiB fit into what is free, so that 180 MiB are needed where 120 are held; of pages 120."""
    found = Requests((100 * MIB,), (), False, requests(30 * MIB, -40 * MIB), NOTHING)
    assert serves(found, 140 * MIB) and not serves(found, 138 * MIB)
    assert reserved_bytes(found) == 170 * MIB
    pieces = tuple((("piece", number), 5 * MIB) for number in range(24))
    gone = tuple((("piece", number), 0) for number in range(0, 24, 2))
    holed = Requests((), (), False, (*pieces, *gone, (("whole", 0), 60 * MIB)), NOTHING)
    assert not serves(holed, 178 * MIB) and serves(holed, 180 * MIB)
    assert serves(replace(holed, expandable=True), 120 * MIB)


def test_states_are_made_while_gradients_wait() -> None:
    """Gradients of 50 MiB come in the step and go after the update, of which the first makes states of 100 MiB and
    later ones take 50 MiB for a while: those lie beside the gradients. Float32 copies of 100 MiB stay from the
    start."""
    update = Update(
        0, 0, ((("states", 1), 100 * MIB),),
        ((("beside", 1), 50 * MIB), (("beside", 1), 0)), (100 * MIB,),
    )  # fmt: skip
    step = ((("gradient", 1), 50 * MIB),)
    assert reserved_bytes(Requests((), (), False, step, update)) == (100 + 50 + 100 + 50) * MIB
    kept = Requests((), (50 * MIB,), True, (), update)
    assert reserved_bytes(kept) == (100 + 50 + 100 + 50) * MIB


def test_a_state_made_anew_takes_the_place_of_the_old_one() -> None:
    """Each step makes 60 MiB and drops what it found: two of them in turn, however many steps."""
    update = Update(0, 0, ((("s", 1), 60 * MIB),), ((("s", 2), 60 * MIB), (("s", 1), 0)))
    assert reserved_bytes(Requests((), (), False, (), update)) == 120 * MIB


def test_an_evaluation_comes_behind_the_steps() -> None:
    found = Requests((), (), False, requests(30 * MIB), NOTHING, requests(64 * MIB))
    assert reserved_bytes(found) == 94 * MIB
    smaller = replace(found, evaluation=requests(28 * MIB))
    assert reserved_bytes(smaller) == 30 * MIB


def test_a_segment_that_grows_takes_pages_behind_its_last_block() -> None:
    """12 MiB take a page of 20; 30 more need 22 beyond the 8 that are left: two pages. Freed, both join, and 60 MiB
    fill all. Small requests have a segment of their own, in pages of 2 MiB."""
    card = CachingAllocator(2**40, expandable=True)
    first = card.take(12 * MIB)
    assert card.reserved == 20 * MIB
    second = card.take(30 * MIB)
    assert card.reserved == 60 * MIB
    card.give(first)
    card.give(second)
    whole = card.take(60 * MIB)
    assert card.reserved == 60 * MIB
    card.take(512)
    assert card.reserved == 62 * MIB
    card.give(whole)
    full = CachingAllocator(30 * MIB, expandable=True)
    with pytest.raises(OutOfMemoryError):
        full.take(25 * MIB)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50 * MIB), st.integers(0, 5)), min_size=1, max_size=40), st.booleans()
)
def test_whatever_comes_and_goes(sized: list[tuple[int, int]], expandable: bool) -> None:
    """Reserved is never less than what is held; blocks that are held never overlap; when all have gone the largest
    request of before fits in without more."""
    card = CachingAllocator(2**50, expandable=expandable)
    held: list[Block] = []
    for size, gone in sized:
        held.append(card.take(size))
        assert card.reserved >= card.allocated >= sum(block.bytes for block in held) >= size
        spans = sorted((block.place, block.place + block.bytes) for block in held)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        if gone < len(held):
            card.give(held.pop(gone))
    for block in held:
        card.give(block)
    assert card.allocated == 0
    most = card.most_reserved
    card.take(max(size for size, _ in sized))
    assert card.most_reserved == most
    assert card.most_allocated <= most <= 20 * card.most_allocated + 2 * LARGE_SEGMENT


@pytest.mark.parametrize("kind", ["llama", "gemma3 sliding and full", "qwen3_moe"])
def test_reserved_is_no_less_than_the_peak_and_an_evaluation_adds_to_it(kind: str) -> None:
    plain, evaluated = (
        simulate_step(CONFIGS[kind], LORA, replace(BASE, eval_batch=batch), reserve=True) for batch in (0, 32)
    )
    assert plain.reserved_bytes is not None and evaluated.reserved_bytes is not None
    assert plain.peak.bytes <= plain.reserved_bytes < evaluated.reserved_bytes
    grown = simulate_step(CONFIGS[kind], LORA, replace(BASE, expandable_segments=True), reserve=True)
    assert grown.reserved_bytes is not None
    assert plain.peak.bytes <= grown.reserved_bytes <= plain.reserved_bytes


def test_what_cannot_be_told_is_none_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layer frees what no layer made, nothing is reserved by guess."""

    def irregular(self: Unrolled, event: int, layer: int) -> None:
        raise IrregularError("none")

    monkeypatch.setattr(Unrolled, "_go", irregular)
    assert core.simulate_step(CONFIGS["llama"], LORA, BASE, reserve=True).reserved_bytes is None
    monkeypatch.undo()
    found = simulate("HuggingFaceTB/SmolLM2-135M", methods="lora", seq_len=128)
    assert found.steps["lora"].reserved_bytes
    assert not {"reserved-not-simulated", "reserved-of-one-length"} & {n.code for n in found.warnings}
    none = replace(found.steps["lora"], reserved_bytes=None)
    assert none.to_dict()["reserved_bytes"] is None


@pytest.mark.parametrize("source", ["vmDeshpande/Arcon", "luckyvickyricky/nemo-torchtitan"])
def test_published_runs(source: str) -> None:
    """max_memory_reserved as others measured it, with nothing fitted: within 6%, the middle one within 2%."""
    errors = []
    for case in (each for each in cases() if each.source.startswith(source)):
        found = simulated(case)
        assert not isinstance(found, PlannerError), found
        errors.append(abs(found / case.measured - 1))
    assert len(errors) >= 4
    assert max(errors) < 0.065 and sorted(errors)[len(errors) // 2] < 0.02


def test_the_page_and_the_texts_are_of_the_records() -> None:
    """Run `python -m tools.compare_reserved --page` where this fails: the page, and what README.md and
    docs/agreement.md say of all figures and of the grid."""
    text = page()
    assert PAGE.read_text(encoding="utf-8") == text
    figures, points = (
        next(line for line in text.splitlines() if line.startswith(start)).split(" | ")
        for start in ("| **all, of ", "| all |")
    )
    sources = figures[0].split("of ")[1].split(" ")[0]
    root = PAGE.parent.parent
    for name in ("README.md", "docs/agreement.md"):
        row = next(
            line for line in (root / name).read_text(encoding="utf-8").splitlines()
            if line.startswith("| memory that torch's allocator reserves, simulated |")
        )  # fmt: skip
        assert f"{figures[1]} published figures of " in row and f"{sources} sources" in row
        assert f"median error {figures[2]}" in row and f"the estimate's rule {figures[5]}" in row
    assert f"at {points[1]} points {points[2]}, {points[3]}, {points[4]}" in row
