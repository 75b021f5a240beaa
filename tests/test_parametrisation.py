"""Recipes in other parametrisations, checked by training: the same weights step by step, or said not to be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from planner import facts
from planner.cli.main import cli
from planner.errors import InputError
from planner.learning_rate.parametrisation import Recipe, convert, init_std, transform

D_IN, HIDDEN, D_OUT = 12, 16, 5


def train(
    recipe: Recipe, draw: torch.Tensor, steps: int = 20, *, clip: float | None = None
) -> list[torch.Tensor]:
    """s B A after each step of AdamW on a small two-layer net with the adapter on its first layer. `draw` is the
    convention's own draw of A, which the recipe's gain multiplies."""
    make = torch.Generator().manual_seed(1)
    x, y = torch.randn(64, D_IN, generator=make), torch.randn(64, D_OUT, generator=make)
    w = torch.randn(HIDDEN, D_IN, generator=make) / math.sqrt(D_IN)
    v = torch.randn(D_OUT, HIDDEN, generator=make) / math.sqrt(HIDDEN)
    a = (draw * recipe.init_gain).requires_grad_()
    b = torch.zeros(HIDDEN, recipe.rank, requires_grad=True)
    groups = [
        {"params": [a], "lr": recipe.lr_a, "eps": recipe.eps_a, "weight_decay": recipe.decay_a},
        {"params": [b], "lr": recipe.lr_b, "eps": recipe.eps_b, "weight_decay": recipe.decay_b},
    ]
    optimizer = torch.optim.AdamW(groups, foreach=False)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        hidden = torch.tanh(x @ w.T + recipe.scale() * ((x @ a.T) @ b.T))
        loss = ((hidden @ v.T - y) ** 2).mean()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([a, b], clip)
        optimizer.step()
        seen.append((recipe.scale() * (b @ a)).detach().clone())
    return seen


def draw_of(init: str, rank: int) -> torch.Tensor:
    make = torch.Generator().manual_seed(0)
    if init == "kaiming-uniform":
        bound = 1 / math.sqrt(D_IN)
        return (torch.rand(rank, D_IN, generator=make) * 2 - 1) * bound
    return torch.randn(rank, D_IN, generator=make) * init_std(init, D_IN, rank)


RECIPE = Recipe(4, 8.0, "alpha/rank", "kaiming-uniform", 2.0**-6, 2.0**-6, 1e-8, 1e-8, 0.0, 0.0)


@pytest.mark.parametrize(("p", "q"), [(2.0, 1.0), (1.0, 4.0), (0.25, 8.0), (2.0, 2.0)])
@pytest.mark.parametrize("decay", [0.0, 0.125])
def test_powers_of_two_train_the_same_weights_bit_for_bit(p: float, q: float, decay: float) -> None:
    # The epsilons are powers of two as well: 1e-8 / 3 would round.
    recipe = replace(RECIPE, eps_a=2.0**-27, eps_b=2.0**-27, decay_a=decay, decay_b=decay)
    draw = draw_of(recipe.init, recipe.rank)
    for one, two in zip(train(recipe, draw), train(transform(recipe, p, q), draw), strict=True):
        assert torch.equal(one, two)
    assert one.abs().max() > 0.1


@pytest.mark.parametrize(("p", "q"), [(2.45, 2.45), (0.3, 7.0)])
def test_other_factors_agree_up_to_rounding(p: float, q: float) -> None:
    recipe = replace(RECIPE, decay_a=0.1, decay_b=0.1)
    draw = draw_of(recipe.init, recipe.rank)
    for one, two in zip(train(recipe, draw), train(transform(recipe, p, q), draw), strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-5)


def test_what_is_said_not_to_be_kept_is_not() -> None:
    draw = draw_of(RECIPE.init, RECIPE.rank)
    reference = train(RECIPE, draw)
    moved = transform(RECIPE, 2.0, 8.0)
    clipped = [train(recipe, draw, clip=0.02)[-1] for recipe in (RECIPE, moved)]
    assert not torch.allclose(clipped[0], clipped[1], rtol=1e-2)
    coarse = replace(RECIPE, eps_a=1e-2, eps_b=1e-2)
    kept_eps = replace(transform(coarse, 2.0, 8.0), eps_a=1e-2, eps_b=1e-2)
    assert not torch.allclose(train(coarse, draw)[-1], train(kept_eps, draw)[-1], rtol=1e-2)
    decayed = replace(RECIPE, decay_a=0.5, decay_b=0.5)
    kept_decay = replace(transform(decayed, 2.0, 8.0), decay_a=0.5, decay_b=0.5)
    assert not torch.allclose(train(decayed, draw)[-1], train(kept_decay, draw)[-1], rtol=1e-2)
    assert torch.equal(reference[0], train(RECIPE, draw)[0])


def test_threshold_of_clipping_scales_with_equal_factors() -> None:
    draw = draw_of(RECIPE.init, RECIPE.rank)
    recipe = replace(RECIPE, eps_a=2.0**-27, eps_b=2.0**-27)
    one = train(recipe, draw, clip=0.02)
    two = train(transform(recipe, 4.0, 4.0), draw, clip=0.02 / 4)
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


PAIRS = [
    ("article", "lora+", {}), ("article", "rslora", {}), ("peft", "trl", {"alpha": 32.0}),
    ("article", "unscaled", {"alpha": 4.0}),
    ("lora+", "peft", {}), ("rslora", "unsloth", {}), ("unsloth-2r", "tinker", {}),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "more"), PAIRS)
def test_conversions_train_the_same_weights(source: str, target: str, more: dict[str, Any]) -> None:
    found = convert(source, target, lr=0.01, rank=4, d_in=D_IN, weight_decay=0.05, **more)
    assert found.exact and found.single_rate is None
    draw = draw_of(found.before.init, 4)
    for one, two in zip(train(found.before, draw), train(found.after, draw), strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-5)


def test_another_spread_is_allowed_for() -> None:
    """Megatron's A from the same normal draw, scaled to each convention's spread, trains the same weights."""
    found = convert("gaussian", "megatron", lr=0.01, rank=4, d_in=D_IN)
    assert not found.exact  # the library's own draw is another one
    draw = draw_of("xavier-normal", 4)
    before = replace(found.before, init_gain=1.0)
    shrunk = draw * init_std("gaussian", D_IN, 4) / init_std("xavier-normal", D_IN, 4)
    for one, two in zip(train(before, shrunk), train(found.after, draw), strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=2e-5)


def test_a_fixed_alpha_needs_two_rates_and_b_s_is_right_at_first() -> None:
    found = convert("peft", "trl", lr=1e-3, rank=4, alpha=8.0, to_alpha=2.0, d_in=D_IN)
    assert found.single_rate is not None
    assert found.single_rate == pytest.approx(4e-3) and not found.exact
    assert found.after.lr_a == pytest.approx(1e-3) and found.after.alpha == 2.0
    draw = draw_of(found.before.init, 4)
    exact = train(found.before, draw)
    single = train(replace(found.after, lr_a=found.single_rate), draw)
    scaled = train(replace(found.after, lr_b=found.after.lr_a), draw)
    torch.testing.assert_close(single[0], exact[0], rtol=2e-2, atol=1e-6)
    first = [float((other[0] - exact[0]).norm()) for other in (single, scaled)]
    assert first[0] < first[1] / 10


def test_megatron_s_spread_is_two_and_a_half_times_wider() -> None:
    found = convert("tinker", "megatron", lr=5e-4)
    assert found.p == pytest.approx(math.sqrt(6 * 4096 / (4096 + 32))) == pytest.approx(2.44, abs=0.01)
    assert found.q == pytest.approx(found.p)
    assert found.after.alpha == pytest.approx(32 / found.p**2)
    assert found.p_range[1] == pytest.approx(math.sqrt(6), rel=1e-3)
    kept = convert("tinker", "megatron", lr=5e-4, keep_init=True)
    assert kept.p == pytest.approx(1.0) and kept.after.alpha == pytest.approx(32)


@pytest.mark.parametrize(("rslora", "convention"), [(False, "peft"), (True, "rslora")])
def test_peft_s_own_defaults_and_draw(rslora: bool, convention: str) -> None:
    """Rank, alpha, scale and the spread of A as the installed library makes them."""
    fact = facts.convention(convention)
    config = peft.LoraConfig(target_modules=["0"], use_rslora=rslora)
    torch.manual_seed(0)
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(4096, 64)), config)
    layer = model.base_model.model[0]
    assert (config.r, config.lora_alpha) == (fact.rank, fact.alpha)
    recipe = convert(convention, "article", lr=1e-4, d_in=4096).before
    assert layer.scaling["default"] == pytest.approx(recipe.scale())
    a = layer.lora_A["default"].weight
    assert float(a.detach().std()) == pytest.approx(recipe.init_std(4096), rel=0.02)
    assert (
        float(a.abs().max()) <= 1 / math.sqrt(4096)
        and float(layer.lora_B["default"].weight.detach().abs().max()) == 0
    )


def test_peft_s_gaussian_draw() -> None:
    config = peft.LoraConfig(target_modules=["0"], init_lora_weights="gaussian")
    torch.manual_seed(0)
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(4096, 64)), config)
    a = model.base_model.model[0].lora_A["default"].weight
    assert float(a.detach().std()) == pytest.approx(init_std("gaussian", 4096, 8), rel=0.02)


NAMES = [fact.id for fact in facts.conventions()]


@given(
    source=st.sampled_from(NAMES), target=st.sampled_from(NAMES), lr=st.floats(1e-6, 1e-2),
    rank=st.integers(1, 512), alpha=st.floats(0.5, 512),
)  # fmt: skip
def test_there_and_back_is_the_recipe(source: str, target: str, lr: float, rank: int, alpha: float) -> None:
    there = convert(source, target, lr=lr, rank=rank, alpha=alpha)
    # What the article calls invariant: s A_0 LR_B and A_0 / LR_A.
    for side in ("before", "after"):
        recipe = getattr(there, side)
        std = recipe.init_std(there.d_in)
        assert recipe.scale() * std * recipe.lr_b == pytest.approx(
            there.before.scale() * there.before.init_std(there.d_in) * there.before.lr_b
        )
        assert std / recipe.lr_a == pytest.approx(there.before.init_std(there.d_in) / there.before.lr_a)
    fact = facts.convention(target)
    if fact.scaling != "none" and not there.single_rate:
        again = convert(
            target, source, lr=there.after.lr_a, rank=rank, alpha=there.after.alpha,
            to_alpha=alpha if facts.convention(source).scaling != "none" else None,
        )  # fmt: skip
        assert again.after.lr_a == pytest.approx(lr) and again.after.lr_b == pytest.approx(there.before.lr_b)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"source": "artcle"}, "Did you mean article"), ({"target": "deepsped"}, "known name"), ({"lr": 0.0}, "lr"),
    ({"lr": float("nan")}, "lr"), ({"rank": 0}, "rank"), ({"alpha": -1.0}, "alpha"), ({"lr_ratio": 4.0}, "lr-ratio"),
    ({"scaling": "alpha"}, "scaling"), ({"init": "orthogonal"}, "init"), ({"to_alpha": "his"}, "to-alpha"),
    ({"target": "unscaled", "to_alpha": None, "source": "unscaled", "eps": -1.0}, "eps"),
    ({"weight_decay": -0.1}, "weight-decay"), ({"d_in": 0}, "d-in"), ({"to_rank": 0}, "to-rank"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_recipes(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"source": "article", "target": "peft", "lr": 3e-4, **change}
    with pytest.raises(InputError, match=message):
        convert(**options)
    with pytest.raises(InputError, match="an alpha"):
        transform(replace(RECIPE, scaling="none"), 2.0, 2.0)


def test_the_command() -> None:
    run = CliRunner().invoke(cli, "convert --from article --to lora+ --lr 3e-4 --json".split())
    data = json.loads(run.output)
    assert (
        data["exact"] and data["lr_ratio"] == pytest.approx(16) and data["after"]["alpha"] == pytest.approx(2)
    )
    assert {item["level"] for item in data["kept"]} == {"exact", "not kept"}
    page = CliRunner().invoke(
        cli, "convert --from peft --to trl --lr 2e-4 --rank 16 --alpha 32 --to-alpha own".split()
    )
    assert (
        page.exit_code == 0
        and "one rate for both" in page.output
        and "not the same step by step" in page.output
    )
    assert all(source.title for _, source in convert("nemo", "diffusers", lr=1e-4).sources)
