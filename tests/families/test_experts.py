"""Adapters on routed experts, against a small mixture written by hand: every expert's projections are Linear
modules of their own, each with its pair of factors, shared between experts or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from planner.adapter import Adapted, AdapterSpec, adapt, params
from planner.architecture.families.experts import Experts, routed
from planner.architecture.trace import Trace
from planner.flops import Step, flops, step_macs
from planner.schema import Architecture

LAYERS = 2


class Projection(nn.Module):
    """A frozen projection of every expert with low-rank factors; `shared` names the side held in common."""

    def __init__(self, n: int, d_in: int, d_out: int, rank: int, shared: str | None) -> None:
        super().__init__()
        self.shared = shared
        self.base = nn.ModuleList(nn.Linear(d_in, d_out, bias=False) for _ in range(n))
        self.base.requires_grad_(False)
        self.a = nn.ModuleList(nn.Linear(d_in, rank, bias=False) for _ in range(1 if shared == "in" else n))
        self.b = nn.ModuleList(nn.Linear(rank, d_out, bias=False) for _ in range(1 if shared == "out" else n))


class Mixture(nn.Module):
    """down(gate(x) * up(x)) of the chosen experts, weighted by a frozen router."""

    def __init__(self, hidden: int, experts: Experts, rank: int, outer: bool) -> None:
        super().__init__()
        self.active, sizes = experts.active, (experts.n, hidden, experts.width)
        self.router = nn.Linear(hidden, experts.n, bias=False).requires_grad_(False)
        side = "in" if outer else None
        self.gate, self.up = Projection(*sizes, rank, side), Projection(*sizes, rank, side)
        self.down = Projection(experts.n, experts.width, hidden, rank, "out" if outer else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix over tokens in rows."""
        weights, chosen = torch.topk(self.router(x).softmax(-1), self.active)
        outer = self.down.shared == "out"
        # A factor on the hidden side that all experts share runs once a token, before they part or after.
        before = [p.a[0](x) for p in (self.gate, self.up)] if outer else []
        out = torch.zeros_like(x)
        narrow = x.new_zeros(len(x), self.down.b[0].in_features)
        for expert in range(len(self.gate.base)):
            tokens, place = torch.where(chosen == expert)
            if len(tokens) == 0:
                continue
            seen, halves = x[tokens], []
            for number, half in enumerate((self.gate, self.up)):
                factor = before[number][tokens] if outer else half.a[expert](seen)
                halves.append(half.base[expert](seen) + half.b[expert](factor))
            inner, weight = halves[0] * halves[1], weights[tokens, place, None]
            result, factor = self.down.base[expert](inner), self.down.a[expert](inner)
            if outer:
                narrow = narrow.index_add(0, tokens, factor * weight)
            else:
                result = result + self.down.b[expert](factor)
            out = out.index_add(0, tokens, result * weight)
        return out + self.down.b[0](narrow) if outer else out


class Model(nn.Module):
    """Two such layers on a frozen embedding."""

    def __init__(self, vocab: int, hidden: int, experts: Experts, rank: int, outer: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden).requires_grad_(False)
        self.layers = nn.ModuleList(Mixture(hidden, experts, rank, outer) for _ in range(LAYERS))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """A loss over these tokens."""
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + layer(x)
        return x.square().sum()


def inventory(vocab: int, hidden: int, experts: Experts) -> Architecture:
    """The same model as an inventory."""
    trace = Trace()
    trace.embedding("embedding", vocab, hidden)
    with trace.layer("decoder", range(LAYERS), "layers.{}.") as layer:
        layer.add(routed(layer, hidden, experts, layer.stream))
    return trace.architecture(model_type="mixture", hidden_size=hidden, n_layers=LAYERS, vocab_size=vocab)


def count(model: nn.Module, ids: torch.Tensor) -> int:
    """FLOPs of a step."""
    with FlopCounterMode(display=False) as counter:
        model(ids).backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("convention", ["scaled", "per-expert", "shared-outer"])
def test_expert_adapters(convention: Any) -> None:
    @given(st.integers(4, 20), st.integers(3, 12), st.integers(2, 6), st.integers(1, 2), st.integers(1, 6))
    def check(hidden: int, width: int, n: int, active: int, rank: int) -> None:
        experts, rank = Experts(n, active, width), min(rank, width, hidden)
        arch = inventory(30, hidden, experts)
        adapted: tuple[Adapted, ...] = adapt(
            arch, AdapterSpec(rank=rank, layers=("mlp",), experts=convention)
        )
        own = max(1, rank // active) if convention == "scaled" else rank
        model = Model(30, hidden, experts, own, convention == "shared-outer")
        assert params(adapted) == sum(p.numel() for p in model.parameters() if p.requires_grad)
        ids = torch.randint(0, 30, (14,))
        assert flops(step_macs(arch, Step(2, 7), adapted)) == count(model, ids)

    check()
