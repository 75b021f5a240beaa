"""Generated texts never change: the ids and results of all run records rest on them, byte for byte.

The hashes were taken before the texts were made faster; the streams are also drawn here once more with random's own
`choice` and `choices`.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable

import pytest

from planner.validate import text, zoo
from planner.validate.batches import IGNORED, Batch, encode_batch
from planner.validate.records import RunConfig
from planner.validate.tasks import task
from planner.validate.tasks.base import Example
from planner.validate.train import Trainer


def digest(parts: Iterable[str | bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of parts, texts with a zero byte behind each."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.encode() + b"\0")
    return found.hexdigest()[:16]


@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        ("dialect", "50d25f396bd5de23"),
        ("dialect:language=3,length=200", "84445019e5b7a393"),
        ("strings:count=64,length=32", "b9589639b45c21ca"),
        ("biographies:people=300,choices=16", "6a2e54271090c194"),
        ("arithmetic", "1c34f397964d4614"),
        ("secret:bits=8", "f5e9bffa40518c9e"),
    ],
)
def test_examples_of_tasks(spec: str, stored: str) -> None:
    known = task(spec)
    start = 0 if known.size else 20_000_000
    examples = [*(known.example(start + n) for n in range(400)), *known.evaluation]
    assert digest(part for item in examples for part in (item.prompt, item.completion)) == stored


def test_the_zoos_pretraining_text() -> None:
    assert digest(zoo.pretraining_text(n, 64) for n in range(800)) == "b064411ff1bb1b8e"


@pytest.mark.parametrize(
    ("language", "stored"),
    [(0, "048b5aa3b24c255e"), (1, "f0140b89fd72dfac"), (7, "42481bc0099b5d0d"), (104, "e6b284bc10e5b1f6")],
)
def test_passages_of_every_length(language: int, stored: str) -> None:
    passages = (text.passage(language, n, text.stream("t", n)) for n in range(1, 300))
    assert digest(passages) == stored


def by_choices(language: int, length: int, rng: random.Random) -> str:
    """A passage by random's own functions: a pattern, then its nouns, verbs and adjectives."""
    lexicon = {kind: text.words(language, kind, size) for kind, size in (("n", 60), ("v", 30), ("a", 20))}
    found = ""
    while len(found) < length:
        pattern = rng.choice(text._PATTERNS)
        sentence = pattern
        for kind, words in lexicon.items():
            if count := len(re.findall(f"{{{kind}}}", pattern)):
                weights = [sum(1 / (rank + 2) for rank in range(n + 1)) for n in range(len(words))]
                for word in rng.choices(words, cum_weights=weights, k=count):
                    sentence = sentence.replace(f"{{{kind}}}", word, 1)
        found += (" " if found else "") + sentence
    return found[:length]


def test_draws_are_those_of_choice_and_choices() -> None:
    for seed in range(60):
        ours = text.passage(seed % 7, 150, random.Random(seed))
        assert ours == by_choices(seed % 7, 150, random.Random(seed))


def in_bytes(batch: Batch) -> bytes:
    """Tensors, their shape and the number of loss tokens."""
    tensors = [part.contiguous().numpy().tobytes() for part in (batch.tokens, batch.targets)]
    return b"".join(tensors) + str((batch.loss_tokens, tuple(batch.tokens.shape))).encode()


@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        ("dialect", "bc0a53b0917d4109"),
        ("strings:count=64,length=32", "14a66c7878870503"),
        ("biographies:people=300,choices=16", "3e641d6e76f6e0cf"),
        ("arithmetic", "29844ca558c10200"),
    ],
)
def test_batches(spec: str, stored: str) -> None:
    known = task(spec)
    batches = [
        encode_batch([known.example(n) for n in range(first, first + 16)], text.Characters(), cut, "cpu")
        for first in range(0, 64, 16)
        for cut in (5, 24, 64)
    ]
    assert digest(map(in_bytes, batches)) == stored


class Words:
    """A tokenizer of numbers above 255, as lists."""

    pad = 7

    def encode(self, given: str) -> list[int]:
        """300 and more, by letter."""
        return [300 + ord(letter) for letter in given]

    def decode(self, tokens: object) -> str:
        """Not asked for."""
        raise NotImplementedError


def test_a_batch_of_long_numbers_by_hand() -> None:
    batch = encode_batch([Example("a", "bc"), Example("", "d"), Example("ab", "c")], Words(), 64, "cpu")
    assert batch.tokens.tolist() == [[397, 398, 399], [400, 7, 7], [397, 398, 399]]
    assert batch.targets.tolist() == [[398, 399], [IGNORED, IGNORED], [IGNORED, 399]]
    assert batch.loss_tokens == 3


def test_characters_outside_the_alphabet_are_question_marks() -> None:
    known = text.Characters()
    assert known.decode(list(known.encode("aÉ~é€\U0001f600\ud800b\n"))) == "a" + "?" * 6 + "b\n"
    assert known.decode(list(known.encode(text.ALPHABET))) == text.ALPHABET


@pytest.mark.parametrize("spec", ["dialect", "strings:count=10,length=8"])
def test_batches_made_ahead_are_those_of_each_step(spec: str) -> None:
    trainer = Trainer(RunConfig(model="nano", rank=2, task=spec, steps=93, batch=4, seed=2), "cpu")
    ahead = list(trainer.batches())
    assert len(ahead) == 93
    assert [in_bytes(one) for one in ahead] == [in_bytes(trainer.batch(step)) for step in range(93)]
