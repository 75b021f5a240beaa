"""Losses on a tape by hand, of logits in 16 bits and in float32; and what a head leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.choices import Method
from planner.memory.head import cross_entropy, head_stretches
from planner.memory.kinds import Job
from planner.memory.passes import make_pass
from planner.memory.step import head_of
from planner.memory.stretch import Stretch, stretch
from planner.memory.traits import LLAMA
from planner.memory.unembedding import Head
from planner.setup import Setup

TOKENS, VOCABULARY, HIDDEN = 64, 1000, 32
ENTRIES = TOKENS * VOCABULARY
SMALL: dict[str, Any] = {
    "hidden_size": 64, "dim": 64, "num_hidden_layers": 2, "n_layers": 2, "n_heads": 4, "num_attention_heads": 4,
    "intermediate_size": 128, "hidden_dim": 128, "vocab_size": 100, "max_position_embeddings": 64, "num_labels": 3,
}  # fmt: skip


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


@pytest.mark.parametrize("keeps", [False, True])
def test_a_classifier_keeps_hidden_states_where_a_trained_matrix_reads_one_token(keeps: bool) -> None:
    run = make_pass(Setup(method="lora", micro_batch=1, seq_len=TOKENS))
    head = Head(HIDDEN, 0, keeps=keeps)
    forward, backward = head_stretches(run, head, replace(LLAMA, post=True), "full", 1024, x_grad=True)
    assert sum(forward.change.values()) == keeps * TOKENS * HIDDEN * 2
    assert backward is not None


@pytest.mark.parametrize(
    ("kind", "name", "method", "keeps"),
    [
        ("bert", "BertForSequenceClassification", "lora", False),  # its pooler is frozen
        ("bert", "BertForSequenceClassification", "full", True),
        ("roberta", "RobertaForSequenceClassification", "full", False),  # which drops the token first
        ("distilbert", "DistilBertForSequenceClassification", "lora", True),  # PEFT trains what classifies
        ("bert", "BertForMaskedLM", "full", True),
    ],
)
def test_which_classifiers_keep_them(kind: str, name: str, method: Method, keeps: bool) -> None:
    arch = build({**SMALL, "model_type": kind, "architectures": [name]})
    pairs = adapt(arch, AdapterSpec(rank=4, layers=("attention",))) if method == "lora" else ()
    assert head_of(Job(arch, Setup(method=method), pairs)).keeps is keeps
