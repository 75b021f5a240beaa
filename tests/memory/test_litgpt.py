"""What litgpt's attention keeps more than one with separate projections, run by torch on a CPU and counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import linear

from planner.running import running

HIDDEN, HEADS, LENGTH, SEQUENCES = 64, 4, 32, 2
HEAD = HIDDEN // HEADS
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": 160,
    "num_attention_heads": HEADS, "num_hidden_layers": 3, "vocab_size": 512, "tie_word_embeddings": False,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip


class _Flash(torch.autograd.Function):
    """A flash attention of (batch, heads, length, width), but for its value a row."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any) -> Any:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out


def _turned(x: Any) -> Any:
    cos = torch.ones(LENGTH, HEAD, dtype=x.dtype)
    first, second = torch.chunk(x, 2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * cos


def _litgpt(x: Any, groups: int) -> Any:
    """litgpt/model.py up to December 2024, CausalSelfAttention.forward."""
    each = HEADS // groups
    mixed = linear(x, torch.zeros((HEADS + 2 * groups) * HEAD, HIDDEN, dtype=x.dtype, requires_grad=True))
    mixed = mixed.view(SEQUENCES, LENGTH, groups, each + 2, HEAD).permute(0, 2, 3, 1, 4)
    q, k, v = mixed.split((each, 1, 1), dim=2)
    if groups != HEADS:
        k, v = (t.expand(SEQUENCES, groups, each, LENGTH, HEAD) for t in (k, v))
    q, k, v = (t.reshape(SEQUENCES, -1, LENGTH, HEAD) for t in (q, k, v))
    return _Flash.apply(_turned(q), _turned(k), v)


def _apart(x: Any, groups: int) -> Any:
    """Three products, grouped keys and values as they are."""
    made = []
    for heads in (HEADS, groups, groups):
        out = linear(x, torch.zeros(heads * HEAD, HIDDEN, dtype=x.dtype, requires_grad=True))
        made.append(out.view(SEQUENCES, LENGTH, heads, HEAD).transpose(1, 2))
    return _Flash.apply(_turned(made[0]), _turned(made[1]), made[2])


def _kept(attention: Any, groups: int) -> int:
    """Bytes of what is kept that has a value for each token."""
    found: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(saved: Any) -> Any:
        storage = saved.untyped_storage()
        if storage.nbytes() % (SEQUENCES * LENGTH * HEAD * 2) == 0 and not saved.is_leaf:
            found[storage.data_ptr()] = storage.nbytes()
        alive.append(saved)
        return saved

    x = torch.zeros(SEQUENCES, LENGTH, HIDDEN, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        attention(x * 1.0, groups)
    return sum(found.values())


def _predicted(groups: int, fused: bool, kernels: str) -> int:
    options = {
        "method": "full", "seq_len": LENGTH, "batch": SEQUENCES, "accumulation": 1, "checkpointing": "none",
        "kernels": kernels, "fused_heads": fused,
    }  # fmt: skip
    found = running({**CONFIG, "num_key_value_heads": groups}, options).memory()
    return next(m for m in found.moments if m.name == "loss").parts()["activations"]


@pytest.mark.parametrize("kernels", ["litgpt", "compiled"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_what_one_product_of_all_heads_keeps(groups: int, kernels: str) -> None:
    """Equal but with one group, whose keys and values are views of every head: values then keep the whole product,
    a little more than a copy for every head."""
    more = 3 * (_kept(_litgpt, groups) - _kept(_apart, groups))
    views = 3 * 2 * SEQUENCES * LENGTH * HEAD * 2 if groups == 1 else 0
    assert _predicted(groups, True, kernels) - _predicted(groups, False, kernels) == more - views
