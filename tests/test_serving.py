"""Serving against published figures and arithmetic by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import estimate, hardware
from planner.estimator import load
from planner.serving import cache_bytes_per_token, reserved_rank, resident_adapters, serving
from tools.compare_serving import compared, page

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("model", "published"),
    [
        # Insights into DeepSeek-V3 (arXiv 2505.09343), table 1: keys and values of a token in bfloat16.
        ("deepseek-ai/DeepSeek-V3", 70_272),
        ("Qwen/Qwen2.5-72B-Instruct", 327_680),
        ("meta-llama/Llama-3.1-405B", 516_096),
        ("meta-llama/Llama-3.1-8B", 32 * 8 * 256 * 2),
        ("state-spaces/mamba-2.8b-hf", 0),
    ],
)
def test_cache_of_a_token(model: str, published: int) -> None:
    assert cache_bytes_per_token(load(model)[1]) == published


def test_adapters_beside_llama() -> None:
    found = estimate("meta-llama/Llama-3.1-8B", gpu="h100", seq_len=2048).serving
    assert found is not None
    params, base = 88_121_344, 2 * 8_030_261_248
    assert found["adapter_bytes"] == 2 * params and found["base_bytes"] == base
    assert found["load_s"] == pytest.approx(2 * params / 64e9)  # PCIe Gen5 x16
    assert found["gpus"] == 1 and found["reserved_rank"] == 32
    # By hand: a pass of 4,096 tokens (4 hidden states, down_proj's 14,336 + 4,096), 256 rows of logits, the graphs.
    server = 2 * 4096 * (4 * 4096 + 14_336 + 4096) + 16 * 256 * 128_256 + 750_000_000
    assert found["server_bytes"] == server
    room = 0.9 * 79.11 * 2**30 - server - base - 2048 * 131_072  # vLLM takes nine tenths of what CUDA reports
    assert found["resident"] == int(room // (2 * params)) == 332
    assert estimate("meta-llama/Llama-3.1-8B").serving is None


def test_what_servers_printed() -> None:
    """The page is what the tool writes; base and bytes of a token are what servers printed, and what is left beside a
    pass as long as the server's own is within an eighth."""
    found = tuple(compared())
    assert page(found) == (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert all(abs(one.base - 1) <= 0.01 for one in found if one.base)
    assert all(abs(one.token - 1) <= 0.012 for one in found if one.token)
    assert all(abs(one.by_pass - 1) <= 0.125 for one in found if one.by_pass)
    assert [len([1 for one in found if getattr(one, name)]) for name in ("base", "token", "left", "by_pass")] == [
        4, 5, 5, 3,
    ]  # fmt: skip
    for one in found:
        assert one.bare is None or (one.left and one.left < one.bare)


def test_a_large_base_takes_several_gpus() -> None:
    arch = load("meta-llama/Llama-3.1-405B")[1]
    found = serving(arch, 10**9, 30, hardware.cluster(hardware.find("h100"), 1), tokens=4096)
    assert found and found.gpus == 16 and found.resident  # 811 GB in 16 bits, 72 GB of a GPU in use
    quantised = serving(
        arch, 10**9, 30, hardware.cluster(hardware.find("h100"), 1), tokens=4096, quantize="nf4"
    )
    assert quantised and quantised.gpus == 4


@given(
    room=st.floats(1e9, 2e11), base=st.integers(0, 10**12), cache=st.integers(0, 10**10),
    adapter=st.integers(10**5, 10**10), gpus=st.sampled_from([1, 2, 8]),
)  # fmt: skip
def test_what_is_said_to_fit_fits(room: float, base: int, cache: int, adapter: int, gpus: int) -> None:
    count = resident_adapters(room, base, cache, adapter, gpus)
    each = adapter * (1 + 1 / gpus) / 2
    used = (base + cache) / gpus + count * each
    assert count == 0 or used <= room * (1 + 1e-9)
    assert used + each > room * (1 - 1e-9)


@pytest.mark.parametrize(("rank", "known"), [(4, 8), (20, 32), (33, 64), (64, 64)])
def test_an_adapter_takes_the_place_of_the_next_rank(rank: int, known: int) -> None:
    """vLLM's tensors have its max_lora_rank, whatever is loaded."""
    own, next_ = (
        estimate("meta-llama/Llama-3.1-8B", rank=each, layers="all-linear", gpu="h100").serving or {}
        for each in (rank, known)
    )
    assert own["resident"] == next_["resident"] and own["reserved_rank"] == known
    assert own["adapter_bytes"] * known == next_["adapter_bytes"] * rank


def test_ranks_of_a_server() -> None:
    assert [reserved_rank(rank) for rank in (1, 2, 8, 33, 300, 512, 513)] == [1, 8, 8, 64, 320, 512, None]
