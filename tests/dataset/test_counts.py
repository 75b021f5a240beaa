"""Token and loss-token counts against transformers' own template and tokenizer, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.dataset.analysis import Reader, Settings, Sums
from planner.dataset.tokenizer import load
from tests.dataset import corpora, oracle
from tests.dataset.tokenizers_of import TEMPLATES, write

NO_SYSTEM = ("mistral", "gemma")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Each template's folder, and what transformers loads from it."""
    from transformers import AutoTokenizer

    found = {}
    for name in TEMPLATES:
        folder = write(tmp_path_factory.mktemp(name), name)
        found[name] = (folder, AutoTokenizer.from_pretrained(str(folder)))
    return found


def read(path: Path, folder: Path, **settings: Any) -> Sums:
    with Reader(str(path), Settings(compression=None, near=None, **settings), load(folder)) as reader:
        return reader.read()


def summed(counts: list[oracle.Counted]) -> tuple[int, int]:
    return sum(tokens for tokens, _ in counts), sum(loss for _, loss in counts)


def lengths(counts: list[oracle.Counted]) -> dict[int, int]:
    found: dict[int, int] = {}
    for tokens, _ in counts:
        found[tokens] = found.get(tokens, 0) + 1
    return found


@pytest.mark.parametrize("form", corpora.FORMATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_counts_equal_transformers_row_by_row(
    name: str, form: str, models: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, tokenizer = models[name]
    rows, meanings = corpora.corpus(form, 40, seed=1, system=name not in NO_SYSTEM)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(corpora.lines(rows))
    sums = read(path, folder)
    expected = [count for meaning in meanings for count in oracle.count(tokenizer, meaning)]
    assert (sums.examples, sums.broken, sums.sequences) == (40, 0, len(expected))
    assert (sums.tokens, sums.loss_tokens) == summed(expected)
    assert sums.lengths == lengths(expected)
    assert (sums.loss_tokens == 0) == (form == "rl")
