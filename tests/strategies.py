"""Hypothesis strategies for small model configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st


def examples(usual: int) -> settings:
    """So many examples in a usual run, and as many times more in a thorough one as its profile has; for checks that
    run a step or two each."""
    return settings(max_examples=max(1, usual * settings().max_examples // 6))


@st.composite
def decoder_config(
    draw: st.DrawFn, /, model_type: str, architecture: str, *, head_dim: bool = True, switches: Sequence[str] = (),
    **fixed: Any,
) -> dict[str, Any]:  # fmt: skip
    """A small decoder: odd widths, grouped heads, one to three layers, tied or not; `switches` are boolean
    fields; `fixed` values or strategies override."""
    n_kv = draw(st.sampled_from([1, 2, 3]))
    n_heads = n_kv * draw(st.sampled_from([1, 2]))
    d_head = 2 * draw(st.integers(2, 9))
    config: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [architecture],
        "hidden_size": n_heads * (4 * draw(st.integers(1, 6)) if head_dim else d_head),
        "intermediate_size": draw(st.integers(9, 70)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv,
        "vocab_size": draw(st.integers(20, 90)),
        "max_position_embeddings": 16384,
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if head_dim:
        config["head_dim"] = d_head
    for name in switches:
        config[name] = draw(st.booleans())
    for name, value in fixed.items():
        config[name] = draw(value) if isinstance(value, st.SearchStrategy) else value
    return config
