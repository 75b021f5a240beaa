"""Duplicates against sets and exact resemblances; lengths against lists; compression against the library alone."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from planner import dataset
from planner.dataset import duplicates, lengths
from planner.dataset.compressing import Compressor
from tests.dataset import corpora

COUNTS = st.dictionaries(st.integers(1, 60), st.integers(1, 9), min_size=1, max_size=12)


def words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(count)]


def jaccard(one: bytes, two: bytes) -> float:
    a, b = ({text[i : i + 8] for i in range(len(text) - 7)} for text in (one, two))
    return len(a & b) / len(a | b)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 7))
def test_exact_duplicates_are_those_of_a_set(rows: list[int], portion: int) -> None:
    """In as many passes as there are portions."""
    texts = [f"row number {row} of the data" for row in rows]
    with duplicates.Register(portion=portion, like=None) as register:
        for text in texts:
            register.add([duplicates.text_hash(text.encode())], [len(text)], [text.encode()])
        found = register.duplicates()
    seen: set[str] = set()
    repeated = [text for text in texts if text in seen or seen.add(text)]  # type: ignore[func-returns-value]
    assert (found.exact, found.exact_loss_tokens) == (len(repeated), sum(map(len, repeated)))
    assert (found.near, found.near_loss_tokens) == (0, 0)


@pytest.mark.parametrize("changed", [0.0, 0.01, 0.05, 0.2, 0.5])
def test_a_sketch_tells_the_resemblance(changed: float) -> None:
    chance, errors = random.Random(5), []
    for _ in range(60):
        first = words(chance, 300)
        second = [word if chance.random() >= changed else words(chance, 1)[0] for word in first]
        one, two = (" ".join(text).encode() for text in (first, second))
        found = duplicates.sketches([one, two])
        errors.append(float(duplicates.resemblance(found[0], found[1])) - jaccard(one, two))
    assert abs(statistics.fmean(errors)) < 0.025
    assert statistics.pstdev(errors) < 0.08


def test_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    """200 distinct texts; 50 with a word changed, 30 again as they were, and 20 that share half their words."""
    chance = random.Random(9)
    distinct = [words(chance, 120) for _ in range(200)]
    near = [[*text[:60], "changed", *text[61:]] for text in distinct[:50]]
    half = [[*text[:60], *words(chance, 60)] for text in distinct[50:70]]
    texts = [" ".join(text) for text in (*distinct, *near, *distinct[70:100], *half)]
    order = list(range(200)) + chance.sample(range(200, 300), 100)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines([{"text": texts[i]} for i in order]))
    found = dataset(path, compress=False)
    assert (found.duplicates_exact, found.duplicates_near) == (30, 50)
    kept = sum(len(" ".join(text).encode()) for text in (*distinct, *half))
    assert found.information.units == found.distinct.value == round(kept / 3.8)
    without = dataset(path, near_duplicates=False, compress=False)
    assert without.duplicates_near is None and without.duplicates_exact == 30
    assert without.distinct.value > found.distinct.value


def exact_resemblances(texts: list[bytes]) -> Any:
    """Of each text with the earlier one that it resembles most, over all pairs."""
    stretches = [{text[i : i + 8] for i in range(len(text) - 7)} for text in texts]
    number: dict[bytes, int] = {}
    columns = [number.setdefault(stretch, len(number)) for own in stretches for stretch in own]
    sizes = np.array([len(own) for own in stretches])
    rows = np.repeat(np.arange(len(texts)), sizes)
    has = csr_matrix((np.ones(len(rows), dtype=np.int64), (rows, columns)))
    shared = (has @ has.T).toarray()  # how many stretches two texts have in common
    return np.tril(shared / (sizes[:, None] + sizes - shared), -1).max(axis=1)


@pytest.mark.parametrize("said", [11, 18])
def test_many_short_rows_that_are_alike(said: int) -> None:
    """Rows that share an instruction of 70 letters: over half of them resemble each other by half and more, so that
    the groups of places say little. Against the exact resemblance of all pairs."""
    chance = random.Random(said)
    pool, opening = words(chance, 400), "Translate the following sentence to French, and keep its register: "
    texts: list[bytes] = []
    for i in range(1500):
        if i % 4 == 3:
            text = chance.choice(texts).decode().split(" ")
            text[chance.randrange(10, len(text))] = chance.choice(pool)
        else:
            text = [opening, *chance.choices(pool, k=said)]
        texts.append(" ".join(text).encode())
    texts = list(dict.fromkeys(texts))
    exact = exact_resemblances(texts)
    with duplicates.Register() as register:
        register.add([duplicates.text_hash(t) for t in texts], [1] * len(texts), texts)
        near = register._near(np.zeros(len(texts), dtype=bool))
        assert int(near.sum()) == register.duplicates().near
    sure, doubtful, others = exact >= 0.9, (exact >= 0.8) & (exact < 0.9), exact < 0.65
    assert sure.sum() > 20 and near[sure].mean() > 0.98
    assert near[doubtful].mean() > 0.6
    assert others.sum() > 500 and near[others].mean() < 0.01


def test_no_row_is_compared_with_more_than_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows in one bucket of every group, none of them near another: the worst case."""
    chance, compared = np.random.default_rng(3), 0
    rows, told = 3000, duplicates.resemblance
    alike = chance.integers(0, 256, duplicates.PLACES, dtype=np.uint8)

    def counted(one: Any, two: Any) -> Any:
        nonlocal compared
        compared += len(one)
        return told(one, two) * 0

    monkeypatch.setattr(duplicates, "resemblance", counted)
    monkeypatch.setattr(duplicates, "sketches", lambda texts: np.tile(alike, (len(texts), 1)))
    with duplicates.Register(portion=1000) as register:
        register.add(list(range(rows)), [1] * rows, [b""] * rows)
        assert register.duplicates().near == 0
    groups = duplicates.PLACES // duplicates.GROUP
    assert 0 < compared <= groups * duplicates.NEIGHBOURS * rows


@pytest.mark.parametrize("every", [1, 3, 400])
def test_values_are_read_one_by_one_or_all_through(every: int) -> None:
    column = duplicates._Column("<u4")
    column.append(np.arange(1000, dtype="<u4") * 7)
    rows = np.arange(0, 1000, every)
    assert column.at(rows).tolist() == (rows * 7).tolist()
    column.close()


def test_a_portion_at_a_time_finds_the_same() -> None:
    chance = random.Random(2)
    base = [" ".join(words(chance, 50)).encode() for _ in range(40)]
    texts = [chance.choice(base) + bytes(f" {i % 3}", "ascii") for i in range(150)]
    found = []
    for portion in (7, 64, 1 << 21):
        with duplicates.Register(portion=portion) as register:
            register.add([duplicates.text_hash(t) for t in texts], [1] * 150, texts)
            found.append(register.duplicates())
    assert found[0] == found[1] == found[2]
    assert found[0].exact == 150 - len(set(texts)) and found[0].near > 0


def spread(counts: dict[int, int]) -> list[int]:
    return [length for length, count in counts.items() for _ in range(count)]


@given(COUNTS)
def test_percentiles_are_numpy_s_nearest_rank(counts: dict[int, int]) -> None:
    found, every = lengths.percentiles(counts), spread(counts)
    for share, value in ((50, found.p50), (90, found.p90), (99, found.p99)):
        assert value == np.percentile(every, share, method="inverted_cdf")
    assert found.max == max(every)


@given(COUNTS, st.integers(1, 6))
def test_padding_is_the_mean_over_batches(counts: dict[int, int], batch: int) -> None:
    """By the distribution of a maximum, written another way: P(max = n) = F(n)^b - F(n-1)^b."""
    every = np.array(spread(counts))
    share = np.array([(every <= n).mean() for n in range(every.max() + 1)])
    longest = sum(n * (share[n] ** batch - share[n - 1] ** batch) for n in range(1, every.max() + 1))
    assert lengths.padding_efficiency(counts, batch) == pytest.approx(every.mean() / longest)


@given(COUNTS, st.integers(5, 70))
def test_packing_is_best_fit_decreasing(counts: dict[int, int], seq_len: int) -> None:
    """One example at a time, the obvious way."""
    room: list[int] = []
    for length in sorted((min(n, seq_len) for n in spread(counts)), reverse=True):
        fits = [left for left in room if left >= length]
        if fits:
            room.remove(min(fits))
            room.append(min(fits) - length)
        else:
            room.append(seq_len - length)
    assert lengths.packed_sequences(counts, seq_len) == len(room)
    tokens = sum(min(n, seq_len) for n in spread(counts))
    assert lengths.packing_efficiency(counts, seq_len) == pytest.approx(tokens / (len(room) * seq_len))


def test_compression_is_zstd_s_own_size() -> None:
    rows, _ = corpora.corpus("text", 300, seed=1)
    whole = b"".join(row["text"].encode() for row in rows)
    compressor = Compressor()
    for row in rows:
        compressor.feed(row["text"].encode())
    alone = len(zstandard.ZstdCompressor(level=6).compress(whole))
    assert compressor.bits() / 8 == pytest.approx(alone, rel=0.05)
    again = Compressor()
    for _ in range(3):
        again.feed(whole)
    assert again.bits() / 8 < 1.1 * alone  # what repeats is stored once
