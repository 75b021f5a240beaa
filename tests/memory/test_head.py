"""Losses on a tape by hand, of logits in 16 bits and in float32; and what a head leaves behind."""

from __future__ import annotations

import pytest

from planner.memory.head import cross_entropy, head_stretches
from planner.memory.passes import make_pass
from planner.memory.stretch import Stretch, stretch
from planner.memory.traits import LLAMA
from planner.memory.unembedding import Head
from planner.setup import Setup

TOKENS, VOCABULARY, HIDDEN = 64, 1000, 32
ENTRIES = TOKENS * VOCABULARY


def _peaks(loss: str, width: int) -> tuple[float, float]:
    """Bytes an entry of the logits at the highest point there and back."""
    run = make_pass(Setup(method="lora", micro_batch=1, seq_len=TOKENS))
    tape = run.tape
    logits = tape.leaf(ENTRIES, width, grad=True)
    found = cross_entropy(run, logits, loss)
    node = found.node
    del logits, found
    there = stretch(tape, 0, len(tape.events))
    assert node is not None
    tape.backward(node, [tape.new(0)]).clear()
    del node
    back = stretch(tape, 0, len(tape.events))
    return _share(there), _share(back)


def _share(part: Stretch) -> float:
    return float(sum(part.highest.values())) / ENTRIES


@pytest.mark.parametrize(
    ("loss", "width", "there", "back"),
    [
        ("wide", 2, 2 + 4 + 4, 2 + 4 + 4),  # the logits, their float32 copy, one less their maximum
        (
            "wide",
            4,
            4 + 4,
            4 + 4,
        ),  # which are their own copy, and in whose probabilities the gradient is made
        ("wide-in-place", 2, 2 + 4, 2 + 4),
        ("wide-in-place", 4, 4, 4),
        ("fused", 2, 2, 2),
        ("full", 4, 4 + 4, 4 * 3),  # log-softmax; the gradient of chosen entries and that of the logits
    ],
)
def test_copies_that_a_loss_makes(loss: str, width: int, there: float, back: float) -> None:
    assert _peaks(loss, width) == (there, back)


def test_a_classifier_keeps_no_hidden_states_but_of_one_token() -> None:
    run = make_pass(Setup(method="lora", micro_batch=1, seq_len=TOKENS))
    forward, backward = head_stretches(run, Head(HIDDEN, 0), LLAMA, "full", 1024, x_grad=True)
    assert not any(forward.change.values())
    assert backward is not None
