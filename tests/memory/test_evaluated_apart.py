"""What training leaves in the allocator's cache beside an evaluation of another batch."""

from __future__ import annotations

import pytest

from planner.estimator import load
from planner.memory import estimate_memory
from planner.memory.constants import constants
from planner.setup import Setup
from planner.simulate.allocator import MIB, CachingAllocator
from tools.published_memory_later import later, said_of

ARCH = load("meta-llama/Llama-3.2-1B")[1]


def reserved(*passes: tuple[int, bool], layers: int = 16) -> int:
    """What torch's allocator reserves for passes over layers one after the other, of so many sequences: each layer
    makes its output, which stays to the end where the pass trains, and a temporary of three times its size; then
    logits eight times as large, and float32 ones."""
    card = CachingAllocator(2**40)
    for batch, trains in passes:
        size = 16 * MIB * batch
        held = [card.take(size)]
        for _ in range(layers):
            temporary = card.take(3 * size)
            out = card.take(size)
            card.give(temporary)
            if not trains:
                card.give(held.pop())
            held.append(out)
        held += [card.take(8 * size), card.take(16 * size)]
        for block in held:
            card.give(block)
    return card.reserved


def test_larger_blocks_are_new_ones_and_smaller_ones_are_cut() -> None:
    """An evaluation of four times the sequences finds few of its blocks in what training left; one of as many, or of
    fewer, takes nothing more."""
    trained, evaluated = reserved((2, True)), reserved((8, False))
    both = reserved((2, True), (8, False))
    assert 0.5 * trained < both - evaluated <= trained
    for batch in (8, 2):
        assert reserved((8, True), (batch, False)) == reserved((8, True))


def test_the_estimate_keeps_what_training_left() -> None:
    base = Setup(micro_batch=2, seq_len=1024, checkpointing="layer", trainer="hf-trainer-4")
    found = [estimate_memory(ARCH, replaced(base, batch)) for batch in (0, 2, 8)]
    assert found[1].cached_bytes == found[0].cached_bytes
    trained = max((m for m in found[2].moments if m.phase != "evaluation"), key=lambda m: m.bytes)
    left = sum(
        i.bytes for i in trained.items if i.part in ("activations", "logits", "temporary", "gradients")
    )
    more = found[2].cached_bytes - found[0].cached_bytes
    assert more == pytest.approx(constants().cached_apart * left, rel=1e-6)
    assert [e.peak.phase for e in found][2] == "evaluation"


def replaced(setup: Setup, batch: int) -> Setup:
    return Setup(**{**vars(setup), "eval_batch": batch})


def test_notebooks_that_evaluated_more_than_they_trained() -> None:
    """Five models trained 2 at a time and evaluated 8 at a time: 0.65 to 0.77 of what was reserved without."""
    cases = [case for case in later() if case.source.startswith("DrishtiShrrrma")]
    assert len(cases) == 5
    assert all(0.77 < said_of(case).predicted / case.measured < 1 for case in cases)
