"""The screen at every rank of long lists, most of which it takes from lines between others, against the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner.search.evaluate import evaluate
from planner.search.peaks import _close
from planner.search.screen import screen

from .small import search_of

# Of a mixture whose experts take an eighth of the rank, those below 16 have the same adapter.
RANKS = (1, 2, 4, 8, 15, 16, 32, 49, 108, 128, 200, 222, 229, 250, 256)
JOBS: list[tuple[str, dict[str, Any]]] = [
    ("Qwen/Qwen3-30B-A3B", {"objective": "dpo", "sharding": "zero3", "gpus": (16,), "seq_len": 4096}),
    ("Qwen/Qwen3-30B-A3B", {"sharding": "fsdp", "gpus": (2,), "layers": "all"}),
    ("moonshotai/Kimi-K2-Instruct", {"sharding": "fsdp", "gpus": (16,)}),
    ("google/gemma-2-2b", {"objective": "grpo", "generation": "transformers", "gpus": (1,)}),
    ("meta-llama/Llama-3.1-8B", {"sharding": "zero2", "gpus": (4,), "layers": "all"}),
]


@pytest.mark.parametrize(("model", "said"), JOBS)
def test_every_rank_of_a_long_list_equals_the_scalar_formulas(model: str, said: dict[str, Any]) -> None:
    usual = {"gpu": "h100", "layers": "mlp", "quantize": "none", "micro_batch": (1, 2), "batch": (32,)}
    run = {"episodes": 5000} if said.get("objective") == "grpo" else {"tokens": 10**6}
    job, space = search_of(model, {**usual, **run, **said, "ranks": RANKS})
    cells = screen(job, space)
    possible = np.flatnonzero(np.isfinite(cells.over))
    assert len(possible) >= 2 * len(RANKS)
    for cell in possible:
        full = evaluate(job, cells.choice(int(cell)))
        assert cells.seconds[cell] == pytest.approx(full.seconds, rel=1e-9), full.choice.text
        held = (cells.over[cell] + 1) * full.memory_bytes
        assert held == pytest.approx(full.memory.per_gpu_bytes, rel=1e-8), full.choice.text


@pytest.mark.parametrize("off", [0.0, 32.0, 63.9, 64.1, 1e6, np.inf, np.nan])
@pytest.mark.parametrize("size", [0.0, 1.0, -3e9, 7e12, 1e15, np.inf])
def test_near_is_as_numpy_has_it(size: float, off: float) -> None:
    one, other = np.array([1.0, size]), np.array([1.0, size + off])
    """Rounded figures that may lie beside a line, infinite ones among them."""
    assert _close(one, other, 64.0) == np.allclose(one, other, rtol=1e-12, atol=64.0)
